"""The metadata entry of a safetensors file that says which of its tensors are bitmasks, and of what.

A tensor that takes less room so (`encodings.bitmask` has the bytes) is stored under its own name as U8 of one axis, and
the metadata entry ``weighttools.bitmask`` is JSON that says what it is::

    {"version": 1, "tensors": {"fc.weight": {"dtype": "F32", "shape": [256, 1024]}}}

with dtype and shape as a safetensors header has them. Other tensors are stored as ever.
"""

from __future__ import annotations

import json
from typing import Any

from weighttools.core.encodings import BITMASK, bitmask_bytes
from weighttools.core.spec import Source, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.encodings.bitmask import Counts, Masked
from weighttools.errors import CorruptFileError
from weighttools.formats.safetensors.header import BITMASKS, CODES, spec_of

VERSION = 1


def expanded(tensor_map: TensorMap, source: Source) -> TensorMap:
    """Return a safetensors file's map with the tensors that its metadata entry names as what they are.

    Raises
    ------
    CorruptFileError
        The entry is not as documented, or does not fit the tensors.
    """
    known: dict[Spec, Spec] = {}
    found = {
        name: _masked(name, record, tensor_map, source, known)
        for name, record in _records(tensor_map.metadata[BITMASKS], source).items()
    }
    metadata = {key: value for key, value in tensor_map.metadata.items() if key != BITMASKS}
    return tensor_map.map(lambda name, tensor: found.get(name, tensor)).replace(metadata=metadata)


def _records(text: str, source: Source) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        entry = None
    version = entry.get("version") if isinstance(entry, dict) else None
    if type(version) is int and version > VERSION:
        raise CorruptFileError(
            f"its bitmasks are of version {version}", subject=source.name, expected=f"{VERSION}",
            remedy="read it with a newer weighttools",
        )  # fmt: skip
    tensors = entry.get("tensors") if isinstance(entry, dict) and type(version) is int and version == VERSION else None
    if not isinstance(tensors, dict):
        want = f'{{"version": {VERSION}, "tensors": {{name: {{"dtype", "shape"}}}}}}'
        raise CorruptFileError(f"its metadata entry {BITMASKS} is not well formed", subject=source.name, expected=want)
    return tensors


def _masked(name: str, record: Any, tensor_map: TensorMap, source: Source, known: dict[Spec, Spec]) -> Tensor:
    """Return a tensor as it is read, its length held against its elements."""
    held = tensor_map[name] if name in tensor_map and name not in tensor_map.aliases else None
    if held is None or held.stored is None or held.dtype.name != "uint8" or len(held.shape) != 1:
        raise CorruptFileError(f"tensor {name!r} holds no bitmask", subject=source.name, expected="U8 of one axis")
    if not isinstance(record, dict) or set(record) != {"dtype", "shape"} or not isinstance(record["shape"], list):
        raise CorruptFileError(f"the {BITMASKS} of tensor {name!r} is not well formed", subject=source.name)
    raw, _ = spec_of(name, record["dtype"], record["shape"], source)
    rest, width = held.stored.length - bitmask_bytes(raw.n_elements, 0, raw.dtype.bits), raw.dtype.bits // 8
    if not width or not 0 <= rest <= raw.n_elements * width or rest % width:
        raise CorruptFileError(
            f"{held.stored.length:,} bytes are no bitmask of tensor {name!r}, {raw.dtype} of shape {list(raw.shape)}",
            subject=source.name, offset=held.stored.offset,
        )  # fmt: skip
    spec = Spec(raw.dtype, raw.shape, BITMASK)
    return Tensor(
        known.setdefault(spec, spec), Masked(held.stored, spec.dtype, spec.n_elements, rest // width), held.stored
    )


def entry(tensor_map: TensorMap, counts: Counts) -> str:
    """Return the text of the metadata entry."""
    specs = {name: tensor_map[name].spec for name in sorted(counts)}
    tensors = {name: {"dtype": CODES[spec.dtype.name], "shape": list(spec.shape)} for name, spec in specs.items()}
    return json.dumps({"version": VERSION, "tensors": tensors}, ensure_ascii=False, separators=(",", ":"))
