"""NumPy basic indexing on tensors that are not read yet."""

from __future__ import annotations

import operator
import re

from weighttools.core.readers import Strided
from weighttools.core.spec import Reader, Spec
from weighttools.core.strides import c_strides
from weighttools.errors import SpecError

Axis = int | slice


def parse_slice(text: str) -> tuple[object, ...]:
    """Parse the inside of ``NAME[...]``: integers, slices and ``...`` separated by commas.

    Raises
    ------
    SpecError
        The text is anything else; nothing is evaluated.

    Examples
    --------
    >>> parse_slice("0, 2:5, ...")
    (0, slice(2, 5, None), Ellipsis)
    """
    return tuple(_axis(part.strip(), text) for part in text.split(",") if part.strip() or "," not in text)


def _axis(part: str, whole: str) -> object:
    if part == "...":
        return Ellipsis
    if re.fullmatch(r"[-+]?\d{1,18}", part):
        return int(part)
    if re.fullmatch(r"([-+]?\d{1,18})?:([-+]?\d{1,18})?(:([-+]?\d{1,18})?)?", part):
        return slice(*(int(end) if end else None for end in part.split(":")))
    raise SpecError(
        f"cannot read slice [{whole}]",
        expected="integers, start:stop:step and ... separated by commas, as in [0, :10]",
        code="slice",
    )


def sliced(reader: Reader, spec: Spec, key: object) -> tuple[Spec, Strided]:
    """Return the spec of what indexing with `key` selects, and the reader of no more than that; see `Tensor.sliced`."""
    axes = _expand(key if isinstance(key, tuple) else (key,), spec.shape)
    offset, shape, steps = 0, [], []
    for axis, length, stride in zip(axes, spec.shape, c_strides(spec.shape), strict=True):
        if isinstance(axis, slice):
            first, last, step = axis.indices(length)
            picked = len(range(first, last, step))
            offset += first * stride if picked else 0
            shape.append(picked)
            steps.append(step * stride)
        else:
            offset += _position(axis, length) * stride
    part = Spec(spec.dtype, tuple(shape))
    return part, Strided(reader, spec.n_elements, part.shape, tuple(steps), offset)


def _expand(key: tuple[object, ...], shape: tuple[int, ...]) -> list[Axis]:
    """Give every axis an integer or a slice, as ``...`` and missing trailing axes mean in NumPy."""
    dots = [i for i, part in enumerate(key) if part is Ellipsis]
    n_given = len(key) - len(dots)
    if len(dots) > 1 or n_given > len(shape):
        raise SpecError(
            f"{n_given} indices for a tensor of shape {shape}", expected=f"at most {len(shape)}", code="slice"
        )
    at = dots[0] if dots else len(key)
    fill: list[object] = [slice(None)] * (len(shape) - n_given)
    return [_checked(part) for part in [*key[:at], *fill, *key[at + 1 :]]]


def _checked(part: object) -> Axis:
    if isinstance(part, slice):
        return slice(*(None if end is None else _whole(end) for end in (part.start, part.stop, _step(part))))
    return _whole(part)


def _step(part: slice) -> object:
    if part.step == 0:
        raise SpecError("slice step is 0", expected="a step other than 0", code="slice")
    return part.step


def _whole(part: object) -> int:
    """Return `part` as an integer; a truth value is none, as it is a mask to NumPy."""
    try:
        if not isinstance(part, bool):
            return operator.index(part)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise SpecError(f"cannot index with {part!r}", expected="integers, slices and ...", code="slice")


def _position(index: int, length: int) -> int:
    if not -length <= index < length:
        raise SpecError(
            f"index {index} is out of range",
            expected=f"{-length} to {length - 1}" if length else "an axis that is not empty",
            code="slice",
        )
    return index % length
