"""Reverse-mode differentiation: a tape of pullbacks over plain arrays.

An operation is a function ``f(*arrays, **options) -> (y, pullback)``; ``pullback(dy, need)`` returns one gradient for
each array, None where ``need`` says False. It runs once. It must not write to `dy`, and returns new arrays, `dy`, or
views of it. `operation` makes such a function take variables too; called on plain arrays it gives only ``y``:

>>> @operation
... def square(x, /):
...     return x * x, lambda dy, need: (2 * x * dy,)
>>> float(square(np.float64(3))), value_and_grad(lambda p: square(p["x"]), {"x": np.array(3.0)})[1]["x"].item()
(9.0, 6.0)

An operation that prepares its derivative on the way declares a keyword ``keep``, which is False on plain arrays.
The tape holds gradient slots, not values: an activation that no pullback saved dies at once. A closure that mentions
``x.shape`` keeps ``x``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError, WeighttoolsError
from weighttools.train.parallel import threads_for
from weighttools.train.variable import Array as Array
from weighttools.train.variable import Slot as Slot
from weighttools.train.variable import StandIn as StandIn
from weighttools.train.variable import Variable as Variable

Pullback = Callable[[Any, Sequence[bool]], Sequence[Any]]


class Tape:
    """What was computed, in order: for each result its slot, its arguments' slots, and the pullback."""

    def __init__(self) -> None:
        self.entries: list[tuple[Slot, list[Slot | None], Pullback]] = []

    def record(self, name: str, y: Any, args: Iterable[Any], pullback: Pullback) -> Variable:
        """Return the result `y` of operation `name` as a variable that remembers how to go back."""
        out = Variable(y, self)
        self.entries.append((out.slot, [a.slot if isinstance(a, Variable) else None for a in args], pullback))
        return out

    def backward(self, out: Variable, dy: Any = None) -> None:
        """Run backwards from `out`, whose gradient is `dy` (1), dropping each entry and what it saved once used."""
        out.slot.add(np.ones_like(out.value) if dy is None else dy, dy is None)
        while self.entries:
            slot, args, pullback = self.entries.pop()
            dy, slot.grad = slot.grad, None
            if dy is not None:
                _gather(args, dy, pullback(dy, [a is not None for a in args]))
            del dy, pullback


def _gather(args: Sequence[Slot | None], dy: Any, grads: Sequence[Any]) -> None:
    """Hand each argument its gradient; one that shares memory with `dy` or another is only borrowed."""
    given = [(a, g) for a, g in zip(args, grads, strict=True) if a is not None and g is not None]
    for i, (slot, grad) in enumerate(given):
        if hasattr(grad, "into"):
            grad.into(slot)
            continue
        others = [dy, *(g for j, (_, g) in enumerate(given) if j != i and not hasattr(g, "into"))]
        slot.add(
            grad, np.ndim(grad) > 0 and grad.flags.writeable and not any(np.may_share_memory(grad, o) for o in others)
        )


def operation(f: Callable[..., tuple[Any, Pullback]]) -> Callable[..., Any]:
    """Make ``f(*arrays, **options) -> (y, pullback)`` take variables; on plain arrays it returns ``y`` alone.

    Raises
    ------
    SpecError
        The arrays' shapes do not fit, or they belong to two tapes. NumPy's own complaint is quoted.
    """
    keeps = "keep" in inspect.signature(f).parameters

    @functools.wraps(f)
    def call(*args: Any, **options: Any) -> Any:
        for arg in args:
            if isinstance(arg, StandIn):
                return arg.operate(call, args, options)
        tapes = {id(a.tape): a.tape for a in args if isinstance(a, Variable)}
        if len(tapes) > 1:
            raise SpecError("variables of two tapes meet", subject=f.__name__, remedy="pass all a checkpoint needs")
        values = [a.value if isinstance(a, Variable) else a for a in args]
        try:
            y, pullback = f(*values, **options, **({"keep": bool(tapes)} if keeps else {}))
        except (ValueError, IndexError) as error:
            raise error if isinstance(error, WeighttoolsError) else _misfit(f.__name__, values, error) from None
        return next(iter(tapes.values())).record(f.__name__, y, args, pullback) if tapes else y

    call.with_pullback = f  # type: ignore[attr-defined]  # for tests, and for operations made of others
    return call


def _misfit(name: str, values: Sequence[Any], error: Exception) -> SpecError:
    shapes = ", ".join("none" if v is None else str(np.shape(v)) for v in values)
    return SpecError(f"shapes {shapes} do not fit: {str(error).splitlines()[0]}", subject=name)


def value_and_grad(
    loss: Callable[..., Any], params: Mapping[str, Any], *data: Any, train: Iterable[str] | None = None, **options: Any
) -> tuple[Any, dict[str, Array]]:
    """Return ``loss(params, *data, **options)`` and its gradients.

    Parameters
    ----------
    loss
        A function of ``{name: array}`` that returns a scalar. It is called with variables for the arrays to train.
    params
        The arrays by name; they are not changed.
    train
        Names to differentiate by; all the floating ones when None. The rest cost no gradient work.

    Returns
    -------
    value, grads
        `grads` has the arrays' shapes and dtypes. A name that the loss does not depend on is left out. Two gradients
        may share memory: do not write to them.
    """
    tape = Tape()
    names = {k for k, v in params.items() if v.dtype.kind == "f"} if train is None else set(train)
    variables = {k: Variable(v, tape) if k in names else v for k, v in params.items()}
    with threads_for(params.values()):
        y = loss(variables, *data, **options)
        if not isinstance(y, Variable) or np.size(y.value) != 1:
            what = f"shape {y.shape}" if isinstance(y, Variable) else "no dependence on any trained array"
            raise SpecError(f"the loss has {what}", expected="a scalar that depends on the trained arrays")
        tape.backward(y)
    found = {k: variables[k].slot.grad for k in params if k in names}
    return y.value, {k: g for k, g in found.items() if g is not None}
