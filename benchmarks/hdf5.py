"""HDF5: contiguous reads against h5py's ``dataset[()]``, and writing against h5py's ``create_dataset``.

Paired and alternating in one run, medians, printed as ratios; sizes in MB on the command line (default 512). The file
is warm: what is measured is the path from the page cache to an array.

    python benchmarks/hdf5.py [MB] [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

import weighttools as wt
from weighttools.core.tensormap import TensorMap


def timed(fn: Callable[[], object]) -> float:
    began = time.perf_counter()
    fn()
    return time.perf_counter() - began


def compare(title: str, ours: Callable[[], object], theirs: Callable[[], object], n_bytes: int, rounds: int) -> float:
    """Alternate both, print the median rates and their ratio, and return the ratio."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{title:<44} {n_bytes / a / 1e9:6.2f} GB/s against {n_bytes / b / 1e9:6.2f}: {b / a:5.2f}x")
    return b / a


def whole(path: Path) -> Callable[[], object]:
    tensor_map = wt.open(path)
    return lambda: [tensor.read() for tensor in tensor_map.values()]


def by_blocks(path: Path) -> Callable[[], object]:
    tensor_map = wt.open(path)
    return lambda: [None for tensor in tensor_map.values() for _ in tensor.blocks()]


def by_h5py(path: Path) -> Callable[[], object]:
    def read() -> object:
        with h5py.File(path) as file:
            return [file[name][()] for name in file]

    return read


def written_by_h5py(path: Path, arrays: dict[str, np.ndarray]) -> Callable[[], object]:
    def write() -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)

    return write


def main(mb: int = 512, rounds: int = 5) -> None:
    """Run every comparison."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "plain.h5"
        n = mb * 1_000_000 // 8 // 4
        rng = np.random.default_rng(0)
        arrays = {f"t{i}": rng.random((n // 1000, 1000), np.float32) for i in range(8)}
        n_bytes = sum(array.nbytes for array in arrays.values())
        written_by_h5py(path, arrays)()
        compare("contiguous, whole tensors, against d[()]", whole(path), by_h5py(path), n_bytes, rounds)
        compare("contiguous, in blocks, against d[()]", by_blocks(path), by_h5py(path), n_bytes, rounds)
        ours, theirs = Path(home) / "ours.h5", Path(home) / "theirs.h5"
        held = TensorMap.from_arrays(arrays)
        compare(
            "write (fsynced) against create_dataset (not)",
            lambda: wt.save(ours, held, force=True), written_by_h5py(theirs, arrays), n_bytes, rounds,
        )  # fmt: skip
        packed = Path(home) / "packed.h5"
        rounded = {name: np.round(array, 2) for name, array in arrays.items()}
        wt.save(packed, TensorMap.from_arrays(rounded))
        wt.convert(packed, Path(home) / "gzip.h5", compression="gzip")
        gz = Path(home) / "gzip.h5"
        compare("gzip, in blocks, against d[()]", by_blocks(gz), by_h5py(gz), n_bytes, max(1, rounds // 2))
        listing = [timed(lambda: wt.open(path)) for _ in range(rounds)]
        print(f"listing, its child process included: {statistics.median(listing) * 1000:.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
