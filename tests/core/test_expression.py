"""Conditions: what they mean, and that anything else is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighttools.core.expression import condition
from weighttools.errors import SpecError

ROW: dict[str, Any] = {"a": 1, "b": 2.5, "name": "x.y", "dtype": "bfloat16", "gone": None, "shape": [2, 3]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a == 1", True),
        ("a != 1", False),
        ("a < b", True),
        ("b >= 2.5", True),
        ("a > -1e-3", True),
        ("0 < a < b < 3", True),
        ("0 < a < 1", False),
        ("a == 1 and b == 0 or name == 'x.y'", True),
        ("a == 1 and (b == 0 or name == 'x.y')", True),
        ('a == 0 and b == 0 or name == "x"', False),
        ("not a == 1", False),
        ("not not a == 1", True),
        ("not (a == 2) and not b < a", True),
        ("dtype == bf16", True),
        ("dtype == 'bf16'", True),
        ("dtype == bfloat16", True),
        ("dtype != f32", True),
        ("gone > 0", False),
        ("gone <= 0", False),
        ("gone != 0", True),
        ("name > 3", False),
        ("shape > 3", False),
        ("a==1and b==2.5", None),
        (".5<a", True),
        ("a == 1.0", True),
        ("name == 'and'", False),
    ],
)
def test_meaning(text: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(SpecError):
            condition(text, ROW)
    else:
        assert condition(text, ROW)(ROW) is expected


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a ==", "== 1", "a == 1 b", "a = 1", "(a == 1", "a == 1)", "a == 1 and", "and a == 1", "a == 'x",
        "a & b", "__import__('os')", "a.real == 1", "a + 1 == 2", "a == 1; b == 2", "not", "[a] == 1", "lambda: 1",
        "(" * 500 + "a == 1" + ")" * 500, "not " * 500 + "a == 1", "é == 1", "a == 1e", "a == 0x10",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as told:
        condition(text, ROW)
    assert "\n" not in str(told.value)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown name 'sparsty'.*one of a, b, name"):
        condition("sparsty > 1", ROW)


PARTS = (*"ab()<>=!'\" 1.e-", " and ", " or ", " not ", "name", " == ", " < ", " 2 ")


@given(st.lists(st.sampled_from(PARTS), max_size=20))
def test_no_text_does_anything_but_compare(parts: list[str]) -> None:
    try:
        found = condition("".join(parts), ROW)
    except SpecError:
        return
    assert found(ROW) in (True, False)


NUMBERS = st.integers(-3, 3)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["<", ">=", "=="]), NUMBERS), min_size=1), st.data()
)
def test_and_or_not_as_python_has_them(tests: list[tuple[str, str, int]], data: st.DataObject) -> None:
    joins = [data.draw(st.sampled_from([" and ", " or ", " and not ", " or not "])) for _ in tests[1:]]
    text = "".join(
        part for n, (x, sign, y) in enumerate(tests) for part in ((joins[n - 1] if n else ""), f"{x} {sign} {y}")
    )
    assert condition(text, ROW)(ROW) is eval(text, {}, {"a": ROW["a"], "b": ROW["b"]})
