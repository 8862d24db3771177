"""Packing of 4- and 6-bit elements against plain integers and torch's nibble order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.packed import pack_bits, unpack_bits
from weighttools.core.dtypes import DTYPES
from weighttools.core.packing import pack, unpack
from weighttools.core.readers import Raw
from weighttools.core.spec import Span
from weighttools.io.source import Bytes


@given(st.sampled_from([4, 6]), st.lists(st.integers(0, 255), max_size=50))
def test_packing_is_that_of_one_long_little_endian_number(bits: int, values: list[int]) -> None:
    elements = np.array(values, np.uint8)
    packed = pack(elements, bits)
    assert packed.dtype == np.uint8 and packed.tobytes() == pack_bits(elements & ((1 << bits) - 1), bits)
    again = unpack(packed, bits, len(values))
    assert again.tolist() == [v & ((1 << bits) - 1) for v in values]


@given(st.sampled_from([4, 6]), st.binary(max_size=50))
def test_unpacking_is_that_of_one_long_little_endian_number(bits: int, data: bytes) -> None:
    n = len(data) * 8 // bits
    found = unpack(np.frombuffer(data, np.uint8), bits, n)
    assert found.tolist() == unpack_bits(data, bits, n).tolist()


def test_nibbles_lie_as_in_torch() -> None:
    """torch packs two elements a byte; its own cast of a packed byte says which nibble is first."""
    packed = torch.arange(256, dtype=torch.uint8)
    elements = unpack(packed.numpy(), 4, 512).view(DTYPES["float4_e2m1fn"].numpy).astype(np.float32)
    try:
        theirs = packed.view(torch.float4_e2m1fn_x2).to(torch.float32)
    except (RuntimeError, NotImplementedError):  # a build that stores the type but does not decode it
        table = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]  # OCP Microscaling Formats 1.0, table 5
        table += [-v for v in table]
        theirs = torch.tensor([[table[b & 15], table[b >> 4]] for b in range(256)])
    np.testing.assert_array_equal(elements, theirs.reshape(-1).numpy())


@pytest.mark.parametrize("name", ["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"])
def test_any_aligned_run_is_read_alone(name: str) -> None:
    dtype = DTYPES[name]
    elements = np.random.default_rng(3).integers(0, 1 << dtype.bits, 24).astype(np.uint8)
    source = Bytes(b"xyz" + pack_bits(elements, dtype.bits))
    reader = Raw(Span(source, 3, dtype.nbytes(24)), dtype)
    assert reader.granularity == dtype.pack
    for start in range(0, 24, dtype.pack):
        for stop in range(start, 25):
            found = reader(start, stop)
            assert found.dtype == dtype.numpy and found.view("u1").tolist() == elements[start:stop].tolist()
