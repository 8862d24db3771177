"""Fixtures that every room of the tests shares: running the command line, and small files to run it on."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

pytest.register_assert_rewrite(
    "weighttools.core.testing",
    *(f"weighttools.{room}.testing" for room in ("formats", "analyzers", "transforms")),
)
from tests import thorough  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SIDE_BY_SIDE = "PYTEST_XDIST_WORKER" in os.environ
LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        thorough.OPTION,
        action="store_true",
        help="run the long forms too: real weights (fetched), fine-tunes in torch, kills, mutants, many examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    thorough.choose(config.getoption(thorough.OPTION))
    os.environ |= {"HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "torch"}  # before any test imports these
    if SIDE_BY_SIDE:
        os.environ["OMP_NUM_THREADS"] = "1"  # torch's; for those of NumPy, which is here already, see `one_blas_thread`
    config.stash[LEFT_OUT] = 0
    config.pluginmanager.register(_Workers())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if thorough.is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not thorough.is_left_out(item)]
    config.stash[LEFT_OUT] = len(left_out)


def pytest_collection_finish() -> None:
    """What importing and collecting thousands of tests made stays to the end: garbage collections pass it over."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one, if one did, what was left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


class _Workers:
    """What only pytest-xdist calls."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Each worker collects every test, so each has left out the same ones."""
        left_out = getattr(node, "workeroutput", {}).get("left_out", 0)
        node.config.stash[LEFT_OUT] = max(node.config.stash[LEFT_OUT], left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[LEFT_OUT]:
        terminalreporter.write_line(thorough.told(config.stash[LEFT_OUT]))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and every process below inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """Where tests run side by side, products keep to a core each: waiting for one another's threads, they spin."""
    with threadpool_limits(1 if SIDE_BY_SIDE else None, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def listing_server() -> Iterator[Any]:
    """The parent that forks a child for each HDF5 file; see `tests.listing_server`."""
    from tests.listing_server import ListingServer

    if not hasattr(os, "fork"):
        yield None
        return
    with contextlib.closing(ListingServer()) as server:
        yield server


@pytest.fixture(scope="class")
def one_listing_parent(listing_server: Any) -> Iterator[None]:
    """Have HDF5 files listed by children of one parent: for tests of many files. Others start processes as users do."""
    from tests.listing_server import one_parent

    with one_parent(listing_server):
        yield


class Ran(NamedTuple):
    """What a run of the command line gave."""

    code: int
    out: str
    err: str


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """An environment that holds nothing of the caller's but the path to programs."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        **more,
    }


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., Any]:
    """Run ``python -m weighttools ARGS`` in a process of its own; text in and out unless ``text=False``."""
    home = tmp_path / "home"
    home.mkdir()

    def run(*args: object, cwd: Path = tmp_path, env: dict[str, str] | None = None, **settings: Any) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "weighttools", *map(str, args)],
            cwd=cwd,
            env=clean_environment(home, **(env or {})),
            timeout=60,
            **{"capture_output": True, "text": True, "stdin": None if "input" in settings else subprocess.DEVNULL}
            | settings,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


class _Exit(BaseException):
    pass


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run the command line in this process: many times faster, and its system calls can be made to fail."""
    from weighttools.cli.main import run

    def leave(code: int) -> None:
        raise _Exit(code)

    def call(*args: object) -> Ran:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(os, "_exit", leave)
            patch.setattr(sys, "argv", ["weighttools", *map(str, args)])
            try:
                run()
            except _Exit as left:
                code = left.args[0]
            finally:
                gc.enable()
        return Ran(code, *(_written(stream) for stream in (out, err)))

    return call


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    data: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return data.decode("utf-8")


TINY = {
    "fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fc.bias": np.array([0.5, -0.0, 3.0], np.float32),
    "steps": np.array([7], np.int64),
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A safetensors file of three tensors (15 float32 elements, one int64) with ``{"format": "pt"}``."""
    path = tmp_path / "tiny.safetensors"
    save_file(TINY, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays to a safetensors file in the test's directory by the official library."""

    def write(arrays: dict[str, Any], name: str = "made.safetensors", **metadata: str) -> Path:
        path = tmp_path / name
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata=metadata or None)
        return path

    return write
