"""Analyzers of installed packages: their columns in ``stats``, by tensor, by module and in the total."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.plugins.conftest import Installed
from weighttools.analyzers.testing import AnalyzerConformance

GROUP = "weighttools.analyzers"
ARRAYS = {"m.a": np.array([[-1.0, 2.0], [3.0, np.nan]], np.float32), "m.b": np.array([-5, 0], np.int64)}


def test_its_columns_stand_in_the_table(toy: Installed, make: Callable[..., Path]) -> None:
    ran = toy.weighttools("stats", make(ARRAYS), "--analyzers", "signs", "--kurtosis", "--where", "n_negative > 0")
    assert (ran.code, ran.err) == (0, "")
    head, _, *rows = ran.out.splitlines()
    first, second = sorted(row for row in rows if row.startswith("m."))
    assert head.split()[-5:] == ["skewness", "kurtosis", "n_positive", "n_negative", "share_positive"]
    assert first.split()[-3:] == ["2", "1", "0.6667"] and second.split()[-3:] == ["0", "1", "0"]


@pytest.mark.parametrize("by", ["tensor", "module"])
def test_its_figures_stand_in_the_record(toy: Installed, make: Callable[..., Path], by: str) -> None:
    record = json.loads(
        toy.weighttools("stats", make(ARRAYS), "--json", "--by", by, "--analyzers", "signs", "--sort", "n_positive").out
    )
    rows = [
        {key: row[key] for key in ("n_positive", "n_negative")}
        for row in record["tensors" if by == "tensor" else "groups"]
    ]
    each = [{"n_positive": 2, "n_negative": 1}, {"n_positive": 0, "n_negative": 1}]
    both = {"n_positive": 2, "n_negative": 2, "share_positive": 0.5}
    assert rows == (each if by == "tensor" else [{"n_positive": 2, "n_negative": 2}])
    assert both.items() <= record["total"].items()
    assert "n_positive" not in json.loads(toy.weighttools("stats", make(ARRAYS), "--json").out)["total"]


def test_python_takes_the_names(toy: Installed, make: Callable[..., Path]) -> None:
    code = "import sys, weighttools as wt; print(wt.stats(sys.argv[1], analyzers='signs')['total']['n_positive'])"
    assert toy.run("-c", code, make(ARRAYS)) == (0, "2\n", "")


STATE = """
from typing import NamedTuple
from weighttools.analyzers.base import Analyzer

class State(NamedTuple):
    n: int = 0
    def merge(self, other):
        return State(self.n + other.n)
    def finish(self, spec=None):
        return FIGURES

def of(block):
    return State(BLOCK)

ANALYZER = MADE
"""
GOOD = {"FIGURES": "{'n_mine': self.n}", "BLOCK": "block.values.size", "MADE": "Analyzer(of, ('n_mine',))"}
BROKEN = {
    "type": ({"MADE": "of"}, "is of type function; expected a weighttools.analyzers.base.Analyzer"),
    "twice": ({"FIGURES": "{'n_mine': 1, 'mean': 2}"}, "gives 'mean', which stats gives already"),
    "label": ({"FIGURES": "{'n_mine': 1, 'name': 2}"}, "gives 'name', which stats gives already"),
    "hist": ({"FIGURES": "{'n_mine': 1, 'quantiles': 2}"}, "gives 'quantiles', which stats gives already"),
    "dict": ({"FIGURES": "3"}, "finishes as a int; expected a dict of figures"),
    "column": ({"FIGURES": "{'other': 3}"}, "does not give its column 'n_mine'; expected one of other"),
    "fails": ({"BLOCK": "1 // 0"}, "failed (ZeroDivisionError: "),
    "late": ({"BLOCK": "1 // (not block.values.size)"}, "failed (ZeroDivisionError: "),
}


def code_of(changes: dict[str, str]) -> str:
    code = STATE
    for key, text in {**GOOD, **changes}.items():
        code = code.replace(key, text)
    return code


def test_one_that_does_not_work_is_one_line(installed: Installed, tiny: Path) -> None:
    installed.add("good", {GROUP: {"mine": "good:ANALYZER"}}, code_of({}), "good")
    assert "n_mine" in installed.weighttools("stats", tiny, "--analyzers", "mine").out
    for kind, (changes, fact) in BROKEN.items():
        installed.add(f"bad-{kind}", {GROUP: {kind: f"bad_{kind}:ANALYZER"}}, code_of(changes), f"bad_{kind}")
        ran = installed.weighttools("stats", tiny, "--analyzers", kind)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
        assert ran.err.startswith(f"weighttools: bad-{kind} 1.0: its analyzer {kind!r} {fact}"), ran.err
    assert "n_mine" in installed.weighttools("stats", tiny, "--analyzers", "mine").out


def test_an_unknown_name_lists_the_known(toy: Installed, tiny: Path) -> None:
    ran = toy.weighttools("stats", tiny, "--analyzers", "sign")
    line = "weighttools: unknown analyzer 'sign'; expected one of kurtosis, outliers, signs, sparsity\n"
    assert ran == (2, "", line)


WRONG = {
    "the last wins": ("other.n", "block.values.size", "test_parts_merged_in_any_grouping_are_the_whole"),
    "counts blocks": ("self.n + other.n", "1", "test_threads_and_blocks_of_any_size_give_the_same"),
    "reads NaN as a number": (
        "self.n + other.n",
        "int(block.values.reshape(-1)[:1].sum())",
        "test_figures_have_the_same_names_whatever_the_values",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_suite_finds_what_is_wrong(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that every analyzer passes would be worth nothing."""
    import sys
    from types import ModuleType

    from weighttools.analyzers import ANALYZERS
    from weighttools.core.registry import Entry

    merge, block, test = WRONG[kind]
    module = ModuleType("wrong_analyzer")
    monkeypatch.setitem(sys.modules, "wrong_analyzer", module)
    exec(code_of({"BLOCK": block}).replace("self.n + other.n", merge), module.__dict__)
    monkeypatch.setitem(ANALYZERS.table, "wrong", Entry("wrong_analyzer:ANALYZER"))

    class Wrong(AnalyzerConformance):
        name = "wrong"

    arguments = ((4, 8), np.nan) if test.startswith("test_figures") else ()
    with pytest.raises((AssertionError, ValueError)):
        getattr(Wrong(), test)(*arguments)
