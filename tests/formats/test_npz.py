"""NPZ against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.formats.conformance import Arrays, FormatConformance
from weighttools.core.dtypes import DTYPES
from weighttools.formats import npy


class TestNpz(FormatConformance):
    format_name, suffix = "npz", ".npz"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(npy._CODES)
    whole_bytes = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        np.savez(path, **arrays)

    def golden_read(self, path: Path) -> Arrays:
        with np.load(path) as archive:
            return dict(archive.items())
