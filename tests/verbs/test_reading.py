"""The verbs that read take a path or an open map, select and open alike, and refuse what does not apply."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from weighttools.analyzers.initialization import GAINS
from weighttools.errors import FormatError, SpecError, TensorNotFoundError
from weighttools.verbs import init_check

VERBS: dict[str, Callable[..., Any]] = {
    name: getattr(wt, name) for name in ("inspect", "params", "stats", "check", "estimate", "spectrum", "init_check")
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.weight": rng.normal(size=(8, 4 + i)).astype(np.float32) for i in (10, 9, 2)}
    save_file({**arrays, "head.bias": np.ones(8, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", VERBS)
def test_a_path_and_an_open_map_give_one_record(name: str, model: Path) -> None:
    assert VERBS[name](str(model)) == VERBS[name](wt.open(str(model)))
    assert VERBS[name](model, include="layers.*") == VERBS[name](wt.open(model), include="layers.*")


def test_get_takes_an_open_map(model: Path) -> None:
    from safetensors.numpy import load_file

    assert np.array_equal(wt.get(wt.open(model), "layers.9.weight[1, 2:]"), load_file(model)["layers.9.weight"][1, 2:])


def test_a_tensor_is_saved_and_never_over_what_is_read(model: Path) -> None:
    from safetensors.numpy import load_file

    from weighttools.verbs.get import save_tensor

    save_tensor(model, "layers.9.weight[:, 1]", model.with_name("x.npy"))
    assert np.array_equal(np.load(model.with_name("x.npy")), load_file(model)["layers.9.weight"][:, 1])
    kept = model.read_bytes()
    with pytest.raises(SpecError):
        save_tensor(wt.open(model), "head.bias", model, force=True)
    assert model.read_bytes() == kept


@pytest.mark.parametrize("name", [*VERBS, "open"])
def test_patterns_that_match_nothing_and_options_of_opening_that_come_late_are_refused(name: str, model: Path) -> None:
    verb = getattr(wt, name)
    if name != "check":  # there they choose values
        with pytest.raises(TensorNotFoundError):
            verb(model, include=["nothing*"])
    for option in ("assume", "root"):
        with pytest.raises(SpecError) as caught:
            verb(wt.open(model), **{option: "bfloat16"})
        assert caught.value.code == "options-exclude" and option in caught.value.fact
    with pytest.raises(TypeError, match=f"{name}.. has no parameter 'includ'; did you mean include"):
        verb(model, includ="*")


def test_open_selects(model: Path) -> None:
    assert list(wt.open(model, include="layers.*", exclude=["*.9.*"])) == ["layers.10.weight", "layers.2.weight"]


@pytest.mark.parametrize("order", ["name", "size", "offset", "file"])
def test_inspect_sorts_as_its_command_does(order: str, model: Path, inside) -> None:
    rows = [row["name"] for row in wt.inspect(model, sort=order)["tensors"]]
    told = json.loads(inside("inspect", model, "--sort", order, "--json").out)
    assert rows == [row["name"] for row in told["tensors"]]
    known = {
        "name": ["head.bias", "layers.2.weight", "layers.9.weight", "layers.10.weight"],
        "size": ["layers.10.weight", "layers.9.weight", "layers.2.weight", "head.bias"],
    }
    assert rows == known.get(order, list(wt.open(model)))


@pytest.mark.parametrize("name", ["params", "stats"])
def test_a_depth_groups_by_itself_and_beside_nothing_else(name: str, model: Path) -> None:
    verb = VERBS[name]
    assert verb(model, depth=2) == verb(model, by="depth", depth=2)
    assert [row["group"] for row in verb(model, by="depth")["groups"]] == list(
        dict.fromkeys(n.partition(".")[0] for n in wt.open(model))
    )
    with pytest.raises(SpecError) as caught:
        verb(model, by="module", depth=2)
    assert caught.value.code == "options-exclude"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("stats", {"quantiles": [0.5, 2]}), ("stats", {"hist": 0}), ("stats", {"eps": -1.0}), ("stats", {"top": -1}),
        ("params", {"depth": 0}), ("estimate", {"context": 0}), ("estimate", {"batch": 0}),
        ("spectrum", {"ranks": [0]}), ("spectrum", {"exact_limit": -1}), ("check", {"threads": 0}),
    ],
)  # fmt: skip
def test_numbers_out_of_range_have_one_code(name: str, bad: dict[str, Any], model: Path) -> None:
    with pytest.raises(SpecError) as caught:
        VERBS[name](model, **bad)
    assert caught.value.code == "out-of-range" and next(iter(bad)) in caught.value.fact and caught.value.expected


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("stats", {"by": "name"}), ("stats", {"norms": ["l7"]}), ("stats", {"kernel": "c"}), ("params", {"by": "x"}),
        ("init_check", {"activation": "mish"}), ("inspect", {"sort": "age"}),
    ],
)  # fmt: skip
def test_values_that_are_not_known_have_one_code(name: str, bad: dict[str, Any], model: Path) -> None:
    with pytest.raises(SpecError) as caught:
        VERBS[name](model, **bad)
    assert caught.value.code == "unknown-option-value" and next(iter(bad)) in caught.value.fact


def test_every_gain_can_be_asked_for() -> None:
    declared = next(one for one in init_check.OPTIONS if one.name == "activation")
    assert set(declared.choices) == set(GAINS)


def codes(record: Any) -> set[str]:
    return {finding["code"] for finding in record["findings"]}


def test_check_of_an_open_map_looks_at_its_values_and_at_the_file_that_it_came_from(model: Path) -> None:
    arrays = {"a.weight": np.array([1, np.nan], np.float32), "b.weight": np.ones((3, 3), np.float32)}
    held = wt.check(wt.TensorMap.from_arrays(arrays))
    save_file(arrays, model, {"format": "pt"})
    stored = wt.check(model)
    assert codes(held) == codes(stored) == {"nan", "constant"}
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(arrays, model.name)}
    (model.parent / "model.safetensors.index.json").write_text(json.dumps(index))
    assert codes(wt.check(wt.open(model.parent))) == codes(wt.check(model.parent)) > codes(held)


def test_check_takes_open_maps_for_other_checkpoints(model: Path) -> None:
    other = wt.open(model).rename(lambda name: f"model.{name}")
    found = wt.check(model, against=other)
    assert "names-differ" in codes(found) and found["against"]["path"] == str(model)
    with pytest.raises(SpecError) as caught:
        wt.check(wt.TensorMap.from_arrays({}), fix_index=True)
    assert caught.value.code == "options-exclude"


def test_a_file_that_is_damaged_is_no_map_and_still_a_finding(model: Path) -> None:
    os.truncate(model, 100)
    with pytest.raises(FormatError):
        wt.open(model)
    assert wt.check(model)["findings"]
