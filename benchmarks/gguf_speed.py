"""Dequantising GGUF blocks, against ``gguf.quants.dequantize``: ratios of medians of alternating runs.

``python benchmarks/gguf_speed.py [--elements N] [--runs N]``; a ratio above 1 means that weighttools is faster. Each
run reads the same quantised tensor from a warm file. *whole* decodes it to one array on one thread, as the package
does; *blocks* hands it on in blocks, as a conversion does, and its peak memory does not grow with the tensor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter, quants

import weighttools as wt

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4")
ROW = 4096


def make(path: Path, kind: GGMLQuantizationType, n_elements: int) -> None:
    """Write a matrix of random blocks; every scale is an ordinary number: NaN and Inf are slower for all."""
    n_block, n_bytes = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 60, (n_elements // ROW, ROW // n_block * n_bytes), dtype=np.uint8)
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("w", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternating(works: dict[str, Callable[[], Any]], n_runs: int) -> dict[str, float]:
    """Return the median seconds of each, run in turns so that a noisy machine troubles all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(n_runs + 1):
        for name, work in works.items():
            times[name].append(timed(work))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def compare(path: Path, kind: GGMLQuantizationType, n_runs: int) -> dict[str, float]:
    """Return seconds of the package, of ours whole and of ours by blocks, results compared first."""
    theirs = GGUFReader(path).tensors[0]
    ours = wt.open(path)["w"]

    def package() -> Any:
        return quants.dequantize(theirs.data, kind)

    def blocks() -> None:
        for _ in ours.blocks():
            pass

    assert np.array_equal(package(), ours.read(), equal_nan=True)
    return alternating({"package": package, "whole": ours.read, "blocks": blocks}, n_runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 24)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{'':8} {'package':>12} {'whole':>8} {'blocks':>8}")
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        for name in KINDS:
            path = Path(folder) / f"{name}.gguf"
            make(path, GGMLQuantizationType[name], options.elements)
            found = compare(path, GGMLQuantizationType[name], options.runs)
            rate = options.elements / found["package"] / 1e6
            ratios = [f"{found['package'] / found[how]:.2f}x" for how in ("whole", "blocks")]
            print(f"{name:8} {rate:>8.0f} M/s {ratios[0]:>8} {ratios[1]:>8}")
            path.unlink()


if __name__ == "__main__":
    main()
