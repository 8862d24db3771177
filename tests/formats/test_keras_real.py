"""Real Keras files, as their packages ship them, against h5py and Keras."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import numpy as np
import pytest

import weighttools as wt
from tests.real import real_file
from weighttools.families.role_types import Role
from weighttools.families.roles import tell_role

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

DEEPLC = {
    "1fd8363d9af9dcad3be7553c39396960": 1_405_437,
    "8c22d89667368f2f02ad996469ba157e": 634_365,
    "cb975cfdd4105f97efa0b3afffe075cc": 891_389,
}


def same(tensor: Any, thing: h5py.Dataset) -> bool:
    array = thing[()]
    return (
        tensor.shape == array.shape and tensor.dtype.name == array.dtype and tensor.read().tobytes() == array.tobytes()
    )


def legacy_names(file: h5py.File) -> list[str]:
    """The weights of a Keras 2 file in its order, by h5py."""
    layers = [name.decode() for name in file.attrs["layer_names"]]
    return [f"{layer}/{w.decode()}" for layer in layers for w in file[layer].attrs["weight_names"]]


def test_deepcut_is_what_h5py_reads(tmp_path: Path) -> None:
    path = real_file("deepcut", "cnn_without_ne_ab.h5")
    tensor_map = wt.open(path)
    with h5py.File(path) as file:
        assert list(tensor_map) == legacy_names(file)
        assert all(same(tensor, file[name]) for name, tensor in tensor_map.items())
        layers = [name.decode() for name in file.attrs["layer_names"]]
    assert len(tensor_map) == 62 and tensor_map.totals()[0] == 535_025
    assert tensor_map.metadata["layer_names"] == layers and tensor_map.metadata["keras_version"] == "2.0.2"
    wt.convert(path, tmp_path / "a.safetensors")
    wt.convert(tmp_path / "a.safetensors", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file, h5py.File(path) as old:
        assert legacy_names(file) == legacy_names(old)
        assert [name.decode() for name in file.attrs["layer_names"]] == layers
        assert all((file[name][()] == old[name][()]).all() for name in legacy_names(old))


@pytest.mark.parametrize("key", DEEPLC)
def test_deeplc_is_what_h5py_reads(key: str) -> None:
    path = real_file("deeplc", f"full_hc_PXD005573_pub_{key}.keras")
    tensor_map = wt.open(path)
    found: dict[str, h5py.Dataset] = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, thing: found.setdefault(name, thing) and None if hasattr(thing, "dtype") else None)
        assert sorted(tensor_map) == sorted(found) and len(found) == 128
        assert all(same(tensor, found[name]) for name, tensor in tensor_map.items())
        assert tensor_map.metadata["config.json"] == archive.read("config.json").decode()
    slots = [name for name, tensor in tensor_map.items() if tell_role(name, tensor.spec, tensor_map).role is Role.STATE]
    assert len(slots) == 86
    assert wt.inspect(path)["n_parameters"] == DEEPLC[key]
    assert not tensor_map.origin.notes


def test_deeplc_loads_into_keras_after_a_round_trip(tmp_path: Path) -> None:
    import keras

    path = real_file("deeplc", "8c22d89667368f2f02ad996469ba157e.keras")
    model = keras.saving.load_model(path, compile=False)
    expected = [w.copy() for w in model.get_weights()]
    model.set_weights([np.zeros_like(w) for w in expected])
    wt.convert(path, tmp_path / "m.safetensors", exclude=["optimizer/*"])
    wt.convert(tmp_path / "m.safetensors", tmp_path / "m.weights.h5")
    model.load_weights(tmp_path / "m.weights.h5")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(model.get_weights(), expected, strict=True))
    assert sum(w.size for w in expected) == DEEPLC["8c22d89667368f2f02ad996469ba157e"]
