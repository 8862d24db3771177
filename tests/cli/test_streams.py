"""Standard streams that are closed, full, or asked for twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

COMMAND = [sys.executable, "-m", "weighttools"]


def run_without(path: Path, closed: int, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run with one standard stream closed, as a shell's ``>&-`` does."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=clean_environment(path), capture_output=True,
        stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(closed),
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--format", "csv"], ["--help"], ["convert", "-"]])
def test_closed_stdout_is_an_error(tiny: Path, tmp_path: Path, arguments: list[str]) -> None:
    ran = run_without(tmp_path, 1, arguments[0], tiny, *arguments[1:])
    assert ran.returncode == 2 and os.strerror(errno.EBADF).encode() in ran.stderr
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [0, 2])
def test_closed_stdin_and_stderr_do_not_matter(tiny: Path, tmp_path: Path, closed: int) -> None:
    target = tmp_path / "t.npz"
    assert run_without(tmp_path, closed, "convert", tiny, target).returncode == 0
    assert run_without(tmp_path, closed, "check", target).stdout.endswith(b": nothing found\n")
    assert run_without(tmp_path, closed, "inspect", tmp_path / "no.npz").returncode == 2


def test_an_error_without_stderr_is_not_told_on_stdout(tmp_path: Path) -> None:
    ran = run_without(tmp_path, 2, "inspect", tmp_path / "no.npz")
    assert (ran.returncode, ran.stdout) == (2, b"")


def test_check_reads_stdin_once(tiny: Path, run_cli) -> None:
    with open(tiny, "rb") as stdin:
        assert run_cli("check", "-", stdin=stdin).out == "-: nothing found\n"
    with subprocess.Popen(["cat", tiny], stdout=subprocess.PIPE) as cat:
        assert run_cli("check", "-", stdin=cat.stdout).out == "-: nothing found\n"
