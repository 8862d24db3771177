"""Keras archives through the conformance suite: a zip of an HDF5 file that h5py wrote."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from weighttools.formats import npy_header


@pytest.mark.usefixtures("one_listing_parent")
class TestKerasArchive(FormatConformance):
    format_name, suffix = "keras", ".keras"
    dtypes = tuple(npy_header.CODES)
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


def test_assets_of_layers_are_left_out_and_said(tmp_path: Path) -> None:
    made = TestKerasArchive()
    made.golden_write(tmp_path / "a.keras", {"w": np.ones(3, np.float32)})
    assert not wt.open(tmp_path / "a.keras").origin.notes
    with zipfile.ZipFile(tmp_path / "a.keras", "a") as archive:
        archive.writestr("assets/layers/text_vectorization/vocabulary.txt", "[UNK]\nthe")
    (note,) = wt.open(tmp_path / "a.keras").origin.notes
    assert note.startswith("left out: assets/layers/text_vectorization/vocabulary.txt (assets")
