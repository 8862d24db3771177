"""What was written, as h5py reads it: to compare. The file is ours, so libhdf5 may look at it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core.tensormap import TensorMap
from weighttools.formats.base import ReadBack, Stored
from weighttools.formats.hdf5 import names
from weighttools.formats.npy_elements import byte_wide
from weighttools.formats.raw import bytes_of

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_PIECE = 16 << 20


@contextmanager
def read_back(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open a file; values are read some rows at a time."""
    import h5py

    paths = names.paths(tensor_map)
    with h5py.File(path, "r", locking=False) as file:
        met = [name for name in _datasets(file, h5py.Dataset) if name not in paths.values()]
        known = {name: paths[name] for name in tensor_map if paths[name] in file}
        found = {name: partial(_stored, file, place) for name, place in [*known.items(), *zip(met, met, strict=True)]}
        yield ReadBack(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}", found, byte_wide)


def _datasets(file: Any, kind: type) -> list[str]:
    """Return the paths of all data sets, one that has several once."""
    found: list[str] = []
    file.visititems(lambda name, thing: found.append(name) if isinstance(thing, kind) else None)
    return found


def _stored(file: Any, place: str) -> Stored:
    dataset = file[place]
    label = None if dataset.dtype.kind == "V" else dataset.dtype.name
    return Stored(label, tuple(dataset.shape), partial(_rows, dataset))


def _rows(dataset: Any) -> Iterator[Array]:
    if not dataset.shape:
        import numpy as np

        yield bytes_of(np.asarray(dataset[()], dataset.dtype))
        return
    step = max(1, _PIECE * dataset.shape[0] // max(1, dataset.nbytes))
    for start in range(0, dataset.shape[0] if dataset.size else 0, step):
        yield bytes_of(dataset[start : start + step])
