"""Reverse-mode differentiation: a tape of pullbacks over plain arrays.

What an operation is, and how one is made, stands in `variable`:

>>> value_and_grad(lambda p: p["x"] ** 2, {"x": np.array(3.0)})[1]["x"].item()
6.0

The tape holds gradient slots, not values: an activation that no pullback saved dies at once. A closure that mentions
``x.shape`` keeps ``x``. What pullbacks keep is not copied: an array that an operation took or gave must not be changed
in place before the backward pass is over, or the gradients are wrong, and nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.autograd import operands
from weighttools.train.autograd.gradients import Array, Pullback, Slot
from weighttools.train.autograd.variable import Variable
from weighttools.train.parallel import threads_for


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
