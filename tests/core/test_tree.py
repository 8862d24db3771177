"""The module tree: just what is printed for constructed names, and totals that are always the sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from weighttools import TensorMap
from weighttools.core.tree import outline as lines_of
from weighttools.core.tree import ranges


def built(sizes: Mapping[str, int]) -> TensorMap:
    return TensorMap.from_arrays({name: np.zeros(n, np.float32) for name, n in sizes.items()})


def outline(sizes: Mapping[str, int], depth: int | None = None) -> list[str]:
    """Lines as ``indented label: tensors, elements``, a module's with a ``/`` at the end, groups with their number."""
    return [
        f"{'  ' * line.depth}{line.label}{'/' if line.spec is None else ''}"
        f"{f' x{line.copies}' if line.copies > 1 else ''}: {line.n_tensors}, {line.n_elements}"
        for line in lines_of(built(sizes), depth)
    ]


MOE = (
    {"embed.weight": 5}
    | {f"layers.{i}.experts.{j}.{w}.weight": 4 for i in range(3) for j in range(4) for w in "ab"}
    | {f"layers.{i}.norm.weight": 2 for i in range(3)}
)


def test_nested_repeats() -> None:
    assert outline(MOE) == [
        "embed.weight: 1, 5",
        "layers.[0-2]/ x3: 27, 102",
        "  experts.[0-3]/ x4: 8, 32",
        "    a.weight: 1, 4",
        "    b.weight: 1, 4",
        "  norm.weight: 1, 2",
    ]


def test_depth_sums_up() -> None:
    assert outline(MOE, 1) == ["embed/: 1, 5", "layers/: 27, 102"]
    assert outline(MOE, 2) == ["embed.weight: 1, 5", "layers.[0-2]/: 27, 102"]
    assert outline(MOE, 3) == ["embed.weight: 1, 5", "layers.[0-2].experts/: 24, 96", "layers.[0-2].norm/: 3, 6"]
    assert outline(MOE, 9) == [
        "embed.weight: 1, 5",
        "layers.[0-2].experts.[0-3].a.weight/: 12, 48",
        "layers.[0-2].experts.[0-3].b.weight/: 12, 48",
        "layers.[0-2].norm.weight/: 3, 6",
    ]


def test_irregular_layers_and_gaps() -> None:
    """Layers are one line only if every name, dtype and shape in them agrees; no number is said that is not there."""
    sizes = {f"h.{i}.w": 3 if i == 1 else 2 for i in (0, 1, 2, 4, 5, 9)} | {"h.7.w": 2, "h.7.b": 1}
    assert outline(sizes) == [
        "h/: 8, 16",
        "  [0,2,4-5,9]/ x5: 5, 10",
        "    w: 1, 2",
        "  1.w: 1, 3",
        "  7.w: 1, 2",
        "  7.b: 1, 1",
    ]


def test_dtypes_are_not_mixed() -> None:
    arrays = {"h.0.w": np.zeros(2, "f4"), "h.1.w": np.zeros(2, "f2"), "h.2.w": np.zeros((2, 1), "f4")}
    assert [line.label for line in lines_of(TensorMap.from_arrays(arrays))] == ["h", "0.w", "1.w", "2.w"]


def test_a_single_numbered_layer_is_written_out() -> None:
    assert outline({"layers.0.w": 2, "head.w": 1}) == ["layers.0.w: 1, 2", "head.w: 1, 1"]
    assert outline({"layers.0.w": 2, "layers.0.b": 1}) == ["layers/: 2, 3", "  0.w: 1, 2", "  0.b: 1, 1"]


def test_ten_comes_after_two() -> None:
    sizes = {f"l.{i}.w": i + 1 for i in sorted(range(12), key=str)}
    assert outline(sizes)[1:] == [f"  {i}.w: 1, {i + 1}" for i in range(12)]
    assert outline({f"l.{i}.w": 1 for i in sorted(range(12), key=str)})[0] == "l.[0-11]/ x12: 12, 12"


def test_names_that_are_prefixes_of_others() -> None:
    assert outline({"a": 1, "a.b": 2, "a.b.c": 3, "a.0.b": 4, "a.0": 5, "ab.c": 6}) == [
        "a: 1, 1",
        "a/: 4, 14",
        "  b: 1, 2",
        "  b.c: 1, 3",
        "  0.b: 1, 4",
        "  0: 1, 5",
        "ab.c: 1, 6",
    ]


def test_slash_names_keep_their_slashes() -> None:
    sizes = {"a/0/w": 1, "a/1/w": 1, "b/0/w": 3, "b/q": 1, "c/d/0/e/0": 2}
    assert outline(sizes) == [
        "a/[0-1]/ x2: 2, 2",
        "  w: 1, 1",
        "b/: 2, 4",
        "  0/w: 1, 3",
        "  q: 1, 1",
        "c/d/0/e/0: 1, 2",
    ]
    assert outline(sizes, 1) == ["a/: 2, 2", "b/: 2, 4", "c/: 1, 2"]
    assert outline({"a/0.w": 1, "a/1.w": 1}) == ["a/0.w: 1, 1", "a/1.w: 1, 1"], "a dot parts first"


def test_padded_numbers_keep_their_zeros() -> None:
    assert outline({f"l.{i:02}.w": 1 for i in range(12)}) == [
        "l/: 12, 12", "  [00-09]/ x10: 10, 10", "    w: 1, 1", "  [10-11]/ x2: 2, 2", "    w: 1, 1",
    ]  # fmt: skip
    assert outline({"l.1.w": 1, "l.01.w": 1}) == ["l/: 2, 2", "  1.w: 1, 1", "  01.w: 1, 1"]


def test_what_is_no_number() -> None:
    sizes = {"l.²": 1, "l.٣.w": 1, "l.-1.w": 1, "l.1e3.w": 1, "l.12345678901234567890.w": 1}
    assert outline(sizes)[1:] == [f"  {name[2:]}: 1, 1" for name in sizes]


def test_odd_names() -> None:
    sizes = {"": 1, ".": 2, "..": 3, ".a": 4, "a.": 5, "a..b": 6, "[0-3]": 7}
    assert sorted(line.label for line in lines_of(built(sizes)) if line.spec) == sorted(
        ["", ".", "..", ".a", "", ".b", "[0-3]"]  # "a." and "a..b" stand below a line "a"
    )


def test_very_deep_names() -> None:
    """No recursion over the parts of a name; too deep a name is shown whole."""
    deep, deeper = ".".join(["0"] * 5000), ".".join(["a"] * 5000)
    assert outline({deep: 1, deeper: 2}) == [f"{deep}: 1, 1", f"{deeper}: 1, 2"]
    hundred = ".".join(["0"] * 90)
    assert outline({hundred: 1}) == [f"{hundred}: 1, 1"]


def test_empty() -> None:
    assert outline({}) == [] and outline({}, 1) == []


part = st.sampled_from(["a", "b", "0", "1", "2", "10", "01", "x/y", "", "w"])
names = st.lists(part, min_size=1, max_size=5).map(".".join) | st.lists(part, min_size=1, max_size=5).map("/".join)


@given(st.dictionaries(names, st.integers(0, 3), max_size=25))
def test_totals_are_the_sum(sizes: dict[str, int]) -> None:
    """Of the lines that stand at the left edge, and of every body times its copies."""
    for depth in (None, 1, 2, 4):
        lines = lines_of(built(sizes), depth)
        top = [line for line in lines if line.depth == 0]
        assert sum(line.n_tensors for line in top) == len(sizes)
        assert sum(line.n_elements for line in top) == sum(sizes.values())
        assert sum(line.stored_bytes for line in top) == 4 * sum(sizes.values())
    lines = lines_of(built(sizes))
    for i, line in enumerate(lines):
        body = []
        for below in lines[i + 1 :]:
            if below.depth <= line.depth:
                break
            body += [below] if below.depth == line.depth + 1 else []
        if line.spec is None:
            assert line.n_tensors == line.copies * sum(below.n_tensors for below in body), line
            assert line.n_elements == line.copies * sum(below.n_elements for below in body), line


@given(st.sets(st.integers(0, 60)))
def test_ranges_say_just_the_numbers(numbers: set[int]) -> None:
    said: list[int] = []
    for run in filter(None, ranges(numbers).split(",")):
        first, _, last = run.partition("-")
        said += range(int(first), int(last or first) + 1)
    assert said == sorted(numbers)
