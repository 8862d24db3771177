"""Keras's HDF5 files and archives against Keras itself."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import weighttools as wt
from tests.thorough import first
from weighttools.errors import CorruptFileError, UnsafeFileError, WeighttoolsError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",  # Keras under NumPy 2
    "ignore:You are saving your model as an HDF5 file",
)


def small_model(seed: int = 0) -> Any:
    """A model with what makes files differ: state that is not trained, a nested model, more than ten alike layers."""
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential([layers.Input((6, 6)), layers.Dense(6, name="inside")], name="nested")
    inputs = layers.Input((8, 3))
    x = layers.Conv1D(6, 3, name="first conv")(inputs)
    x = layers.BatchNormalization()(x)
    for _ in range(12):
        x = layers.Dense(6)(x)
    x = layers.GlobalAveragePooling1D()(inner(x))
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(x))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.random(w.shape, np.float32) for w in model.get_weights()])
    return model


def trained(seed: int = 0) -> Any:
    model = small_model(seed)
    model.compile(keras.optimizers.Adam(), keras.losses.MeanSquaredError())
    model.fit(np.ones((2, 8, 3)), np.ones((2, 2)), verbose=0)
    return model


def same_weights(model: Any, other: Any) -> bool:
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


SAVERS = {
    "model.weights.h5": lambda model, path: model.save_weights(path),
    "legacy.h5": lambda model, path: legacy_weights(model, path),
    "full.h5": lambda model, path: quietly_saved(model, path),
    "model.keras": lambda model, path: model.save(path),
}


def legacy_weights(model: Any, path: str) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def quietly_saved(model: Any, path: str) -> None:
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

    save_model_to_hdf5(model, path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Path]]:
    """A trained model, and its files by every way that Keras saves."""
    model, home = trained(), tmp_path_factory.mktemp("keras")
    for name, save in SAVERS.items():
        save(model, str(home / name))
    return model, {name: home / name for name in SAVERS}


@pytest.mark.parametrize("name", SAVERS)
def test_weights_are_those_of_the_model(saved: tuple[Any, dict[str, Path]], name: str) -> None:
    model, files = saved
    tensor_map = wt.open(files[name])
    found = [t for n, t in tensor_map.items() if "optimizer" not in n]
    assert not tensor_map.origin.notes
    expected = sorted(w.tobytes() for w in model.get_weights())
    assert sorted(t.read().tobytes() for t in found) == expected
    record = wt.inspect(files[name])
    assert record["n_parameters"] <= model.count_params() < record["n_elements"] or "optimizer" not in str(tensor_map)
    if "keras" not in name and "weights" not in name:
        ordered = [w for layer in model.layers for w in layer.trainable_weights + layer.non_trainable_weights]
        assert [t.read().tobytes() for t in found] == [w.numpy().tobytes() for w in ordered]
    bn = [t.read() for n, t in tensor_map.items() if "batch_normalization" in n and "optimizer" not in n]
    layer = next(layer for layer in model.layers if "batch" in layer.name)
    assert [b.tobytes() for b in bn] == [w.tobytes() for w in layer.get_weights()]


@pytest.mark.parametrize("middle", [".weights.h5", ".npz", ".safetensors"])
@pytest.mark.parametrize("name", first(["model.weights.h5", "model.keras"]))
def test_keras_3_weights_load_after_a_round_trip(
    saved: tuple[Any, dict[str, Path]], name: str, middle: str, tmp_path: Path
) -> None:
    model, files = saved
    wt.convert(files[name], tmp_path / f"middle{middle}")
    wt.convert(tmp_path / f"middle{middle}", tmp_path / "back.weights.h5")
    other = small_model(1)
    assert not same_weights(model, other)
    other.load_weights(tmp_path / "back.weights.h5")
    assert same_weights(model, other)
    found, expected = wt.open(tmp_path / "back.weights.h5"), wt.open(files[name])
    assert list(found) == list(expected) and found.metadata["keras_names"] == expected.metadata["keras_names"]


@pytest.mark.parametrize("middle", [".h5", ".npz", ".safetensors"])
@pytest.mark.parametrize("compression", first(["gzip", None]))
def test_legacy_weights_load_after_a_round_trip(
    saved: tuple[Any, dict[str, Path]], middle: str, compression: str | None, tmp_path: Path
) -> None:
    model, files = saved
    wt.convert(files["legacy.h5"], tmp_path / f"middle{middle}")
    wt.convert(tmp_path / f"middle{middle}", tmp_path / "back.h5", compression=compression)
    other = small_model(1)
    other.load_weights(tmp_path / "back.h5")
    assert same_weights(model, other)
    assert list(wt.open(tmp_path / "back.h5")) == list(wt.open(files["legacy.h5"]))
    assert wt.open(tmp_path / "back.h5").metadata == wt.open(files["legacy.h5"]).metadata


def test_full_legacy_model_loads_after_a_round_trip(saved: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    model, files = saved
    wt.convert(files["full.h5"], tmp_path / "middle.safetensors")
    wt.convert(tmp_path / "middle.safetensors", tmp_path / "back.h5")
    other = keras.saving.load_model(tmp_path / "back.h5")
    assert same_weights(model, other)
    # Keras 3 does not give the slots back to the optimizer even from its own file, so these are compared by h5py
    with h5py.File(tmp_path / "back.h5") as ours, h5py.File(files["full.h5"]) as theirs:
        names, expected = (
            [getattr(n, "decode", lambda n=n: n)() for n in file["optimizer_weights"].attrs["weight_names"]]
            for file in (ours, theirs)
        )
        assert names == expected and len(names) == len(model.optimizer.variables)
        for name in names:
            path = f"optimizer_weights/{name}"
            assert ours[path][()].tobytes() == theirs[path][()].tobytes()
        assert sorted(ours.attrs) == sorted(theirs.attrs)


def test_optimizer_state_is_told_apart(saved: tuple[Any, dict[str, Path]]) -> None:
    model, files = saved
    n_trained = sum(w.numpy().size for w in model.trainable_weights)
    for name in ("full.h5", "model.keras"):
        tensor_map = wt.open(files[name])
        slots = [n for n in tensor_map if n.startswith(("optimizer/", "optimizer_weights/"))]
        assert sum(tensor_map[n].n_elements for n in slots) >= 2 * n_trained
        assert wt.inspect(tensor_map)["n_parameters"] <= model.count_params()


def test_metadata_holds_the_configuration(saved: tuple[Any, dict[str, Path]]) -> None:
    model, files = saved
    full, archive = wt.open(files["full.h5"]).metadata, wt.open(files["model.keras"]).metadata
    assert json.loads(full["model_config"])["config"]["name"] == model.name
    assert full["layer_names"] == [layer.name for layer in model.layers]
    with zipfile.ZipFile(files["model.keras"]) as zipped:
        assert archive["config.json"] == zipped.read("config.json").decode()
        assert archive["metadata.json"] == zipped.read("metadata.json").decode()
    assert "first conv" in wt.open(files["model.weights.h5"]).metadata["keras_names"].values()


def test_long_layer_lists_are_split_and_joined(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    names = [f"{i}_{'x' * 700}" for i in range(200)]
    model = keras.Sequential([layers.Input((1,)), *(layers.Dense(1, name=name) for name in names)])
    legacy_weights(model, str(tmp_path / "long.h5"))
    tensor_map = wt.open(tmp_path / "long.h5")
    assert tensor_map.metadata["layer_names"] == names
    assert [n.split("/")[0] for n in tensor_map][::2] == names
    wt.save(tmp_path / "back.h5", tensor_map)
    other = keras.Sequential([layers.Input((1,)), *(layers.Dense(1) for _ in names)])
    other.load_weights(tmp_path / "back.h5")
    assert same_weights(model, other)


def test_bfloat16_by_keras_convention(tmp_path: Path) -> None:
    import ml_dtypes

    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, dtype="bfloat16")])
    model.save_weights(tmp_path / "bf16.weights.h5")
    tensor_map = wt.open(tmp_path / "bf16.weights.h5")
    kernel = tensor_map["layers/dense/vars/0"]
    assert kernel.dtype.name == "bfloat16"
    expected = model.layers[0].kernel.value.detach().float().numpy().astype(ml_dtypes.bfloat16)
    assert kernel.read().tobytes() == expected.tobytes()
    wt.save(tmp_path / "back.weights.h5", tensor_map)
    other = keras.Sequential([layers.Input((3,)), layers.Dense(4, dtype="bfloat16")])
    other.load_weights(tmp_path / "back.weights.h5")
    assert other.layers[0].kernel.value.detach().float().numpy().tobytes() == expected.astype("f4").tobytes()


def test_shards_are_followed(tmp_path: Path) -> None:
    model = small_model()
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=4e-7)
    assert len(list(tmp_path.glob("*.h5"))) > 2
    tensor_map = wt.open(tmp_path / "model.weights.json")
    assert len(tensor_map.origin.files) == len(list(tmp_path.glob("*.h5")))
    assert sorted(t.read().tobytes() for t in tensor_map.values()) == sorted(w.tobytes() for w in model.get_weights())
    wt.save(tmp_path / "single.weights.h5", tensor_map)
    other = small_model(1)
    other.load_weights(tmp_path / "single.weights.h5")
    assert same_weights(model, other)


@pytest.mark.parametrize("name", ["../model_00000.weights.h5", "/etc/passwd", "", "a\\b"])
def test_shards_do_not_leave_the_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.weights.json").write_text(json.dumps({"weight_map": {"/vars": name}}))
    with pytest.raises(UnsafeFileError, match="plain file name"):
        wt.open(tmp_path / "m.weights.json")


def test_shards_and_index_agree(tmp_path: Path) -> None:
    model = small_model()
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=4e-7)
    record = json.loads((tmp_path / "model.weights.json").read_text())
    record["weight_map"].pop("/layers/dense/vars")
    (tmp_path / "model.weights.json").write_text(json.dumps(record))
    with pytest.raises(CorruptFileError, match="layers/dense/vars"):
        wt.open(tmp_path / "model.weights.json")


def test_deflated_archives_are_unpacked(saved: tuple[Any, dict[str, Path]], tmp_path: Path) -> None:
    _, files = saved
    path = tmp_path / "deflated.keras"
    with zipfile.ZipFile(files["model.keras"]) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    expected = wt.open(files["model.keras"])
    found = wt.open(path)
    assert list(found) == list(expected) and found.metadata == expected.metadata
    assert all(found[name].read().tobytes() == expected[name].read().tobytes() for name in expected)


def test_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeighttoolsError, match="without Keras weights"):
        wt.open(tmp_path / "empty.keras")


def test_values_of_an_archive_are_read_in_place(saved: tuple[Any, dict[str, Path]]) -> None:
    _, files = saved
    tensor_map = wt.open(files["model.keras"])
    spans = [tensor.stored for tensor in tensor_map.values()]
    assert all(span is not None and span.source.name == str(files["model.keras"]) for span in spans)


@pytest.mark.parametrize("name", SAVERS)
def test_parameters_are_those_that_keras_trains(tmp_path: Path, name: str) -> None:
    """A batch normalisation's moving statistics are buffers, whatever the file calls them."""
    model, path = small_model(), str(tmp_path / name)
    SAVERS[name](model, path)
    assert wt.inspect(path)["n_parameters"] == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
