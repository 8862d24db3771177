"""Reading a stored NPZ member by blocks, and whole, against ``np.load``. In one process, alternating, medians.

python benchmarks/npz_speed.py FOLDER [MIB]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import weighttools as wt


def main(folder: Path, mib: int) -> None:
    path = folder / "bench.npz"
    np.savez(path, weight=np.random.default_rng(0).standard_normal(mib << 18, dtype=np.float32))
    readers: dict[str, Callable[[], object]] = {
        "np.load": lambda: np.load(path)["weight"],
        "whole": lambda: wt.open(path)["weight"].read(),
        "by blocks": lambda: [None for _ in wt.open(path)["weight"].blocks()],
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(8):
        for name, reader in readers.items():
            start = time.perf_counter()
            reader()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<10} {median * 1e3:8.1f} ms  np.load / this: {medians['np.load'] / median:.2f}  (aim 4)")
    path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 512)
