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


FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@full
@pytest.mark.parametrize("arguments", [["inspect"], ["check"], ["inspect", "--json"], ["params", "--help"]])
def test_full_stdout_is_an_error(tiny: Path, run_cli, arguments: list[str]) -> None:
    with FULL.open("wb") as stdout:
        ran = run_cli(arguments[0], tiny, *arguments[1:], capture_output=False, stdout=stdout, stderr=subprocess.PIPE)
    line = f"weighttools: standard output: cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert (ran.code, ran.err) == (2, line)


@full
def test_full_stdout_for_weights(tiny: Path, run_cli) -> None:
    with FULL.open("wb") as stdout:
        ran = run_cli("convert", tiny, "-", capture_output=False, stdout=stdout, stderr=subprocess.PIPE)
    line = f"weighttools: standard output: cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert (ran.code, ran.err) == (2, line)


@full
@pytest.mark.parametrize("name", ["no.npz", "tiny.safetensors"])
def test_full_stderr_is_exit_2(tiny: Path, run_cli, name: str) -> None:
    """Whether an error could not be told, or a note of what was done all the same."""
    target = tiny.parent / "folder"
    with FULL.open("wb") as stderr:
        ran = run_cli(
            "convert", tiny.parent / name, target, capture_output=False, stdout=subprocess.PIPE, stderr=stderr
        )
    assert ran.code == 2 and "Traceback" not in ran.out
    assert (target / "model.safetensors").exists() == (name == "tiny.safetensors")


def test_closed_stdout_is_named(tiny: Path, tmp_path: Path) -> None:
    ran = run_without(tmp_path, 1, "inspect", tiny)
    assert ran.stderr.startswith(b"weighttools: standard output: cannot be written: ")


@pytest.mark.parametrize(
    ("first", "said"),
    [(b"<!doctype html>", "is an HTML page"), (b"\x1f\x8b\x08\x00", "is gzip-compressed"), (b"\0" * 9, "no known")],
)
@pytest.mark.parametrize("command", ["inspect", "check"])
def test_a_pipe_is_refused_by_its_first_bytes(command: str, first: bytes, said: str, tmp_path: Path) -> None:
    """It is not taken to its end, which may never come: the writer is met by a closed pipe."""
    endless = "import sys\nwhile True: sys.stdout.buffer.write(bytes(1 << 16))"
    begin = f"import sys; sys.stdout.buffer.write({first!r})\n"
    with subprocess.Popen(
        [sys.executable, "-c", begin + endless], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writer:
        ran = subprocess.run(
            [*COMMAND, command, "-"], env=clean_environment(tmp_path), stdin=writer.stdout, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.close()
    assert ran.returncode == 2 and f"-: {said}" in ran.stderr.replace("is of no known", "no known")


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
