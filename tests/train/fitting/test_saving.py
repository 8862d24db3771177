"""What is saved after training: the file's names, order, dtypes, ties, other tensors and metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import weighttools as wt
from tests.train.digits import digits, model, run, start
from weighttools import train
from weighttools.errors import SpecError
from weighttools.train.fitting import saving

TASK = train.Classification(10)
IDS = torch.arange(7)
FLOATS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def stored(path: Path, dtype: torch.dtype, **more: torch.Tensor) -> wt.TensorMap:
    """Write the MLP's weights by safetensors, and open the file."""
    tensors = {name: torch.tensor(array).to(dtype) for name, array in start().items()}
    save_file({**tensors, "position_ids": IDS, **more}, path, {"format": "pt", "author": "é"})
    return wt.open(path)


def tuned(origin: wt.TensorMap, params: dict[str, Any] | None = None, **options: Any) -> train.Result:
    read = {name: origin[name].read().astype(np.float32) for name in start()} if params is None else params
    m = train.Model(options.pop("run", run), read, origin)
    return train.fit(m, digits(), task=TASK, log=None, **{"epochs": 2, **options})


@pytest.mark.parametrize("name", FLOATS)
def test_the_files_dtype_rounded_as_torch_rounds(name: str, tmp_path: Path) -> None:
    result = tuned(stored(tmp_path / "in.safetensors", FLOATS[name]))
    wt.save(tmp_path / "out.safetensors", result.tensor_map)
    saved, before = load_file(tmp_path / "out.safetensors"), load_file(tmp_path / "in.safetensors")
    assert set(saved) == set(before)
    for n, p in result.model.params.items():
        assert p.dtype == np.float32, "the masters are float32"
        expected = torch.tensor(p).to(FLOATS[name])
        assert saved[n].dtype == expected.dtype and torch.equal(saved[n], expected)
        assert not torch.equal(saved[n], before[n])
    assert torch.equal(saved["position_ids"], IDS) and saved["position_ids"].dtype == torch.int64
    wt.save(tmp_path / "again.safetensors", result.tensor_map)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


def test_small_updates_do_not_vanish_in_bfloat16(tmp_path: Path) -> None:
    """300 updates, each below half a step of bfloat16, must add up: the reason for float32 masters."""
    save_file({"w": torch.ones(4, dtype=torch.bfloat16)}, tmp_path / "in.safetensors")
    origin = wt.open(tmp_path / "in.safetensors")
    m = train.Model(lambda p, batch: p["w"] * batch["inputs"], {"w": origin["w"].read().astype(np.float32)}, origin)
    data = train.data.arrays(np.ones((300, 4), np.float32), np.full((300, 4), 100.0))
    result = train.fit(m, data, task=train.Regression("mae"), optimizer=train.optim.sgd(4e-3), batch_size=1, log=None)
    saved = result.tensor_map["w"].read().astype(np.float64)
    assert (4e-3 / 4 < 2**-9) and saved == pytest.approx(1 + 300 * 4e-3 / 4, abs=2**-8)


def test_frozen_tensors_are_copied_as_they_are(tmp_path: Path) -> None:
    odd = torch.tensor([float("nan"), -0.0, 1e-40, float("inf")]).to(torch.bfloat16)
    origin = stored(tmp_path / "in.safetensors", torch.bfloat16, unused=odd)
    result = tuned(origin, freeze=["fc1.*"])
    wt.save(tmp_path / "out.safetensors", result.tensor_map)
    saved, before = load_file(tmp_path / "out.safetensors"), load_file(tmp_path / "in.safetensors")
    for name in ("fc1.weight", "fc1.bias", "unused"):
        assert result.tensor_map[name].stored == origin[name].stored
        assert torch.equal(saved[name].view(torch.int16), before[name].view(torch.int16))


def test_metadata_is_kept_and_tells_what_was_done(tmp_path: Path) -> None:
    first = tuned(stored(tmp_path / "in.safetensors", torch.float32), seed=5, freeze=["fc1.*"])
    wt.save(tmp_path / "out.safetensors", first.tensor_map)
    once = wt.open(tmp_path / "out.safetensors")
    assert (once.metadata["format"], once.metadata["author"]) == ("pt", "é")
    (record,) = json.loads(once.metadata["weighttools.train"])
    assert (record["seed"], record["n_trained"], record["n_frozen"], record["steps"]) == (5, 2, 2, 20)
    assert record["kept"]["loss"] == pytest.approx(first.history[-1]["loss"], rel=1e-5)
    wt.save(tmp_path / "twice.safetensors", tuned(once, seed=6).tensor_map)
    twice = saving.records(wt.open(tmp_path / "twice.safetensors").metadata)
    assert [r["seed"] for r in twice] == [5, 6]
    assert saving.records({"weighttools.train": "{"}) == saving.records({"weighttools.train": "1"}) == []


def tied_run(p: Any, batch: train.data.Batch) -> Any:
    """Encode and decode by one matrix; score the classes by its first ten columns."""
    hidden = train.ops.relu(train.ops.linear(batch["inputs"], p["encode"]))
    return train.ops.matmul(hidden, p["encode"])[:, :10]


@pytest.mark.parametrize("asked", ["encode", "decode"])
def test_ties_are_kept(asked: str, tmp_path: Path) -> None:
    w = np.random.default_rng(2).standard_normal((16, 64)).astype(np.float32) / 8
    arrays = wt.TensorMap.from_arrays({"encode": w}, aliases={"decode": "encode"})
    wt.save(tmp_path / "in.safetensors", arrays)
    origin = wt.open(tmp_path / "in.safetensors")
    own = lambda p, batch: tied_run({"encode": p[asked]}, batch)  # noqa: E731
    result = tuned(origin, {asked: origin[asked].read().copy()}, run=own)
    assert result.tensor_map.aliases == {"decode": "encode"} and list(result.tensor_map) == ["encode"]
    assert (result.tensor_map["decode"].read() == result.model.params[asked]).all()
    assert (result.model.params[asked] != w).any()
    frozen = {asked: origin[asked].read().copy(), "gain": np.ones(10, np.float32)}
    scaled = lambda p, batch: tied_run({"encode": p[asked]}, batch) * p["gain"]  # noqa: E731
    kept = tuned(origin, frozen, run=scaled, freeze=["decode"])
    assert kept.trained == ("gain",) and (kept.tensor_map["encode"].read() == w).all()


def test_new_arrays_follow_and_a_replaced_head_has_its_own_shape(tmp_path: Path) -> None:
    origin = stored(tmp_path / "in.safetensors", torch.bfloat16)
    params = {name: origin[name].read().astype(np.float32) for name in start()}
    params |= {"fc2.weight": np.zeros((12, 16), np.float32), "fc2.bias": np.zeros(12, np.float32)}
    params["gain"] = np.ones(16, np.float32)

    def wider(p: Any, batch: train.data.Batch) -> Any:
        hidden = train.ops.relu(train.ops.linear(batch["inputs"], p["fc1.weight"], p["fc1.bias"])) * p["gain"]
        return train.ops.linear(hidden, p["fc2.weight"], p["fc2.bias"])

    m = train.Model(wider, params, origin, added=("gain",))
    result = train.fit(m, digits(), task=train.Classification(12), log=None)
    wt.save(tmp_path / "out.safetensors", result.tensor_map)
    saved = load_file(tmp_path / "out.safetensors")
    assert list(result.tensor_map) == [*origin, "gain"]
    assert saved["fc2.weight"].shape == (12, 16) and saved["fc2.weight"].dtype == torch.bfloat16
    assert saved["gain"].dtype == torch.float32 and (saved["gain"] != 1).any()


def test_weights_that_float16_cannot_hold_are_told_of(tmp_path: Path) -> None:
    origin = stored(tmp_path / "in.safetensors", torch.float16)
    m = train.Model(run, {n: p.copy() for n, p in start().items()}, origin)
    assert saving.tensor_map(m).origin.notes == ()
    m.params["fc1.bias"][3] = 65519.0  # rounds to the largest
    assert saving.tensor_map(m).origin.notes == ()
    m.params["fc1.bias"][3] = -65520.0
    (note,) = saving.tensor_map(m).origin.notes
    assert note.startswith("too large for float16: 1 element in 1 tensor, first in fc1.bias; convert the file to")
    m.params["fc2.weight"][1] = 1e30
    (note,) = saving.tensor_map(m).origin.notes
    n = 1 + m.params["fc2.weight"][1].size
    assert note.startswith(f"too large for float16: {n} elements in 2 tensors, first in fc1.bias; convert")


def test_a_model_made_from_nothing_is_saved_whole(tmp_path: Path) -> None:
    result = train.fit(model(), digits(), task=TASK, log=None)
    wt.save(tmp_path / "out.safetensors", result.tensor_map)
    saved = load_file(tmp_path / "out.safetensors")
    assert {n: p.numpy().tobytes() for n, p in saved.items()} == {
        n: p.tobytes() for n, p in result.model.params.items()
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"w": np.ones(2, np.float32)}, "dict"),
        ([("w", 1)], "list"),
        (None, "NoneType"),
        (np.ones(2), "ndarray"),
        ("model.safetensors", "str"),
    ],
)
def test_what_is_no_map_and_no_model_is_told_what_would_be(tmp_path: Path, given: Any, said: str) -> None:
    """A dict of arrays is what most libraries save: it is saved; the line names the call that makes a map of others."""
    if said == "dict":
        wt.save(tmp_path / "out.safetensors", given)
        assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [1, 1]
    else:
        with pytest.raises(SpecError) as caught:
            wt.save(tmp_path / "out.safetensors", given)
        remedy = "TensorMap.from_arrays(...) makes one of arrays"
        assert str(caught.value) == f"save: {said} is no TensorMap; expected save(path, map); {remedy}"
        assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(SpecError) as caught:
        train.tensor_map(given)
    remedy = "TensorMap.from_arrays(...) makes a map of arrays"
    assert str(caught.value) == (f"tensor_map: {said} is no Model; expected a Model, as train.model loads; {remedy}")


def test_the_remedy_that_is_named_works(tmp_path: Path) -> None:
    arrays = {"w": np.arange(3, dtype=np.float32)}
    wt.save(tmp_path / "out.safetensors", wt.TensorMap.from_arrays(arrays))
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [0, 1, 2]
