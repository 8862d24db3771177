"""Names are data: the longest and strangest cost no more than they take, and none reaches a terminal unescaped."""

from __future__ import annotations

import numpy as np
import pytest

STYLES = (
    ["inspect"], ["inspect", "--flat"], ["inspect", "--offsets"], ["params", "--by", "module"],
    *(["inspect", "--format", style] for style in ("csv", "markdown", "jsonl", "json")),
    *(["params", "--by", "depth", "--depth", "2", "--format", style] for style in ("csv", "markdown", "jsonl", "json")),
)  # fmt: skip


@pytest.mark.parametrize("arguments", STYLES, ids=" ".join)
def test_one_long_name_does_not_widen_all_lines(make, inside, arguments: list[str]) -> None:
    long = "x" * 100_000
    path = make({long + ".w": np.zeros(1), **{f"m{i}.w": np.zeros(i) for i in range(200)}})
    ran = inside(*arguments, path)
    assert ran.code == 0 and long in ran.out
    assert len(ran.out) < 800_000


@pytest.mark.parametrize("arguments", STYLES, ids=" ".join)
def test_no_escape_reaches_the_terminal(make, inside, arguments: list[str]) -> None:
    evil = "m\x1b[31m\n\x07\x9b.\u202ea|`,\"'"
    path = make({evil: np.zeros(1), "m.w": np.zeros(2)}, **{evil: evil})
    ran = inside(*arguments, path)
    assert ran.code == 0 and "31m" in ran.out
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())
    assert len((ran.out + ran.err).splitlines()) == len((ran.out + ran.err).split("\n")) - 1


def test_a_line_of_error_is_short_whatever_it_names(make, inside) -> None:
    path = make({"x" * 100_000: np.zeros(1), "y" * 100_000: np.zeros(1)})
    for arguments in (["get", path, "xx"], ["get", path, "x" * 99_999], ["inspect", path, "-i", "z"]):
        ran = inside(*arguments)
        assert ran.code == 2 and len(ran.err) < 4000 and ran.err.count("\n") == 1
    ran = inside("convert", path, path.with_suffix(".gguf"))
    assert ran.code == 0 and "llama.cpp" in ran.err and len(ran.err) < 4000
