"""Errors: one printable line each, a builtin base each, and a life beyond their process."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from weighttools import errors
from weighttools.errors import SpecError, WeighttoolsError, printable

KINDS = sorted(
    (v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, WeighttoolsError)),
    key=lambda kind: kind.__name__,
)
BASES = {
    "FormatError": ValueError,
    "UnknownFormatError": ValueError,
    "CorruptFileError": ValueError,
    "UnsafeFileError": ValueError,
    "UnsupportedError": NotImplementedError,
    "TensorNotFoundError": KeyError,
    "SpecError": ValueError,
    "SourceError": OSError,
    "MissingDependencyError": ImportError,
    "PluginError": RuntimeError,
    "TrainingError": ArithmeticError,
    "WeighttoolsError": Exception,
}
ANYTHING = st.text(max_size=20)


def test_the_hierarchy_is_known() -> None:
    assert {kind.__name__: True for kind in KINDS} == dict.fromkeys(BASES, True)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_each_has_a_builtin_base(kind: type[WeighttoolsError]) -> None:
    assert issubclass(kind, BASES[kind.__name__])


OFFSETS = st.none() | st.integers(0, 2**70)


@given(st.sampled_from(KINDS), ANYTHING.filter(bool), st.none() | ANYTHING, OFFSETS, ANYTHING, ANYTHING)
def test_any_error_is_one_printable_line_and_pickles(
    kind: type[WeighttoolsError], fact: str, subject: str | None, offset: int | None, expected: str, remedy: str
) -> None:
    error = kind(fact, subject=subject, offset=offset, expected=expected, remedy=remedy)
    line = str(error)
    assert line.isprintable() and printable(fact) in line
    assert (not remedy) or line.endswith(f"; {printable(remedy)}")
    assert (not subject) or line.startswith(f"{printable(subject)}: ")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind and str(again) == line
        assert (again.fact, again.subject, again.offset) == (error.fact, error.subject, offset)


def test_the_parts_stand_in_order() -> None:
    error = errors.CorruptFileError("is bad", subject="a.npz", offset=1234, expected="good", remedy="fetch it again")
    assert str(error) == "a.npz: is bad at byte 1,234; expected good; fetch it again"


def test_a_nearer_subject_stays() -> None:
    assert str(WeighttoolsError("x").about("file")) == "file: x"
    assert str(WeighttoolsError("x", subject="tensor").about("file")) == "tensor: x"


@given(st.text())
def test_printable_keeps_what_is_and_escapes_what_is_not(text: str) -> None:
    found = printable(text)
    assert found.isprintable()
    assert found == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb\r", "a\\nb\\r"), ("\u202e", "\\u202e"), ("\ud800", "\\ud800"), ("é 重", "é 重")],
)
def test_what_would_move_the_cursor_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_save_takes_the_path_first(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected save\(path, map\)"):
        wt.save(wt.TensorMap({}), str(tmp_path / "a.npz"))  # type: ignore[arg-type]
