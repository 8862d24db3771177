"""Memory does not grow with the checkpoint: the peak of a whole `convert`, against that of a bare interpreter."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment
from tests.thorough import chosen

MB = 1 << 20
LIMIT = 150 * MB

# Linux lets a new process begin with the ru_maxrss of the one that started it (exec keeps the larger of both), which
# here is a large pytest: so the child asks a child of its own, and that is a bare interpreter's at the start.
CHILD = """
import resource, subprocess, sys
if sys.argv[1] == "start":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "run", *sys.argv[3:]]).returncode)
if sys.argv[2:]:
    import weighttools
    weighttools.convert(sys.argv[2], sys.argv[3], dtype=sys.argv[4] or None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
HOG = f"x = bytearray({200 * MB}); x[::4096] = b'1' * len(x[::4096])"


def peak(home: Path, *args: object) -> int:
    """The peak memory of a process, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "start", CHILD, *map(str, args)],
        env=clean_environment(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def sparse(path: Path, n_bytes: int) -> Path:
    """A safetensors file of four float32 tensors, one large and three smaller, whose data take no room on the disk."""
    sizes = {"large": n_bytes // 2, "a": n_bytes // 4, "b": n_bytes // 8, "c": n_bytes // 8}
    at, records = 0, []
    for name, size in sizes.items():
        records.append(f'"{name}":{{"dtype":"F32","shape":[{size // 4}],"data_offsets":[{at},{at + size}]}}')
        at += size
    header = ("{" + ",".join(records) + "}").encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + n_bytes)
    return path


def test_the_measure_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees 200 MB where they are used, and nothing of the process that asks."""
    ballast = bytearray(os.urandom(1024) * (100 * 1024))
    assert peak(tmp_path) < 60 * MB < len(ballast)
    monkeypatch.setitem(globals(), "CHILD", CHILD.replace("if sys.argv[2:]:", f"if True:\n    {HOG}\nif sys.argv[2:]:"))
    assert 200 * MB < peak(tmp_path) < 300 * MB


@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        pytest.param("t.safetensors", "", id="copy", marks=pytest.mark.thorough),
        pytest.param("t.safetensors", "bfloat16", id="cast"),
        pytest.param("t.npz", "", id="npz", marks=pytest.mark.thorough),
    ],
)
def test_convert_stays_small(target: str, dtype: str, tmp_path: Path) -> None:
    bare = peak(tmp_path)
    over = []
    for n_mb in (256, 512):
        source = sparse(tmp_path / f"{n_mb}.safetensors", n_mb * MB)
        over.append(peak(tmp_path, source, tmp_path / target, dtype) - bare)
        written = (tmp_path / target).stat().st_size
        assert written > n_mb * MB // (2 if dtype else 1)
        os.unlink(tmp_path / target)
    print([n // MB for n in over], "MB over a bare interpreter")
    assert max(over) < LIMIT, f"{[n // MB for n in over]} MB over a bare interpreter"
    assert over[1] - over[0] < 16 * MB, f"it grows with the file: {[n // MB for n in over]} MB"


EDITS = {
    "prune": ["prune", "--sparsity", "0.5"],
    "prune rows": ["prune", "--structure", "rows", "--sparsity", "0.5"],
    "2:4": ["prune", "--nm", "2:4"],
    "random": ["prune", "--random", "--sparsity", "0.5"],
    "decay": ["decay", "--rate", "0.1", "--l1", "1e-3"],
    "clip": ["clip", "--norm", "1"],
    "noise": ["noise", "--std", "1e-3"],
    "init": ["init", "--method", "truncated_normal"],
    "average": ["average", "SRC", "SRC"],
    "bitmask": ["prune", "--sparsity", "0.5", "--store", "bitmask"],
}
RUN_EDIT = """
import os, resource, subprocess, sys
if sys.argv[1] == "start":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "run", *sys.argv[3:]]).returncode)
def leave(code):
    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(top, flush=True)
    left(code)
left, os._exit = os._exit, leave
from weighttools.cli.main import run
sys.argv = ["weighttools", *sys.argv[2:]]
run()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 MB in one tensor of normal numbers."""
    import numpy as np
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("large") / "a.safetensors"
    save_file({"fc.weight": np.random.default_rng(0).standard_normal((8192, 8192), np.float32)}, path)
    return path


@pytest.mark.parametrize("edit", chosen(EDITS, ("prune", "average")))
def test_edits_stay_small(edit: str, large: Path, tmp_path: Path) -> None:
    """The plan, the write and the report together."""
    bare, source, target = peak(tmp_path), large, tmp_path / "b.safetensors"
    command, *options = (source if word == "SRC" else word for word in EDITS[edit])
    done = subprocess.run(
        [sys.executable, "-c", RUN_EDIT, "start", RUN_EDIT, command, source, "-o", target, *options],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    over = int(done.stdout.splitlines()[-1]) - bare
    print(edit, over // MB, "MB over a bare interpreter")
    assert target.stat().st_size > (128 if edit == "bitmask" else 256) * MB
    assert over < 200 * MB, f"{over // MB} MB over a bare interpreter"


def test_merging_an_adapter_stays_small(large: Path, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    (tmp_path / "adapter").mkdir()
    factors = {"fc.lora_A.weight": np.ones((16, 8192), np.float32), "fc.lora_B.weight": np.ones((8192, 16), np.float32)}
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 16, "lora_alpha": 16}')
    target = tmp_path / "merged.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", RUN_EDIT, "start", RUN_EDIT, "merge-adapter", large, tmp_path / "adapter", "-o", target],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    over = int(done.stdout.splitlines()[-1]) - peak(tmp_path)
    assert target.stat().st_size > 256 * MB and over < 150 * MB, f"{over // MB} MB over a bare interpreter"


def test_comparing_stays_small(large: Path, tmp_path: Path) -> None:
    """Of 512 MB, nearly all of which differs, with what explains it."""
    other = tmp_path / "zeros.safetensors"
    header = b'{"fc.weight":{"dtype":"F32","shape":[8192,8192],"data_offsets":[0,268435456]}}'
    with open(other, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 256 * MB)
    done = subprocess.run(
        [sys.executable, "-c", RUN_EDIT, "start", RUN_EDIT, "diff", large, other],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and " of 67,108,864 elements" in done.stdout, done.stderr
    over = int(done.stdout.splitlines()[-1]) - peak(tmp_path)
    print(over // MB, "MB over a bare interpreter")
    assert over < 80 * MB, f"{over // MB} MB over a bare interpreter"


def test_fingerprints_stay_small(large: Path, tmp_path: Path) -> None:
    """Of one tensor of 256 MB, with its manifest, and held against it by content; by a hash that reads it all twice."""
    manifest, bare = tmp_path / "manifest.json", peak(tmp_path)
    (tmp_path / "link.safetensors").symlink_to(large)
    commands = [["hash", large, "--files", "--manifest", manifest], ["verify", manifest, tmp_path / "link.safetensors"]]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", RUN_EDIT, "start", RUN_EDIT, *command],
            env=clean_environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        over = int(done.stdout.splitlines()[-1]) - bare
        print(command[0], over // MB, "MB over a bare interpreter")
        assert over < 80 * MB, f"{command[0]}: {over // MB} MB over a bare interpreter"
