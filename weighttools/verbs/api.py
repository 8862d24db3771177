"""What each command calls, and what Python users call: the same verbs, returning plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.engine import collector_paused
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, chosen, name_of, open
from weighttools.verbs.records import Record, format_records, inspect_record, params_record
from weighttools.verbs.stats import stats

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def inspect(
    path: PathLike | TensorMap,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    tensors: bool = True,
) -> Record:
    """Say what a checkpoint is and what is in it, from its headers alone.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    include, exclude, assume, root
        As for `convert`.
    tensors
        Whether to list every tensor, and every element of arrays in the metadata.

    Returns
    -------
    dict
        A ``weighttools.inspect/1`` record. `n_elements` counts every element of every stored tensor once: `n_state`
        those of training state (an optimizer's, a callback's), `n_buffers` those of buffers, `n_parameters` the
        others.

    Examples
    --------
    >>> record = inspect("fixtures/safetensors/tiny/model.safetensors")
    >>> record["n_parameters"], record["n_buffers"]
    (15, 1)
    """
    with collector_paused():
        tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
        return inspect_record(tensor_map, name_of(path), tensors=tensors)


def params(
    path: PathLike | TensorMap,
    *,
    by: str = "dtype",
    depth: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
) -> Record:
    """Count parameters and buffers, exactly, in groups.

    Parameters
    ----------
    path
        As for `open`.
    by
        ``"dtype"``, ``"module"`` (the name without its last part), ``"depth"`` (its first `depth` parts) or ``"role"``
        (weight, norm, bias, …; each group then says in `because` what tells so, and of how many tensors).
    depth
        How many parts of the name make a group, for ``by="depth"``.
    include, exclude, assume, root
        As for `convert`.

    Returns
    -------
    dict
        A ``weighttools.params/1`` record: `n_parameters`, `n_buffers` and `n_state` (an optimizer's, a callback's)
        add up to `n_elements`. Tied tensors count once; packed 4- and 6-bit dtypes count elements.
    """
    with collector_paused():
        return params_record(chosen(path, include, exclude, ReadOptions(assume, root)), name_of(path), by, depth)


def get(path: PathLike, name: str, *, assume: str | None = None, root: str | None = None) -> Array:
    """Read one tensor, or a slice of one, and only the byte ranges that it needs.

    Parameters
    ----------
    path, assume, root
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
    tensor_map = open(path, assume=assume, root=root)
    if is_value(tensor_map, name):
        import numpy as np

        return np.asarray(tensor_map.origin.values[name])
    return pick(tensor_map, name).read()


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


def list_formats() -> list[Record]:
    """Return what is read and written, and which extra it needs."""
    return format_records()


__all__ = [
    "get",
    "inspect",
    "list_formats",
    "open",
    "params",
    "pick",
    "stats",
]
