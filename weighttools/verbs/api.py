"""The verbs that read under one name, for what opens and looks by several of them."""

from __future__ import annotations

from weighttools.verbs.formats import list_formats
from weighttools.verbs.get import get, is_value, pick
from weighttools.verbs.inspect import inspect
from weighttools.verbs.open import open
from weighttools.verbs.params import params
from weighttools.verbs.stats import stats

__all__ = ["get", "inspect", "is_value", "list_formats", "open", "params", "pick", "stats"]
