"""``weighttools diff`` of two files against reading both, whole processes in turn, from a warm cache.

python benchmarks/diff_speed.py FOLDER [MIB [ROUNDS]]
Makes two float32 files and two bfloat16 files of MIB (default 512) each, of which every element differs a little, and a
copy of one. The plain read is preadv into one reused buffer of 1 MiB, in two threads, one for each file. Processor
time, and peaks of memory above a bare interpreter's, are told too. A file against itself is not read: that is what
the command takes to start.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from paired import alternate, once

TOOL = [sys.executable, "-m", "weighttools", "diff", "-q"]
READ = """
import os, sys, threading
def read(path):
    fd, buffer, at = os.open(path, os.O_RDONLY), bytearray(1 << 20), 0
    while n := os.preadv(fd, [buffer], at):
        at += n
threads = [threading.Thread(target=read, args=(path,)) for path in sys.argv[1:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
RETURNS = ["sh", "-c", '"$@"; test $? -le 1', "sh"]
"""What makes the exit code of files that differ that of success."""


def make(folder: Path, n_mib: int, dtype: str) -> tuple[Path, Path, Path]:
    """Write an old file, a new one, and a copy of the old."""
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    old, new, copy = (folder / f"diff-{dtype}-{n_mib}-{which}.safetensors" for which in ("old", "new", "copy"))
    if not copy.exists():
        rng = np.random.default_rng(0)
        count = 8
        shape = (n_mib * (1 << 20) // kind.itemsize // count // 1024, 1024)
        values = {f"layers.{i}.w": rng.standard_normal(shape, np.float32) for i in range(count)}
        save_file({name: one.astype(kind) for name, one in values.items()}, old)
        copy.write_bytes(old.read_bytes())
        save_file({name: (one * np.float32(1.01)).astype(kind) for name, one in values.items()}, new)
    return old, new, copy


def main() -> None:
    """Print the ratios."""
    folder = Path(sys.argv[1])
    n_mib, rounds = (int(value) for value in (*sys.argv[2:], *("512", "7")[len(sys.argv) - 2 :]))
    bare = once([sys.executable, "-c", "pass"])[2]
    for dtype in ("float32", "bfloat16"):
        with ProcessPoolExecutor(1) as pool:  # a process that starts others hands its peak of memory down
            old, new, copy = pool.submit(make, folder, n_mib, dtype).result()
        commands = {
            "plain read": [sys.executable, "-c", READ, str(old), str(new)],
            **{
                f"{name}, {kernel}": [*RETURNS, *TOOL, "--kernel", kernel, str(old), str(other)]
                for name, other in (("changed", new), ("the same", copy))
                for kernel in ("numpy", "numba")
            },
            "nothing to do": [*RETURNS, *TOOL, str(old), str(old)],
        }
        found = alternate(commands, rounds)
        base = found["plain read"]
        for name, one in found.items():
            ratio, cpu = one.seconds / base.seconds, one.cpu_seconds / base.cpu_seconds
            print(f"{dtype:9} {name:15} {one.seconds:6.3f} s  {ratio:5.2f}x  processor {cpu:5.2f}x  "
                  f"peak {(one.peak_bytes - bare) / 1e6:5.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
