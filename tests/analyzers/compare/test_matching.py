"""Which tensors belong together, by rules, names and ties; a name is never lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from weighttools.analyzers.compare.matching import Matching, Rule, match
from weighttools.analyzers.compare.pair import Pair
from weighttools.core.tensormap import TensorMap

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])


def of(*names: str, **ties: str) -> TensorMap:
    return TensorMap.from_arrays({name: np.full(3, ord(name[0]), np.float32) for name in names}, aliases=ties)


@st.composite
def tied_maps(draw: st.DrawFn) -> TensorMap:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    n_stored = draw(st.integers(1, len(names)))
    ties = {name: names[draw(st.integers(0, n_stored - 1))] for name in names[n_stored:]}
    return of(*names[:n_stored], **ties)


@given(tied_maps(), tied_maps())
def test_every_name_is_accounted_for(old: TensorMap, new: TensorMap) -> None:
    """What belongs together is what a dictionary of the names says, whichever of them is stored."""
    found = match(old, new)
    shared = {*old, *old.aliases} & {*new, *new.aliases}
    expected = {(old.aliases.get(name, name), new.aliases.get(name, name)) for name in shared}
    pairs = [(old.aliases.get(p.old, p.old), new.aliases.get(p.new, p.new)) for p in found.pairs]
    assert len(pairs) == len(set(pairs)) and set(pairs) == expected
    assert {*found.removed, *found.lost} >= {*old, *old.aliases} - shared - old.aliases.keys()
    assert set(found.removed) == set(old) - {one for one, _ in expected}
    assert set(found.added) == set(new) - {one for _, one in expected}
    same_names = {*old, *old.aliases} == {*new, *new.aliases}
    assert (not (found.removed or found.added or found.lost or found.gained)) == same_names


@given(tied_maps(), tied_maps())
def test_a_map_stands_for_the_dictionary_that_torch_would_have(old: TensorMap, new: TensorMap) -> None:
    """`same` is what holding both flat dictionaries against one another says, ties or none."""
    one, other = ({name: one[name].read() for name in (*one, *one.aliases)} for one in (old, new))
    is_same = one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    assert wt.diff(old, new)["same"] == is_same == wt.diff(new, old)["same"]


def test_rules_lead_to_ties_and_from_them() -> None:
    found = match(of("a", "e"), of("e", head="e"), [Rule.parse("a=head")])
    assert [(p.old, p.new, p.how) for p in found.pairs] == [("e", "e", "name"), ("a", "head", "map")]
    assert not wt.diff(of("a", "e"), of("e", head="e"), map=["a=head"])["same"], "a is not what head is now"
    from_tie = match(of("e", head="e"), of("e", "top"), [Rule.parse("head=top")])
    assert [(p.old, p.new, p.how) for p in from_tie.pairs] == [("e", "e", "name"), ("head", "top", "map")]


def test_a_prefix_goes_from_ties_too() -> None:
    old = TensorMap.from_arrays({"model.e": np.ones(2)}, aliases={"model.head": "model.e"})
    record = wt.diff(old, of("e", head="e"), map="model.*=*")
    assert record["ties"] == {"added": {}, "removed": {}}
    assert wt.diff(old, TensorMap.from_arrays({"e": np.ones(2)}, aliases={"head": "e"}), map="model.*=*")["same"]


def test_a_tie_that_is_gone_is_a_name_that_is_gone() -> None:
    record = wt.diff(of("e", head="e"), of("e"))
    assert not record["same"] and record["ties"]["removed"] == {"head": "e"}


def test_ties_among_three_are_equal_whichever_is_stored() -> None:
    old, new = (TensorMap.from_arrays({one: np.ones(2)}, aliases=dict.fromkeys({*"abc"} - {one}, one)) for one in "ab")
    record = wt.diff(old, new)
    assert record["same"] and record["ties"] == {"added": {}, "removed": {}} and record["n_unchanged"] == 1


@pytest.mark.parametrize("other", ["m.safetensors", "m.npz", "m.gguf", "m.h5"])
def test_ties_travel_to_other_formats(other: str, tmp_path: Path) -> None:
    """GGUF holds none: what `convert` says is lost is what differs."""
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    torch.save({"e.weight": weight, "head.weight": weight}, tmp_path / "m.pt")
    wt.convert(tmp_path / "m.pt", tmp_path / other)
    record = wt.diff(tmp_path / "m.pt", tmp_path / other)
    gone = {"head.weight": "e.weight"} if other == "m.gguf" else {}
    assert record["same"] is not bool(gone) and record["ties"] == {"added": {}, "removed": gone}


def test_a_later_stage_takes_what_is_left() -> None:
    old = TensorMap.from_arrays({"a": np.ones(3), "b": np.ones((2, 3)), "c": np.ones(1)})
    new = TensorMap.from_arrays({"a": np.ones(3), "b": np.ones((3, 2)), "d": np.ones(1), "e": np.ones(5)})
    seen: list[Any] = []

    def by_content(before: TensorMap, after: TensorMap) -> Matching:
        seen.append((list(before), list(after)))
        pair = Pair("c", "d", "renamed", before["c"], after["d"])
        left = [name for name in before if name != "c"], [name for name in after if name != "d"]
        return Matching(pairs=[pair], removed=left[0], added=left[1])

    found = match(old, new, stages=[by_content])
    assert seen == [(["c", "b"], ["d", "e", "b"])]
    assert [(p.new, p.how) for p in found.pairs] == [("a", "name"), ("d", "renamed")]
    assert [p.new for p in found.reshaped] == ["b"] and (found.removed, found.added) == ([], ["e"])
