"""An array whose gradient is wanted, and operations, which take such ones as they take plain arrays.

An operation is a function ``f(*arrays, **options) -> (y, pullback)``; ``pullback(dy, need)`` returns one gradient for
each array, None where ``need`` says False. It runs once. It must not write to `dy`, and returns new arrays, `dy`, or
views of it. `operation` makes such a function take variables too; called on plain arrays it gives only ``y``:

>>> @operation
... def square(x, /):
...     return x * x, lambda dy, need: (2 * x * dy,)
>>> float(square(np.float64(3)))
9.0

An operation that prepares its derivative on the way declares a keyword ``keep``, which is False on plain arrays.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from weighttools.errors import SpecError, WeighttoolsError
from weighttools.train.autograd import arithmetic, operands
from weighttools.train.autograd.gradients import Pullback, Slot

if TYPE_CHECKING:
    from weighttools.train.autograd.tape import Tape


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

    def __add__(self, other: Any) -> Any:
        return add(self, other)

    def __radd__(self, other: Any) -> Any:
        return add(other, self)

    def __mul__(self, other: Any) -> Any:
        return mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return mul(other, self)

    def __sub__(self, other: Any) -> Any:
        return sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return sub(other, self)

    def __truediv__(self, other: Any) -> Any:
        return div(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return div(other, self)

    def __matmul__(self, other: Any) -> Any:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return matmul(other, self)

    def __neg__(self) -> Any:
        return mul(self, -1)

    def __pow__(self, exponent: float) -> Any:
        return power(self, exponent=exponent)

    def __abs__(self) -> Any:
        return absolute(self)

    def __getitem__(self, key: Any) -> Any:
        return take(self, key=key)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Any:
        return reshape(self, shape=_unpacked(shape))

    def transpose(self, *axes: Any) -> Any:
        return transpose(self, axes=_unpacked(axes))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        return sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
        return mean(self, axis=axis, keepdims=keepdims)

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
        operands.check(f.__name__, values)
        _refuse_variables(f.__name__, options)
        try:
            y, pullback = f(*values, **options, **({"keep": bool(tapes)} if keeps else {}))
        except (ValueError, IndexError) as error:
            raise error if isinstance(error, WeighttoolsError) else operands.misfit(f.__name__, values, error) from None
        return next(iter(tapes.values())).record(f.__name__, y, args, pullback) if tapes else y

    call.with_pullback = f  # type: ignore[attr-defined]  # for tests, and for operations made of others
    call.__signature__ = operands.signature(f)  # type: ignore[attr-defined]
    return call


def _refuse_variables(name: str, options: Mapping[str, Any]) -> None:
    for key, option in options.items():
        if isinstance(option, Variable):
            fact, remedy = f"the option {key} is a variable", "leave it out of what is trained"
            raise SpecError(f"{fact}, which cannot become an array", subject=name, remedy=remedy)


# -- what operators do -------------------------------------------------------------------------------------------------

add = operation(arithmetic.add)
sub = operation(arithmetic.sub)
mul = operation(arithmetic.mul)
div = operation(arithmetic.div)
matmul = operation(arithmetic.matmul)
power = operation(arithmetic.power)
absolute = operation(arithmetic.absolute)
reshape = operation(arithmetic.reshape)
transpose = operation(arithmetic.transpose)
take = operation(arithmetic.take)
sum = operation(arithmetic.sum)


def mean(x: Any, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """Return the mean over `axis` (all)."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return mul(sum(x, axis=axis, keepdims=keepdims), 1 / max(1, math.prod(x.shape[a] for a in axes)))
