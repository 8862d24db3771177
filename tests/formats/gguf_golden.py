"""Reading and writing GGUF with the ``gguf`` package."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gguf"


def golden_write(path: Path, arrays: dict[str, Any], architecture: str = "llama", **metadata: Any) -> None:
    """Write arrays; `metadata` holds strings, uint32 and float32 numbers, ``__`` standing for a dot."""
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[
            type(value)
        ]
        add(key.replace("__", "."), value)
    for name, array in arrays.items():
        is_bfloat16 = array.dtype == ml_dtypes.bfloat16
        kind = GGMLQuantizationType.BF16 if is_bfloat16 else None
        writer.add_tensor(name, array.view(np.uint16) if is_bfloat16 else array, raw_dtype=kind)
    finish(writer)


def finish(writer: GGUFWriter) -> None:
    """Write what the writer was given."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def golden_read(path: Path) -> dict[str, Any]:
    """Read a file's tensors as copies; quantised ones as their blocks."""
    reader = GGUFReader(path)
    found = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        data = np.array(tensor.data)
        if tensor.tensor_type == GGMLQuantizationType.BF16:
            data = np.frombuffer(data.tobytes(), ml_dtypes.bfloat16)
        plain = tensor.tensor_type.name[0] in "FIB" and not tensor.tensor_type.name.startswith("IQ")
        found[tensor.name] = data.reshape(shape) if plain else data
    del reader, tensor
    gc.collect()
    return found


def values(path: Path) -> dict[str, Any]:
    """Read a file's metadata as plain Python values."""
    reader = GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
