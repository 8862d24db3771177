"""Records have the keys that are declared, all that are required, and no others."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import ROOT
from weighttools.verbs import record_types as t
from weighttools.verbs.check import codes

KNOWN = json.loads((ROOT / "tests" / "records.json").read_text(encoding="utf-8"))
OF = {"inspect": t.InspectRecord, "params": t.ParamsRecord, "stats": t.StatsRecord, "check": t.CheckRecord}


def assert_fits(value: Any, kind: Any, where: str) -> None:
    """Hold a value, as JSON gives it, against a declared type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if value is None:
            assert type(None) in parts, where
        else:
            assert_fits(value, next(part for part in parts if part is not type(None)), where)
    elif origin is typing.NotRequired:
        assert_fits(value, parts[0], where)
    elif typing.is_typeddict(kind):
        assert_has_the_keys(value, kind, where)
    elif origin is list:
        for i, part in enumerate(value):
            assert_fits(part, parts[0], f"{where}[{i}]")
    elif origin is dict:
        for key, part in value.items():
            assert isinstance(key, parts[0]), where
            assert_fits(part, parts[1], f"{where}.{key}")
    else:
        assert isinstance(value, (int, float) if kind is float else kind), (where, kind, value)
        assert kind is bool or not isinstance(value, bool) or where.endswith((".min", ".max")), where


def assert_has_the_keys(value: dict[str, Any], kind: Any, where: str) -> None:
    hints = typing.get_type_hints(kind, include_extras=True)
    required = {key for key, hint in hints.items() if typing.get_origin(hint) is not typing.NotRequired}
    assert (required - value.keys(), value.keys() - hints.keys()) == (set(), set()), where
    for key, part in value.items():
        assert_fits(part, hints[key], f"{where}.{key}")


@pytest.mark.parametrize("verb", OF)
def test_the_known_records_of_all_fixtures_are_as_declared(verb: str) -> None:
    found = {key: record for key, record in KNOWN.items() if key.endswith(f" {verb}") and "error" not in record}
    assert len(found) > 40
    for key, record in found.items():
        assert_fits(record, OF[verb], key)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.weight": rng.normal(size=(8, 8)).astype(np.float16) for i in range(3)}
    save_file(
        {**arrays, "step": np.array(3), "bad.weight": np.full((4, 4), np.nan, np.float32)}, tmp_path / "a.safetensors"
    )
    config = {"model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path / "a.safetensors"


EVERYTHING: dict[str, Any] = {
    "hist": 3, "quantiles": [0.5], "entropy": True, "sparsity": True, "kurtosis": True, "outliers": True, "eps": 1e-3,
    "norms": ["spectral", "nuclear"],
}  # fmt: skip


def test_records_of_every_option_are_as_declared(model: Path) -> None:
    other = wt.open(model).rename(lambda name: f"model.{name}")
    made = [
        (wt.inspect(model), t.InspectRecord),
        (wt.params(model, by="role"), t.ParamsRecord),
        (wt.stats(model, **EVERYTHING), t.StatsRecord),
        (wt.stats(model, by="module", **EVERYTHING), t.StatsRecord),
        (wt.stats(model, dry_run=True), t.StatsPlan),
        (wt.check(model, against=other), t.CheckRecord),
        (wt.estimate(model), t.EstimateRecord),
        (wt.spectrum(model, values=True), t.SpectrumRecord),
        (wt.init_check(model), t.InitCheckRecord),
        ({"rows": wt.list_formats()}, typing.TypedDict("Rows", {"rows": list[t.FormatRow]})),
        (wt.inspect(model, layout=True), t.InspectRecord),
        ({"rows": codes()}, typing.TypedDict("Rows", {"rows": list[t.CodeRow]})),
    ]
    for record, kind in made:
        assert_fits(json.loads(json.dumps(record, allow_nan=False)), kind, kind.__name__)
    given = made[2][0]["tensors"][0].keys() | made[3][0]["groups"][0].keys()
    assert t.StatsRow.__annotations__.keys() - given == set(), "each optional key can be had"


def test_every_type_is_explained() -> None:
    kinds = [kind for kind in vars(t).values() if typing.is_typeddict(kind)]
    assert len(kinds) > 20 and all(kind.__doc__ for kind in kinds)


@pytest.mark.parametrize("by", ["tensor", "module"])
def test_the_record_of_differences_is_as_declared(by: str) -> None:
    old = wt.TensorMap.from_arrays(
        {"a.w": np.ones(3), "b": np.ones(2), "c": np.zeros(0), "e": np.ones((2, 2))}, {"k": "1"}
    )
    new = {"a.w": np.zeros(3), "b": np.ones(2, np.float32), "d": np.array(np.nan), "e": np.ones(4)}
    record = wt.diff(old, wt.TensorMap.from_arrays(new, {"k": "2"}, {"x": "b"}), by=by)
    assert_fits(json.loads(json.dumps(record, allow_nan=False)), t.DiffRecord, "diff")


def test_records_of_hashing_and_verifying_are_as_declared(tmp_path: Path) -> None:
    save_file({"w": np.ones(3)}, tmp_path / "m.safetensors")
    target = tmp_path / "manifest.json"
    found = wt.hash(tmp_path / "m.safetensors", files=True, manifest=target)
    assert_fits(json.loads(json.dumps(found)), t.HashRecord, "hash")
    save_file({"w": np.zeros(3)}, tmp_path / "m.safetensors")
    assert_fits(json.loads(json.dumps(wt.verify(target))), t.VerifyRecord, "verify")
