"""Decay, scale, clip and noise: closed forms, correct rounding in every dtype, what is not finite untouched."""

from __future__ import annotations

import pickle
from fractions import Fraction
from functools import partial

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import weighttools as wt
from tests.strategies import random_array
from tests.transforms.edits import FLOATS, bits, matrices, normal, read, wide
from weighttools.core.dtypes import DTYPES

RATES = st.sampled_from([0.0, 1e-4, 0.01, 0.3, 1.0])


def nearest(value: Fraction, dtype: np.dtype) -> float:
    """The number of a dtype next to a fraction, ties to even; by trying the neighbours, in exact arithmetic."""
    with np.errstate(all="ignore"):
        near = np.array([float(abs(value))]).astype(dtype)
    middle = int(near.view(f"u{near.itemsize}")[0])
    patterns = np.array([middle + step for step in (-1, 0, 1) if middle + step >= 0], f"u{near.itemsize}")
    candidates = {float(x): int(p) for x, p in zip(wide(patterns.view(dtype)), patterns, strict=True) if np.isfinite(x)}
    best = min(candidates, key=lambda x: (abs(Fraction(x) - abs(value)), candidates[x] & 1))
    return best if value >= 0 else -best


@given(
    st.sampled_from(["float32", "float16", "bfloat16"]), st.integers(0, 2**32 - 1),
    st.sampled_from([0.1, 0.9, 1 / 3, 0.5, 1 + 2**-28, 1 + 2**-29, 1 - 2**-29, 1 - 2**-30]),
)  # fmt: skip
def test_results_are_correctly_rounded(dtype, seed, factor):
    array = normal((3, 5), dtype, seed)
    found = wt.scale(wt.TensorMap.from_arrays({"fc.weight": array}), by=factor)["fc.weight"].read()
    for value, result in zip(wide(array).ravel(), wide(found).ravel(), strict=True):
        assert result == nearest(Fraction(float(value)) * Fraction(factor), array.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("options", [{"rate": 0.1}, {"l1": 0.3}, {"rate": 0.1, "l1": 1 / 3}])
def test_midpoints_are_rounded_once(dtype, options):
    """Whole numbers times 0.9 are next to midpoints again and again; exact arithmetic knows the side."""
    array = (np.arange(1, 181, 2, dtype=np.float64).reshape(9, 10) * (3 if dtype == "float16" else 93217)).astype(
        DTYPES[dtype].numpy
    )
    decayed = wt.decay(wt.TensorMap.from_arrays({"fc.weight": array}), **options)
    factor, threshold = (Fraction(decayed.report[key]) for key in ("factor", "threshold"))
    for value, result in zip(wide(array).ravel(), wide(decayed["fc.weight"].read()).ravel(), strict=True):
        assert result == nearest(max(Fraction(0), Fraction(float(value)) * factor - threshold), array.dtype)


@given(st.sampled_from(["float8_e4m3fn", "float8_e5m2"]), st.sampled_from([0.1, 0.9, 1 / 3, 0.75]))
def test_every_fp8_number_is_correctly_rounded(dtype, factor):
    array = np.arange(256, dtype=np.uint8).view(DTYPES[dtype].numpy).reshape(16, 16)
    found = wt.scale(wt.TensorMap.from_arrays({"fc.weight": array}), by=factor)["fc.weight"].read()
    finite = np.isfinite(wide(array))
    wanted = [nearest(Fraction(x) * Fraction(factor), array.dtype) for x in wide(array)[finite].tolist()]
    assert wide(found)[finite].tolist() == wanted
    np.testing.assert_array_equal(bits(found)[~finite], bits(array)[~finite])


@pytest.mark.parametrize("dtype", [name for name in FLOATS if DTYPES[name].bits <= 16])
def test_large_tensors_are_looked_up_as_small_ones_are_computed(dtype):
    """Every bit pattern, in a tensor large enough for a table and in one that is not."""
    patterns = np.arange(1 << DTYPES[dtype].bits, dtype=f"u{DTYPES[dtype].bits // 8}").view(DTYPES[dtype].numpy)
    large = np.concatenate([patterns] * (2 * 65536 // patterns.size)).reshape(2, -1)
    options = {"rate": 0.1, "l1": 0.01}
    small, tabled = (
        wt.decay(wt.TensorMap.from_arrays({"fc.weight": a}), **options) for a in (patterns[None, :65536], large)
    )
    assert (type(small["fc.weight"].decode.fn).__name__, type(tabled["fc.weight"].decode.fn).__name__) == (
        "Rounded",
        "Tabled",
    )
    wanted = bits(small["fc.weight"].read())
    np.testing.assert_array_equal(
        bits(tabled["fc.weight"].read()).reshape(-1, patterns.size), np.repeat(wanted, 2 * 65536 // patterns.size, 0)
    )


@given(matrices(), RATES, RATES, st.sampled_from([1.0, 0.1]), st.integers(1, 5), st.integers(1, 40))
def test_what_is_not_finite_keeps_its_bits(arrays, rate, l1, lr, steps, block):
    assume(rate or l1)
    found = read(wt.decay(wt.TensorMap.from_arrays(arrays), rate=rate, l1=l1, lr=lr, steps=steps), block)
    for name, array in arrays.items():
        odd = ~np.isfinite(wide(array))
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(bits(found[name])[odd], bits(array)[odd])
        assert np.isfinite(wide(found[name])[~odd]).all()


@given(st.integers(0, 2**32 - 1), RATES, RATES, st.sampled_from([1.0, 0.1]), st.integers(1, 8))
def test_many_steps_are_one(seed, rate, l1, lr, steps):
    """n steps one by one, in torch and in ours, are the closed form."""
    assume(rate or l1)
    array = normal((4, 5), "float64", seed)
    by_step = torch.from_numpy(array.copy())
    repeated = wt.TensorMap.from_arrays({"fc.weight": array})
    at_once = wt.decay(repeated, rate=rate, l1=l1, lr=lr, steps=steps)["fc.weight"].read()
    for _ in range(steps):
        by_step = torch.nn.functional.softshrink(by_step * (1 - lr * rate), lr * l1)
        repeated = wt.decay(repeated, rate=rate, l1=l1, lr=lr)
    np.testing.assert_allclose(at_once, by_step.numpy(), rtol=1e-12, atol=1e-15 * steps)
    np.testing.assert_allclose(repeated["fc.weight"].read(), at_once, rtol=1e-12, atol=1e-15 * steps)


def test_decay_is_adamw_s():
    """With no gradient, AdamW does nothing else."""
    array = normal((6, 7), "float32", 0)
    weight = torch.nn.Parameter(torch.from_numpy(array.copy()))
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.1)
    for _ in range(20):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    found = wt.decay(wt.TensorMap.from_arrays({"fc.weight": array}), rate=0.1, lr=0.01, steps=20)
    np.testing.assert_allclose(found["fc.weight"].read(), weight.detach().numpy(), rtol=20 * 2**-23)


@given(st.sampled_from(FLOATS), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.5]))
def test_clip_by_value(dtype, seed, most):
    array = random_array(DTYPES[dtype], (4, 6), seed)
    found = wt.clip(wt.TensorMap.from_arrays({"fc.weight": array}), value=most)["fc.weight"].read()
    finite = np.isfinite(wide(array))
    np.testing.assert_array_equal(wide(found)[finite], np.clip(wide(array), -most, most)[finite])
    np.testing.assert_array_equal(bits(found)[~finite], bits(array)[~finite])


def test_clip_by_norm():
    arrays = {"a.weight": normal((5, 6), "float64", 0), "b.weight": normal((5, 6), "float64", 1) * 1e-3}
    clipped = wt.clip(wt.TensorMap.from_arrays(arrays), norm=2.0)
    theirs = torch.renorm(torch.from_numpy(arrays["a.weight"])[None], 2, 0, 2.0)[0].numpy()
    np.testing.assert_allclose(clipped["a.weight"].read(), theirs, rtol=1e-6)
    assert np.linalg.norm(clipped["a.weight"].read()) == pytest.approx(2.0, rel=1e-12)
    assert clipped["b.weight"].read().tobytes() == arrays["b.weight"].tobytes()
    assert clipped.report["n_changed"] == 1 and clipped.report["norms"]["a.weight"] == pytest.approx(
        np.linalg.norm(arrays["a.weight"])
    )


def test_noise_is_normal_and_knows_its_place():
    tensor_map = wt.TensorMap.from_arrays({name: np.zeros((400, 500)) for name in ("a.weight", "b.weight")})
    noisy = wt.noise(tensor_map, std=0.5, seed=11)
    a, b = (noisy[name].read().ravel() for name in noisy)
    from scipy import stats

    for values in (a, b):
        assert stats.kstest(values / 0.5, "norm").pvalue > 1e-4
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 5 / np.sqrt(a.size)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
    np.testing.assert_array_equal(read(noisy, 777)["a.weight"].ravel(), a)
    assert not np.array_equal(wt.noise(tensor_map, std=0.5, seed=12)["a.weight"].read().ravel(), a)


def test_only_floating_weights_change():
    arrays = {
        "embed.weight": np.ones((3, 4), np.float32), "l.0.norm.weight": np.ones(4, np.float32),
        "l.0.fc.bias": np.ones(4, np.float32), "l.0.fc.weight": np.ones((3, 4), ml_dtypes.bfloat16),
        "l.0.ln_1.weight": np.ones((2, 2), np.float32), "n": np.ones((2, 2), np.int64),
        "mask": np.ones((2, 2), bool), "z.weight": np.ones((2, 2), np.complex64),
        "bn.running_mean": np.ones((2, 2), np.float32), "optimizer.state.0.exp_avg": np.ones((2, 2), np.float32),
    }  # fmt: skip
    tensor_map = wt.TensorMap.from_arrays(arrays)

    def changed(**which):
        after = wt.scale(tensor_map, by=2.0, **which).read()
        return {name for name in arrays if after[name].tobytes() != arrays[name].tobytes()}

    assert changed() == {"l.0.fc.weight"}
    every = {"embed.weight", "l.0.norm.weight", "l.0.fc.bias", "l.0.fc.weight", "l.0.ln_1.weight"}
    assert changed(include_all=True) == every
    assert changed(include_all=True, exclude=["l.0.*"]) == {"embed.weight"}
    assert changed(include_all=True, include=["*bias", "n"]) == {"l.0.fc.bias"}
    with pytest.raises(wt.WeighttoolsError, match="include_all takes norms"):
        wt.scale(tensor_map, by=2.0, include=["*bias"])
    with pytest.raises(wt.WeighttoolsError, match="matches no tensor"):
        wt.scale(tensor_map, by=2.0, include=["nothing*"])


def test_a_tied_embedding_is_an_embedding():
    arrays = {"lm_head.weight": np.ones((3, 4), np.float32), "fc.weight": np.ones((3, 4), np.float32)}
    tied = wt.TensorMap.from_arrays(arrays, {}, {"model.embed_tokens.weight": "lm_head.weight"})
    assert wt.scale(tied, by=2.0).report["names"] == ["fc.weight"]


def test_pipe_composes_lazily_and_reports(tmp_path):
    array = normal((4, 6), "float32", 3)
    array[0, 0] = np.nan
    before = wt.TensorMap.from_arrays({"fc.weight": array}, {"k": "v"})
    after = before.pipe(partial(wt.prune, sparsity=0.5), partial(wt.decay, rate=0.5), partial(wt.clip, value=0.1))
    assert [report["transform"] for report in after.origin.reports] == ["prune", "decay", "clip"]
    assert after.metadata == {"k": "v"} and before.report == {}
    record = wt.save(tmp_path / "a.safetensors", after)
    last = record["transforms"][-1]
    assert (last["n_elements"], last["n_zero"], last["n_nan"], last["n_inf"]) == (24, 12, 1, 0)
    found = wt.open(tmp_path / "a.safetensors")["fc.weight"].read()
    np.testing.assert_array_equal(found, after["fc.weight"].read())
    assert np.count_nonzero(found) == 12 and np.nanmax(np.abs(found)) == np.float32(0.1)


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        (wt.decay, {}, "nothing decays"),
        (wt.decay, {"rate": -1.0}, "rate -1.0 is out of range"),
        (wt.decay, {"rate": float("nan")}, "out of range"),
        (wt.decay, {"rate": 0.5, "lr": 3.0}, "change sign"),
        (wt.decay, {"rate": 0.5, "steps": 0}, "steps 0"),
        (wt.decay, {"rate": 0.5, "steps": 1.5}, "steps 1.5"),
        (wt.scale, {"by": float("inf")}, "out of range"),
        (wt.clip, {}, "one of value and norm"),
        (wt.clip, {"value": 1.0, "norm": 1.0}, "one of value and norm"),
        (wt.clip, {"norm": -1.0}, "out of range"),
        (wt.noise, {"std": 1.0, "seed": 0.5}, "seed 0.5"),
        (wt.noise, {"std": 1.0, "seed": True}, "seed True"),
        (wt.prune, {"sparsity": 0.5, "random": True, "seed": "x"}, "seed 'x'"),
        (wt.prune, {}, "one of sparsity and threshold"),
        (wt.prune, {"sparsity": 0.5, "threshold": 0.5}, "one of sparsity and threshold"),
        (wt.prune, {"sparsity": -0.1}, "sparsity -0.1 is out of range"),
        (wt.prune, {"sparsity": float("nan")}, "out of range"),
        (wt.prune, {"sparsity": 0.5, "scope": "x"}, "scope 'x'"),
        (wt.prune, {"threshold": -1.0}, "out of range"),
    ],
)  # fmt: skip
def test_refused(verb, options, message):
    tensor_map = wt.TensorMap.from_arrays({"fc.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(wt.WeighttoolsError, match=message):
        verb(tensor_map, **options)


VERBS = {
    "prune": partial(wt.prune, sparsity=0.5),
    "by tensor": partial(wt.prune, sparsity=0.5, scope="tensor"),
    "random": partial(wt.prune, sparsity=0.5, random=True),
    "2:4": partial(wt.prune, nm="2:4"),
    "rows": partial(wt.prune, structure="rows", sparsity=0.5),
    "columns": partial(wt.prune, structure="columns", sparsity=0.5, norm="inf"),
    "decay": partial(wt.decay, rate=0.5, l1=0.1),
    "clip": partial(wt.clip, norm=1.0),
    "noise": partial(wt.noise, std=1.0),
    "average": lambda tensor_map: wt.average([tensor_map, tensor_map]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_tensors_without_elements(verb, shape, tmp_path):
    array = np.zeros(shape, np.float32)
    after = VERBS[verb](wt.TensorMap.from_arrays({"fc.weight": array}))
    wt.save(tmp_path / "a.safetensors", after)
    found = wt.open(tmp_path / "a.safetensors")["fc.weight"].read()
    assert (found.shape, found.dtype) == (shape, array.dtype)


@pytest.mark.parametrize("verb", VERBS)
def test_the_source_is_not_touched(verb):
    array = normal((8, 8), "float32", 0)
    before = array.tobytes()
    after = VERBS[verb](wt.TensorMap.from_arrays({"fc.weight": array, "t.weight": array.T}))
    after.read()
    assert array.tobytes() == before
    copied = pickle.loads(pickle.dumps(after))  # as any executor may do
    assert all(copied[name].read().tobytes() == after[name].read().tobytes() for name in after)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("model.embed_tokens.weight", "embeddings"), ("transformer.wte.weight", "embeddings"),
        ("token_embd.weight", "embeddings"), ("shared.weight", "embeddings"),
        ("bert.embeddings.word_embeddings.weight", "embeddings"), ("embedding/embeddings:0", "embeddings"),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", None), ("bnet.weight", None), ("fc.weight", None),
        ("h.0.ln_1.weight", "norms"), ("layer.0.LayerNorm.weight", "norms"), ("bn1.weight", "norms"),
        ("fc.bias", "norms"), ("experts.gate_up_proj_bias", "norms"), ("fc.weight_scale_inv", "scales"),
        ("rope_freqs.weight", "buffers"), ("bn1.running_var", "buffers"),
    ],
)  # fmt: skip
def test_rules_by_name(name, rule):
    arrays = {name: np.ones((2, 2), np.float32), "other.proj.weight": np.ones((2, 2), np.float32)}
    left = wt.scale(wt.TensorMap.from_arrays(arrays), by=2.0).report["left_alone"]
    assert [key.split()[0] for key in left] == ([rule] if rule else [])


def test_what_is_drawn_for_one_use_is_independent_of_another():
    """Of one seed and name: initial weights, noise, and what random pruning drops."""
    blank = wt.TensorMap.from_arrays({"a.weight": np.zeros((300, 400))})
    drawn = wt.init(blank, method="normal", std=1.0, seed=3)["a.weight"].read().ravel()
    noise = wt.noise(blank, std=1.0, seed=3)["a.weight"].read().ravel()
    dropped = ~wt.masks(wt.prune(blank, sparsity=0.5, random=True, seed=3))["a.weight"].read().ravel()
    found = np.corrcoef([drawn, noise, dropped, np.abs(drawn), np.abs(noise)])
    assert np.abs(found[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(drawn.size)
    assert np.abs(found[3:, :3]).max() < 5 / np.sqrt(drawn.size)
