"""From a trained model back to a map that can be written: the checkpoint's names, order, dtypes, ties and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from weighttools.core.readers import Elementwise, Held
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import counted
from weighttools.train.autograd.gradients import Array
from weighttools.train.tasks.model import Model, check_model
from weighttools.transforms.cast import cast_block

RECORD = "weighttools.train"
"""The metadata entry that tells what was done: a JSON list, one object a training."""


def tensor_map(
    model: Model, changed: Iterable[str] | None = None, record: Mapping[str, Any] | None = None
) -> TensorMap:
    """Return a model as a map, for `save`.

    Parameters
    ----------
    model
        Its arrays are read when the map is written. Tensors of its origin that it does not use, integers among
        them, are passed on as they are stored; so are those that `changed` does not name.
    changed
        Names of the arrays to take from the model, beside those that were added; None for all floating ones.
    record
        What was done, for the metadata: added to what was done before.

    Notes
    -----
    Arrays are rounded once, to nearest, ties to even, to the dtype that the file has. A quantised tensor that was
    changed becomes a plain one of its dtype, float32. What the file does not have follows at the end.
    """
    check_model(model, "tensor_map", remedy="TensorMap.from_arrays(...) makes a map of arrays")
    origin = model.origin if model.origin is not None else TensorMap({})
    params = {origin.aliases.get(name, name): p for name, p in model.params.items()}
    floating = [name for name, p in model.params.items() if p.dtype.kind == "f"]
    names = {origin.aliases.get(name, name) for name in (floating if changed is None else (*changed, *model.added))}
    tensors = {name: _tensor(params[name], t) if name in names else t for name, t in origin.items()}
    new = TensorMap.from_arrays({name: p for name, p in params.items() if name not in tensors})
    metadata = _with_record(origin.metadata, record)
    notes = _overflow_notes(params, {name: t for name, t in tensors.items() if name in names})
    found = origin.replace(tensors={**tensors, **dict(new)}, metadata=metadata)
    return found.noted(*notes) if notes else found


def _tensor(array: Array, was: Tensor) -> Tensor:
    """Return an array as the tensor that takes the place of `was`."""
    dtype = was.dtype
    held = Held(np.ascontiguousarray(array))
    if array.dtype == dtype.numpy or not dtype.is_float:
        return TensorMap.from_arrays({"": array})[""]
    return Tensor(Spec(dtype, array.shape), Elementwise(held, partial(cast_block, target=dtype)))


def _with_record(metadata: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return dict(metadata)
    return {**metadata, RECORD: json.dumps([*records(metadata), dict(record)], separators=(",", ":"))}


def records(metadata: Mapping[str, Any]) -> list[Any]:
    """Return what a file's metadata says of earlier trainings."""
    try:
        found = json.loads(metadata.get(RECORD, "[]"))
    except (ValueError, TypeError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _overflow_notes(params: Mapping[str, Array], tensors: Mapping[str, Tensor]) -> list[str]:
    """Say which weights are beyond what the file's dtype holds: they become infinite, or NaN, on writing."""
    large = [name for name, t in tensors.items() if t.dtype.bits <= 16 and not _holds(t, params[name])]
    if not large:
        return []
    n = sum(_n_beyond(tensors[name], params[name]) for name in large)
    kind, fix = tensors[large[0]].dtype.name, "convert the file to bfloat16 or float32 before training"
    counts = f"{counted(n, 'element')} in {counted(len(large), 'tensor')}"
    return [f"too large for {kind}: {counts}, first in {large[0]}; {fix}"]


def _holds(tensor: Tensor, array: Array) -> bool:
    """Whether a dtype has room for the largest magnitude of an array."""
    if not array.size or not tensor.dtype.is_float:
        return True
    ends = np.array([array.min(), array.max()], array.dtype)
    return bool(np.isfinite(cast_block(ends, tensor.dtype).astype(np.float32)).all())


def _n_beyond(tensor: Tensor, array: Array) -> int:
    """Return how many elements of an array a dtype has no room for."""
    flat = array.reshape(-1)
    parts = (cast_block(flat[i : i + _BLOCK], tensor.dtype) for i in range(0, len(flat), _BLOCK))
    return sum(len(part) - int(np.isfinite(part.astype(np.float32)).sum()) for part in parts)


_BLOCK = 1 << 20
"""So many elements are cast at a time to be counted."""
