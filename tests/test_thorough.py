"""The two runs of the tests: what the quick one leaves out is said, and there is a reason for each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests import thorough
from tests.conftest import ROOT, clean_environment


def test_what_is_left_out_is_counted_and_the_way_to_it_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/test_real_all.py"]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
    assert "tests are left to the thorough run: pytest --thorough" in done.stdout, done.stdout


def test_the_first_stand_for_the_rest() -> None:
    plain, marked = thorough.first("ab")
    assert plain == "a" and marked.values == ("b",) and [mark.name for mark in marked.marks] == ["thorough"]
    rows = thorough.chosen([(1, "x"), (2, "y")], [(2, "y")], rows=True)
    assert rows[0].values == (1, "x") and rows[1] == (2, "y")
    with pytest.raises(AssertionError):
        thorough.chosen("ab", "c")


def test_no_clock_stops_a_property() -> None:
    assert settings.default is not None and settings.default.deadline is None
    assert settings.default.derandomize or thorough.amount("quick", "thorough") == "thorough"
    assert thorough.at_most(3).max_examples == 3


def test_the_reason_for_each_long_form_is_told() -> None:
    unexplained = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not ast.get_docstring(node):
                marks = [ast.unparse(decorator) for decorator in node.decorator_list]
                unexplained += [f"{path.name}:{node.name}" for mark in marks if mark == "pytest.mark.thorough"]
    assert unexplained == []


def test_one_command_is_quick_and_the_other_takes_all() -> None:
    command = (ROOT / "README.md").read_text(encoding="utf-8").split("test-command -->")[1]
    assert "pytest" in command and thorough.OPTION not in command
    assert f"pytest -q -n 2 {thorough.OPTION}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
