"""A map is changed from Python: what is asked for changes, and nothing else, to the bit, the order, the tie."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import weighttools as wt
from tests.refused import refused
from tests.strategies import arrays, bits_of, names, same_bits, tensor_maps
from tests.work import CALLS, bounded
from weighttools.core import notebook
from weighttools.core.record import VerbRecord
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import SpecError, TensorNotFoundError

Values = dict[str, tuple[str, tuple[int, ...], bytes]]


def values_of(tensor_map: TensorMap) -> Values:
    """Every name, aliases too: dtype, shape and bits."""
    return {
        name: (tensor_map[name].dtype.name, tensor_map[name].shape, bytes(bits_of(tensor_map[name].read())))
        for name in (*tensor_map, *tensor_map.aliases)
    }


def ties_of(tensor_map: TensorMap) -> set[frozenset[str]]:
    """The sets of names that are one tensor, however they are stored."""
    groups: dict[str, set[str]] = {name: {name} for name in tensor_map}
    for alias, kept in tensor_map.aliases.items():
        groups[kept].add(alias)
    return {frozenset(group) for group in groups.values()}


def assert_kept(after: TensorMap, before: TensorMap) -> None:
    assert after.metadata == before.metadata
    assert after.origin._replace(notes=(), others=()) == before.origin._replace(notes=(), others=())


TIED = TensorMap.from_arrays(
    {"embed": np.arange(6.0).reshape(2, 3), "norm": np.ones(3), "step": np.int64(3)},
    {"format": "pt"},
    {"head": "embed", "decoder": "embed"},
)


@given(tensor_maps(), st.dictionaries(names(), arrays(whole_bytes=True), max_size=3), st.data())
def test_assign_changes_what_is_asked_for(before: TensorMap, new: dict[str, Any], data: st.DataObject) -> None:
    stored = list(before)
    chosen = data.draw(st.lists(st.sampled_from(stored), unique=True)) if stored else []
    new = {name: array for name, array in new.items() if name not in before.aliases}
    new |= {name: data.draw(arrays(whole_bytes=True)) for name in chosen}
    expected = values_of(before) | values_of(TensorMap.from_arrays(new))
    for alias, kept in before.aliases.items():
        expected[alias] = expected[kept]
    for after in (before.assign(new), before | new, before.pipe(lambda tensors: tensors | new)):
        assert values_of(after) == expected
        assert list(after) == [*stored, *(name for name in new if name not in stored)]
        assert after.aliases == before.aliases
        assert_kept(after, before)
    assert list(before) == stored


@given(tensor_maps(), tensor_maps())
def test_the_union_of_two_maps_is_that_of_dictionaries(left: TensorMap, right: TensorMap) -> None:
    """But for ties: a second name follows, unless the other map has it too."""
    alone = [a for a, kept in left.aliases.items() if a in right and kept not in right]
    if alone:
        with refused(SpecError, "tied", repr(alone[0]), "untie"):
            left | right
        left = left.untie(*(f"re:^{''.join(map(_literal, alias))}\\Z" for alias in alone))
    after = left | right
    expected = values_of(left) | values_of(right)
    for alias, kept in left.aliases.items():
        expected[alias] = expected[kept] if alias not in right else expected[alias]
    assert values_of(after) == expected
    assert_kept(after, left)
    assert not set(after) & set(after.aliases) and set(after.aliases.values()) <= set(after)
    for one in right, left:
        for alias, kept in one.aliases.items():
            if one is right or (alias not in right and kept not in right):
                assert after[alias] is after[kept] or same_bits(after[alias].read(), after[kept].read())
                assert after.aliases.get(alias, alias) == after.aliases.get(kept, kept)
    order = [name for name in dict.fromkeys([*left, *left.aliases, *right]) if name in after._tensors]
    assert [name for name in after if name in order] == order


def _literal(character: str) -> str:
    return f"\\U{ord(character):08x}"


@given(tensor_maps(), st.dictionaries(names(), arrays(whole_bytes=True), max_size=3))
def test_a_dictionary_before_a_map(after: TensorMap, first: dict[str, Any]) -> None:
    found = first | after
    assert isinstance(found, TensorMap)
    assert values_of(found) == values_of(TensorMap.from_arrays(first)) | values_of(after)
    assert found.aliases == after.aliases
    assert list(found) == [n for n in dict.fromkeys([*first, *after]) if n not in after.aliases]
    assert_kept(found, after)


@given(tensor_maps(max_size=5), st.data())
def test_leaving_out_names_keeps_all_others(before: TensorMap, data: st.DataObject) -> None:
    """A tensor with two names of which one goes stays by the other."""
    every = [*before, *before.aliases]
    gone = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    if not gone or len(gone) == len(every):
        return
    expected = {name: value for name, value in values_of(before).items() if name not in gone}
    after = before.drop(*(f"re:\\A{''.join(map(_literal, name))}\\Z" for name in gone))
    assert values_of(after) == expected
    left = {frozenset(group - set(gone)) for group in ties_of(before)}
    assert ties_of(after) == {group for group in left if group}
    rest = [name for name in every if name not in gone]
    first = {kept: next((a for a in rest if before.aliases.get(a, a) == kept), None) for kept in before}
    assert list(after) == [name for name in first.values() if name is not None]
    assert_kept(after, before)


@given(tensor_maps(max_size=5), st.data())
def test_choosing_names_keeps_their_ties(before: TensorMap, data: st.DataObject) -> None:
    every = [*before, *before.aliases]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1)) if every else []
    if not chosen:
        return
    after = before.select(*(f"re:\\A{''.join(map(_literal, name))}\\Z" for name in chosen))
    ride = [alias for alias, kept in before.aliases.items() if kept in chosen]
    assert values_of(after) == {n: v for n, v in values_of(before).items() if n in chosen or n in ride}
    assert ties_of(after) == {g & {*chosen, *ride} for g in ties_of(before) if g & {*chosen, *ride}}
    assert_kept(after, before)


@given(tensor_maps(max_size=5), st.data())
def test_renaming_keeps_order_and_ties(before: TensorMap, data: st.DataObject) -> None:
    every = [*before, *before.aliases]
    new = data.draw(st.lists(names(), unique=True, min_size=len(every), max_size=len(every)))
    table = dict(zip(every, new, strict=True))
    after = before.rename(table)
    assert values_of(after) == {table[name]: value for name, value in values_of(before).items()}
    assert list(after) == [table[name] for name in before]
    assert after.aliases == {table[alias]: table[kept] for alias, kept in before.aliases.items()}
    assert values_of(after.rename({b: a for a, b in table.items()})) == values_of(before)
    assert_kept(after, before)


@given(tensor_maps())
def test_mapping_keeps_names_order_and_ties(before: TensorMap) -> None:
    for same in (lambda n, t: t, lambda n, t: t.read(), lambda n, t: t.apply(lambda block: block)):
        after = before.map(same)
        assert values_of(after) == values_of(before)
        assert list(after) == list(before) and after.aliases == before.aliases
        assert_kept(after, before)
    loose = before.untie()
    assert values_of(loose) == values_of(before) and not loose.aliases
    assert list(loose) == [*before, *before.aliases]
    assert_kept(loose, before)


def test_an_alias_is_renamed_onto_no_other_name() -> None:
    for change in ({"head": "norm"}, {"head": "decoder"}, {"norm": "head"}):
        with refused(SpecError, "names-collide", next(iter(change.values()))):
            TIED.rename(change)


def test_a_tie_is_never_parted_or_followed_without_a_word() -> None:
    ones = np.ones((2, 3))
    with refused(SpecError, "tied", "'head'", "'embed'", "untie('head')"):
        TIED.assign({"head": ones})
    both = TIED.assign({"embed": ones})
    assert both["head"] is both["embed"] and both["embed"].read().tolist() == ones.tolist()
    assert both.origin.notes == (
        "changed too, as a second name of what was assigned: 'head' (tied to 'embed'), 'decoder' (tied to 'embed')",
    )
    same = TIED.assign({"embed": ones, "head": ones, "decoder": ones})
    assert same.aliases == TIED.aliases and same.origin.notes == ()
    apart = TIED.assign({"embed": ones, "head": 2 * ones})
    assert list(apart) == ["embed", "norm", "step", "head"] and apart.aliases == {"decoder": "embed"}
    assert apart["decoder"].read()[0, 0] == 1 and apart["head"].read()[0, 0] == 2
    assert "no longer tied, because each was assigned a tensor of its own: 'head' and 'embed'" in apart.origin.notes
    alone = TIED.untie("head").assign({"head": ones})
    assert (
        alone["embed"].read()[0, 1] == 1 and alone["embed"].read()[1, 2] == 5 and alone.aliases == {"decoder": "embed"}
    )
    assert alone.origin.notes == ()
    with refused(TensorNotFoundError, "pattern-matches-nothing", "'norm'"):
        TIED.untie("norm")


def test_every_way_to_leave_out_the_stored_name_of_a_tie_leaves_the_other(tmp_path: Path, inside: Any) -> None:
    wt.save(tmp_path / "a.safetensors", TIED)
    assert inside("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "-x", "embed").code == 0
    found = wt.open(tmp_path / "b.safetensors")
    assert set(found) | set(found.aliases) == {"head", "decoder", "norm", "step"}
    assert same_bits(found["head"].read(), TIED["head"].read())
    assert list(wt.open(tmp_path / "a.safetensors", include="head")) == ["head"]


class OnlyDLPack:
    """An array that speaks DLPack and nothing of NumPy's own."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


GIVEN: list[tuple[Any, np.ndarray[Any, Any]]] = [
    (np.arange(3, dtype=">f4"), np.arange(3, dtype="f4")),
    ([[1.5, 2], [3, 4]], np.array([[1.5, 2], [3, 4]])),
    (3, np.array(3)),
    (OnlyDLPack(np.arange(4.0)), np.arange(4.0)),
    (True, np.array(True)),
    (np.arange(4).astype(ml_dtypes.bfloat16), np.arange(4).astype(ml_dtypes.bfloat16)),
    (np.arange(4).astype(ml_dtypes.float8_e4m3fn), np.arange(4).astype(ml_dtypes.float8_e4m3fn)),
    (torch.arange(6.0).reshape(2, 3).T, np.arange(6, dtype="f4").reshape(2, 3).T),
    (torch.nn.Parameter(torch.ones(2)), np.ones(2, "f4")),
    (torch.tensor([1.0, -0.0, float("nan")], dtype=torch.bfloat16), np.array([1, -0.0, np.nan], ml_dtypes.bfloat16)),
    (torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.astype(ml_dtypes.bfloat16)),
    (torch.tensor(2.0, dtype=torch.bfloat16), np.array(2, ml_dtypes.bfloat16)),
    (torch.tensor([1.0, 2]).to(torch.float8_e5m2), np.array([1, 2], ml_dtypes.float8_e5m2)),
    (torch.tensor([1 + 2j]).conj(), np.array([1 - 2j], "c8")),
    (np.ma.masked_array([1, 2], [False, False]), np.array([1, 2])),
]


@pytest.mark.parametrize(("value", "expected"), GIVEN)
def test_arrays_of_other_packages_are_taken_to_the_bit(value: Any, expected: np.ndarray[Any, Any]) -> None:
    for tensor in (Tensor.from_array(value), TIED.assign({"new": value})["new"], (TIED | {"new": value})["new"]):
        assert tensor.shape == expected.shape and tensor.dtype == expected.dtype.name
        assert same_bits(tensor.read(), np.ascontiguousarray(expected).reshape(expected.shape))


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        (np.ma.masked_array([1, 2], [True, False]), ["masked"]),
        (torch.ones(2, device="meta"), [".cpu()"]),
        (torch.eye(2).to_sparse(), [".to_dense()"]),
        ({"weight": np.ones(2)}, ["mapping", "dots"]),
        ([[1, 2], [3]], ["array"]),
        ("text", ["numbers"]),
        (None, ["None"]),
        (10**40, ["numbers"]),
        (np.zeros(2, np.longdouble), ["numbers"]),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_name(value: Any, facts: list[str]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: TIED.assign({"some.name": value}),
        lambda: TensorMap.from_arrays({"some.name": value}),
        lambda: TIED.rename({"norm": "some.name"}).map(lambda n, t: value if n == "some.name" else t),
    ]
    for call in calls:
        with refused(SpecError, "unsupported-dtype", "'some.name'", *facts):
            call()
    with refused(SpecError, "unsupported-dtype", *facts):
        Tensor.from_array(value)


def test_names_are_strings_and_only_mappings_unite() -> None:
    with refused(SpecError, "spec", "3", "string"):
        TIED.assign({3: np.ones(2)})  # type: ignore[dict-item]
    for other in (3, None, [("a", np.ones(2))]):
        with pytest.raises(TypeError):
            TIED | other
        with pytest.raises(TypeError):
            other | TIED


def test_arithmetic_by_map() -> None:
    halved = TIED.map(lambda name, tensor: tensor.read() * 0.5 if name != "step" else tensor)
    assert halved["head"].read().tolist() == (TIED["embed"].read() * 0.5).tolist() and halved["step"] is TIED["step"]
    cast = TIED.map(lambda name, tensor: np.asarray(tensor, np.float16)[..., :1] if tensor.ndim else tensor)
    assert cast["embed"].dtype == "float16" and cast["embed"].shape == (2, 1) and cast.aliases == TIED.aliases


def test_nothing_done_with_an_array_that_was_read_changes_the_map() -> None:
    def double(name: str, tensor: Tensor) -> Any:
        array = tensor.read()
        array *= 2
        return array

    before = values_of(TIED)
    after = TIED.map(double)
    assert values_of(TIED) == before and after["norm"].read().tolist() == [2, 2, 2]
    TIED["norm"][:2][0] = 7
    np.asarray(TIED["norm"])[0] = 7
    TIED.read(aliases=True)["head"][0] = 7
    assert values_of(TIED) == before


def test_apply_reads_in_blocks_and_when_asked(tmp_path: Path) -> None:
    wt.save(tmp_path / "a.safetensors", {"w": np.arange(1_000_000, dtype=np.float32), "i": np.arange(3)})
    sizes: list[int] = []

    def half(block: Any) -> Any:
        sizes.append(block.size)
        block *= 0.5  # which is the function's own
        return block

    before = wt.open(tmp_path / "a.safetensors")
    after = before.map(lambda name, tensor: tensor.apply(half) if tensor.dtype.is_float else tensor)
    assert sizes == [0] and after["i"] is not None and after["w"].stored is None
    wt.save(tmp_path / "b.safetensors", after)
    assert max(sizes) < 500_000 and sum(sizes) == 1_000_000
    with safe_open(tmp_path / "b.safetensors", "np") as found:
        assert (found.get_tensor("w") == np.arange(1_000_000, dtype=np.float32) / 2).all()
    assert before["w"].apply(lambda b: b.astype(ml_dtypes.bfloat16)).dtype == "bfloat16"
    assert before["w"].apply(lambda b: b.astype(">f8"))[:3].tolist() == [0, 1, 2]
    for wrong in (lambda b: b[:1], lambda b: b if b.size == 0 else b.astype(np.float64)):
        with refused(SpecError, "spec", "for a block of 1,000,000 elements"):
            before["w"].apply(wrong).read()
    with refused(SpecError, "spec", "()", "for a block of 0 elements"):
        before["w"].apply(lambda b: b.sum())
    with refused(SpecError, "unsupported-dtype", "None"):
        before["w"].apply(lambda b: None)


def test_a_tensor_has_what_arrays_have() -> None:
    for array in (np.zeros((2, 3), np.float16), np.zeros(()), np.zeros((0, 4)), np.zeros(3, ml_dtypes.int4)):
        if array.dtype == ml_dtypes.int4:
            continue
        tensor = Tensor.from_array(array)
        assert (tensor.ndim, tensor.size, tensor.nbytes, tensor.shape) == (
            array.ndim,
            array.size,
            array.nbytes,
            array.shape,
        )
        assert bool(tensor), "a tensor is there, however long"
    packed = Tensor.from_array(np.zeros(4, ml_dtypes.float4_e2m1fn))
    assert packed.nbytes == packed.read().nbytes == 4 and packed.stored_bytes == 2
    rows = Tensor.from_array(np.arange(6).reshape(3, 2))
    assert len(rows) == 3 and [row.tolist() for row in rows] == [[0, 1], [2, 3], [4, 5]]
    assert [row.tolist() for row in reversed(rows)] == [[4, 5], [2, 3], [0, 1]]
    with pytest.raises(TypeError, match="no axes"):
        len(Tensor.from_array(3.0))
    with pytest.raises(TypeError):
        list(Tensor.from_array(3.0))
    assert rows == rows and rows != Tensor.from_array(np.arange(6).reshape(3, 2)) and {rows: 1}[copy.copy(rows)]
    assert Tensor.from_array(rows) == rows


def test_repr_of_a_tensor_reads_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = wt.open(tiny)["fc.weight"]
    monkeypatch.setattr(Tensor, "read", None)
    assert repr(found) == f"Tensor: float32, shape (3, 4), 48 bytes at {found.stored.offset} of {tiny}"
    assert repr(found.apply(np.float64)) == "Tensor: float64, shape (3, 4), 96 bytes, computed when read"
    assert repr(found.sliced(0)) == "Tensor: float32, shape (4,), 16 bytes, computed when read"
    held = Tensor.from_array(np.arange(100, dtype=np.int8))
    assert repr(held) == "Tensor: int8, shape (100,), 100 bytes in memory: 0, 1, 2, 3, 4, 5, …"
    assert repr(Tensor.from_array(np.zeros((0, 2)))) == "Tensor: float64, shape (0, 2), 0 bytes in memory"
    assert len(repr(Tensor.from_array(np.zeros([1] * 64)))) < 300
    assert "<td" in held._repr_html_() and "int8" in held._repr_html_()


@pytest.mark.parametrize("target", ["b.npz", "b.pt", "b.h5", "b.gguf", "b.bin", "b.safetensors", "b"])
def test_a_changed_map_is_saved_and_read_again(target: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    save_file({"a.weight": torch.randn(3, 4), "b.weight": torch.randn(2, 2)}, tmp_path / "a.safetensors")
    before = wt.open(tmp_path / "a.safetensors")
    new = {"c.weight": rng.normal(size=(4, 3)).astype(np.float32), "b.weight": torch.ones(5)}
    after = (before | new).map(lambda name, tensor: tensor.read() * 2 if name == "a.weight" else tensor)
    wt.save(tmp_path / target, after)
    wt.save(tmp_path / f"plain{target}", after.read())
    for place in (target, f"plain{target}"):
        found = wt.open(tmp_path / place)
        assert set(found) == {"a.weight", "b.weight", "c.weight"}
        assert same_bits(found["a.weight"].read(), before["a.weight"].read() * 2)
        assert same_bits(found["b.weight"].read(), np.ones(5, np.float32))
        assert same_bits(found["c.weight"].read(), new["c.weight"])


def test_files_that_assigned_tensors_come_from_are_not_written_over(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: torch.ones(3), "both": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    one, other = wt.open(tmp_path / "a.safetensors"), wt.open(tmp_path / "b.safetensors")
    changed = [
        one | other,
        one.assign({"b": other["b"]}),
        one.assign({"b": other["b"].sliced(slice(1))}),
        one.map(lambda name, tensor: other["both"] if name == "both" else tensor),
        {"x": np.ones(1)} | one | other,
        TensorMap.from_arrays({"b": other["b"]}),
    ]
    for tensor_map in changed:
        with pytest.raises(SpecError, match="is read too"):
            wt.save(tmp_path / "b.safetensors", tensor_map, force=True)
    wt.save(tmp_path / "a.safetensors", changed[0].assign({"again": one["a"]}), force=True)
    assert set(wt.open(tmp_path / "a.safetensors")) == {"a", "b", "both", "again"}
    assert changed[2]["b"].read().tolist() == [1]


class Nested:
    """An HTML reader's balance."""

    @staticmethod
    def depth(text: str) -> int:
        from html.parser import HTMLParser

        stack: list[str] = []
        deepest = 0

        class Reader(HTMLParser):
            def handle_starttag(self, tag: str, attrs: object) -> None:
                nonlocal deepest
                stack.append(tag)
                deepest = max(deepest, len(stack))

            def handle_endtag(self, tag: str) -> None:
                assert stack.pop() == tag

        Reader().feed(text)
        assert stack == []
        return deepest


@given(tensor_maps())
def test_html_is_balanced_and_bounded(tensor_map: TensorMap) -> None:
    Nested.depth(tensor_map._repr_html_())
    Nested.depth(wt.inspect(tensor_map)._repr_html_())  # type: ignore[attr-defined]


def test_html_of_layers_folds_as_inspect_does() -> None:
    layers = {f"layers.{i}.{part}.weight": np.zeros((2, 2), np.float32) for i in range(40) for part in "ab"}
    html = TensorMap.from_arrays({"head.weight": np.zeros(3), **layers})._repr_html_()
    assert html.count("<details>") == 1 and "<b>layers.[0-39]</b> (×40): 80 tensors, 320 elements, 1,280 bytes" in html
    assert Nested.depth(html) < 10
    deep = TensorMap.from_arrays({".".join(["0"] * 90) + f".{w}": np.zeros(1) for w in "ab"})
    assert Nested.depth(deep._repr_html_()) < 400


def test_html_of_many_tensors_is_short_and_made_in_linear_work() -> None:
    one = Tensor.from_array(np.zeros(1))
    many = TensorMap({f"m{i}.w{i % 7}": one for i in range(20_000)}, {f"k{i}": "v" * 10_000 for i in range(2000)})
    with bounded(4 * CALLS):
        html = many._repr_html_()
    assert len(html) < 200_000 and f"… and {20_000 - notebook.MOST_LINES:,} more" in html
    record = wt.inspect(many)
    assert len(repr(record)) < 60_000 and len(record._repr_html_()) < 400_000  # type: ignore[attr-defined]


def test_a_record_is_a_dictionary_that_can_be_read(tiny: Path) -> None:
    import json

    for record in (wt.inspect(tiny), wt.params(tiny), wt.stats(tiny), wt.check(tiny)):
        assert type(record) is VerbRecord and record == dict(record)
        again = json.loads(json.dumps(record))
        assert again == record and pickle.loads(pickle.dumps(record)) == record
        assert type(pickle.loads(pickle.dumps(record))) is VerbRecord and {**record} == record
        html = record._repr_html_()
        assert Nested.depth(html) and record["schema"] in html
        assert repr(record).startswith("{'schema': ") and all(len(line) < 400 for line in repr(record).splitlines())
    hostile = wt.inspect(
        TensorMap.from_arrays({"<img src=x>\x1b[31m": np.zeros(1)}, {"<b>": "<i>"}).replace(origin=Origin("<u>"))
    )
    html = hostile._repr_html_()  # type: ignore[attr-defined]
    assert not any(text in html for text in ("<img", "<b>:", "<i>", "<u>", "\x1b")) and "\x1b" not in repr(hostile)
