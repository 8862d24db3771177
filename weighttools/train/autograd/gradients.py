"""What pullbacks give, and the slot where the gradient of an array gathers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from weighttools.train.parallel import added

Array = np.ndarray[Any, np.dtype[Any]]
Pullback = Callable[[Any, Sequence[bool]], Sequence[Any]]
"""Takes the gradient of a result, and which arrays' gradients are wanted; gives those."""


class SparseGradient(Protocol):
    """A gradient that touches only a part of its array, whose shape it tells."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""

    def into(self, slot: Slot) -> None:
        """Add this gradient to the slot's."""


class Slot:
    """Where the gradient of an array of `shape` gathers: the first one is kept, the next are added to it.

    They are added in place once the buffer is our own, unless they are wider than it.
    """

    __slots__ = ("grad", "owned", "shape")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.grad: Any = None
        self.owned, self.shape = False, shape

    def add(self, grad: Any, owned: bool) -> None:
        """Add `grad`; `owned` says that nothing else refers to its memory."""
        if self.grad is None:
            self.grad, self.owned = grad, owned
        elif self.owned and grad.dtype == self.grad.dtype:
            self.grad = added(self.grad, grad, self.grad)
        else:
            self.grad, self.owned = added(self.grad, grad), True
