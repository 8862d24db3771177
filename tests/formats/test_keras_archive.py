"""Keras archives through the conformance suite: a zip of an HDF5 file that h5py wrote."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py

from tests.formats.conformance import Arrays, FormatConformance
from weighttools.formats import npy


class TestKerasArchive(FormatConformance):
    format_name, suffix = "keras", ".keras"
    dtypes = tuple(npy._CODES)
    writes = False
    header_without_numpy = True
    mutations = 30

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        inside = io.BytesIO()
        with h5py.File(inside, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", inside.getvalue())
