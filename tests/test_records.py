"""The records of `inspect`, `params`, `stats` and `check` keep their keys and values, over all fixtures."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.records import FILE, VERBS, places, records

KNOWN = json.loads((ROOT / FILE).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records hold paths as they were given, so the places are relative."""
    monkeypatch.chdir(ROOT)


def assert_kept(now: Any, then: Any, where: str) -> None:
    """Hold a record against a known one: it may have more keys; floats may differ by rounding."""
    if isinstance(then, dict):
        assert isinstance(now, dict) and not then.keys() - now.keys(), where
        for key, value in then.items():
            assert_kept(now[key], value, f"{where}.{key}")
    elif isinstance(then, list):
        assert isinstance(now, list) and len(now) == len(then), where
        for i, (mine, known) in enumerate(zip(now, then, strict=True)):
            assert_kept(mine, known, f"{where}[{i}]")
    elif isinstance(then, float) and isinstance(now, float):
        assert math.isclose(now, then, rel_tol=1e-12), (where, now, then)
    else:
        assert now == then and type(now) is type(then), (where, now, then)


PLACES = [key.removesuffix(" inspect") for key in KNOWN if key.endswith(" inspect")]


def test_every_fixture_has_its_records() -> None:
    assert {f"{place} {verb}" for place in places() for verb in VERBS} == set(KNOWN)


@pytest.mark.parametrize("place", PLACES)
def test_records_stay_as_they_were(place: str) -> None:
    for verb, record in records(place).items():
        assert_kept(record, KNOWN[f"{place} {verb}"], f"{place} {verb}")
