"""NPY against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.formats.conformance import Arrays, FormatConformance
from weighttools.core.dtypes import DTYPES
from weighttools.formats import npy


class TestNpy(FormatConformance):
    format_name, suffix = "npy", ".npy"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(npy._CODES)
    whole_bytes = False
    n_tensors = (1, 1)
    keeps_names = keeps_metadata = keeps_aliases = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        (array,) = arrays.values()
        np.save(path, array)

    def golden_read(self, path: Path) -> Arrays:
        return {path.stem: np.load(path)}
