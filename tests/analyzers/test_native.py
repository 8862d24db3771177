"""Machine code of the compiled kernel: made once, kept, loaded without numba, and never trusted when it is not whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import clean_environment
from weighttools.analyzers.kernels import blocked, compiled, native
from weighttools.core.scratch import Scratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="numba itself is used elsewhere")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).standard_normal((300, 700)).astype(np.float32)
    save_file({"w": values, "h": values.astype(np.float16)}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def ran(home: Path, file: Path, **settings: str) -> list[str]:
    """Describe a file in a process of its own; return the greatest values, and whether numba was loaded."""
    code = """
import sys, weighttools as wt
print([row["max"] for row in wt.stats(sys.argv[1], kernel="numba")["tensors"]])
print("numba" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], env=clean_environment(home, **settings), capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_numba_is_loaded_once(file: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    cache = str(home / "cache")
    expected = str([row["max"] for row in wt.stats(file, kernel="numpy")["tensors"]])
    assert ran(home, file, XDG_CACHE_HOME=cache) == [expected, "True"]
    assert ran(home, file, XDG_CACHE_HOME=cache) == [expected, "False"]
    kept = sorted((home / "cache" / "weighttools" / "kernels").iterdir())
    assert [path.name.split("-")[0] for path in kept] == ["float16", "float32"]
    damaged = bytearray(kept[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    kept[1].write_bytes(damaged)
    kept[0].chmod(0o666)
    assert native._kept(kept[0]) is native._kept(kept[1]) is native._kept(home / "none") is None
    assert ran(home, file, XDG_CACHE_HOME=cache) == [expected, "True"], "it is made anew"
    assert native._kept(kept[0]) and native._kept(kept[1])


def test_numba_is_none_the_worse(file: Path, tmp_path: Path) -> None:
    """A process that has loaded the code can use numba as ever: arrays of its own, lists, errors."""
    code = """
import sys, numpy as np, weighttools as wt
wt.stats(sys.argv[1], kernel="numba")
wt.stats(sys.argv[1], kernel="numba")
import numba
@numba.njit
def made(n):
    arrays = [np.ones(3) for _ in range(n)]
    if n > 9:
        raise ValueError("too many")
    return arrays[2].sum()
print(made(5))
try:
    made(10)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], env=clean_environment(tmp_path), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "3.0\ntoo many\n"), done.stderr


def test_code_that_needs_more_is_refused() -> None:
    with pytest.raises(ValueError, match="refers to elsewhere"):
        native.stripped("f", "declare i32 @elsewhere()\ndefine i32 @f() { %r = call i32 @elsewhere() ret i32 %r }")


def test_a_cache_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the folder would be")
    [_, loaded] = ran(tmp_path, file, XDG_CACHE_HOME=str(tmp_path / "blocked"))
    assert loaded == "True"


@pytest.mark.parametrize("fault", ["import", "symbol", "loading"])
def test_what_cannot_be_loaded_is_left_to_numba(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def failing(*args: Any) -> Any:
        raise {"import": ImportError, "symbol": AttributeError, "loading": RuntimeError}[fault]("no")

    monkeypatch.setattr(native, {"import": "import_module", "symbol": "_key", "loading": "_loaded"}[fault], failing)
    assert compiled._native("float32") is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_both_ways_give_the_same_bits(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ml_dtypes

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values = np.random.default_rng(3).standard_normal(100_003).astype(getattr(ml_dtypes, dtype, dtype))
    values[::97] = 0
    found = []
    for kernel in (compiled._native(dtype), compiled._by_numba(dtype)):
        assert kernel is not None
        monkeypatch.setitem(compiled._KERNELS, dtype, kernel)
        found.append(compiled.sums(values, 0.5, 1e-38, Scratch()))
    assert found[0] == found[1] is not None
    expected = blocked.sums(values, 0.5, 1e-38, Scratch())
    assert expected is not None and found[0] is not None
    assert found[0][:2] == expected[:2] and found[0][5:] == expected[5:]
    np.testing.assert_allclose(found[0][2:5], expected[2:5], rtol=1e-6)
    assert os.listdir(tmp_path / "weighttools" / "kernels")
