"""The suite that ships with weighttools."""

from __future__ import annotations

from weighttools.core.testing import HOSTILE_PATCHES, mutated, run_python
from weighttools.formats.testing import Arrays, FormatConformance

__all__ = ["HOSTILE_PATCHES", "Arrays", "FormatConformance", "mutated", "run_python"]
