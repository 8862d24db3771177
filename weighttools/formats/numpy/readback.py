"""What was written, as NumPy itself reads it: to compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core.tensormap import TensorMap
from weighttools.formats.base import ReadBack, Stored
from weighttools.formats.npy_elements import byte_wide
from weighttools.formats.raw import pieces_of

if TYPE_CHECKING:
    from weighttools.core.spec import Array

SIDECAR = "__weighttools__"
_LEAST_MAPPED = 1 << 20


@contextmanager
def read_archive(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open an NPZ archive; a member is held whole while it is compared."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        names = [name.removesuffix(".npy") for name in archive.zip.namelist()]
        found = {name: partial(_member, archive, name) for name in names if name != SIDECAR}
        yield ReadBack(_label(), found, byte_wide)


@contextmanager
def read_array(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open an NPY file, whose one array has the name of the map's one tensor."""
    import numpy as np

    mode: Any = "r" if os.path.getsize(path) >= _LEAST_MAPPED else None
    array = np.load(path, mmap_mode=mode, allow_pickle=False)
    yield ReadBack(_label(), {next(iter(tensor_map)): partial(stored, array)}, byte_wide)


def _label() -> str:
    import numpy as np

    return f"numpy {np.__version__}"


def _member(archive: Any, name: str) -> Stored:
    return stored(archive[f"{name}.npy"])


def stored(array: Array) -> Stored:
    """Return what is compared of an array; one of plain bytes (``V2``) has no dtype that NumPy could name."""
    label = None if array.dtype.kind == "V" else array.dtype.name
    return Stored(label, array.shape, partial(pieces_of, array))
