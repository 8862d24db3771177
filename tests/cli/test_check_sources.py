"""`weighttools check` finds what would run, in whatever container it hides, and from a pipe too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weighttools as wt
from weighttools.core.tensormap import TensorMap


class Payload:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def codes(path: Path | str) -> list[str]:
    return [finding["code"] for finding in wt.check(path)["findings"]]


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([Payload()], dtype=object), allow_pickle=True)
    return path


def test_an_npy_file_of_objects(objects: Path) -> None:
    assert "pickle-runs-code" in codes(objects)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_member_of_objects(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "objects.npz", good=np.zeros(2), bad=np.array([Payload()], dtype=object))
    assert codes(tmp_path / "objects.npz").count("pickle-runs-code") == 1


def test_plain_arrays_have_no_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", good=np.ones(2))
    assert not {"pickle-runs-code", "pickle-imports"} & set(codes(tmp_path / "plain.npz"))


@pytest.mark.parametrize(("text", "expected"), [
    ('{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {}}}}', "error"),
    ('{"class_name": "Lambda", "config": {"function": "tanh"}}', "warning"),
])  # fmt: skip
def test_a_keras_lambda_layer(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "model.h5"
    wt.save(path, TensorMap.from_arrays({"w": np.ones(2, np.float32)}, {"model_config": text}))
    found = [f["severity"] for f in wt.check(path)["findings"] if f["code"] == "keras-lambda"]
    assert found == [expected]


def test_from_a_pipe(objects: Path) -> None:
    with objects.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())", objects],
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        assert done.stdout == file.read()
    checked = subprocess.run(
        [sys.executable, "-m", "weighttools", "check", "-"], input=done.stdout, capture_output=True, check=False
    )
    assert checked.returncode == 1
    assert b"pickle-runs-code" in checked.stdout
