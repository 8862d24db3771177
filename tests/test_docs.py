"""README.md shows real output: each ``console`` block is run from the repository's root and compared to the letter.

A block holds commands (``$ weighttools …``), each followed by what it prints on standard output. Several commands may
share a block, and then a scratch directory too: ``$ weighttools convert … /tmp/…`` is not needed, for every block runs
with ``$TMP`` set to an empty directory. A block that cannot be run is marked with another language (``sh``, ``text``).

``python tests/test_docs.py --write [FILE]`` writes the true outputs in the place of those that are there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "
_PROGRAM = "weighttools"


def blocks(text: str) -> list[str]:
    """The insides of the ``console`` blocks."""
    return [match[1] for match in _BLOCK.finditer(text)]


def commands(block: str) -> list[str]:
    """The command lines of a block."""
    return [line.removeprefix(_PROMPT) for line in block.splitlines() if line.startswith(_PROMPT)]


class Installed(NamedTuple):
    """Which program is run, and where: by default this checkout's, in its root; `.ci/wheel` has another one run."""

    program: str = f"{shlex.quote(sys.executable)} -m {_PROGRAM}"
    place: Path = ROOT


_HERE = Installed()


def ran(command: str, scratch: str, how: Installed = _HERE) -> str:
    """Run one command line and return its standard output.

    Raises
    ------
    AssertionError
        It fails, or does not begin with ``weighttools``.
    """
    assert shlex.split(command)[0] == _PROGRAM, f"console blocks show {_PROGRAM} only: {command}"
    line = re.sub(rf"(^|\|\s*){_PROGRAM}(?=\s)", rf"\1{how.program}", command)
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "SYSTEMROOT")}
    env |= {"PYTHONPATH": str(how.place), "LANG": "C.UTF-8", "TMP": scratch, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=how.place, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1), f"{command}: exit {done.returncode}: {done.stderr}"
    return done.stdout.replace(scratch, "$TMP")


def true_block(block: str, how: Installed = _HERE) -> str:
    """A block with the outputs that its commands really give."""
    with tempfile.TemporaryDirectory() as scratch:
        return "".join(f"{_PROMPT}{command}\n{ran(command, scratch, how)}" for command in commands(block))


def rewritten(text: str) -> str:
    """A document with true outputs."""
    return _BLOCK.sub(lambda match: f"```console\n{true_block(match[1])}```", text)


def unmentioned(text: str) -> list[str]:
    """Commands of the lazy table that a document does not name."""
    from weighttools.cli.main import COMMANDS

    return [name for name in COMMANDS if not re.search(rf"\b{_PROGRAM} {name}\b", text)]


@pytest.mark.parametrize("block", blocks(README.read_text(encoding="utf-8")) if README.exists() else [])
def test_readme_shows_real_output(block: str) -> None:
    assert commands(block), "a console block without a command"
    assert block == true_block(block), "run: python tests/test_docs.py --write"


def test_readme_mentions_every_command() -> None:
    assert unmentioned(README.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", [".ci/lowest", ".ci/wheel"])
def test_ci_holds_what_is_declared(name: str) -> None:
    """The lowest versions and the wheel are tried by every run of the checks."""
    assert name in (ROOT / ".ci" / "run").read_text() and os.access(ROOT / name, os.X_OK)


def test_every_folder_of_the_package_is_one() -> None:
    """A folder without ``__init__.py`` is found in a checkout, and missed by tools that look for packages."""
    folders = {path.parent for path in (ROOT / "weighttools").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
    assert (ROOT / "weighttools" / "py.typed").is_file()


def test_this_checker(tmp_path: Path) -> None:
    """A wrong output is found and mended; other languages are let be; a missing command is missed."""
    text = (
        "# x\n\n```console\n$ weighttools --version\nwrong\n```\n\n```sh\n$ weighttools nonsense\n```\n"
        "```console\n$ weighttools formats --format csv | head -1\n$ weighttools --version | wc -l\n9\n```\n"
    )
    mended = rewritten(text)
    assert blocks(text)[0] != true_block(blocks(text)[0])
    assert all(block == true_block(block) for block in blocks(mended))
    assert mended == rewritten(mended)
    assert "format,what,suffixes" in mended and "\n1\n```" in mended and "wrong" not in mended
    assert "```sh\n$ weighttools nonsense\n```" in mended
    assert "inspect" in unmentioned(mended) and "inspect" not in unmentioned("weighttools inspect x")
    with pytest.raises(AssertionError, match="exit 2"):
        rewritten("```console\n$ weighttools inspect missing.npz\n```\n")
    with pytest.raises(AssertionError, match="only"):
        rewritten("```console\n$ rm x\n```\n")


def _write(paths: list[str]) -> None:
    for path in [Path(p) for p in paths] or [README]:
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit("usage: python tests/test_docs.py --write [FILE…]")
    _write(sys.argv[2:])


def test_extras_are_those_of_a_clone() -> None:
    """Nothing is on a package index: what the documentation installs is the clone, with an extra that there is."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    texts = [README, *(ROOT / "examples").iterdir(), *(ROOT / "weighttools").rglob("*.py")]
    text = "\n".join(path.read_text() for path in texts if path.suffix in (".md", ".py"))
    asked = set(re.findall(r"pip install (?:-\S+ )*'([^']*)\[(\w+)\]'", text))
    assert {extra for _, extra in asked} >= {"fast", "gguf", "text"}
    assert {(place, extra) for place, extra in asked if extra not in extras or place != "."} == set()
