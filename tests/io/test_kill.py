"""Death at any moment, real full disks, and several writers at once."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools
from tests.conftest import clean_environment

HERE = Path(__file__).parent
MB = 1 << 20

# writer -> target's name, options of `convert`
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "safetensors": ("t.safetensors", {}),
    "npz": ("t.npz", {}),
    "npy": ("t.npy", {"include": ["a"]}),
    "shards": ("t", {"max_shard_size": "20MB"}),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tensors of 16 MiB, zeros but for their ends."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    arrays = {name: np.zeros((4, MB), np.float32) for name in "abcd"}
    for array in arrays.values():
        array[0, :99] = array[-1, -99:] = 1
    save_file(arrays, path)
    return path


@pytest.mark.thorough
@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_random_moments(writer: str, large: Path, tmp_path: Path) -> None:
    """40 SIGKILLs spread over the whole of a write: under the target's name is always the old or the new, whole.

    Of the thorough run: it takes a while, and moments are told by a clock. In the quick one a write kills itself.
    """
    name, options = WRITERS[writer]
    (tmp_path / "place").mkdir()
    old = tmp_path / "old"
    weighttools.convert(large, old if "." not in name else tmp_path / name, dtype="float16", include=["a"])
    if "." in name:
        (tmp_path / name).rename(old)
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, HERE / "kill_loop.py", large, tmp_path / "place" / name, "40", str(seed), json.dumps(options)],
        env=clean_environment(tmp_path, OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    told = f"seed {seed}: {report}"
    assert set(report["found"]) <= {"old", "new"}, told
    assert "old" in report["found"] and report["n_debris"] > 0, f"no kill came in time to prove anything: {told}"
    assert not report["spoiled"], told
    assert (report["last"], report["left"]) == ("new", [name]), told


DIE = """
import os, signal, sys, weighttools
moved = 0
def die(n):
    global moved
    moved += n
    if moved > float(sys.argv[3]) * 64e6:
        os.kill(os.getpid(), signal.SIGKILL)
weighttools.convert(sys.argv[1], sys.argv[2], force=True, progress=die, max_shard_size=sys.argv[4] or None)
"""


@pytest.mark.parametrize("writer", ["safetensors", "npz", "shards"])
def test_second_run_cleans_what_the_first_left(writer: str, large: Path, tmp_path: Path) -> None:
    name, options = WRITERS[writer]
    target = tmp_path / name
    dead = subprocess.run(
        [sys.executable, "-c", DIE, large, target, "0.6", options.get("max_shard_size", "")],
        env=clean_environment(tmp_path),
    )
    assert dead.returncode == -signal.SIGKILL
    assert not target.exists()
    assert sorted(Path(left).suffix for left in os.listdir(tmp_path)) == [".mark", ".tmp"]
    weighttools.convert(large, target, **options)
    assert os.listdir(tmp_path) == [name]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("name", ["t.safetensors", "t.npz", "t.npy", "t"])
def test_full_disk(name: str, small_disk: Path, make, inside) -> None:
    old = make({"w": np.ones(150_000, np.float32)}, "old.safetensors")
    new = make({"w": np.zeros(160_000, np.float32)}, "new.safetensors")
    target = small_disk / name
    assert inside("convert", old, target).code == 0
    ran = inside("convert", new, target, "--force")
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert f"{target}" in ran.err and "No space left on device" in ran.err and "the target is as it was" in ran.err
    assert "are needed and" in ran.err, "it says how much is missing"
    assert os.listdir(small_disk) == [name]
    (found,) = weighttools.open(target).read().values()
    assert found.shape == (150_000,) and (found == 1).all()
    assert inside("convert", new, target, "--force", "--dtype", "float16").code == 0, "half of it fits"


@pytest.mark.parametrize("name", ["t.safetensors", "t.npz", "t.npy", "t"])
def test_file_size_limit(name: str, make, tmp_path: Path, run_cli) -> None:
    """The kernel refuses to let a file grow (EFBIG): no root is needed for that."""
    source = make({"w": np.zeros(100_000, np.float32)})
    before = set(os.listdir(tmp_path))
    ran = run_cli(
        "convert", source, tmp_path / name,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert ran.code == 2 and ran.err.count("\n") == 1, ran
    assert "File too large" in ran.err and str(tmp_path / name) in ran.err
    assert set(os.listdir(tmp_path)) == before


WRITE_MANY = """
import sys, weighttools
for i in range(25):
    weighttools.convert(sys.argv[1], sys.argv[2], force=True)
"""


def test_writers_at_once(tiny: Path, tmp_path: Path) -> None:
    """Four processes write into one directory, two of them the same target: none takes another's file for debris."""
    place = tmp_path / "place"
    place.mkdir()
    env = clean_environment(tmp_path, OPENBLAS_NUM_THREADS="1")
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_MANY, tiny, place / name], env=env, stderr=subprocess.PIPE)
        for name in ("a.npz", "a.npz", "b.safetensors", "c")
    ]
    told = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, told
    assert sorted(os.listdir(place)) == ["a.npz", "b.safetensors", "c"]
    assert all(len(weighttools.open(place / name)) == 3 for name in ("a.npz", "b.safetensors", "c"))
