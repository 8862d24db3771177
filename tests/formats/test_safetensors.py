"""safetensors against its official library."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import TensorSpec, deserialize, serialize_file

from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.packed import pack_bits, unpack_bits
from weighttools.core.dtypes import DTYPES
from weighttools.formats import safetensors

CODES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
WRITABLE = tuple(name for code, name in CODES.items() if not code.startswith("F6"))
"""What the official writer takes: it reads 6-bit floats, but has no name to write them by."""


def official_write(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """Write arrays by the official library's own serializer."""
    specs, alive = {}, []
    for name, array in arrays.items():
        dtype, shape = array.dtype.name, list(array.shape)
        data = np.frombuffer(pack_bits(array, 4) if "float4" in dtype else array.tobytes(), np.uint8)
        if "float4" in dtype:
            dtype, shape = "float4_e2m1fn_x2", [*shape[:-1], shape[-1] // 2]
        alive.append(data)
        specs[name] = TensorSpec(dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
    serialize_file(specs, path, metadata)


def official_read(data: bytes) -> Arrays:
    """Read every tensor by the official library; it knows no meaning of packed bits, so these are unpacked here."""
    found = {}
    for name, tensor in deserialize(data):
        dtype, shape = DTYPES[CODES[tensor["dtype"]]], tuple(tensor["shape"])
        raw = np.frombuffer(bytes(tensor["data"]), np.uint8)
        if dtype.bits < 8:
            raw = unpack_bits(raw.tobytes(), dtype.bits, math.prod(shape))
        found[name] = raw.view(dtype.numpy).reshape(shape)
    return found


class TestSafetensors(FormatConformance):
    format_name, suffix = "safetensors", ".safetensors"
    dtypes = tuple(CODES.values())
    golden_dtypes = WRITABLE
    keeps_order = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        official_write(path, arrays)

    def golden_holds(self, array: np.ndarray[Any, Any]) -> bool:
        return array.dtype.name != "float4_e2m1fn" or (array.ndim > 0 and array.shape[-1] % 2 == 0)

    def golden_read(self, path: Path) -> Arrays:
        return official_read(path.read_bytes())


def test_the_table_of_dtypes_is_the_official_one() -> None:
    assert {code: dtype.name for code, dtype in safetensors.NAMES.items()} == CODES
