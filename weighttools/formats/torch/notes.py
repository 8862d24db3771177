"""What is to be said of a pickle: what of it became no tensor, and why; what unpickling it would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from weighttools.errors import UnsafeFileError, UnsupportedError, WeighttoolsError, few, printable
from weighttools.formats.left_out import LeftOut
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.objects import Global, Made, entries
from weighttools.formats.pickles.stack import Use
from weighttools.formats.torch.plumbing import is_plumbing
from weighttools.formats.torch.values import key_text

_PREFIXES = {"module.": "DataParallel's", "_orig_mod.": "torch.compile's"}


def foreign_globals(machine: Machine) -> tuple[Mapping[str, Any], ...]:
    """Return what unpickling would import, or import and call, beside what makes tensors and plain containers."""
    return tuple(
        {"name": str(found)[:200], "n_calls": use.n_calls, "offset": use.offset} for found, use in _foreign(machine)
    )


def _foreign(machine: Machine) -> list[tuple[Global, Use]]:
    return [(found, use) for found, use in machine.globals.items() if not is_plumbing(found)]


def nothing_read(machine: Machine, left_out: LeftOut, has_values: bool, subject: str) -> WeighttoolsError | None:
    """Return the error for a pickle of which nothing was read: a mere payload, or only tensors that are not read.

    None for one that simply holds no tensors, such as a scheduler's state or the arguments of a training, which are
    worth looking at; but not where it would call what is dangerous, or would call something and holds nothing else.
    """
    calls = [str(found)[:200] for found, use in _foreign(machine) if _is_payload(found, use, has_values)]
    if calls:
        return UnsafeFileError(
            f"holds no tensors, and unpickling it would call {few(calls)}",
            subject=subject,
            remedy="do not load it with an unpickler; `weighttools check` lists all of it",
        )
    if left_out:
        return UnsupportedError(f"holds no tensor that can be read: {few(list(left_out), 3)}", subject=subject)
    return None


def _is_payload(found: Global, use: Use, has_values: bool) -> bool:
    from weighttools.core.findings import ERROR
    from weighttools.formats.pickles.findings import severity_of

    return use.n_calls > 0 and (not has_values or severity_of(found) == ERROR)


def prefix_notes(names: Iterable[str]) -> list[str]:
    """Say which wrapper's prefix all names have, if one."""
    known = [name for name in names if not name.startswith("optimizer")]
    whose = [(prefix, by) for prefix, by in _PREFIXES.items() if known and all(n.startswith(prefix) for n in known)]
    return [f"every name begins with {by} {prefix!r}, which is kept" for prefix, by in whose]


def object_notes(placeholders: Counter[str]) -> list[str]:
    """Say of which classes there were objects; none was made."""
    if not placeholders:
        return []
    listed = ", ".join(name for name, _ in placeholders.most_common(5))
    more = f" and {len(placeholders) - 5:,} more kinds" if len(placeholders) > 5 else ""
    return [f"objects that were not made, nothing was imported or called: {listed}{more}"]


def value_notes(plain_values: Counter[str]) -> list[str]:
    """Say how many values were no tensors, and where most of them are."""
    if not plain_values:
        return []
    listed = ", ".join(printable(name) for name, _ in plain_values.most_common(5))
    return [f"{plain_values.total():,} values that are no tensors are left out of other files (in {listed})"]


def summary(value: Any) -> str:
    """Say in a few words what a value is."""
    found = entries(value)
    if found is None and type(value) is Made:
        found = entries(value.state)
    if found is not None:
        keys = ", ".join(printable(key_text(key))[:40] for key, _ in found[:8])
        return f"{len(found):,} entries ({keys}{', …' if len(found) > 8 else ''})"
    if type(value) in (list, tuple):
        return f"a {type(value).__name__} of {len(value):,}"
    return f"a {type(value).__name__}" if type(value) is not Global else str(value)[:80]
