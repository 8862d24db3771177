"""Regular expressions of files against Python's own."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weighttools.core.budgets import EXPRESSION_STEPS
from weighttools.core.regular import Expression, PlainNames, Steps
from weighttools.errors import CorruptFileError, UnsupportedError

NAMES = (
    "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.11.mlp.up_proj", "q_proj",
    "x_q_proj", "a.b", "ab", "", ".", "aab", "a.\n", "a\nb.q_proj", "q_proj\n", "layers.3",
)  # fmt: skip
KEYS = (
    "q_proj", "^q_proj", "q_proj$", r"layers\.1\..*", r".*layers\.1\..*(q_proj|k_proj|v_proj)$", r"layers\.(0|1)\.self_attn\.(q|v)_proj",
    r"layers\.\d+\.mlp\.(?:up|down)_proj", r"layers\.[0-9]{1,2}\.\w+\.\w+", "(a|a)*b", "(a+)+$", "a?b?", "[^.]*", "", "(|a)b", "x|q_proj",
    r"[]a]b", r"[\w.]+", "a{2}b", "a{,2}b", "a{1,}b", "a{}", "q.proj", r"\^?a", "(^a)b", "^|b", "($)", "a+?b", r"layers\.(1[0-9]|2[0-3])\..*",
)  # fmt: skip


def theirs(key: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", name) is not None


@pytest.mark.parametrize("key", KEYS)
def test_matches_as_peft_does(key: str) -> None:
    assert {name: Expression(key).matches(name) for name in NAMES} == {name: theirs(key, name) for name in NAMES}


atoms = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", "^", "$", "_"])
keys = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda both: f"({both[0]}|{both[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)  # fmt: skip


@given(keys, st.text("ab._\n", max_size=7))
@example("(?:^)*", "a.b")
def test_any_expression_matches_as_pythons_does(key: str, name: str) -> None:
    assert Expression(key).matches(name) == theirs(key, name), (key, name)


def test_what_would_take_for_ever_takes_a_few_steps() -> None:
    for key in ("(a|a)*b", "(a+)+b", "(a*)*b", "(.*)(.*)(.*)(.*)(.*)x"):
        steps = Steps()
        assert not Expression(key, steps).matches("a" * 300)
        assert EXPRESSION_STEPS - steps.left < 30_000


@pytest.mark.parametrize(
    "key", ["(?=a)b", r"(a)\1", r"\bq", "a*+", "a" * 2000, "((a{99}){99}){99}", "(" * 40 + "a" + ")" * 40]
)
def test_what_is_not_regular_is_refused(key: str) -> None:
    with pytest.raises(UnsupportedError):
        Expression(key)


@pytest.mark.parametrize("key", ["(", "(?i)a", "a)", "a)(b", "[", "*a", "a**", "\\", "a{2,1}", "[b-a]"])
def test_what_is_none_is_refused(key: str) -> None:
    with pytest.raises(CorruptFileError):
        Expression(key)


def test_work_is_bounded_over_all_expressions_and_names() -> None:
    steps = Steps(1000)
    with pytest.raises(UnsupportedError, match="too many steps"):
        for key in ("(a|b)+c", "q_proj") * 100:
            Expression(key, steps).matches("ababab")
    with pytest.raises(UnsupportedError, match="too many steps"):
        for _ in range(1001):
            Expression("q_proj", steps).matches("x")


@given(st.lists(st.from_regex(r"(?:[ab1-]|\\?\.){1,6}", fullmatch=True), max_size=8), st.text("ab1.-", max_size=8))
def test_plain_names_are_found_as_pythons_expressions_find_them(keys: list[str], name: str) -> None:
    wanted = next((i for i, key in enumerate(keys) if theirs(key, name)), None)
    assert PlainNames(keys, Steps()).first(name) == wanted


def test_making_expressions_is_work_and_plain_names_are_none() -> None:
    steps = Steps()
    names = PlainNames([f"layers.{i}.q" for i in range(45_000)], steps)
    assert names.others == [] and names.first("model.layers.44999.q") == 44_999
    assert EXPRESSION_STEPS - steps.left < 30
    with pytest.raises(UnsupportedError, match="too many steps"):
        for i in range(20_000):
            Expression(f"(a|b)*{i}", steps)
    assert i < 3_000
