"""What was written, as the package ``safetensors`` reads it: to compare."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.formats.base import ReadBack, Stored
from weighttools.formats.raw import bytes_of, mapped_bytes
from weighttools.formats.safetensors.header import NAMES

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_PIECE = 16 << 20


@contextmanager
def read_back(path: Path, tensor_map: TensorMap) -> Iterator[ReadBack]:
    """Open a file; values are read some rows at a time."""
    import safetensors

    with safetensors.safe_open(path, "numpy") as file:
        specs = {name: _spec(file.get_slice(name)) for name in file.offset_keys()}
        places = itertools.accumulate((spec.nbytes for spec in specs.values()), initial=_data_start(path))
        found = {n: partial(_stored, file, path, n, s, at) for (n, s), at in zip(specs.items(), places, strict=False)}
        yield ReadBack(f"safetensors {safetensors.__version__}", found)


def _spec(part: Any) -> Spec:
    return Spec(NAMES[part.get_dtype()], tuple(part.get_shape()))


def _data_start(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _stored(file: Any, path: Path, name: str, spec: Spec, at: int) -> Stored:
    if spec.dtype.is_float and spec.dtype.bits <= 8:  # NumPy has no such dtype: the place that the library gives it
        return Stored(spec.label, spec.shape, partial(mapped_bytes, path, at, spec.nbytes))
    return Stored(spec.label, spec.shape, partial(_rows, file, name, spec))


def _rows(file: Any, name: str, spec: Spec) -> Iterator[Array]:
    if not spec.shape:
        yield bytes_of(file.get_tensor(name))
        return
    step = max(1, _PIECE * spec.shape[0] // max(1, spec.nbytes))
    part = file.get_slice(name)
    for start in range(0, spec.shape[0] if spec.n_elements else 0, step):
        yield bytes_of(part[start : min(start + step, spec.shape[0])])
