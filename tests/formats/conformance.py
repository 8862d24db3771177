"""The suite that ships with weighttools, under the profile of our own tests."""

from __future__ import annotations

import tests.strategies  # noqa: F401  # loads the profile
from weighttools.core.testing import HOSTILE_PATCHES, mutated, run_python
from weighttools.formats.testing import Arrays, FormatConformance

__all__ = ["HOSTILE_PATCHES", "Arrays", "FormatConformance", "mutated", "run_python"]
