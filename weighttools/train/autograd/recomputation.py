"""Recomputation (gradient checkpointing): keep a layer's inputs only, and run the layer again on the way back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from weighttools.errors import SpecError
from weighttools.train.autograd.tape import Tape
from weighttools.train.autograd.variable import StandIn, Variable


def recompute(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return ``f(*args, **options)``, saving only the arguments for the backward pass, which runs `f` again.

    Parameters
    ----------
    f
        A function of arrays or of mappings of arrays that returns one array. It must give the same result again
        (seed its dropout), and take every variable that it uses as an argument.

    Raises
    ------
    SpecError
        `f` uses a variable that it was not given.

    References
    ----------
    Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
    """
    leaves = list(_leaves(args))
    tape = next((leaf.tape for leaf in leaves if isinstance(leaf, Variable)), None)
    values = [leaf.value if isinstance(leaf, Variable) else leaf for leaf in leaves]
    y = f(*_rebuilt(args, iter(values)), **options)
    if isinstance(y, Variable):
        raise SpecError("the recomputed function uses a variable that is not among its arguments", remedy="pass it")
    if tape is None:
        return y

    def pullback(dy: Any, need: Sequence[bool]) -> list[Any]:
        inner = Tape()
        fresh = [Variable(v, inner) if wanted else v for v, wanted in zip(values, need, strict=True)]
        again = f(*_rebuilt(args, iter(fresh)), **options)
        if isinstance(again, Variable):
            inner.backward(again, dy)
        return [leaf.slot.grad if wanted else None for leaf, wanted in zip(fresh, need, strict=True)]

    args = tuple(_outline(args))  # the closure must not keep the outer tape's variables
    return tape.record("recompute", y, leaves, pullback)


def _leaves(args: Iterable[Any]) -> Iterator[Any]:
    for arg in args:
        if isinstance(arg, Mapping):
            yield from _leaves(arg.values())
        elif isinstance(arg, StandIn):
            yield from arg.parts
        else:
            yield arg


def _rebuilt(args: Iterable[Any], leaves: Iterator[Any]) -> list[Any]:
    """Return arguments of the same structure with other leaves."""
    return [_filled(arg, leaves) for arg in args]


def _filled(arg: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(arg, Mapping):
        return {name: _filled(value, leaves) for name, value in arg.items()}
    if isinstance(arg, StandIn):
        return arg.with_parts(*(next(leaves) for _ in arg.parts))
    return next(leaves)


def _outline(args: Iterable[Any]) -> list[Any]:
    """Return arguments of the same structure without leaves."""
    return _rebuilt(args, itertools.repeat(None))
