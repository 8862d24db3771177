"""``weighttools stats`` on the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    rng = np.random.default_rng(0)
    spoilt = np.ones((2, 3), np.float32)
    spoilt[1, 2] = np.nan
    values = {
        "layers.0.w": rng.standard_normal((8, 16)).astype(np.float16),
        "layers.0.b": np.zeros(8, np.float32),
        "spoilt": spoilt,
        "\x1b[31mred": np.arange(4),
        "none": np.zeros((0, 3), np.float32),
    }
    save_file(values, path)
    return path


def run(*args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "weighttools", "stats", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def told(*args: object) -> Any:
    done = run(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


def test_json(model: Path) -> None:
    record = told(model, "--quantiles", "0,0.5", "--hist", "4", "--eps", "0.1", "--sparsity", "--outliers")
    assert record["schema"] == "weighttools.stats/1"
    assert record["path"] == str(model)
    rows = {row["name"]: row for row in record["tensors"]}
    promised = [
        "name",
        "dtype",
        "shape",
        "count",
        "min",
        "max",
        "mean",
        "std",
        "l1",
        "l2",
        "linf",
        "rms",
        "n_zero",
        "sparsity",
        "n_nan",
        "n_inf",
    ]
    assert set(promised) <= set(rows["spoilt"])
    assert (rows["spoilt"]["n_nan"], rows["spoilt"]["first_nan"], rows["spoilt"]["mean"]) == (1, [1, 2], 1.0)
    assert rows["layers.0.b"]["n_near_zero"] == 8
    assert sum(rows["layers.0.w"]["hist"]["counts"]) == 128
    assert rows["none"]["mean"] is rows["none"]["sparsity"] is rows["none"]["hist"] is None
    assert record["total"]["count"] == 146


def test_table(model: Path) -> None:
    done = run(model, "--hist", "--quantiles", "0.5", "--norm", "l1,inf,spectral", "--sort", "l1", "--top", "4")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[-3:] == ["first_nan", "hist", "0.5"]
    assert {"l1", "linf", "spectral", "NaN"} <= set(lines[0].split())
    assert lines[2].startswith("layers.0.w")
    assert "█" in lines[2]
    assert lines[-2].startswith("total of parameters (4 tensors)")
    assert lines[-1].startswith("buffers and others (1 tensor) ")
    assert "\x1b" not in done.stdout
    assert "[1, 2]" in done.stdout


def test_columns_of_nan_only_where_there_is_one(model: Path) -> None:
    assert "NaN" in run(model).stdout
    assert "NaN" not in run(model, "-x", "spoilt").stdout


@pytest.mark.parametrize("style", ["csv", "jsonl", "markdown"])
def test_rows(model: Path, style: str) -> None:
    done = run(model, "--format", style, "--quantiles", "0.5", "--hist", "3", "--by", "module")
    assert done.returncode == 0, done.stderr
    if style == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["group"] for row in rows][:2] == ["layers.0", "(top)"] or len(rows) == 2
        assert {"q0.5", "hist", "count"} <= set(rows[0])
    elif style == "jsonl":
        assert {json.loads(line)["group"] for line in done.stdout.splitlines()} == {"layers.0", "(top)"}
    else:
        assert done.stdout.startswith("| group")
    assert run(model, "--where", "count < 0", "--format", style).returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--where", "sparsty > 1"], "unknown name 'sparsty'"),
        (["--sort", "size"], "cannot sort by 'size'"),
        (["--norm", "l7"], "'l7' is not known; expected one of l1, l2, inf, spectral, nuclear"),
        (["--quantiles", "half"], "'half' is not a number from 0 to 1, or several"),
        (["--quantiles", "2"], "from 0 to 1"),
        (["-i", "nothing*"], "matches no tensor"),
        (["--hist", "0"], "--hist"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(model: Path, args: list[str], said: str) -> None:
    done = run(model, *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
