"""What only a real process shows: signals, pipes, terminals, completion."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, clean_environment
from tests.thorough import first

COMMAND = [sys.executable, "-m", "weighttools"]


@pytest.fixture
def many(make) -> Path:
    return make({f"layers.{i}.w": np.zeros(i % 7, np.float32) for i in range(20_000)})


@pytest.mark.parametrize("options", [["--flat"], ["--json"], ["--format", "csv"], ["--format", "jsonl"]])
def test_broken_pipe_is_silent(many: Path, tmp_path: Path, options: list[str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "inspect", many, *options], env=clean_environment(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr and process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_broken_pipe_while_converting(make, tmp_path: Path) -> None:
    path = make({"w": np.zeros(1_000_000, np.float32)})
    with subprocess.Popen(
        [*COMMAND, "convert", path, "-"], env=clean_environment(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr and process.stdout.read(8)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(30) == 0


@pytest.mark.parametrize("name", ["t.safetensors", "t.npz", "t"])
def test_interrupted(name: str, make, tmp_path: Path) -> None:
    """SIGINT while it writes: exit 130, nothing said but perhaps an empty line, nothing left."""
    source = make({"w": np.zeros((16, 1 << 20), np.float32)})
    before = set(os.listdir(tmp_path))
    with subprocess.Popen(
        [*COMMAND, "convert", source, tmp_path / name, "--dtype", "float16"], env=clean_environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while set(os.listdir(tmp_path)) == before and time.monotonic() < deadline:
            time.sleep(0.001)  # its temporary appears
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
    assert set(os.listdir(tmp_path)) == before


def on_a_terminal(*args: object, home: Path) -> tuple[int, bytes, bytes]:
    """Run with stderr on a terminal; return exit code, stdout, and what the terminal got."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *map(str, args)], env=clean_environment(home, TERM="xterm", COLUMNS="100"),
        stdout=subprocess.PIPE, stderr=follower, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(follower)
        seen = b""
        while True:
            try:
                chunk = os.read(leader, 65536) if select.select([leader], [], [], 30)[0] else b""
            except OSError:  # the other end is closed
                chunk = b""
            if not chunk:
                break
            seen += chunk
        out = process.stdout.read() if process.stdout else b""
    os.close(leader)
    return process.returncode, out, seen


@pytest.mark.parametrize("module", ["click", "weighttools.cli.exits"])
def test_interrupted_while_it_is_imported(run_cli, tmp_path: Path, module: str) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    ran = run_cli("formats", env={"PYTHONPATH": f"{start}{os.pathsep}{ROOT}"})
    assert (ran.code, ran.out, ran.err) == (130, "", "")


def test_progress_on_a_terminal_only(make, tmp_path: Path, run_cli) -> None:
    source = make({"w": np.zeros((8, 1 << 20), np.float32)})
    code, out, seen = on_a_terminal("convert", source, tmp_path / "t.npz", home=tmp_path)
    assert code == 0 and out.startswith(b"wrote ")
    assert b"convert" in seen and b"/33.6M" in seen and b"B/s" in seen
    assert run_cli("convert", source, tmp_path / "u.npz").err == ""


@pytest.mark.parametrize(
    ("command", "total"),
    first([("stats --kurtosis --sparsity", "67.1M"), ("stats --hist --quantiles 0.5", "134M"), ("stats --norm nuclear", "134M"), ("check", "67.1M"),
           ("spectrum", "67.1M"), ("init-check", "268M")], rows=True),
)  # fmt: skip
def test_reading_commands_draw_a_bar(make, tmp_path: Path, command: str, total: str) -> None:
    """Bytes done of those planned, bytes a second, time left; and all planned bytes are done in the end."""
    rng = np.random.default_rng(0)
    n = 64 if total == "268M" else 16  # a quick command needs more to do for its bar to move
    source = make({str(i): rng.standard_normal((2048, 512), np.float32) for i in range(n)})
    code, out, seen = on_a_terminal(*command.split(), "--json", source, home=tmp_path)
    drawn = re.findall(
        rf"{command.split()[0]}: +(\d+)%\|.*?\| ([\d.]+[kM]?)/{total} \[[\d:]+<([\d:?]+), *(\S+)B/s\]", seen.decode()
    )
    assert code in (0, 1) and json.loads(out)
    assert len(drawn) >= 2 and int(drawn[0][0]) == 0
    assert any(0 < int(percent) <= 100 and left != "?" and rate != "?" for percent, _, left, rate in drawn)
    assert all(int(percent) <= 100 for percent, *_ in drawn)


def test_data_refused_on_a_terminal(tiny: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "convert", tiny, "-"], env=clean_environment(tmp_path), stdout=follower, stderr=subprocess.PIPE
    )
    os.close(follower)
    os.close(leader)
    assert done.returncode == 2 and b"standard output is a terminal" in done.stderr


EVIL = "a\x1b[31mred\x07\r\n\x9b\u202eb|,\"'"


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"], ["inspect", "--flat", "--offsets"], ["inspect", "--json"], ["inspect", "--format", "csv"],
        ["inspect", "--format", "jsonl"], ["inspect", "--format", "markdown"], ["inspect", "-i", "zzz"],
        ["params"], ["params", "--by", "module"], ["params", "--by", "module", "--format", "csv"],
        ["params", "--by", "module", "--format", "markdown"], ["get", EVIL], ["get", EVIL, "--json"], ["get", "zzz"],
    ],
)  # fmt: skip
def test_no_escape_reaches_the_terminal(inside, make, command: list[str]) -> None:
    """Names, metadata and paths are data: what a terminal would obey is shown escaped."""
    path = make(
        {EVIL: np.zeros(2, np.float32), f"{EVIL}.w": np.ones(3)}, f"{EVIL.replace('|', '')}.safetensors", **{EVIL: EVIL}
    )
    ran = inside(command[0], path, *command[1:])
    text = ran.out + ran.err
    assert text and all(c.isprintable() or c == "\n" for c in text), ran
    assert command == ["params"] or "\\x1b[31m" in text or "\\u001b[31m" in text, "shown, not swallowed"


def test_an_encoding_that_lacks_letters(tiny: Path, run_cli) -> None:
    ran = run_cli("inspect", tiny, env={"PYTHONIOENCODING": "latin-1"}, text=False)
    assert (ran.code, ran.err) == (0, b"") and b"fc" in ran.out


def test_debug_shows_the_traceback(run_cli, tmp_path: Path) -> None:
    plain, debug = (run_cli(*flag, "inspect", tmp_path / "none") for flag in ([], ["--debug"]))
    assert plain.code == 2 and plain.err.count("\n") == 1
    assert debug.code != 0 and "Traceback" in debug.err and "SourceError" in debug.err
    assert "Traceback" in run_cli("inspect", tmp_path / "none", "--debug").err, "wherever it stands"


# completion: the protocol of click's scripts


def completed(run_cli, line: str, shell: str = "bash", **settings: object) -> list[tuple[str, str]]:
    """What a shell is offered for the last word of `line`, as (kind, word)."""
    words = line.split(" ")
    env = {"_WEIGHTTOOLS_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    ran = run_cli(env=env, **settings)
    assert (ran.code, ran.err) == (0, "")
    if shell == "zsh":
        lines = ran.out.splitlines()
        return list(zip(lines[::3], lines[1::3], strict=True)) if lines != [""] else []
    return [tuple(line.split("\t")[0].split(",", 1)) for line in ran.out.splitlines() if "," in line]
    return [tuple(line.split(",", 1)) for line in ran.out.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completes_commands_and_names(run_cli, tiny: Path, shell: str) -> None:
    def words(line: str) -> list[str]:
        return [word for _, word in completed(run_cli, line, shell, cwd=tiny.parent)]

    assert words("weighttools ins") == ["inspect"]
    assert words("weighttools get tiny.safetensors fc.") == ["fc.bias", "fc.weight"]
    assert words("weighttools get tiny.safetensors ") == ["steps", "fc.bias", "fc.weight"]
    assert words("weighttools inspect tiny.safetensors -i fc.w") == ["fc.weight"]
    assert words("weighttools convert tiny.safetensors x.npz --keep-dtype s") == ["steps"]
    assert words("weighttools inspect --forma") == ["--format"]
    assert words("weighttools inspect x --format j") == ["json", "jsonl"]
    assert words("weighttools completion z") == ["zsh"]
    assert words("weighttools get missing.safetensors f") == [], "nothing to offer is no error"


def test_fish_completes(run_cli, tiny: Path) -> None:
    env = {"COMP_WORDS": "weighttools get tiny.safetensors fc.b", "COMP_CWORD": "fc.b"}
    ran = run_cli(cwd=tiny.parent, env=env | {"_WEIGHTTOOLS_COMPLETE": "fish_complete"})
    assert ran.code == 0 and "fc.bias" in ran.out and "fc.weight" not in ran.out


@pytest.mark.parametrize("command", ["inspect", "params", "get", "convert", "convert a.npz", "get a.npz w -o"])
def test_completes_file_names(run_cli, command: str) -> None:
    """The shell is told to complete a file name itself."""
    assert completed(run_cli, f"weighttools {command} mod") == [("file", "mod")]


def test_completion_leaves_out_what_a_shell_would_obey(run_cli, make) -> None:
    path = make({"ok": np.zeros(1), "evil\nplain,rm": np.zeros(1), "e\x1b[31m": np.zeros(1)})
    assert completed(run_cli, f"weighttools get {path} ") == [("plain", "ok")]


def test_completion_does_not_wait_for_standard_input(run_cli) -> None:
    assert completed(run_cli, "weighttools get - ", stdin=subprocess.PIPE) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(run_cli, shell: str) -> None:
    script = run_cli("completion", shell)
    assert script.code == 0 and script.err == ""
    assert f"_WEIGHTTOOLS_COMPLETE={shell}_complete" in script.out and "weighttools" in script.out


def test_bash_uses_the_script(run_cli, tiny: Path, tmp_path: Path) -> None:
    """The printed script, sourced by a real bash, offers a tensor's name."""
    program = tmp_path / "weighttools"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m weighttools "$@"\n')
    program.chmod(0o755)
    script = run_cli("completion", "bash").out + (
        f"\nCOMP_WORDS=({program} get {tiny} fc.w); COMP_CWORD=3\n"
        f"_weighttools_completion {program}; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    env = clean_environment(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["fc.weight"], done


def test_json_is_ascii_and_parses(inside, make) -> None:
    path = make({"ünïcode.重み": np.zeros(1, np.float32)}, k="\u2028é")
    ran = inside("inspect", path, "--json")
    assert ran.out.isascii()
    record = json.loads(ran.out)
    assert record["tensors"][0]["name"] == "ünïcode.重み" and record["metadata"] == {"k": "\u2028é"}
