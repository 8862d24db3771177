"""``weighttools stats`` against torch as a user writes it, and against a plain read of the file.

python benchmarks/stats_speed.py FOLDER [GIB [ROUNDS]]
Makes a bfloat16 and a float32 file of GIB (default 1) in FOLDER, and describes each from a warm cache, whole processes
in turn. The plain read is pread into one reused buffer of 1 MiB. numba is timed once its code is cached.
`each GiB more` leaves out what every process takes to start (numba most of a second): half as much is timed too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paired import Result, alternate, report

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
AIMS = {
    "bfloat16": {"torch": "0.04", "plain read": "5", "numba / plain read": "1.6"},
    "float32": {"torch": "0.04", "plain read": "3", "numba / plain read": "1.3"},
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
    """Time every way to go through one file, and through half of it."""
    commands = {
        "stats": [*TOOL, str(path)],
        "plain read": [sys.executable, "-c", READ, str(path)],
        "numba": [*TOOL, "--kernel", "numba", str(path)],
        "stats, half": [*TOOL, str(half)],
        "plain read, half": [sys.executable, "-c", READ, str(half)],
        "numba, half": [*TOOL, "--kernel", "numba", str(half)],
    }
    results = alternate(commands, rounds)
    results |= alternate({"torch": [sys.executable, "-c", TORCH, str(path)]}, 1)
    aims = AIMS[dtype]
    report(f"{dtype}, {gib} GiB, whole process", results, "stats", aims)
    read = slope(results, "plain read", "plain read, half")
    for name in ("stats", "numba"):
        ratio = slope(results, name, f"{name}, half") / read
        aim = aims["plain read" if name == "stats" else "numba / plain read"]
        print(f"  each GiB more, {name} / plain read: {ratio:.2f}  (aim {aim})")


def main(folder: Path, gib: float, rounds: int) -> None:
    for dtype in AIMS:
        path, half = folder / f"bench-{dtype}.safetensors", folder / f"bench-{dtype}-half.safetensors"
        for file, size in ((path, gib), (half, gib / 2)):
            subprocess.run([sys.executable, __file__, "--make", str(file), dtype, str(size)], check=True)
        try:
            measure(path, half, dtype, gib, rounds)
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
