"""HDF5 against h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.formats.conformance import Arrays, FormatConformance
from weighttools.core.dtypes import DTYPES
from weighttools.formats import npy


def plain_read(path: Path) -> Arrays:
    """Every data set of a file by its path, read by h5py."""
    found: Arrays = {}

    def visit(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found[name] = thing[()] if thing.shape is not None else np.empty(0)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return {name: np.asarray(value) for name, value in found.items()}


class TestHdf5(FormatConformance):
    format_name, suffix = "hdf5", ".h5"
    dtypes = tuple(DTYPES)
    golden_dtypes = tuple(npy._CODES)
    whole_bytes = False
    header_without_numpy = True
    mutations = 40

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array

    def golden_read(self, path: Path) -> Arrays:
        return plain_read(path)
