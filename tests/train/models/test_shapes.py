"""Functions found from shapes alone, against torch and Keras."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import weighttools as wt
from weighttools import TensorMap, train
from weighttools.errors import SpecError, UnsupportedError
from weighttools.train import models, value_and_grad

R = np.random.default_rng(5)


def held(module: nn.Module) -> dict[str, np.ndarray]:
    return {n: t.detach().double().numpy() for n, t in module.state_dict().items()}


def forward(module: nn.Module, x: np.ndarray) -> np.ndarray:
    return module.double()(torch.tensor(x)).detach().numpy()


@pytest.mark.parametrize("sizes", [(4, 3), (4, 8, 3), (5, 5, 5, 5), (7, 1), tuple([6] * 13)])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_chains_of_weighted_sums_are_those_of_torch(sizes: tuple[int, ...], is_sorted: bool) -> None:
    parts: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        parts += [nn.Linear(a, b, bias=len(parts) != 2), nn.ReLU()]
    module = nn.Sequential(*parts[:-1])
    p, x = held(module), R.standard_normal((3, sizes[0]))
    names = sorted(p) if is_sorted else list(p)  # as safetensors files are: "10" before "2"
    model = models.from_shapes({n: p[n].shape for n in names})
    assert (model.kind, model.size, model.n_layers) == ("mlp", sizes[-2], len(sizes) - 1)
    assert np.abs(model(p, x) - forward(module, x)).max() < 1e-12
    assert model.hidden(p, x).shape == (3, sizes[-2]) and model.checked(p).unexpected == ()


def test_gradients_are_those_of_torch() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    p, x = held(module), R.standard_normal((2, 2, 8, 8))
    model = models.from_shapes(p, pool="last")
    module(torch.tensor(x)).square().sum().backward()
    _, grads = value_and_grad(lambda p: (model(p, x) * model(p, x)).sum(), p)
    for name, tensor in module.named_parameters():
        assert tensor.grad is not None and np.allclose(grads[name], tensor.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu"])
def test_another_activation(activation: str) -> None:
    act = {"tanh": nn.Tanh(), "gelu": nn.GELU(), "silu": nn.SiLU()}[activation]
    module = nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 2))
    x = R.standard_normal((3, 4))
    model = models.from_shapes(held(module), activation=activation)
    assert np.abs(model(held(module), x) - forward(module, x)).max() < 1e-12


def net(padding: int | str, pool: str) -> nn.Sequential:
    each = [nn.MaxPool2d(2)] if pool == "each" else []
    last = [nn.MaxPool2d(2)] if pool != "none" else []
    convolutions = [
        nn.Conv2d(1, 4, 3, padding=padding),
        nn.ReLU(),
        *each,
        nn.Conv2d(4, 5, 5, padding=padding),
        nn.ReLU(),
        *last,
    ]
    module = nn.Sequential(*convolutions, nn.Flatten())
    n = module(torch.zeros(1, 1, 20, 18)).shape[1]
    return nn.Sequential(*module, nn.Linear(n, 7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize("padding", [0, "same"])
@pytest.mark.parametrize("pool", ["none", "each", "last"])
def test_small_convolutional_nets_are_those_of_torch(padding: int | str, pool: str) -> None:
    module, x = net(padding, pool), R.standard_normal((2, 1, 20, 18))
    model = models.from_shapes(held(module))
    assert model.kind == "cnn" and model.n_layers == 4
    assert np.abs(model(held(module), x) - forward(module, x)).max() < 1e-12
    with pytest.raises(SpecError, match="can come to .* in 0 ways"):
        model(held(module), R.standard_normal((2, 1, 61, 61)))


def test_what_the_size_leaves_open_has_to_be_said() -> None:
    module = nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    p, x = held(module), R.standard_normal((2, 3, 9))
    with pytest.raises(SpecError, match=r"in \d ways; expected one; say which: padding='valid'"):
        models.from_shapes(p)(p, x)
    model = models.from_shapes(p, padding="same", pool="none", flatten=False)
    assert np.abs(model(p, x) - forward(module, x)).max() < 1e-12
    with pytest.raises(SpecError, match="3 of space|3: batch"):
        model(p, x[0])


SAID: dict[str, tuple[dict[str, Any], list[nn.Module]]] = {
    "stride": ({"stride": 2}, [nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU()]),
    "strides": ({"stride": [2, 1]}, [nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()]),
    "same": (
        {"stride": 2, "padding": "same"},
        [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 5, stride=2, padding=2), nn.ReLU()],
    ),
    "zeros": ({"padding": 1}, [nn.Conv2d(1, 4, 5, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 4, padding=1), nn.ReLU()]),
    "mean-last": (
        {"pool": "mean-last"},
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AvgPool2d(2)],
    ),
    "mean-each": (
        {"pool": "mean-each"},
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AvgPool2d(2)],
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_no_size_tells_can_be_said(kind: str, tmp_path: Any) -> None:
    said, layers = SAID[kind]
    body = nn.Sequential(*layers, nn.Flatten())
    module = nn.Sequential(*body, nn.Linear(body(torch.zeros(1, 1, 15, 18)).shape[1], 3))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    model = train.model(tmp_path / "m.pt", **said)
    x = R.standard_normal((2, 1, 15, 18)).astype(np.float32)
    expected = module(torch.tensor(x)).detach().numpy()
    assert np.abs(model.run(model.params, {"inputs": x}) - expected).max() < 1e-5
    p, x = held(module), x.astype(np.float64)
    assert np.abs(models.from_shapes(p, **said)(p, x) - forward(module, x)).max() < 1e-12


def test_what_is_assumed_is_said(tmp_path: Any) -> None:
    def notes(*layers: nn.Module, **said: Any) -> tuple[str, ...]:
        torch.save(nn.Sequential(*layers).state_dict(), tmp_path / "m.pt")
        return train.model(tmp_path / "m.pt", **said).notes

    net = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    by_size = "padding, pooling (maxima of 2), flattening by the size of the inputs"
    line = "assumed, as no file says: {} (train.model takes others)"
    assert notes(*net)[1:] == (line.format(f"relu between the layers; stride 1; {by_size}"),)
    assert notes(*net, stride=2, activation="tanh")[1:] == (line.format(by_size),)
    assert notes(*net, stride=2, padding="valid", pool="none", flatten=True, activation="relu")[1:] == ()
    assert notes(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))[1:] == (line.format("relu between the layers"),)
    assert notes(nn.Linear(3, 4))[1:] == ()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"stride": 0}, "stride 0; expected a number of 1 or more"),
        ({"stride": [1, 2]}, "2 strides for 1 convolutions"),
        ({"padding": -1}, "padding -1; expected 'valid', 'same' or a number"),
        ({"pool": "max"}, "pool 'max'; expected 'none', 'each'"),
        ({"flatten": "yes"}, "flatten 'yes'"),
    ],
)
def test_what_is_said_wrongly_is_one_line(said: dict[str, Any], message: str) -> None:
    shapes = {"a.weight": (4, 1, 3, 3), "b.weight": (3, 4)}
    with pytest.raises(SpecError, match=message):
        models.from_shapes(shapes, **said)({n: np.zeros(s) for n, s in shapes.items()}, np.zeros((1, 1, 3, 3)))
    with pytest.raises(SpecError, match="expected a net with convolutions"):
        models.from_shapes({"b.weight": (3, 4)}, stride=1)


def test_nothing_is_said_of_what_a_configuration_describes(tmp_path: Any) -> None:
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    wt.save(tmp_path / "model.safetensors", TensorMap.from_arrays({"a.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(SpecError, match=r"stride is said, and config\.json says all of a bert"):
        train.model(tmp_path, stride=1)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    import keras

    return keras


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
@pytest.mark.parametrize("is_cnn", [False, True])
def test_files_of_keras_run_as_they_are(tmp_path: Any, keras: Any, suffix: str, is_cnn: bool) -> None:
    layers = keras.layers
    first = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()] if is_cnn else []
    shape = (9, 8, 2) if is_cnn else (5,)
    module = keras.Sequential([keras.Input(shape), *first, layers.Dense(6, activation="relu"), layers.Dense(3)])
    module.compile(optimizer="adam", loss="mse")
    module.optimizer.build(module.trainable_variables)  # the file has an optimizer's state too
    x = R.standard_normal((4, *shape)).astype(np.float32)
    path = tmp_path / f"m{suffix}"
    module.save_weights(path) if suffix == ".weights.h5" else module.save(path)
    checkpoint = models.load(path)
    assert checkpoint.architecture.kind == ("cnn" if is_cnn else "mlp")
    found = checkpoint.architecture(checkpoint.params, x)
    assert np.abs(found - module(torch.tensor(x)).detach().numpy()).max() < 1e-5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("pooling", ["AveragePooling2D", "MaxPooling2D", "GlobalAveragePooling2D", None])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_file_of_keras_says_its_geometry(tmp_path: Any, keras: Any, pooling: str | None, strides: int) -> None:
    layers = keras.layers
    last = [getattr(layers, pooling)(*([] if "Global" in pooling else [2]))] if pooling else []
    module = keras.Sequential(
        [
            keras.Input((12, 12, 2)),
            layers.Conv2D(4, 3, activation="tanh", strides=strides),
            layers.Conv2D(5, 2, activation="tanh"),
            *last,
            *([] if pooling == "GlobalAveragePooling2D" else [layers.Flatten()]),
            layers.Dense(3),
        ]
    )
    module.save(tmp_path / "m.keras")
    x = R.standard_normal((4, 12, 12, 2)).astype(np.float32)
    model = train.model(tmp_path / "m.keras")
    assert len(model.notes) == 1 or "assumed" not in model.notes[1]
    found = model.run(model.params, {"inputs": x})
    assert np.abs(found - module(torch.tensor(x)).detach().numpy()).max() < 1e-5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_a_net_of_keras_that_is_no_plain_stack_is_refused(tmp_path: Any, keras: Any) -> None:
    layers = keras.layers
    for said, parts in {
        "MaxPooling2D of pool_size": [layers.Conv2D(4, 3), layers.MaxPooling2D(3)],
        "MaxPooling2D of strides": [layers.Conv2D(4, 3), layers.MaxPooling2D(2, strides=1)],
        "Conv2D of dilation_rate": [layers.Conv2D(4, 3, dilation_rate=2)],
        "UpSampling2D": [layers.Conv2D(4, 3), layers.UpSampling2D()],
        "BatchNormalization": [layers.Conv2D(4, 3), layers.BatchNormalization()],
        "convolutions of padding same and valid": [layers.Conv2D(4, 3), layers.Conv2D(4, 3, padding="same")],
        "pooling after some": [layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.Conv2D(4, 3)],
    }.items():
        module = keras.Sequential([keras.Input((12, 12, 2)), *parts, layers.Flatten(), layers.Dense(3)])
        module.save(tmp_path / "m.keras")
        with pytest.raises(UnsupportedError, match=f"the net has {said}"):
            train.model(tmp_path / "m.keras")
    uneven = keras.Sequential(
        [keras.Input((12, 12, 2)), layers.Conv2D(4, 3, strides=2, padding="same"), layers.Flatten(), layers.Dense(3)]
    )
    uneven.save(tmp_path / "m.keras")
    model = train.model(tmp_path / "m.keras", activation="relu")
    with pytest.raises(SpecError, match="pads one side more than the other"):
        model.run(model.params, {"inputs": np.zeros((1, 12, 12, 2), np.float32)})


def test_a_batch_norm_is_named_with_what_it_computes() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(UnsupportedError, match=r"not understood: 1\.\w+.* \(x - p\['1\.running_mean'\]\) / sqrt"):
        models.from_shapes(held(module))


def test_bare_names_are_told_by_their_biases() -> None:
    from sklearn.neural_network import MLPClassifier

    x, y = R.standard_normal((40, 5)), R.integers(0, 3, 40)
    fitted = MLPClassifier((7, 4), max_iter=1, random_state=0)
    with pytest.warns(UserWarning):
        fitted.fit(x, y)
    p = {f"W{i}": w for i, w in enumerate(fitted.coefs_)} | {f"b{i}": b for i, b in enumerate(fitted.intercepts_)}
    scores = models.from_shapes(p)(p, x)
    e = np.exp(scores - scores.max(1, keepdims=True))
    assert np.abs(e / e.sum(1, keepdims=True) - fitted.predict_proba(x)).max() < 1e-12


@pytest.mark.parametrize(
    ("shapes", "error", "said"),
    [
        ({"a.weight": (3, 4), "lstm.weight_hh_l0": (4, 4)}, UnsupportedError, "not understood: lstm.weight_hh_l0"),
        ({"a.weight": (3, 4), "n.running_mean": (4,)}, UnsupportedError, r"def model\(p, x\): return train.ops.linear"),
        ({"a.weight": (3, 4), "c.bias": (3,)}, UnsupportedError, "not understood: c.bias"),
        ({}, UnsupportedError, "0 weights"),
        ({"a.weight": (3, 4), "a.bias": (4,)}, SpecError, "a bias of 4; expected 3"),
        ({"a.weight": (3, 4), "b.weight": (5, 6)}, SpecError, "a.weight gives 3, and b.weight takes 6"),
        ({"W": (4, 4), "b": (4,)}, SpecError, "say which layout"),
        ({"c.weight": (4, 2, 3, 3)}, SpecError, "no weighted sum at the end"),
        ({"a.weight": (0, 4)}, UnsupportedError, "a.weight"),
        ({"enc.weight": (4, 4), "mid.weight": (4, 4), "out.weight": (4, 4)}, SpecError, "more than one order"),
    ],
)
def test_what_is_no_chain_is_refused(shapes: dict[str, Any], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        models.from_shapes(shapes)


def test_an_order_can_be_said() -> None:
    shapes = {"b.weight": (4, 4), "a.weight": (4, 4)}
    model = models.from_shapes(shapes, order=["b.weight", "a.weight"])
    p = {n: R.standard_normal(s) for n, s in shapes.items()}
    x = R.standard_normal((2, 4))
    assert np.allclose(model(p, x), np.maximum(x @ p["b.weight"].T, 0) @ p["a.weight"].T)
    assert model.required == models.from_shapes(shapes).required  # which is the file's own: it is not sorted
    with pytest.raises(SpecError, match="order names other weights"):
        models.from_shapes(shapes, order=["b.weight"])
    with pytest.raises(SpecError, match="activation 'mish'"):
        models.from_shapes(shapes, activation="mish")
    with pytest.raises(SpecError, match="pool 3"):
        models.from_shapes(shapes, pool=3)  # type: ignore[arg-type]


def test_a_map_gives_its_shapes_alone() -> None:
    p = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
    checkpoint = models.load(wt.TensorMap.from_arrays(p))
    assert checkpoint.architecture(checkpoint.params, np.ones((1, 3), np.float32)).tolist() == [[3, 3]]


def test_a_counter_is_no_layer() -> None:
    counted = TensorMap.from_arrays({"step": np.array(7), "fc.weight": np.zeros((3, 4), np.float32)})
    net = models.from_shapes({name: tensor.spec for name, tensor in counted.items()}, layout="torch")
    assert net.required == ("fc.weight",)
    learnt = TensorMap.from_arrays({"scale": np.array(7.0), "fc.weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(UnsupportedError, match="not understood: scale"):
        models.from_shapes({name: tensor.spec for name, tensor in learnt.items()}, layout="torch")
