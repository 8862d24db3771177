"""The suites that ship with weighttools, run on what this package adds, once it is installed.

What is compared to is NumPy, and a few lines that know the format without weighttools.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from weighttools.formats.testing import Arrays, FormatConformance


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
