"""Shapes that a header may claim at no cost: what is written of them can be read again, or is refused beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

import weighttools as wt
from weighttools.core.dtypes import DTYPES
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.io.source import Bytes

TARGETS = ("t.safetensors", "t.npz", "t.npy", "t.pt", "t.h5", "t.gguf")
SHAPES = (
    (1,) * 4,
    (1,) * 32,
    (1,) * 33,
    (1,) * 64,
    (1,) * 65,
    (1,) * 3000,
    (0, 2**60),
    (0, 2**61),
    (2**62, 0),
    (0, 2**62, 5),
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}-{max(shape)}")
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_can_be_read(target: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    spec = Spec(DTYPES["float32"], shape)
    span = Span(Bytes(b"\0\0\x80\x3f"), 0, 0 if 0 in shape else 4)
    try:
        wt.convert(TensorMap({"w": Tensor(spec, None, span)}), tmp_path / target)
    except SpecError:
        assert len(shape) > 4 or max(shape) >= 2**60
        assert not list(tmp_path.iterdir())
        return
    (found,) = wt.open(tmp_path / target).values()
    assert found.shape == shape
