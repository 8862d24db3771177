"""The fixtures are small, all there, and made as `fixtures/make.py` says."""

from __future__ import annotations

import runpy
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import weighttools as wt
from tests.strategies import assert_same

FIXTURES = Path(__file__).parents[1] / "fixtures"
MAKE = runpy.run_path(str(FIXTURES / "make.py"))


def test_fixtures_are_as_the_pinned_libraries_make_them() -> None:
    pinned: dict[str, str] = MAKE["PINNED"]
    found = {name: version(name).partition("+")[0] for name in pinned}
    if found != pinned:
        pytest.skip(f"the fixtures are made with {pinned}, here are {found}: other versions may write other bytes")
    assert MAKE["differences"](FIXTURES) == []


def test_fixtures_are_all_there() -> None:
    assert all((FIXTURES / folder).is_dir() for folder in ("safetensors", "huggingface", "npz", "npy"))


def test_fixtures_stay_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 200_000


def test_tiny_is_what_the_documentation_says() -> None:
    path = FIXTURES / "safetensors" / "tiny" / "model.safetensors"
    found = wt.open(path)
    assert_same(found.read(), load_file(path))
    np.testing.assert_array_equal(found["fc.weight"].read(), np.arange(12, dtype=np.float32).reshape(3, 4))
    assert found["step"].shape == () and dict(found.metadata) == {"format": "pt"}
    record = wt.inspect(path)
    assert (record["n_parameters"], record["n_buffers"], record["n_elements"]) == (15, 1, 16)


def test_the_table_is_scikit_learns_iris() -> None:
    from sklearn.datasets import load_iris

    found = np.genfromtxt(FIXTURES / "training" / "iris.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    iris = load_iris()
    columns = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    np.testing.assert_array_equal(np.stack([found[name] for name in columns], 1), iris.data)
    assert found["species"].tolist() == iris.target_names[iris.target].tolist()
