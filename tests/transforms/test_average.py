"""Averages: against torch, numbers worked by hand, and the recursion itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.torch_arrays import to_torch
from tests.transforms.edits import FLOATS, TORCH_FLOATS, normal, read, wide


@given(
    st.sampled_from(TORCH_FLOATS),
    st.integers(0, 2**32 - 9),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=4),
    st.integers(1, 20),
)
def test_weighted_mean_is_torch_s(dtype, seed, weights, block):
    if not sum(weights):
        weights = [w + 1 for w in weights]
    arrays = [normal((3, 4), dtype, seed + i) for i in range(len(weights))]
    found = wt.average([wt.TensorMap.from_arrays({"bias": a}) for a in arrays], weights=weights)
    double = sum(w * to_torch(a).to(torch.float64) for w, a in zip(weights, arrays, strict=True)) / sum(weights)
    np.testing.assert_array_equal(
        wide(read(found, block)["bias"]), double.to(getattr(torch, dtype)).to(torch.float64).numpy()
    )


@given(st.integers(0, 2**32 - 9), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(2, 6))
def test_ema_is_the_recursion(seed, decay, n):
    arrays = [normal((3, 4), "float64", seed + i) for i in range(n)]
    found = wt.average([wt.TensorMap.from_arrays({"w": a}) for a in arrays], ema=decay)["w"].read()
    moving = arrays[0]
    for array in arrays[1:]:
        moving = decay * moving + (1 - decay) * array
    np.testing.assert_allclose(found, moving, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_mean_of_one_thing_is_itself(dtype):
    array = normal((7, 9), dtype, 4)
    found = wt.average([wt.TensorMap.from_arrays({"w": array})] * 3)["w"].read()
    if dtype == "float64":  # a third of three times x may be its neighbour
        np.testing.assert_allclose(found, array, rtol=2**-52)
    else:
        assert found.tobytes() == array.tobytes()


def test_integers_are_copied_and_said():
    first, second = ({"n": np.array([k]), "m": np.array([k > 1]), "w": np.array([float(k)])} for k in (1, 3))
    found = wt.average([wt.TensorMap.from_arrays(a) for a in (first, second)])
    assert {name: tensor.read().tolist() for name, tensor in found.items()} == {"n": [1], "m": [False], "w": [2.0]}
    assert found.report["copied"] == ["n", "m"] and found.report["weights"] == [0.5, 0.5]


def test_patterns_choose_what_is_averaged():
    first, second = ({"a": np.array([float(k)]), "b": np.array([float(k)])} for k in (1, 3))
    found = wt.average([wt.TensorMap.from_arrays(a) for a in (first, second)], include=["b"])
    assert (found["a"].read()[0], found["b"].read()[0]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ({"w": np.zeros((2, 3))}, {}, r"'w' is float64 \(2, 3\), not a float \(2, 2\)"),
        ({"w": np.zeros((2, 2), int)}, {}, "not a float"),
        ({"v": np.zeros((2, 2))}, {}, "no tensor 'w' to average"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0]}, "1 weights for 2 checkpoints"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0, -1.0]}, "sum is not 0"),
        ({"w": np.zeros((2, 2))}, {"weights": [1.0, float("nan")]}, "finite"),
        ({"w": np.zeros((2, 2))}, {"ema": 1.5}, "ema 1.5"),
        ({"w": np.zeros((2, 2))}, {"ema": 0.5, "weights": [1.0, 1.0]}, "exclude each other"),
        ({"w": np.zeros((2, 2))}, {"include": ["x"]}, "matches no tensor"),
        (None, {}, "two or more"),
    ],
)
def test_refused(second, options, message):
    maps = [wt.TensorMap.from_arrays(a) for a in ({"w": np.zeros((2, 2))}, second) if a is not None]
    with pytest.raises(wt.WeighttoolsError, match=message):
        wt.average(maps, **options)


def state(tmp_path, name, **tensors):
    """A checkpoint that torch writes."""
    torch.save(tensors, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ties_are_each_files_own(order, tmp_path):
    shared = torch.ones(2, 2)
    tied = state(tmp_path, "a.pt", **{"wte.weight": shared, "lm_head.weight": shared})
    loose = state(tmp_path, "b.pt", **{"wte.weight": 3 * torch.ones(2, 2), "lm_head.weight": 7 * torch.ones(2, 2)})
    paths = [(tied, loose)[i] for i in order]
    found = wt.average(paths)
    read = [torch.load(path) for path in paths]
    for name in ("wte.weight", "lm_head.weight"):
        assert torch.equal(to_torch(found[name].read()), (read[0][name] + read[1][name]) / 2)
    assert not found.aliases
    assert found.report["untied"] == (["lm_head.weight"] if order == (0, 1) else [])
    assert any("lm_head.weight" in note for note in found.origin.notes) == (order == (0, 1))
    both = wt.average([tied, tied])
    assert list(both) == ["wte.weight"] and dict(both.aliases) == {"lm_head.weight": "wte.weight"}


def maps_of(*maps):
    return [wt.TensorMap.from_arrays({n: np.full((2, 2), float(v)) for n, v in one.items()}) for one in maps]


def test_what_not_all_have_is_an_error_that_names_it_and_the_option():
    first, second = {"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 4, "c": 5}
    for maps, name in (((first | {"x": 1}, second), "no tensor 'x'"), ((first, second | {"x": 1}), "it has 'x'")):
        with pytest.raises(wt.WeighttoolsError, match=f"{name}.*missing keep"):
            wt.average(maps_of(*maps))
        kept, dropped = (wt.average(maps_of(*maps), missing=how) for how in ("keep", "drop"))
        assert {n: t.read()[0, 0] for n, t in kept.items()} == {"a": 2, "b": 3, "c": 4, "x": 1}
        assert list(dropped) == ["a", "b", "c"]
        for found in (kept, dropped):
            assert found.report["not_in_all"] == ["x"] and any("not in all files" in n for n in found.origin.notes)
    with pytest.raises(wt.WeighttoolsError, match="error, keep, drop"):
        wt.average(maps_of(first, second), missing="ignore")
    assert wt.average(maps_of(first | {"x": 9}, second), exclude=["x"])["x"].read()[0, 0] == 9


def test_the_mean_of_what_some_have_is_over_them():
    maps = maps_of({"a": 1, "b": 1}, {"a": 2, "b": 2, "x": 4}, {"a": 3, "b": 3, "x": 8})
    found = wt.average(maps, weights=[1, 1, 3], missing="keep")
    assert found["x"].read()[0, 0] == (1 * 4 + 3 * 8) / 4
    assert found["a"].read()[0, 0] == (1 + 2 + 9) / 5


@pytest.mark.parametrize("missing", ["error", "keep", "drop"])
def test_different_models_are_called_so(missing):
    maps = maps_of({"a": 1, "b": 1, "c": 1}, {"a": 1, "d": 1, "e": 1})
    with pytest.raises(wt.WeighttoolsError, match="only 1 of 5 tensors fit: these are not the same model"):
        wt.average(maps, missing=missing)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["spectral_norm", "parametrizations.spectral_norm"])
def test_spectral_norms_vectors_are_the_firsts(kind, tmp_path):
    from torch import nn
    from torch.nn.utils import parametrizations, spectral_norm

    norm = spectral_norm if kind == "spectral_norm" else parametrizations.spectral_norm
    nets = []
    for seed in range(3):
        torch.manual_seed(seed)
        nets.append(nn.Sequential(norm(nn.Linear(5, 5)), nn.BatchNorm1d(5)))
        nets[-1](torch.randn(8, 5))
        torch.save(nets[-1].state_dict(), tmp_path / f"{seed}.pt")
    paths = [tmp_path / f"{seed}.pt" for seed in range(3)]
    found = wt.average(paths)
    learns = dict(nets[0].named_parameters())
    states = [torch.load(path) for path in paths]
    for name, tensor in found.items():
        mean = sum(s[name].double() for s in states) / 3
        is_averaged = name in learns or "running" in name
        wanted = mean.to(states[0][name].dtype) if is_averaged else states[0][name]
        assert torch.equal(to_torch(tensor.read()), wanted), name
    assert found.report["left_alone"]["copied from the first: vectors of spectral norm"] == 2
    assert any("2 running statistics averaged too" in note for note in found.origin.notes)
    nets[0].load_state_dict({n: to_torch(t.read()) for n, t in found.items()})
    for verb in (wt.scale, wt.decay, wt.noise, wt.prune, wt.clip, wt.init):
        options = {"scale": {"by": 0.5}, "noise": {"std": 0.1}, "decay": {"rate": 0.1}, "prune": {"sparsity": 0.5}}
        options |= {"clip": {"value": 0.01}, "init": {"method": "normal", "std": 1.0}}
        changed = verb(paths[0], include_all=True, **options[verb.__name__])
        for name in set(states[0]) - set(learns):
            assert torch.equal(to_torch(changed[name].read()), states[0][name]), (verb.__name__, name)


def test_prunings_masks_are_the_firsts(tmp_path):
    from torch import nn
    from torch.nn.utils import prune

    masks = []
    for seed in range(2):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(8, 8))
        prune.random_unstructured(net[0], "weight", amount=0.5)
        torch.save(net.state_dict(), tmp_path / f"{seed}.pt")
        masks.append(net[0].weight_mask)
    found = wt.average([tmp_path / "0.pt", tmp_path / "1.pt"])
    assert not torch.equal(*masks) and torch.equal(to_torch(found["0.weight_mask"].read()), masks[0])
    assert any("masks" in note for note in found.origin.notes)


def test_scaled_float8_is_not_averaged():
    arrays = {"q.weight": normal((4, 4), "float8_e4m3fn", 0), "q.weight_scale_inv": np.ones((1, 1), np.float32)}
    maps = [wt.TensorMap.from_arrays(arrays)] * 2
    with pytest.raises(
        wt.WeighttoolsError,
        match="is packed as fp8 with scales: its weights cannot be averaged as they are, first 'q.weight'",
    ):
        wt.average(maps)


@pytest.mark.parametrize("end", ["_scale", "_scale_inv"])
@pytest.mark.parametrize("shape", [(4, 4), (8,)])
@pytest.mark.parametrize("packed_first", [True, False])
def test_scaled_float8_of_any_name_in_any_of_the_files_is_not_averaged(
    end: str, shape: tuple[int, ...], packed_first: bool
):
    scaled = {"q": normal(shape, "float8_e4m3fn", 0), f"q{end}": np.ones(1, np.float32)}
    plain = (
        {"q": normal(shape, "float8_e4m3fn", 1), f"q{end}": np.ones(1, np.float32)}
        if packed_first
        else {"q": normal(shape, "float32", 1)}
    )
    maps = [wt.TensorMap.from_arrays(scaled), wt.TensorMap.from_arrays(plain)]
    with pytest.raises(wt.WeighttoolsError, match="is packed as fp8 with scales"):
        wt.average(maps if packed_first else maps[::-1])


def test_training_state_that_one_file_has_is_left_as_it_is(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "b.pt")
    both, turned = (
        wt.average([tmp_path / one, tmp_path / other]) for one, other in (("a.pt", "b.pt"), ("b.pt", "a.pt"))
    )
    np.testing.assert_array_equal(both["weight"].read(), turned["weight"].read())
    assert set(turned) == {"weight", "bias"} and any(name.startswith("optimizer.") for name in both)
