"""An array whose gradient is wanted, and the slot where that gathers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from weighttools.errors import SpecError
from weighttools.train.parallel import added

if TYPE_CHECKING:
    from weighttools.train.autograd.tape import Tape

Array = np.ndarray[Any, np.dtype[Any]]


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


def _basic(name: str, *args: Any, **options: Any) -> Any:
    from weighttools.train.ops import basic

    return getattr(basic, name)(*args, **options)


def _binary(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    return lambda self, other: _basic(name, other, self) if swapped else _basic(name, self, other)


def _unpacked(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the numbers, which may come as one tuple, as NumPy takes them."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], (tuple, list)) else numbers


class Variable:
    """An array whose gradient is wanted. Arithmetic, indexing and the methods below are operations."""

    __slots__ = ("slot", "tape", "value")
    __array_ufunc__ = None  # array + variable asks the variable

    def __init__(self, value: Any, tape: Tape) -> None:
        self.value, self.slot, self.tape = value, Slot(np.shape(value)), tape

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    dtype = property(lambda self: self.value.dtype)
    T = property(lambda self: self.transpose())
    __add__ = __radd__ = _binary("add")
    __mul__ = __rmul__ = _binary("mul")
    __sub__, __rsub__ = _binary("sub"), _binary("sub", swapped=True)
    __truediv__, __rtruediv__ = _binary("div"), _binary("div", swapped=True)
    __matmul__, __rmatmul__ = _binary("matmul"), _binary("matmul", swapped=True)

    def __neg__(self) -> Any:
        return _basic("mul", self, -1)

    def __pow__(self, exponent: float) -> Any:
        return _basic("power", self, exponent=exponent)

    def __abs__(self) -> Any:
        return _basic("absolute", self)

    def __getitem__(self, key: Any) -> Any:
        return _basic("take", self, key=key)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Any:
        return _basic("reshape", self, shape=_unpacked(shape))

    def transpose(self, *axes: Any) -> Any:
        return _basic("transpose", self, axes=_unpacked(axes))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        return _basic("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        return _basic("mean", self, axis=axis, keepdims=keepdims)

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"Variable(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise SpecError(
            "a variable cannot become an array",
            expected="plain arrays as options, and operations of weighttools.train on variables",
            remedy="use weighttools.train.concat to join variables",
        )


class StandIn:
    """What stands for an array that is never made, such as a low-rank weight: operations hand themselves to it."""

    __slots__ = ()
    __array_ufunc__ = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """The arrays, or variables, that it is made of."""
        raise NotImplementedError

    def with_parts(self, *parts: Any) -> StandIn:
        """Return one that is made of other arrays."""
        raise NotImplementedError

    def operate(self, operation: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Return ``operation(*args, **options)``, of whose arguments this is one."""
        raise NotImplementedError
