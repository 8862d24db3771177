"""Matching by content: what is one tensor under another name, order of axes, dtype, or in parts; and nothing else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.real import real_file
from tests.strategies import tensor_maps
from tests.thorough import at_most
from weighttools.core.tensormap import TensorMap

Arrays = dict[str, np.ndarray[Any, Any]]


def told(old: Arrays | TensorMap | Path, new: Arrays | TensorMap | Path, **options: Any) -> Any:
    maps = [TensorMap.from_arrays(one) if isinstance(one, dict) else one for one in (old, new)]
    return wt.diff(maps[0], maps[1], **options)


def matches(record: Any) -> set[tuple[str, str, str]]:
    return {(row["src"], row["dst"], row["how"]) for row in record["renamed"]}


def normal(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return found


@given(st.lists(st.sampled_from([(5, 7), (40,), (3, 3, 4, 6), (20, 1, 3)]), min_size=1, max_size=5), st.data())
def test_renamed_and_transposed_are_found(shapes: list[tuple[int, ...]], data: st.DataObject) -> None:
    old = {f"a{i}.w": normal(i, *shape) for i, shape in enumerate(shapes)}
    new, expected = {}, set()
    for i in data.draw(st.permutations(range(len(shapes)))):
        axes = data.draw(st.permutations(range(len(shapes[i]))))
        new[f"other{i}"] = np.ascontiguousarray(old[f"a{i}.w"].transpose(axes))
        kept = [axis for axis in axes if shapes[i][axis] > 1]
        expected.add((f"a{i}.w", f"other{i}", "renamed" if kept == sorted(kept) else "transposed"))
    record = told(old, new)
    assert matches(record) == expected and record["n_unchanged"] == len(shapes)
    assert not (record["same"] or record["added"] or record["removed"] or record["changed"])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float64])
def test_cast_is_found_either_way(dtype: Any) -> None:
    old, new = {"w": normal(0, 9, 11), "other": normal(1, 9, 11)}, {"v": normal(0, 9, 11).astype(dtype)}
    assert matches(told(old, new)) == {("w", "v", "cast")}
    assert matches(told(new, old)) == {("v", "w", "cast")}


@pytest.mark.parametrize("axis", [0, 1])
def test_joined_and_split(axis: int) -> None:
    parts = {f"h.{name}.weight": normal(i, 16, 16) for i, name in enumerate("qkv")}
    whole = {"h.c_attn.weight": np.concatenate(list(parts.values()), axis=axis)}
    joined = told(parts, whole)
    assert matches(joined) == {("h.q.weight + h.k.weight + h.v.weight", "h.c_attn.weight", "joined")}
    assert joined["n_unchanged"] == 1 and not joined["removed"] and not joined["added"]
    split = told(whole, parts)
    assert matches(split) == {("h.c_attn.weight", name, "split") for name in parts} and split["n_unchanged"] == 3


@pytest.mark.parametrize("shape", [(6, 9), (12, 12), (200, 200)])
def test_one_name_and_the_transpose_is_a_difference(shape: tuple[int, int]) -> None:
    one = normal(0, *shape)
    record = told({"w": one, "v": one}, {"w": np.ascontiguousarray(one.T), "v": one})
    assert matches(record) == {("w", "w", "transposed")} and not record["same"]
    assert record["changed"] == [] and record["reshaped"] == [] and record["n_unchanged"] == 2
    moved = np.ascontiguousarray(one.T)
    moved[0, 1] += 1
    trained = told({"w": one}, {"w": moved})
    if shape[0] != shape[1]:
        assert [row["n_changed"] for row in trained["changed"]] == [1]
    assert (matches(trained) == set()) == (shape[0] == shape[1]), "of a square, the shape does not tell"


def test_heads_that_take_turns_as_in_gpt_neox() -> None:
    """``query_key_value`` holds q, k and v of one head after the other (transformers, GPTNeoXAttention)."""
    heads, size, width = 4, 8, 32
    parts = {name: normal(i, heads * size, width) for i, name in enumerate(("q", "k", "v"))}
    fused = np.concatenate([one.reshape(heads, 1, size, width) for one in parts.values()], axis=1).reshape(-1, width)
    joined = told(parts, {"query_key_value": fused})
    assert matches(joined) == {("q + k + v", "query_key_value", "joined")} and joined["n_unchanged"] == 1
    split = told({"query_key_value": fused}, parts)
    assert matches(split) == {("query_key_value", name, "split") for name in parts} and split["n_unchanged"] == 3


def test_a_part_that_is_missing_or_doubled_is_no_whole() -> None:
    q, k, v = (normal(i, 16, 16) for i in range(3))
    for whole in ([q, k], [q, k, v, normal(9, 16, 16)], [q, q, k]):
        assert matches(told({"q": q, "k": k, "v": v}, {"w": np.concatenate(whole)})) <= {("q + k", "w", "joined")}
    assert matches(told({"q": q, "k": k}, {"w": np.concatenate([k, q])})) == {("k + q", "w", "joined")}
    assert matches(told({"q": q[:8]}, {"w": q})) == set()


def test_what_has_nothing_in_common_is_hardly_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of parts, no more than the beginnings of rows."""
    from weighttools.analyzers.compare import parts

    monkeypatch.setattr(parts, "fold_blocks", lambda folds, *args, **more: iter([pytest.fail() for _ in folds]))
    assert matches(told({f"a{i}": normal(i, 64, 64) for i in range(4)}, {"w": normal(9, 192, 64)})) == set()


def test_quantised_tensors_without_partners_are_not_decoded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peak memory stays well below one decoded tensor, whose blocks could be read in another order only from it."""
    from weighttools.analyzers.compare import parts

    monkeypatch.setattr(parts, "MOST_DECODED", 1 << 18, raising=False)
    save_file({"w": normal(0, 2048, 2048)}, tmp_path / "w.safetensors")
    wt.convert(tmp_path / "w.safetensors", tmp_path / "q.gguf", quantize="q8_0")
    other = {"v": normal(1, 512, 2048)}
    old = wt.open(tmp_path / "q.gguf")
    told(old, other, explain=False, threads=1)
    tracemalloc.start()
    record = told(old, other, explain=False, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert matches(record) == set() and peak < old["w"].nbytes * 3 // 4


@pytest.mark.parametrize("turned", [False, True])
def test_experts_in_a_stack(turned: bool) -> None:
    parts = {f"experts.{i}.w1.weight": normal(i, 12, 20) for i in range(5)}
    stack = np.stack([one.T if turned else one for one in parts.values()])
    record = told(parts, {"experts.w1": stack})
    assert matches(record) == {(" + ".join(parts), "experts.w1", "joined")} and record["n_unchanged"] == 1


def test_a_wrappers_name_before_all_is_taken_off() -> None:
    old = {f"layer.{i}.{kind}": normal(i, 6, 6) for i in range(3) for kind in ("weight", "bias")}
    new = {f"module.{name}": one + (name == "layer.1.bias") for name, one in old.items()}
    record = told(old, new)
    assert matches(record) == {(name, f"module.{name}", "renamed") for name in old}
    assert [row["name"] for row in record["changed"]] == ["module.layer.1.bias"]


@given(tensor_maps(aliases=False, metadata=False), st.integers(0, 3))
def test_unrelated_tensors_are_no_pairs(tensor_map: TensorMap, seed: int) -> None:
    old = {f"old.{i}": normal(seed + i, 8, 8) for i in range(3)}
    new = {f"new.{i}": normal(seed + 100 + i, 8, 8) for i in range(3)}
    assert matches(told(old, new)) == set()
    zeros = {"x": np.zeros(64, np.float32), "one": np.ones((4, 4)), "few": np.arange(3.0)}
    others = {"y": np.zeros(64, np.float32), "uno": np.ones((4, 4)), "some": np.arange(3.0)}
    assert matches(told(zeros, others)) == set(), "constants and a few numbers are no evidence"


def test_a_module_takes_its_constants_along() -> None:
    old = {"fc1.weight": normal(0, 8, 8), "fc1.bias": np.zeros(8, np.float32), "far.bias": np.zeros(8, np.float32)}
    new = {"dense.weight": normal(0, 8, 8), "dense.bias": np.zeros(8, np.float32)}
    record = told(old, new)
    assert matches(record) == {("fc1.weight", "dense.weight", "renamed"), ("fc1.bias", "dense.bias", "renamed")}
    assert [row["name"] for row in record["removed"]] == ["far.bias"]


def test_equal_tensors_go_by_the_nearest_names() -> None:
    one = normal(0, 8, 8)
    crossed = told({"enc.a": one, "enc.b": one}, {"x.b": one, "x.a": one})
    assert matches(crossed) == {("enc.a", "x.a", "renamed"), ("enc.b", "x.b", "renamed")}
    record = told({"embed": one, "lm_head": one}, {"tok_embed": one})
    assert matches(record) == {("embed", "tok_embed", "renamed")}
    assert [row["name"] for row in record["removed"]] == ["lm_head"]


@pytest.mark.parametrize("is_constant", [False, True])
def test_biases_go_with_their_weights(is_constant: bool) -> None:
    parts: Arrays = {f"a.{name}.weight": normal(i, 16, 12) for i, name in enumerate("qkv")}
    biases = {
        f"a.{name}.bias": np.zeros(16, np.float32) if is_constant else normal(9 + i, 16) for i, name in enumerate("qkv")
    }
    whole = {"a.qkv.weight": np.concatenate(list(parts.values())), "a.qkv.bias": np.concatenate(list(biases.values()))}
    joined = told(parts | biases, whole)
    assert ("a.q.bias + a.k.bias + a.v.bias", "a.qkv.bias", "joined") in matches(joined)
    assert joined["n_unchanged"] == 2 and not (joined["added"] or joined["removed"])
    split = told(whole, parts | biases)
    assert split["n_unchanged"] == 6 and not (split["added"] or split["removed"])


def test_rows_of_zeros_do_not_hide_a_part() -> None:
    parts = {name: normal(i, 16, 12) for i, name in enumerate("qkv")}
    for name, row in (("q", 0), ("q", 5), ("k", 5), ("k", 6), ("v", 15)):
        parts[name][row] = 0
    whole = {"w": np.concatenate(list(parts.values()))}
    assert matches(told(parts, whole)) == {("q + k + v", "w", "joined")}
    assert len(matches(told(whole, parts))) == 3


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_joined_and_cast(dtype: Any) -> None:
    parts = {name: normal(i, 16, 12) for i, name in enumerate("qkv")}
    whole = {"w": np.concatenate(list(parts.values())).astype(dtype)}
    record = told(parts, whole)
    assert matches(record) == {("q + k + v", "w", "joined")} and record["changed"][0]["rel_l2"] < 0.01
    assert len(matches(told(whole, parts))) == 3


def test_transposed_and_trained_further_under_one_name() -> None:
    one = normal(0, 12, 20)
    record = told({"w": one}, {"w": np.ascontiguousarray(one.T) + 0.01 * normal(1, 20, 12)})
    assert matches(record) == {("w", "w", "transposed")} and record["reshaped"] == []
    assert record["changed"][0]["rel_l2"] == pytest.approx(0.01, rel=0.2)
    other = told({"w": one}, {"w": normal(2, 20, 12)})
    assert matches(other) == set() and len(other["reshaped"]) == 1


def test_kerass_words_for_parts_are_known() -> None:
    old = {
        "bn/gamma": np.ones(8),
        "bn/beta": np.zeros(8),
        "bn/moving_mean": normal(0, 8),
        "bn/moving_variance": np.ones(8),
    }
    new = {"n.weight": np.ones(8), "n.bias": np.zeros(8), "n.running_mean": normal(0, 8), "n.running_var": np.ones(8)}
    expected = zip(old, new, strict=True)
    assert matches(told(old, new)) == {(one, other, "renamed") for one, other in expected}


def test_a_kernel_whose_axes_were_exchanged_under_one_name() -> None:
    kernel = normal(0, 3, 3, 8, 8)
    record = told({"w": kernel}, {"w": np.ascontiguousarray(kernel.transpose(0, 1, 3, 2))})
    assert matches(record) == {("w", "w", "transposed")} and record["n_unchanged"] == 1


@pytest.mark.parametrize("shape", [(40, 1), (1, 40), (1, 1, 40, 1)])
def test_an_axis_of_length_one_more_or_less_is_a_difference(shape: tuple[int, ...]) -> None:
    """torch refuses to load such a tensor, whatever its values."""
    old, new = {"s": normal(0, 40)}, {"s": normal(0, 40).reshape(shape)}
    for a, b in ((old, new), (new, old)):
        with pytest.raises(RuntimeError, match="size mismatch"):
            module = torch.nn.Module()
            module.register_parameter("s", torch.nn.Parameter(torch.tensor(a["s"])))
            module.load_state_dict({"s": torch.tensor(b["s"])})
        for options in ({}, {"ignore_dtype": True}, {"content": False}):
            record = told(a, b, **options)
            assert not record["same"]
            assert record["reshaped"] == [
                {"src": "s", "dst": "s", "before": list(a["s"].shape), "after": list(b["s"].shape)}
            ]
    assert told(old, new)["n_unchanged"] == 1
    renamed = told({"s": normal(0, 40)}, {"t": normal(0, 40).reshape(shape)})
    assert matches(renamed) == {("s", "t", "renamed")} and not renamed["same"]
    cast = told(old, {"s": new["s"].astype(np.float16)}, ignore_dtype=True)
    assert not cast["same"] and len(cast["reshaped"]) == 1


def test_content_can_be_left_alone() -> None:
    record = told({"a": normal(0, 8, 8)}, {"b": normal(0, 8, 8)}, content=False)
    assert record["renamed"] == [] and len(record["added"]) == len(record["removed"]) == 1


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_keras_against_torch(tmp_path: Path) -> None:
    layers = [keras.layers.Conv2D(6, 3), keras.layers.Flatten(), keras.layers.Dense(5)]
    net = keras.Sequential([keras.Input((5, 5, 3)), *layers])
    conv, conv_bias, dense, dense_bias = (
        np.asarray(value) + normal(i, *map(int, value.shape)) for i, value in enumerate(net.weights)
    )
    net.set_weights([conv, conv_bias, dense, dense_bias])
    net.save_weights(tmp_path / "m.weights.h5")
    turned = dense.reshape(3, 3, 6, 5).transpose(3, 2, 0, 1).reshape(5, -1)
    state = {"0.weight": conv.transpose(3, 2, 0, 1), "0.bias": conv_bias, "2.weight": turned, "2.bias": dense_bias}
    torch.save({name: torch.tensor(np.ascontiguousarray(one)) for name, one in state.items()}, tmp_path / "m.pt")
    record = told(tmp_path / "m.weights.h5", tmp_path / "m.pt")
    found = {(row["dst"], row["how"]) for row in record["renamed"]}
    assert found >= {("0.weight", "transposed"), ("2.weight", "transposed")} and record["changed"] == []


@pytest.mark.parametrize("quantize", [None, "q8_0"])
def test_gguf_against_its_source(tmp_path: Path, quantize: str | None) -> None:
    """By llama.cpp's names, and with its order of q's and k's rows."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=32, num_key_value_heads=2, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf", **({"quantize": quantize} if quantize else {}))
    record = told(tmp_path / "hf", tmp_path / "m.gguf")
    assert record["added"] == [] and record["removed"] == [] and record["reshaped"] == []
    if quantize is None:
        assert record["changed"] == [] and record["n_unchanged"] == record["n_before"]
    else:
        assert record["changed"] and max(row["rel_l2"] for row in record["changed"]) < 0.01
        assert {row["how"] for row in record["renamed"]} == {"renamed", "dequantized"}


@at_most(3)
@given(st.integers(0, 3))
def test_many_tensors_are_matched_at_once(seed: int) -> None:
    old = {f"a.{i}": normal(seed * 1000 + i, 4, 5) for i in range(300)}
    record = told(old, {f"b.{i}.x": one for i, one in enumerate(reversed(old.values()))})
    assert len(record["renamed"]) == 300 and record["n_unchanged"] == 300


@pytest.mark.real
@pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
def test_facenets_nets_are_mtcnns(net: str) -> None:
    """The same weights, by PyTorch and as arrays of TensorFlow, under the right transposes."""
    torchs = real_file("facenet-pytorch", f"{net}.pt")
    arrays = real_file("mtcnn", "mtcnn_weights.npy")
    record = wt.diff(arrays, torchs)
    assert record["added"] == [] and record["changed"] == [] and record["reshaped"] == []
    assert {row["how"] for row in record["renamed"]} <= {"renamed", "transposed"}
    assert record["n_unchanged"] == record["n_after"]
