"""The verb ``get``: one tensor, or a slice of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import takes
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import READING

if TYPE_CHECKING:
    from weighttools.core.spec import Array
    from weighttools.core.tensor import Tensor
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.records import Record

OPTIONS = READING


@takes(*OPTIONS)
def get(path: PathLike | TensorMap, name: str, *, assume: str | None = None, root: str | None = None) -> Array:
    """Read one tensor, or a slice of one, and only the byte ranges that it needs.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    assume, root
        As for `open`.
    name
        A tensor's name, or ``NAME[SLICE]`` with integers, slices and ``...``, as in ``"fc.weight[0, :10]"``; or that
        of a small value beside the tensors, such as ``"epoch"``, which then is an array without axes.

    Raises
    ------
    TensorNotFoundError
        There is no such tensor; near names are given.
    SpecError
        The slice does not fit the tensor.

    Examples
    --------
    >>> get("fixtures/safetensors/tiny/model.safetensors", "fc.weight[-1, 1:3]")
    array([ 9., 10.], dtype=float32)
    """
    tensor_map = open_checkpoint(path, assume=assume, root=root)
    if is_value(tensor_map, name):
        import numpy as np

        return np.asarray(tensor_map.origin.values[name])
    return pick(tensor_map, name).read()


def save_tensor(
    path: PathLike | TensorMap,
    name: str,
    dst: PathLike,
    *,
    force: bool = False,
    assume: str | None = None,
    root: str | None = None,
) -> Record:
    """Save one tensor, or a slice of one, as a file, in memory that does not grow with it.

    Parameters
    ----------
    path, name, assume, root
        As for `get`.
    dst
        A file whose suffix names a format, or ``-`` for standard output; none of those that are read.
    force
        Replace an existing file.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record.

    Raises
    ------
    SpecError
        It is a value beside the tensors; or the target names no format, or is read.
    """
    from weighttools.core.tensormap import TensorMap as Map
    from weighttools.errors import SpecError
    from weighttools.verbs.save import save

    tensor_map = open_checkpoint(path, assume=assume, root=root)
    target = os.fspath(dst)
    if is_value(tensor_map, name):
        raise SpecError(f"{name!r} is a value beside the tensors, no tensor", subject=target, expected="a tensor")
    tensor = pick(tensor_map, name)
    _check_target(target, tensor_map.origin.files)
    return save(target, Map({name: tensor}), force=force, dequantize=True)


def is_value(tensor_map: TensorMap, name: str) -> bool:
    """Whether a name is that of a small value beside the tensors, such as an epoch, and of no tensor."""
    return name not in tensor_map and name in tensor_map.origin.values


def pick(tensor_map: TensorMap, name: str) -> Tensor:
    """Return the tensor that ``NAME`` or ``NAME[SLICE]`` means; a name that itself ends in brackets comes first."""
    from weighttools.core.slicing import parse_slice

    if name in tensor_map or not name.endswith("]"):
        return _named(tensor_map, name)
    stem, _, inside = name[:-1].rpartition("[")
    return _named(tensor_map, stem).sliced(parse_slice(inside))


def _named(tensor_map: TensorMap, name: str) -> Tensor:
    """Return a tensor; where there is none of that name, near names are those of small values too."""
    if name in tensor_map:
        return tensor_map[name]
    from weighttools.core.patterns import not_found

    raise not_found(name, [*tensor_map, *tensor_map.origin.values])


def _check_target(target: str, read: Sequence[str]) -> None:
    """Refuse what one tensor is not saved as, and to put it in the place of the checkpoint that it is taken from."""
    if target == "-":
        return
    from weighttools.write import protection

    protection.check_suffix(target, "get saves a tensor as a file")
    protection.refuse_read([protection.file("the output", target)], read)
