"""Files that Keras's own ``load_weights`` takes, and its files by the names that its layers have; Keras is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import weighttools as wt
from weighttools.errors import SpecError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"  # Keras under NumPy 2
)

L = keras.layers
SUFFIXES = ("weights.h5", "h5")


def as_array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(keras.ops.convert_to_numpy(value))


def net(**layers: torch.nn.Module) -> torch.nn.Sequential:
    """A sequence of named layers whose every number, running statistics too, is drawn."""
    torch.manual_seed(0)
    made = torch.nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return made.eval()


def images() -> tuple[torch.nn.Sequential, keras.Model]:
    """The same net twice: convolutions, norms of two kinds, linear layers of one shape."""
    ours = net(
        conv1=torch.nn.Conv2d(3, 4, 3), bn1=torch.nn.BatchNorm2d(4), dw=torch.nn.Conv2d(4, 4, 2, groups=4),
        up=torch.nn.ConvTranspose2d(4, 5, 2, bias=False), flat=torch.nn.Flatten(), ln=torch.nn.LayerNorm(5),
        fc1=torch.nn.Linear(5, 6), fc2=torch.nn.Linear(6, 6), fc10=torch.nn.Linear(6, 2),
    )  # fmt: skip
    theirs = keras.Sequential(
        [
            keras.Input((4, 4, 3)), L.Conv2D(4, 3), L.BatchNormalization(epsilon=1e-5), L.DepthwiseConv2D(2),
            L.Conv2DTranspose(5, 2, use_bias=False), L.GlobalAveragePooling2D(), L.LayerNormalization(epsilon=1e-5),
            L.Dense(6), L.Dense(6), L.Dense(2),
        ]
    )  # fmt: skip
    return ours, theirs


def outputs(ours: torch.nn.Sequential, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = torch.from_numpy(np.moveaxis(image, -1, 1))
    with torch.no_grad():
        for name, layer in ours.named_children():
            x = x.mean((2, 3)) if name == "flat" else layer(x)
    return x.numpy()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_net_of_torch_is_loaded_by_keras(tmp_path: Path, suffix: str) -> None:
    ours, theirs = images()
    torch.save(ours.state_dict(), tmp_path / "net.pt")
    target = tmp_path / f"net.{suffix}"
    record = wt.convert(
        tmp_path / "net.pt", target, layout="keras", layout_rule=["dw.weight=depthwise2d:1", "up.*=conv_transpose2d"],
        verify=True,
    )  # fmt: skip
    theirs.load_weights(target)
    image = np.random.default_rng(0).random((2, 4, 4, 3), dtype=np.float32)
    np.testing.assert_allclose(as_array(theirs(image, training=False)), outputs(ours, image), rtol=1e-5, atol=1e-6)
    assert any("must be the model's: conv1, bn1, dw, up, ln, fc1, fc2, fc10" in note for note in record["notes"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbered_names_of_a_sorted_file_go_by_number(tmp_path: Path, suffix: str) -> None:
    """safetensors sorts names, so that ``10.weight`` comes before ``2.weight``, which has its shape."""
    ours = net(**{str(i): torch.nn.Linear(3, 3) for i in range(12)})
    save_file(ours.state_dict(), tmp_path / "net.safetensors")
    wt.convert(tmp_path / "net.safetensors", tmp_path / f"net.{suffix}", layout="keras")
    theirs = keras.Sequential([keras.Input((3,)), *(L.Dense(3) for _ in range(12))])
    theirs.load_weights(tmp_path / f"net.{suffix}")
    for layer, mine in zip(theirs.layers, ours, strict=True):
        np.testing.assert_array_equal(as_array(layer.kernel), mine.weight.detach().numpy().T)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_functional_model_with_an_embedding(tmp_path: Path, suffix: str) -> None:
    ours = net(embed=torch.nn.Embedding(7, 4), norm=torch.nn.BatchNorm1d(4, affine=False), out=torch.nn.Linear(4, 2))
    torch.save(ours.state_dict(), tmp_path / "net.pt")
    wt.convert(tmp_path / "net.pt", tmp_path / f"net.{suffix}", layout="keras")
    ids = keras.Input((3,), dtype="int32")
    x = L.BatchNormalization(center=False, scale=False, epsilon=1e-5)(L.Embedding(7, 4)(ids))
    theirs = keras.Model(ids, L.Dense(2)(x))
    theirs.load_weights(tmp_path / f"net.{suffix}")
    sample = np.array([[0, 3, 6]], "int32")
    state = {name: tensor.double().numpy() for name, tensor in ours.state_dict().items()}
    h = (state["embed.weight"][sample] - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + 1e-5)
    expected = h @ state["out.weight"].T + state["out.bias"]
    np.testing.assert_allclose(as_array(theirs(sample)), expected, rtol=1e-5, atol=1e-6)


def test_legacy_layers_are_named_as_the_modules(tmp_path: Path) -> None:
    ours = net(b=torch.nn.Linear(3, 3), a=torch.nn.Linear(3, 3))
    save_file(ours.state_dict(), tmp_path / "net.safetensors")  # sorted: a comes first, which is not the model's order
    wt.convert(tmp_path / "net.safetensors", tmp_path / "net.h5", layout="keras")
    theirs = keras.Sequential([keras.Input((3,)), L.Dense(3, name="b"), L.Dense(3, name="a")])
    theirs.load_weights(tmp_path / "net.h5", by_name=True)
    np.testing.assert_array_equal(as_array(theirs.layers[0].kernel), ours.b.weight.detach().numpy().T)


def test_tied_layers_are_written_for_both(tmp_path: Path) -> None:
    ours = net(a=torch.nn.Linear(3, 3), b=torch.nn.Linear(3, 3))
    ours.b.weight = ours.a.weight
    torch.save(ours.state_dict(), tmp_path / "net.pt")
    wt.convert(tmp_path / "net.pt", tmp_path / "net.weights.h5", layout="keras")
    theirs = keras.Sequential([keras.Input((3,)), L.Dense(3), L.Dense(3)])
    theirs.load_weights(tmp_path / "net.weights.h5")
    for layer in theirs.layers:
        np.testing.assert_array_equal(as_array(layer.kernel), ours.a.weight.detach().numpy().T)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["cls_token", "act.weight", "fc.running_mean"])
def test_what_has_no_layer_in_keras_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    arrays = {"fc.weight": np.ones((2, 3), np.float32), name: np.ones(3, np.float32)}
    with pytest.raises(SpecError, match="belongs to no layer that Keras has"):
        wt.convert(
            wt.TensorMap.from_arrays(arrays), tmp_path / f"x.{suffix}", layout="keras", layout_from="torch",
            layout_rule=["act.weight=keep"] if name == "act.weight" else [],
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


# -- Keras's own files ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A trained model in Keras's three kinds of file, its optimizer's slots with it."""
    place = tmp_path_factory.mktemp("compiled")
    L.Embedding(5, 4), L.Dense(3)  # so that the names of the layers have numbers
    inner = keras.Sequential([keras.Input((28,)), L.Dense(3, name="inside")], name="part")
    model = keras.Sequential(
        [keras.Input((7,)), L.Embedding(5, 4), L.Flatten(), inner, L.Dense(3), L.BatchNormalization(name="norm")]
    )
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 7), "int32"), np.zeros((4, 3)), verbose=0)
    for name in ("m.keras", "m.h5"):
        model.save(place / name)
    model.save_weights(place / "m.weights.h5")
    return place, model


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5"])
def test_files_of_a_compiled_model_give_the_same_names_once_each(
    compiled: tuple[Path, keras.Model], tmp_path: Path, name: str
) -> None:
    place, model = compiled
    record = wt.convert(place / name, tmp_path / "m.safetensors", layout="torch", verify=True)
    found = wt.open(tmp_path / "m.safetensors").read()
    embedding, dense = model.layers[0], model.layers[3]
    expected = {
        f"{embedding.name}.weight": embedding.embeddings,
        "part.inside.weight": model.layers[2].layers[0].kernel,
        "part.inside.bias": model.layers[2].layers[0].bias,
        f"{dense.name}.weight": dense.kernel,
        f"{dense.name}.bias": dense.bias,
        "norm.weight": model.layers[4].gamma,
        "norm.bias": model.layers[4].beta,
        "norm.running_mean": model.layers[4].moving_mean,
        "norm.running_var": model.layers[4].moving_variance,
    }
    assert found.keys() == expected.keys()
    for key, variable in expected.items():
        array = as_array(variable)
        np.testing.assert_array_equal(found[key], array if key.startswith("embedding") else array.T)
    n_slots = len(model.optimizer.variables)
    assert any(f"{n_slots} tensors have no place in torch and are left out: opt" in note for note in record["notes"])


def test_a_legacy_file_becomes_one_of_keras_3(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(4), L.BatchNormalization(), L.Dense(4)])
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.h5")
    note = wt.convert(tmp_path / "m.h5", tmp_path / "as_it_is.weights.h5")["notes"]
    assert any("Keras does not load it under this name" in line for line in note)
    wt.convert(tmp_path / "m.h5", tmp_path / "new.weights.h5", layout="keras", verify=True)
    other = keras.models.clone_model(model)
    other.load_weights(tmp_path / "new.weights.h5")
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(as_array(one), as_array(two))
    with pytest.raises(SpecError, match="does not tell the order"):
        wt.convert(tmp_path / "m.weights.h5", tmp_path / "back.h5", layout="keras")


@pytest.mark.parametrize("suffix", ["keras", "weights.h5", "h5"])
@pytest.mark.parametrize("cell", [L.GRU, L.LSTM, L.SimpleRNN])
def test_recurrent_layers_are_called_so_and_no_rule_is_offered(tmp_path: Path, suffix: str, cell: Any) -> None:
    model = keras.Sequential([keras.Input((5, 3)), cell(4, name="memory"), L.Dense(2)])
    if suffix == "weights.h5":
        model.save_weights(tmp_path / "m.weights.h5")
    else:
        model.save(tmp_path / f"m.{suffix}")
    with pytest.raises(SpecError, match="recurrent") as caught:
        wt.convert(tmp_path / f"m.{suffix}", tmp_path / "m.safetensors", layout="torch")
    assert "layout_rule" not in str(caught.value) and "transpose" not in str(caught.value)
