"""Real PyTorch files against torch: every name, every bit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weighttools as wt
from tests.formats.torch_arrays import flat
from tests.real import real_file, rows
from tests.strategies import assert_same

pytestmark = pytest.mark.real

FILES = [(row["package"], row["path"]) for row in rows() if row["format"] == "pytorch"]
UNREADABLE = "training_args.bin"
"""torch refuses it: it holds an argparse.Namespace."""


@pytest.mark.parametrize(("package", "path"), FILES)
def test_every_tensor_is_torchs(tmp_path: Path, package: str, path: str) -> None:
    file = real_file(package, path)
    found = wt.open(file)
    if path.endswith(UNREADABLE):
        assert len(found) == 0 and any("argparse.Namespace" in note for note in found.origin.notes)
        with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
            torch.load(file, weights_only=True)
        assert {f["severity"] for f in wt.check(file)["findings"]} == {"error"}
        return
    oracle: Any = torch.load(file, weights_only=True, map_location="cpu")
    theirs = flat(oracle)
    assert sorted([*found, *found.aliases]) == sorted(theirs)
    assert_same(found.read(aliases=True), theirs)
    assert {f["severity"] for f in wt.check(file)["findings"]} <= {"note"}  # of values and ties, not of the pickle
    if not theirs:
        assert any("holds no tensors" in note for note in found.origin.notes)
        return
    wt.convert(file, tmp_path / "a.pt")
    assert_same(flat(torch.load(tmp_path / "a.pt", weights_only=True)), theirs)
    wt.convert(file, tmp_path / "a.safetensors")
    assert_same(wt.open(tmp_path / "a.safetensors").read(aliases=True), theirs)


def test_rxnfps_tied_decoder_is_an_alias() -> None:
    found = wt.open(real_file("rxnfp", "bert_pretrained/pytorch_model.bin"))
    assert len(found) == 206 and len(found.aliases) == 1
    assert sum(tensor.spec.encoding == "strided" for tensor in found.values()) >= 70


def test_strided_tensors_read_in_blocks_as_whole() -> None:
    for tensor in wt.open(real_file("facenet-pytorch", "pnet.pt")).values():
        np.testing.assert_array_equal(np.concatenate(list(tensor.blocks(100))), tensor.read().ravel())


def test_mtcnns_object_array_is_read_as_data() -> None:
    file = real_file("mtcnn", "mtcnn_weights.npy")
    theirs = np.load(file, allow_pickle=True).item()  # a known file, checked by its sha256
    expected = {f"{net}.{i}": array for net, arrays in theirs.items() for i, array in enumerate(arrays)}
    found = wt.open(file)
    assert_same(found.read(), expected)
    assert len(found) == 50 and sum(array.size for array in expected.values()) == 495_850
    pnet = wt.open(real_file("facenet-pytorch", "pnet.pt"))
    kernel = found["pnet.0"].read()
    np.testing.assert_array_equal(pnet["conv1.weight"].read(), kernel.transpose(3, 2, 1, 0))
