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
``x.shape`` keeps ``x``. What pullbacks keep is not copied: an array that an operation took or gave must not be changed
in place before the backward pass is over, or the gradients are wrong, and nothing tells.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError, WeighttoolsError
from weighttools.train.autograd import operands
from weighttools.train.autograd.variable import Array as Array
from weighttools.train.autograd.variable import Slot as Slot
from weighttools.train.autograd.variable import StandIn as StandIn
from weighttools.train.autograd.variable import Variable as Variable
from weighttools.train.parallel import threads_for

Pullback = Callable[[Any, Sequence[bool]], Sequence[Any]]


class Tape:
    """What was computed, in order: for each result its operation, its slot, its arguments' slots, and the pullback."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Slot, list[Slot | None], Pullback]] = []

    def variables(self, params: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return `params` with variables for those of `names`, or for all the floating ones."""
        chosen = {k for k, v in params.items() if operands.is_floating(v.dtype)} if names is None else set(names)
        for k in chosen & params.keys():
            operands.floats(k, params[k])
        return {k: Variable(v, self) if k in chosen else v for k, v in params.items()}

    def record(self, name: str, y: Any, args: Iterable[Any], pullback: Pullback) -> Variable:
        """Return the result `y` of operation `name` as a variable that remembers how to go back."""
        out = Variable(y, self)
        self.entries.append((name, out.slot, [a.slot if isinstance(a, Variable) else None for a in args], pullback))
        return out

    def backward(self, out: Variable, dy: Any = None) -> None:
        """Run backwards from `out`, whose gradient is `dy` (1), dropping each entry and what it saved once used."""
        if not isinstance(out, Variable) or (dy is None and np.size(out.value) != 1):
            what = f"shape {out.shape}" if isinstance(out, Variable) else "no dependence on any trained array"
            raise SpecError(f"the loss has {what}", expected="a scalar that depends on the trained arrays")
        out.slot.add(np.ones_like(out.value) if dy is None else dy, dy is None)
        while self.entries:
            name, slot, args, pullback = self.entries.pop()
            dy, slot.grad = slot.grad, None
            if dy is not None:
                _gather(name, args, dy, pullback(dy, [a is not None for a in args]))
            del dy, pullback


def _gather(name: str, args: Sequence[Slot | None], dy: Any, grads: Sequence[Any]) -> None:
    """Hand each argument its gradient; one that shares memory with `dy` or another is only borrowed."""
    operands.gradients(name, grads, len(args))
    given = [(a, g) for a, g in zip(args, grads, strict=True) if a is not None and g is not None]
    for i, (slot, grad) in enumerate(given):
        operands.gradient(name, grad, slot.shape)
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
        The arrays' shapes do not fit (NumPy's own complaint is quoted), they belong to two tapes, or their numbers are
        floating with fewer than 32 bits; an option is a variable; or, backwards, a gradient has not its array's shape.
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
        operands.check(f.__name__, values, options)
        try:
            y, pullback = f(*values, **options, **({"keep": bool(tapes)} if keeps else {}))
        except (ValueError, IndexError) as error:
            raise error if isinstance(error, WeighttoolsError) else operands.misfit(f.__name__, values, error) from None
        return next(iter(tapes.values())).record(f.__name__, y, args, pullback) if tapes else y

    call.with_pullback = f  # type: ignore[attr-defined]  # for tests, and for operations made of others
    call.__signature__ = operands.signature(f)  # type: ignore[attr-defined]
    return call


def value_and_grad(
    loss: Callable[..., Any], params: Mapping[str, Any], *data: Any, train: Iterable[str] | None = None, **options: Any
) -> tuple[Any, dict[str, Array]]:
    """Return ``loss(params, *data, **options)`` and its gradients.

    Parameters
    ----------
    loss
        A function of ``{name: array}`` that returns a scalar. It is called with variables for the arrays to train.
    params
        The arrays by name; they are not changed. Data should have their dtype: NumPy computes in the wider one.
    train
        Names to differentiate by; all the floating ones when None. The rest cost no gradient work.

    Returns
    -------
    value, grads
        `grads` has the arrays' shapes and dtypes. A name that the loss does not depend on is left out. Two gradients
        may share memory: do not write to them.

    Raises
    ------
    SpecError
        An array to train is not float32 or float64, or the loss is no scalar that depends on one.
    """
    tape = Tape()
    variables = tape.variables(params, train)
    with threads_for(params.values()):
        y = loss(variables, *data, **options)
        tape.backward(y)
    found = {k: v.slot.grad for k, v in variables.items() if isinstance(v, Variable)}
    return y.value, {k: np.asarray(g, params[k].dtype) for k, g in found.items() if g is not None}
