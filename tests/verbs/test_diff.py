"""The verb ``diff``: what counts as a difference, in whatever format, sharding and order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import h5py
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools as wt
from tests.refused import refused
from tests.strategies import tensor_maps
from weighttools.analyzers.compare.metadata import patch
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, TensorNotFoundError


def of(**arrays: Any) -> TensorMap:
    return TensorMap.from_arrays({name.replace("_", "."): one for name, one in arrays.items()})


@given(tensor_maps())
def test_nothing_differs_from_itself(tensor_map: TensorMap) -> None:
    record = wt.diff(tensor_map, TensorMap.from_arrays(tensor_map.read(), tensor_map.metadata, tensor_map.aliases))
    assert record["same"] and record["n_unchanged"] == len(tensor_map)
    for key in ("added", "removed", "renamed", "reshaped", "recast", "changed", "metadata", "explanation"):
        assert record[key] == [], key  # type: ignore[literal-required]
    assert record["ties"] == {"added": {}, "removed": {}}


@given(tensor_maps(), tensor_maps(), st.data())
def test_both_ways_agree(a: TensorMap, b: TensorMap, data: st.DataObject) -> None:
    shared = data.draw(st.lists(st.sampled_from(list(a)), unique=True)) if len(a) else []
    b = b.replace(tensors={**{name: b[name] for name in b}, **{name: a[name] for name in shared}}, aliases={})
    a = a.replace(aliases={})
    there, back = wt.diff(a, b), wt.diff(b, a)
    assert there["same"] == back["same"]
    assert {row["name"] for row in there["added"]} == {row["name"] for row in back["removed"]}
    assert {row["name"] for row in there["removed"]} == {row["name"] for row in back["added"]}
    mirrored = {row["name"]: row for row in back["changed"]}
    assert mirrored.keys() == {row["name"] for row in there["changed"]}
    for row in there["changed"]:
        other = mirrored[row["name"]]
        for key in ("what", "n_elements", "n_bits", "n_changed", "n_not_finite", "max_abs", "max_at", "l2", "cosine"):
            assert row[key] == other[key], key  # type: ignore[literal-required]
        assert (row["l2_before"], row["l2_after"]) == (other["l2_after"], other["l2_before"])
    assert [row["op"] for row in there["metadata"]].count("+") == [row["op"] for row in back["metadata"]].count("-")


def test_four_changed_of_a_hundred_and_four_with_equal_headers(make: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    old = {f"layers.{i}.w": rng.standard_normal((4, 4)).astype(np.float32) for i in range(104)}
    new = {name: one.copy() for name, one in old.items()}
    for i in (3, 50, 77, 103):
        new[f"layers.{i}.w"][1, 2] = np.nextafter(new[f"layers.{i}.w"][1, 2], np.float32(9))
    record = wt.diff(make(old, "a.safetensors"), make(new, "b.safetensors"))
    assert not record["same"] and record["n_unchanged"] == 100
    assert {row["name"] for row in record["changed"]} == {f"layers.{i}.w" for i in (3, 50, 77, 103)}
    assert all(row["n_changed"] == 1 and row["max_at"] == [1, 2] for row in record["changed"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_an_element_that_became_not_finite_is_the_greatest_change(value: float, kernel: str) -> None:
    rng = np.random.default_rng(0)
    old = {name: rng.standard_normal((300, 300)).astype(np.float32) for name in ("a", "broken", "c")}
    new = {name: array + np.float32(1) for name, array in old.items()} | {"broken": old["broken"].copy()}
    new["broken"][7, 3] = new["broken"][290, 3] = value
    both = TensorMap.from_arrays(old), TensorMap.from_arrays(new)
    there = wt.diff(*both, sort="rel_l2", where="rel_l2 > 1e9", kernel=kernel)["changed"]
    assert [row["name"] for row in there] == ["broken"]
    for found in (there[0], wt.diff(*both[::-1], sort="max_abs", top=1, kernel=kernel)["changed"][0]):
        assert (found["name"], found["n_changed"], found["max_at"]) == ("broken", 2, [7, 3])
        assert [found[key] for key in ("max_abs", "l2", "rel_l2", "cosine")] == [None] * 4  # type: ignore[literal-required]
        assert found["n_not_finite"] == 2
    total = wt.diff(*both, by="module", kernel=kernel)["total"]
    assert (total["max_abs"], total["rel_l2"], total["n_not_finite"]) == (None, None, 2)


def test_what_was_not_finite_and_stays_hides_nothing() -> None:
    old = np.array([np.nan, np.inf, -np.inf, 1.0, 2.0], np.float32)
    new = np.array([np.nan, np.inf, -np.inf, 1.0, 2.5], np.float32)
    [row] = wt.diff(TensorMap.from_arrays({"w": old}), TensorMap.from_arrays({"w": new}))["changed"]
    assert (row["max_abs"], row["max_at"], row["n_not_finite"], row["l2"]) == (0.5, [4], 3, 0.5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16])
def test_one_bit_of_a_narrow_float_is_seen(dtype: Any) -> None:
    old = np.linspace(-1, 1, 70_000).astype(dtype)
    new = old.copy()
    new.view(f"u{new.itemsize}")[60_001] ^= 1
    [row] = wt.diff(of(w=old), of(w=new))["changed"]
    assert (row["n_bits"], row["n_changed"], row["max_at"]) == (1, 1, [60_001])


def test_signs_of_zeros_and_bits_of_nans_count_unless_tolerated() -> None:
    old, new = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    record = wt.diff(of(w=old), of(w=new))
    assert not record["same"] and record["changed"][0]["what"] == "bits"
    assert wt.diff(of(w=old), of(w=new), atol=1e-9)["same"]


def test_a_tolerance_decides_and_the_figures_stay() -> None:
    old, new = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.001], np.float32)
    assert not wt.diff(of(w=old), of(w=new), rtol=1e-4)["same"]
    record = wt.diff(of(w=old), of(w=new), rtol=1e-2)
    assert record["same"] and record["changed"][0]["n_changed"] == 1 and record["changed"][0]["n_beyond"] == 0


def test_another_dtype_is_a_difference_unless_ignored() -> None:
    old, new = of(w=np.ones(3, np.float32)), of(w=np.ones(3, np.float16))
    record = wt.diff(old, new)
    assert record["recast"] == [{"src": "w", "dst": "w", "before": "float32", "after": "float16"}]
    assert not record["same"] and record["n_unchanged"] == 1
    assert wt.diff(old, new, ignore_dtype=True)["same"]


def test_shapes_names_and_ties() -> None:
    old = TensorMap.from_arrays({"e": np.ones((2, 3)), "head": np.ones((2, 3)), "gone": np.zeros(1), "s": np.ones(4)})
    new = TensorMap.from_arrays(
        {"e": np.ones((2, 3)), "come": np.zeros(1), "s": np.ones((2, 2))}, aliases={"head": "e"}
    )
    record = wt.diff(old, new)
    assert [row["name"] for row in record["removed"]] == ["gone"]
    assert [row["name"] for row in record["added"]] == ["come"]
    assert record["reshaped"] == [{"src": "s", "dst": "s", "before": [4], "after": [2, 2]}]
    assert record["ties"] == {"added": {"head": "e"}, "removed": {}} and record["n_unchanged"] == 2
    tied = wt.diff(old.drop("gone", "s"), new.drop("come", "s"))
    assert tied["same"], "a tie holds the same values by the same names"
    assert wt.diff(new.drop("come", "s"), old.drop("gone", "s"))["same"]


def test_a_changed_tensor_that_is_tied_now_is_seen() -> None:
    old = TensorMap.from_arrays({"e": np.ones(3), "head": np.zeros(3)})
    new = TensorMap.from_arrays({"e": np.ones(3)}, aliases={"head": "e"})
    record = wt.diff(old, new)
    assert [row["name"] for row in record["changed"]] == ["head"] and not record["same"]


def test_names_are_mapped() -> None:
    old = of(module_a_w=np.ones(2), module_b_w=np.zeros(3))
    new = of(a_w=np.ones(2), b_w=np.zeros(3))
    record = wt.diff(old, new, map=["module.*=*"])
    assert record["same"] and [row["how"] for row in record["renamed"]] == ["map", "map"]
    assert not wt.diff(old, new, map=["module.a.w=a.w"])["same"]
    crossed = wt.diff(
        of(a_w=np.ones(2), b_w=np.zeros(2)), of(a_w=np.zeros(2), b_w=np.ones(2)), map=["a.w=b.w", "b.w=a.w"]
    )
    assert crossed["same"]


def test_what_matches_nothing_is_refused() -> None:
    old, new = of(a=np.ones(2)), of(b=np.ones(2))
    with refused(TensorNotFoundError, "pattern-matches-nothing", "x.*"):
        wt.diff(old, new, map=["x.*=*"])
    with refused(TensorNotFoundError, "tensor-not-found", "c"):
        wt.diff(old, new, map=["a=c"])
    with refused(SpecError, "no-renaming", "ab"):
        wt.diff(old, new, map=["ab"])
    with refused(SpecError, "names-collide", "b"):
        wt.diff(of(a=np.ones(2), c=np.ones(2)), new, map=["a=b", "c=b"])
    with refused(TensorNotFoundError, "pattern-matches-nothing", "zzz*"):
        wt.diff(old, new, include=["zzz*"])
    with refused(SpecError, "unknown-option-value", "nothing"):
        wt.diff(old, new, sort="nothing")


def test_a_pattern_need_match_in_one_of_both() -> None:
    assert wt.diff(of(a=np.ones(2)), of(a=np.ones(2), b=np.ones(2)), exclude=["b"])["same"]


def test_formats_shardings_and_order_make_no_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = {f"l.{i}.w": rng.standard_normal((8, 5)).astype(np.float32) for i in range(6)}
    one = tmp_path / "one.safetensors"
    save_file(values, one)
    wt.convert(one, tmp_path / "shards", max_shard_size="400")
    wt.convert(one, tmp_path / "m.gguf")
    np.savez(tmp_path / "m.npz", **dict(reversed(values.items())))
    torch.save({name: torch.tensor(value) for name, value in values.items()}, tmp_path / "m.pt")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for name, value in values.items():
            file[name] = value
    for other in ("shards", "m.gguf", "m.npz", "m.pt", "m.h5"):
        record = wt.diff(one, tmp_path / other)
        assert record["same"] and record["n_unchanged"] == 6, (other, record)


def test_quantised_tensors_are_compared_by_what_the_package_decodes(tmp_path: Path) -> None:
    """Every kind of block that gguf's own quants know, against its dense values; one that is off is found."""
    path = Path("fixtures/gguf/quantized.gguf")
    dense = {}
    with np.errstate(all="ignore"):
        for one in gguf.GGUFReader(path).tensors:
            dense[one.name] = gguf.quants.dequantize(one.data, one.tensor_type).astype(np.float32)
    record = wt.diff(path, TensorMap.from_arrays(dense), explain=False)
    encoded = [name for name, tensor in wt.open(path).items() if tensor.spec.encoding != "raw"]
    assert [row["dst"] for row in record["recast"]] and record["n_unchanged"] == len(dense), record["changed"]
    assert {row["dst"] for row in record["recast"]} >= set(encoded) and not record["same"]
    assert wt.diff(path, TensorMap.from_arrays(dense), ignore_dtype=True)["same"]
    spoilt = {name: one.copy() for name, one in dense.items()}
    spoilt[encoded[0]][1, 3] += 1
    [row] = wt.diff(path, TensorMap.from_arrays(spoilt), explain=False)["changed"]
    assert (row["name"], row["n_changed"], row["max_at"]) == (encoded[0], 1, [1, 3])


def test_views_are_compared_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    torch.save({"w": base.T}, tmp_path / "view.pt")
    record = wt.diff(tmp_path / "view.pt", of(w=base.T.contiguous().numpy()))
    assert record["n_unchanged"] == 1 and record["same"]


def test_groups_roll_figures_up() -> None:
    old = of(a_x=np.ones(4), a_y=np.ones(4), b_z=np.ones(2))
    new = of(a_x=np.ones(4) * 2, a_y=np.array([1, 1, 1, 5.0]), b_z=np.ones(2))
    record = wt.diff(old, new, by="module", sort="l2")
    assert record["groups"] is not None
    a, b = record["groups"]
    assert (a["group"], a["n_tensors"], a["n_tensors_changed"], a["n_changed"]) == ("a", 2, 2, 5)
    assert a["l2"] == pytest.approx(np.sqrt(4 + 16)) and a["rel_l2"] == pytest.approx(np.sqrt(20 / 8))
    assert (b["group"], b["n_changed"], b["rel_l2"]) == ("b", 0, 0.0)
    assert record["total"]["n_changed"] == 5


def test_rows_are_chosen_and_sorted() -> None:
    old = {f"w{i}": np.ones(3) for i in range(4)}
    new = {f"w{i}": np.ones(3) + i for i in range(4)}
    record = wt.diff(TensorMap.from_arrays(old), TensorMap.from_arrays(new), where="max_abs > 1", sort="l2", top=1)
    assert [row["name"] for row in record["changed"]] == ["w3"] and record["n_changed"] == 3


def test_metadata_are_a_patch() -> None:
    told = patch(
        {"a": "1", "same": 1, "cfg": '{"x": 1, "y": {"z": 2}}', "gone": 2},
        {"a": "2", "same": 1, "cfg": '{"x": 1, "y": {"z": 3}}', "new": 5},
    )
    assert [(e.op, e.key, e.before, e.after) for e in told] == [
        ("~", "a", "1", "2"), ("~", "cfg.y.z", 2, 3), ("-", "gone", 2, None), ("+", "new", None, 5),
    ]  # fmt: skip
    one, other = (TensorMap.from_arrays({"w": np.ones(1)}, {"step": step}) for step in ("1", "2"))
    assert not wt.diff(one, other)["same"] and wt.diff(one, other, ignore_metadata=True)["same"]


def test_metadata_of_other_formats_are_told_and_do_not_count(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"w": np.ones(1, np.float32)}, {"step": "1"})
    wt.save(tmp_path / "a.safetensors", tensor_map)
    np.savez(tmp_path / "a.npz", w=np.ones(1, np.float32))
    record = wt.diff(tmp_path / "a.safetensors", tmp_path / "a.npz")
    assert record["same"] and record["metadata"] and "no difference" in record["notes"][-1]


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("a=b", "c=d", r"a\=b=c\=d"),
        ("a*b", "x*", r"a\*b=x\*"),
        ("m.w", "n.w", "m.*=n.*"),
        ("q.1.w.2", "2.1", "q.*.w.*=2.*"),
        ("back\\slash", "x", r"back\\slash=x"),
        ("a\\nb", "x", r"a\nb=x"),
    ],
)
def test_any_name_can_be_mapped(old: str, new: str, rule: str) -> None:
    values = np.arange(3.0)
    both = TensorMap.from_arrays({old: values}), TensorMap.from_arrays({new: values})
    record = wt.diff(*both, map=[rule], content=False)
    assert record["same"] and record["renamed"] == [{"src": old, "dst": new, "how": "map"}]


def test_arrays_are_no_checkpoint_and_standard_input_is_read_once() -> None:
    arrays = {"w": np.zeros(2)}
    with refused(SpecError, "spec", "dict", "from_arrays"):
        wt.diff(TensorMap.from_arrays(arrays), arrays)  # type: ignore[arg-type]
    with refused(SpecError, "spec", "dict", "from_arrays"):
        wt.hash(arrays)  # type: ignore[arg-type]
    with refused(SpecError, "spec", "standard input"):
        wt.diff("-", "-")


def test_a_tensor_that_became_zero_is_said_so() -> None:
    rng = np.random.default_rng(0)
    old = {name: rng.standard_normal((64, 64)).astype(np.float32) for name in ("a", "b")}
    new = old | {"a": np.zeros((64, 64), np.float32)}
    texts = [one["text"] for one in wt.diff(*map(TensorMap.from_arrays, (old, new)))["explanation"]]
    assert [text for text in texts if "all that were not" in text], texts
