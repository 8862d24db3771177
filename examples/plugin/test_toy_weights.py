"""The suites that ship with weighttools, run on what this package adds, once it is installed.

What is compared to is NumPy, and a few lines that know the format without weighttools.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from weighttools.analyzers.testing import AnalyzerConformance
from weighttools.formats.testing import Arrays, FormatConformance
from weighttools.transforms.testing import TransformConformance


class TestToyFormat(FormatConformance):
    """Reading, writing, parts, broken files, memory: every format's tests."""

    format_name, suffix = "toy", ".toy"
    dtypes = ("float32", "int64")
    keeps_aliases = False

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        """Write a file without weighttools."""
        tensors = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
        header = json.dumps({"metadata": {}, "tensors": tensors}).encode()
        values = b"".join(array.tobytes() for array in arrays.values())
        path.write_bytes(b"TOYW" + len(header).to_bytes(4, "little") + header + values)

    def golden_read(self, path: Path) -> Arrays:
        """Read one without weighttools."""
        data, found = path.read_bytes(), {}
        at = 8 + int.from_bytes(data[4:8], "little")
        for name, dtype, shape in json.loads(data[8:at])["tensors"]:
            n = int(np.prod(shape, dtype=np.int64))
            found[name] = np.frombuffer(data, dtype, n, at).reshape(shape)
            at += found[name].nbytes
        return found


class TestSigns(AnalyzerConformance):
    """Cuts, threads, NaN, nothing at all: every analyzer's tests."""

    name = "signs"

    def expected(self, array: np.ndarray) -> dict[str, object]:
        """Count with NumPy."""
        kind = np.complex128 if array.dtype.kind == "c" else np.float64
        signs = np.sign(np.abs(array.astype(kind)) if kind is np.complex128 else array.astype(kind))
        n_positive, n_negative = int((signs == 1).sum()), int((signs == -1).sum())
        n = n_positive + n_negative
        return {"n_positive": n_positive, "n_negative": n_negative, "share_positive": n_positive / n if n else None}


class TestTimes(TransformConformance):
    """Specs first, blocks, ties, pickles: every transform's tests."""

    name, arguments = "times", (-1.5,)

    def expected(self, name: str, array: np.ndarray) -> np.ndarray:
        """Multiply with NumPy."""
        if array.dtype.kind in "iubc" or array.dtype.name in ("int4", "uint4", "int2", "uint2"):
            return array
        return (array.astype(np.float64) * -1.5).astype(array.dtype)
