"""What becomes of tied tensors, and of floats that NumPy does not know, on the way to a file."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import weighttools as wt
from weighttools.errors import SpecError


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    path = tmp_path / "tied.safetensors"
    values = np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16)
    wt.save(
        path, wt.TensorMap.from_arrays({"embed.weight": values}, {"format": "pt"}, {"lm_head.weight": "embed.weight"})
    )
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_alias_keeps_the_tie(tied: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    wt.convert(tied, target)
    assert dict(wt.open(target).aliases) == {"lm_head.weight": "embed.weight"}
    assert list(wt.open(target)) == ["embed.weight"]


def test_copy_writes_every_name(tied: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    target = tmp_path / "out.safetensors"
    wt.convert(tied, target, tied="copy")
    with safe_open(target, "pt") as file:
        assert sorted(file.keys()) == ["embed.weight", "lm_head.weight"]
        assert file.get_tensor("embed.weight").equal(file.get_tensor("lm_head.weight"))
        assert file.metadata() == {"format": "pt"}


def test_error_refuses(tied: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"1 tied tensors, first 'lm_head.weight' = 'embed.weight'"):
        wt.convert(tied, tmp_path / "out.npz", tied="error")
    assert not (tmp_path / "out.npz").exists()


def test_unknown_choices(tied: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one of alias, copy, error"):
        wt.convert(tied, tmp_path / "out.npz", tied="melt")
    with pytest.raises(SpecError, match="npz_bf16 'melt' is not known; expected one of keep, float32"):
        wt.convert(tied, tmp_path / "out.npz", npz_bf16="melt")


def test_npz_float32_is_what_numpy_reads(tied: Path, tmp_path: Path) -> None:
    wt.convert(tied, tmp_path / "wide.npz", npz_bf16="float32")
    with np.load(tmp_path / "wide.npz") as archive:
        assert archive["embed.weight"].dtype == np.float32
        assert archive["embed.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
