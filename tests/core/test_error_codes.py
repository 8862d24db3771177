"""Each error carries a code that the table documents, and the table has none that nothing raises."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator

from tests.conftest import ROOT
from weighttools import errors
from weighttools.core.error_codes import CODES
from weighttools.errors import SpecError, WeighttoolsError

KINDS = {name: v for name, v in vars(errors).items() if isinstance(v, type) and issubclass(v, WeighttoolsError)}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "weighttools").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def given(call: ast.Call) -> Iterator[str]:
    """The codes that a call gives: a text, or one of several by a condition."""
    for keyword in call.keywords:
        if keyword.arg == "code":
            yield from (
                node.value
                for node in ast.walk(keyword.value)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            )


def test_each_class_has_a_code_of_its_own() -> None:
    own = {name: vars(kind).get("usual_code") for name, kind in KINDS.items()}
    assert None not in own.values() and len(set(own.values())) == len(own), own
    assert set(own.values()) <= set(CODES)


def test_what_is_raised_is_in_the_table_and_the_table_holds_nothing_else() -> None:
    finer = {(code, where) for where, call in calls() for code in given(call)}
    assert {(code, where) for code, where in finer if code not in CODES} == set()
    made = {call.func.id for _, call in calls() if isinstance(call.func, ast.Name)}
    usual = {
        kind.usual_code for name, kind in KINDS.items() if name in made or name in ("WeighttoolsError", "FormatError")
    }
    assert set(CODES) - {code for code, _ in finer} - usual == set()


def test_codes_are_words_with_dashes_and_meanings_are_lines() -> None:
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code) and meaning and "\n" not in meaning, code


def test_a_code_lives_beyond_its_process() -> None:
    error = SpecError("lr 0 is out of range", code="out-of-range")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert again.code == error.code == "out-of-range"
    assert (SpecError("x").code, errors.CorruptFileError("x").code) == ("spec", "corrupt-file")
