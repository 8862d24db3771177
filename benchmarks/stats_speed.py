"""``weighttools stats`` against torch and NumPy as users write it, against a plain read, and from a cold file.

python benchmarks/stats_speed.py FOLDER [GIB [ROUNDS]]
Makes a bfloat16 and a float32 file of GIB (default 1) in FOLDER, and describes each, whole processes in turn: from a
warm cache, then (on Linux) from the disk, against ``cat FILE > /dev/null``. The plain read is pread into one reused
buffer of 1 MiB. `stats` takes the kernel that it takes by itself, `numpy` and `numba` say which; numba is timed once
its code is cached. `each GiB more` leaves out what every process takes to start: half as much is timed too. Peaks of
memory are above a bare interpreter's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from paired import Result, alternate, once, report

TOOL = [sys.executable, "-m", "weighttools", "stats", "--json"]
READ = """
import os, sys
fd, buffer, at = os.open(sys.argv[1], os.O_RDONLY), bytearray(1 << 20), 0
while n := os.preadv(fd, [buffer], at):
    at += n
"""
TORCH = """
import sys, torch
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as file:
    for name in file.keys():
        t = file.get_tensor(name)
        figures = [t.min(), t.max(), t.mean(), t.std(), t.norm(1), t.norm(2), (t == 0).sum()]
        figures += [t.isnan().sum(), t.isinf().sum()]
        print(name, *(f.item() for f in figures))
"""
PER_TENSOR = """
import sys, ml_dtypes, numpy as np
from safetensors import safe_open
with safe_open(sys.argv[1], "np") as file:
    for name in file.keys():
        t = file.get_tensor(name).astype(np.float32)
        figures = [t.min(), t.max(), t.mean(), t.std(), np.abs(t).sum(), np.linalg.norm(t), (t == 0).sum()]
        figures += [np.isnan(t).sum(), np.isinf(t).sum()]
        print(name, *figures)
"""
QUANTILES = ["--quantiles", "0.01,0.5,0.99", "--hist", "20"]
AIMS = {
    "bfloat16": {"torch": "0.04", "numpy by tensor": "0.2", "plain read": "5", "numba / plain read": "1.6"},
    "float32": {"torch": "0.04", "numpy by tensor": "0.2", "plain read": "3", "numba / plain read": "1.3"},
}


def make(path: Path, dtype: str, gib: float) -> None:
    """Write a checkpoint of normal values in 16 MiB tensors without holding it in memory."""
    import json
    import struct

    import ml_dtypes
    import numpy as np

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    n, size = int(gib * 64), 16 << 20
    code = {"bfloat16": "BF16", "float32": "F32"}[dtype]
    shape = [size // kind.itemsize // 2048, 2048]
    header = {
        f"layers.{i}.weight": {"dtype": code, "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i in range(n)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(n):
            values = rng.standard_normal(size // kind.itemsize, dtype=np.float32) * np.float32(0.02)
            file.write(values.astype(kind).view(np.uint8).data)


def slope(results: dict[str, Result], whole: str, half: str) -> float:
    """Return the seconds that the second half of a file takes."""
    return results[whole].seconds - results[half].seconds


def measure(path: Path, half: Path, dtype: str, gib: float, rounds: int) -> None:
    """Time every way to go through one file, and through half of it, from a warm cache."""
    commands = {
        "stats": [*TOOL, str(path)],
        "plain read": [sys.executable, "-c", READ, str(path)],
        "plain read, half": [sys.executable, "-c", READ, str(half)],
        "numpy": [*TOOL, "--kernel", "numpy", str(path)],
        "numpy, half": [*TOOL, "--kernel", "numpy", str(half)],
        "numba": [*TOOL, "--kernel", "numba", str(path)],
        "numba, half": [*TOOL, "--kernel", "numba", str(half)],
        "stats, quantiles and histogram": [*TOOL, *QUANTILES, str(path)],
    }
    results = alternate(commands, rounds)
    slow = {"torch": TORCH, "numpy by tensor": PER_TENSOR}
    slow_results = alternate({name: [sys.executable, "-c", code, str(path)] for name, code in slow.items()}, 2)
    aims = {**AIMS[dtype], "plain read": "none"}
    report(f"{dtype}, {gib} GiB, warm, whole process", results | slow_results, "stats", aims)
    for name in slow:
        print(f"  {name} / stats: {slow_results[name].seconds / results['stats'].seconds:.1f}")
    read = slope(results, "plain read", "plain read, half")
    for name in ("numpy", "numba"):
        ratio = slope(results, name, f"{name}, half") / read
        aim = AIMS[dtype]["plain read" if name == "numpy" else "numba / plain read"]
        print(f"  each GiB more, {name} / plain read: {ratio:.2f}  (aim {aim})")
    bare = once([sys.executable, "-c", "pass"])[1]
    for name in ("numpy", "numba", "stats, quantiles and histogram"):
        print(f"  memory of {name}: {(results[name].peak_bytes - bare) / 1e6:.0f} MB  (aim below 150)")


def drop(path: Path) -> None:
    """Drop a file from the system's cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)  # what is not written yet cannot be dropped
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def measure_cold(path: Path, dtype: str, gib: float, rounds: int) -> None:
    """Time a pass from the disk, against cat, in turn; the file is dropped from the cache before each."""
    commands = {
        "cat": ["cat", str(path)],
        "stats": [*TOOL, str(path)],
        "numba": [*TOOL, "--kernel", "numba", str(path)],
    }
    results = alternate(commands, rounds, before=lambda: drop(path))
    print(f"{dtype}, {gib} GiB, cold")
    for name, result in results.items():
        print(f"  {name:<34} {result.seconds * 1e3:9.1f} ms")
    for name in ("stats", "numba"):
        print(f"  cat / {name}: {results['cat'].seconds / results[name].seconds:.2f}  (aim 0.85 or more)")


def main(folder: Path, gib: float, rounds: int) -> None:
    for dtype in AIMS:
        path, half = folder / f"bench-{dtype}.safetensors", folder / f"bench-{dtype}-half.safetensors"
        for file, size in ((path, gib), (half, gib / 2)):
            subprocess.run([sys.executable, __file__, "--make", str(file), dtype, str(size)], check=True)
        try:
            measure(path, half, dtype, gib, rounds)
            if sys.platform == "linux":
                measure_cold(path, dtype, gib, rounds)
        finally:
            path.unlink()
            half.unlink()


if __name__ == "__main__" and sys.argv[1] == "--make":  # apart, so that this process stays small
    make(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
elif __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 1.0,
        int(sys.argv[3]) if len(sys.argv) > 3 else 7,
    )
