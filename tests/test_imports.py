"""Light starts: which modules a command may load before it has anything to do for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

# Each of these takes longer to load than a header takes to read.
HEAVY = (
    "numpy", "ml_dtypes", "h5py", "tabulate", "tqdm", "safetensors", "xxhash", "torch", "transformers", "tensorflow",
    "jax", "gguf", "onnx", "msgpack", "fsspec", "huggingface_hub", "numba", "dask", "matplotlib", "scipy", "sklearn",
    "concurrent.futures", "multiprocessing", "asyncio", "tempfile", "zipfile", "pickle", "importlib.metadata",
    "http", "urllib.request", "ssl", "sqlite3", "logging", "csv", "difflib", "ctypes", "html", "unittest", "threadpoolctl",
)  # fmt: skip

PROBE = """
import os, sys
from importlib import import_module
exit, os._exit = os._exit, lambda code: None
sys.argv = ["weighttools", *sys.argv[1:]]
{what}
sys.stdout.flush()
print("\\n".join(sys.modules), file=sys.stderr)
"""
RUN = "from weighttools.cli.main import run; run()"


def loaded(what: str, home: Path, *args: object) -> set[str]:
    """The modules loaded after a statement, without those a bare interpreter loads by itself."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(what=what), *map(str, args)], env=clean_environment(home),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stderr.split())


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if any(name == h or name.startswith(f"{h}.") for h in HEAVY)}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What start-up itself, click included, loads of these: other packages' hooks into Python's start, mostly."""
    home = tmp_path_factory.mktemp("home")
    return heavy(loaded("import click, json", home))


def test_import_loads_nothing(tmp_path: Path) -> None:
    mine = {m for m in loaded("import weighttools", tmp_path) if m.startswith("weighttools")}
    assert mine == {"weighttools"}
    assert not heavy(loaded("import weighttools", tmp_path) - loaded("pass", tmp_path))


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["inspect", "--help"], ["convert", "--help"], ["finetune", "--help"]]
)
def test_help_is_light(args: list[str], tmp_path: Path, bare: set[str]) -> None:
    modules = loaded(RUN, tmp_path, *args)
    assert heavy(modules) - bare == set()
    commands = {m for m in modules if m.startswith("weighttools.cli.")} - {
        "weighttools.cli.main", "weighttools.cli.exits", "weighttools.cli.options", "weighttools.cli.output",
        "weighttools.cli.data",
        f"weighttools.cli.{args[0]}",
    }  # fmt: skip
    assert commands == set(), "only the command that is asked for is imported"
    assert not any(m.startswith("weighttools.formats") for m in modules)


@pytest.mark.parametrize(
    "options", [[], ["--depth", "1"], ["--flat"], ["--sort", "size"], ["--json"], ["--include", "*"]]
)
@pytest.mark.parametrize("command", ["inspect", "params"])
def test_reading_a_header_is_light(command: str, options: list[str], tiny: Path, tmp_path: Path, bare) -> None:
    if command == "params" and set(options) & {"--flat", "--sort"}:
        options = []
    modules = loaded(RUN, tmp_path, command, *options, tiny)
    assert heavy(modules) - bare == set()
    formats = {m for m in modules if m.startswith("weighttools.formats.")}
    assert formats == {
        f"weighttools.formats.{name}"
        for name in ("base", "opening", "safetensors", "safetensors.format", "safetensors.header")
    }


def test_a_sharded_directory_is_light(tiny: Path, tmp_path: Path, bare: set[str], inside) -> None:
    assert inside("convert", tiny, tmp_path / "d", "--max-shard-size", "50").code == 0
    assert heavy(loaded(RUN, tmp_path, "inspect", tmp_path / "d")) - bare == set()


def test_no_command_loads_a_framework(tiny: Path, tmp_path: Path) -> None:
    modules = loaded(RUN, tmp_path, "convert", tiny, tmp_path / "x.npz", "--dtype", "bfloat16")
    assert not {m.partition(".")[0] for m in modules} & {"torch", "transformers", "tensorflow", "jax", "h5py", "scipy"}
