"""Packages that add to weighttools, installed as pip leaves them, in a directory of the test's."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, Ran, clean_environment

EXAMPLE = ROOT / "examples" / "plugin"
Points = Mapping[str, Mapping[str, str]]


class Installed:
    """A directory on the path with packages, and programs run with it."""

    def __init__(self, place: Path) -> None:
        self.place, self.home = place / "site", place / "home"
        self.place.mkdir()
        self.home.mkdir()

    def add(self, name: str, points: Points, code: str = "", module: str = "") -> None:
        """Install a package: its metadata, and one module."""
        about = self.place / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [
            line
            for group, those in points.items()
            for line in (f"[{group}]", *(f"{k} = {v}" for k, v in those.items()))
        ]
        (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
        if module:
            (self.place / f"{module}.py").write_text(code)

    def add_example(self) -> None:
        """Install the package in ``examples/plugin``."""
        project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
        self.add(project["name"], project["entry-points"])
        (self.place / "toy_weights").symlink_to(EXAMPLE / "toy_weights", target_is_directory=True)

    def run(self, *arguments: object) -> Ran:
        """Run Python with these arguments."""
        env = clean_environment(self.home, PYTHONPATH=f"{ROOT}:{self.place}")
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=self.home, env=env, capture_output=True, text=True, timeout=300
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def weighttools(self, *arguments: object) -> Ran:
        """Run the command."""
        return self.run("-m", "weighttools", *arguments)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """An empty directory of packages."""
    return Installed(tmp_path)


@pytest.fixture
def toy(installed: Installed) -> Installed:
    """The package in ``examples/plugin``, installed."""
    installed.add_example()
    return installed


@pytest.fixture
def toy_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a toy file without weighttools."""

    def write(name: str = "x.toy", magic: bytes = b"TOYW") -> Path:
        header = b'{"metadata": {"k": "v"}, "tensors": [["a", "float32", [2, 3]], ["n", "int64", [1]]]}'
        import numpy as np

        values = np.arange(6, dtype="<f4").tobytes() + np.array([7], "<i8").tobytes()
        (tmp_path / name).write_bytes(magic + len(header).to_bytes(4, "little") + header + values)
        return tmp_path / name

    return write
