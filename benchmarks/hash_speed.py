"""``weighttools hash`` of a file against reading it, whole processes in turn, from a warm cache.

python benchmarks/hash_speed.py FOLDER [MIB [ROUNDS]]
Makes a float32 and a bfloat16 file of MIB (default 1024) in FOLDER. The plain read is preadv into one reused buffer of
1 MiB, in one thread and in two. `each MiB more` leaves out what every process takes to start: half as much is timed
too. Peaks of memory are above a bare interpreter's. Aim: 1.2 times the plain read.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paired import alternate, once

TOOL = [sys.executable, "-m", "weighttools", "hash"]
MAKE = """
import sys, ml_dtypes, numpy as np
from safetensors.numpy import save_file
path, dtype, n = sys.argv[1:]
kind, rng = np.dtype(getattr(ml_dtypes, dtype, dtype)), np.random.default_rng(0)
save_file({f"layers.{i}.w": np.frombuffer(rng.bytes(16 << 20), kind).reshape(1024, -1) for i in range(int(n))}, path)
"""
READ = """
import os, sys, threading
path, n = sys.argv[1], int(sys.argv[2])
def read(start, stop):
    fd, buffer = os.open(path, os.O_RDONLY), memoryview(bytearray(1 << 20))
    while start < stop:
        start += os.preadv(fd, [buffer[: min(1 << 20, stop - start)]], start)
size = os.path.getsize(path)
parts = [threading.Thread(target=read, args=(size * i // n, size * (i + 1) // n)) for i in range(n)]
[part.start() for part in parts]
[part.join() for part in parts]
"""


def make(folder: Path, n_mib: int, dtype: str) -> Path:
    """Write random bits in tensors of 16 MiB; in a process of its own, for its memory would count as its children's."""
    path = folder / f"hash-{dtype}-{n_mib}.safetensors"
    if not path.exists():
        subprocess.run([sys.executable, "-c", MAKE, str(path), dtype, str(n_mib // 16)], check=True)
    return path


def main() -> None:
    """Print the ratios."""
    folder = Path(sys.argv[1])
    n_mib, rounds = (int(value) for value in (*sys.argv[2:], *("1024", "7")[len(sys.argv) - 2 :]))
    bare = once([sys.executable, "-c", "pass"])[2]
    for dtype in ("float32", "bfloat16"):
        half, whole = make(folder, n_mib // 2, dtype), make(folder, n_mib, dtype)
        commands = {}
        for path in (half, whole):
            commands |= {
                f"read, 1 thread, {path.name}": [sys.executable, "-c", READ, str(path), "1"],
                f"read, 2 threads, {path.name}": [sys.executable, "-c", READ, str(path), "2"],
                f"hash, 1 thread, {path.name}": [*TOOL, str(path), "--threads", "1"],
                f"hash, {path.name}": [*TOOL, str(path)],
                f"hash sha256, {path.name}": [*TOOL, str(path), "--algorithm", "sha256"],
            }
        found = alternate(commands, rounds)
        for kind in ("read, 1 thread", "read, 2 threads", "hash, 1 thread", "hash", "hash sha256"):
            one, less = (found[f"{kind}, {path.name}"] for path in (whole, half))
            base, base_less = (found[f"read, 1 thread, {path.name}"] for path in (whole, half))
            more = (one.seconds - less.seconds) / (base.seconds - base_less.seconds)
            ratios = f"{one.seconds / base.seconds:5.2f}x  each MiB more {more:5.2f}x"
            peak = (one.peak_bytes - bare) / 1e6
            print(f"{dtype:9} {kind:15} {one.seconds:6.3f} s  {ratios}  peak {peak:5.0f} MB")


if __name__ == "__main__":
    main()
