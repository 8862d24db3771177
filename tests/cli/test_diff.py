"""``weighttools diff`` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def pair(make: Callable[..., Path]) -> tuple[Path, Path]:
    old = {"a.w": np.ones((2, 3), np.float32), "b.w": np.zeros(4, np.float32), "old\x1b[31m": np.ones(1)}
    new = {"a.w": np.ones((2, 3), np.float32), "b.w": np.array([0, 0, 2, 0], np.float32), "new": np.ones(1)}
    return make(old, "old.safetensors", step="1"), make(new, "new.safetensors", step="2")


def test_exit_codes(inside: Callable[..., Any], pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    assert inside("diff", old, old)[:2] == (0, "same: 3 tensors\n")
    assert inside("diff", old, new).code == 1
    assert inside("diff", old, new, "-q") == (1, "", "")
    for bad in (
        ("diff", old, tmp_path / "none"),
        ("diff", old, new, "-i", "zzz"),
        ("diff", old, new, "--map", "q=r"),
        ("diff", old, new, "-q", "--and", tmp_path / "none"),
    ):
        found = inside(*bad)
        assert found.code == 2 and found.err.count("\n") == 1 and not found.out, found


def test_the_table(inside: Callable[..., Any], pair: tuple[Path, Path]) -> None:
    out = inside("diff", *pair).out
    assert out.startswith("1 of 2 tensors changed (1 of 10 elements), 1 added, 1 removed\n")
    assert "\x1b" not in out
    for line in ("  + new  float64  1", "  - old\\x1b[31m  float64  1", "  ~ step: 1 -> 2"):
        assert line in out.splitlines(), out
    [row] = [line for line in out.splitlines() if line.startswith("b.w")]
    assert row.split() == ["b.w", "float32", "4", "25.00%", "2", "[2]"]


def test_what_is_not_shown_is_counted(inside: Callable[..., Any], make: Callable[..., Path]) -> None:
    old, new = ({f"w{i}": np.full(2, by * (i + 1), np.float32) for i in range(5)} for by in (1, 2))
    paths = make(old, "old.safetensors"), make(new, "new.safetensors")
    lines = inside("diff", *paths, "--top", "2", "--sort", "l2").out.splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["w4", "w3", "…"] and "3 changed tensors not shown" in lines[6]
    assert inside("diff", *paths, "--where", "l2 > 99").out.splitlines()[2] == "… and 5 changed tensors not shown"
    assert "not shown" not in inside("diff", *paths).out


def test_rows_say_what_they_do_not_tell(inside: Callable[..., Any], pair: tuple[Path, Path]) -> None:
    err = inside("diff", *pair, "--format", "csv").err
    assert "--json has 1 added, 1 removed, 1 metadata" in err


def test_the_record_and_rows(inside: Callable[..., Any], pair: tuple[Path, Path]) -> None:
    record = json.loads(inside("diff", *pair, "--json").out)
    assert record["schema"] == "weighttools.diff/1" and record["changed"][0]["max_at"] == [2]
    lines = inside("diff", *pair, "--format", "csv").out.splitlines()
    assert lines[0].startswith("name,src,what") and lines[1].startswith("b.w,b.w,values,float32,[4],4,1,1,0.25")
    groups = inside("diff", *pair, "--by", "module", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["group"] for line in groups] == ["a", "b"]


def test_renamings_alike_are_one_line(inside: Callable[..., Any], make: Callable[..., Path]) -> None:
    old = {f"bert.layer.{i}.w": np.arange(9.0) * (i + 1) for i in range(3)}
    new = {name.removeprefix("bert."): one for name, one in old.items()}
    out = inside(
        "diff",
        make({**old, "a.x": np.ones((3, 3)) + np.eye(3)}, "a.safetensors"),
        make({**new, "b.y": np.ones((3, 3)) + np.eye(3)}, "b.safetensors"),
    ).out
    assert (
        "  bert.* -> *  (renamed, 3 tensors)\n  a.x -> b.y  (renamed)" in out
        or "  a.x -> b.y  (renamed)\n  bert.* -> *" in out
    )
