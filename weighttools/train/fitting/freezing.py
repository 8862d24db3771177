"""Which arrays learn: chosen by name patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weighttools.core.patterns import matching
from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array


def trained(
    params: Mapping[str, Array],
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the names of the floating arrays to train, in order.

    Parameters
    ----------
    params
        All arrays.
    freeze
        Name patterns (globs, or ``re:`` and a regular expression) of arrays that stay as they are.
    only
        Name patterns of arrays to train; all, if there are none. `freeze` goes before it.
    aliases
        Tied names and the names that `params` has for them; a pattern may match either.

    Raises
    ------
    TensorNotFoundError
        A pattern matches nothing; near names are given.
    SpecError
        Nothing is left to train, or an array is in a dtype in which small updates would vanish.
    """
    names = {name: name for name in params} | {a: kept for a, kept in (aliases or {}).items() if kept in params}
    chosen = {names[n] for n in matching(names, _patterns(only))} if only else set(params)
    frozen = {names[n] for n in matching(names, _patterns(freeze))} if freeze else set()
    found = [name for name, p in params.items() if name in chosen - frozen and p.dtype.kind == "f"]
    strange = [
        n
        for n, p in params.items()
        if n in chosen - frozen and p.dtype.name.startswith(("bfloat", "float8", "float16"))
    ]
    if strange:
        fix = "give array.astype(numpy.float32); what is saved has the file's dtype again"
        raise SpecError(f"is {params[strange[0]].dtype}", subject=strange[0], expected="float32 or float64", remedy=fix)
    if not found:
        patterns = ", ".join(map(repr, (*_patterns(freeze), *_patterns(only))))
        fact = f"nothing is left to train of {len(params):,} tensors" + (f" by {patterns}" if patterns else "")
        raise SpecError(fact, expected="one floating tensor or more", remedy="freeze less")
    return found


def _patterns(given: Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given
