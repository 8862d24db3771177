"""Proof that what was written is what was to be written: the format's reference reader reads it back, to compare.

It is done while the target does not have its name yet, so that what does not pass never gets it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.core.panics import panics_as_errors
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, MissingDependencyError
from weighttools.formats import load
from weighttools.formats.base import ReadBack, ReadOptions, Stored
from weighttools.formats.huggingface import format as huggingface
from weighttools.formats.raw import stored_pieces
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile
from weighttools.write.destination import Destination

if TYPE_CHECKING:
    from weighttools.core.spec import Array

OURS = "weighttools"
_OWN_ENCODING = "a bitmask is an encoding of its own"


class Verified(NamedTuple):
    """What was compared.

    Parameters
    ----------
    reader
        Who read it: a package with its version, or weighttools itself.
    n_tensors
        How many tensors.
    why
        Why weighttools had to read back its own work; None for a reference reader.
    """

    reader: str
    n_tensors: int
    why: str | None = None


@dataclass(slots=True)
class Verification:
    """What is to be compared of a write, and what was.

    Parameters
    ----------
    tensor_map
        What is to be written; its values are read, or computed, once more.
    destination
        Where, and in which files.
    own
        Tensors that are stored in an encoding which only weighttools reads.
    progress
        Called with the number of bytes of each tensor compared.
    further
        Looks at the whole, as weighttools reads it back: takes a map, and raises if it is not as it should be.
    found
        What was compared.
    """

    tensor_map: TensorMap
    destination: Destination
    own: Collection[str] = ()
    progress: Progress = silent
    further: Callable[[TensorMap], object] | None = None
    found: list[Verified] = field(default_factory=list)

    def check(self, where: Path) -> None:
        """Compare what lies in a complete file, or directory of files, that does not have its name yet.

        Raises
        ------
        CorruptFileError
            A tensor is missing, or not the same; or the format's reader refuses a file.
        """
        to = self.destination
        for file, names in to.files.items():
            part = self.tensor_map.replace(tensors={name: self.tensor_map[name] for name in names})
            path, target = (where / file, f"{to.path}: {file}") if to.is_directory else (where, to.path)
            self.found += verify_file(part, path, to.format, target, self.own, self.progress)
        if self.further is not None:
            self.further(self._whole(where))

    def _whole(self, where: Path) -> TensorMap:
        """Return what was written as weighttools reads it, under the name that it is to have."""
        to = self.destination
        if not to.is_directory:
            return load(to.format).read(LocalFile(where, to.path), ReadOptions())
        whole = huggingface.read(where)
        return whole.replace(origin=whole.origin._replace(path=to.path))

    def record(self) -> Mapping[str, Any]:
        """Return what a record says: `n_verified`, and `verified_with` by reader."""
        counts: dict[tuple[str, str | None], int] = {}
        for part in self.found:
            counts[part.reader, part.why] = counts.get((part.reader, part.why), 0) + part.n_tensors
        rows = [{"reader": reader, "n_tensors": n, "why": why} for (reader, why), n in counts.items()]
        return {"n_verified": sum(counts.values()), "verified_with": rows}


def verify_file(
    tensor_map: TensorMap,
    path: Path,
    format_name: str,
    target: str,
    own: Collection[str] = (),
    progress: Progress = silent,
) -> list[Verified]:
    """Compare what a file holds with the map that was written to it, bit for bit.

    Parameters
    ----------
    tensor_map
        What was to be written; its values are read, or computed, once more.
    path
        Where it was written, complete.
    format_name
        The file's format.
    target
        What it is to be called; for messages.
    own
        Tensors that are stored in an encoding which only weighttools reads.
    progress
        Called with the number of bytes of each tensor compared.

    Raises
    ------
    CorruptFileError
        A tensor is missing, or not the same; or the reader refuses the file.

    Notes
    -----
    Memory: pieces of some megabytes; of an NPZ archive, whose members NumPy reads whole, a tensor.
    """
    _forget(path)
    mine = [name for name in tensor_map if name in own]
    rest = [name for name in tensor_map if name not in own]
    found, why = _by_reference(tensor_map, rest, path, format_name, target, progress)
    for names, reason in (([] if found else rest, why), (mine, _OWN_ENCODING)):
        if names:
            _compare(tensor_map, names, _seen_by_us(path, format_name, target), target, progress)
            found.append(Verified(OURS, len(names), reason))
    return found


def _by_reference(
    tensor_map: TensorMap, names: Collection[str], path: Path, format_name: str, target: str, progress: Progress
) -> tuple[list[Verified], str]:
    """Compare by the format's reference reader, if it can be asked; else say why not."""
    read_back = load(format_name).read_back
    if read_back is None:
        return [], f"there is no other reader of {format_name}"
    try:
        with panics_as_errors(f"verification failed: {format_name} cannot be read back", CorruptFileError, target):
            with read_back(path, tensor_map) as seen:
                _compare(tensor_map, names, seen, target, progress)
            return [Verified(seen.reader, len(names))], ""
    except MissingDependencyError as lacking:
        return [], lacking.fact


def _forget(path: Path) -> None:
    """Bring a file to the disk, and ask the system to forget what it keeps of it: it is then read from there."""
    with path.open("rb") as file, suppress(OSError, AttributeError):
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _seen_by_us(path: Path, format_name: str, target: str) -> ReadBack:
    tensors = load(format_name).read(LocalFile(path, target), ReadOptions())
    return ReadBack(OURS, {name: partial(_of_ours, tensors[name]) for name in tensors})


def _of_ours(tensor: Tensor) -> Stored:
    return Stored(tensor.spec.label, tensor.shape, partial(stored_pieces, tensor))


def _compare(tensor_map: TensorMap, names: Iterable[str], seen: ReadBack, target: str, progress: Progress) -> None:
    strange = [name for name in seen.tensors if name not in tensor_map]
    if strange:
        raise _failed(strange[0], seen.reader, "is there, and was not to be written", target)
    for name in names:
        tensor, look = tensor_map[name], seen.tensors.get(name)
        fault = "is missing" if look is None else _difference(tensor, look(), seen.as_stored)
        if fault:
            raise _failed(name, seen.reader, fault, target)
        progress(tensor.spec.nbytes)


def _difference(tensor: Tensor, stored: Stored, as_stored: Callable[[Tensor], Tensor]) -> str | None:
    """Return how a tensor differs from what is stored of it; None if it does not."""
    if stored.label not in (None, tensor.spec.label) or stored.shape != tensor.shape:
        return f"is {stored.label} of shape {list(stored.shape)}, not {tensor.spec.label} of {list(tensor.shape)}"
    at = first_difference(stored_pieces(as_stored(tensor)), stored.pieces())
    return None if at is None else f"differs from its byte {at:,} on"


def _failed(name: str, reader: str, fault: str, target: str) -> CorruptFileError:
    return CorruptFileError(
        f"verification failed: tensor {name!r}, as {reader} reads it back, {fault}",
        subject=target,
        remedy="the target is as it was; try again, and look to the disk and the memory if that fails too",
    )


def first_difference(one: Iterable[Array], other: Iterable[Array]) -> int | None:
    """Return where two runs of bytes begin to differ, however they are cut into pieces; None if they are the same."""
    streams = _Stream(iter(one)), _Stream(iter(other))
    at = 0
    while n := min(stream.n_held() for stream in streams):
        unequal = (streams[0].take(n) != streams[1].take(n)).nonzero()[0]
        if unequal.size:
            return at + int(unequal[0])
        at += n
    return at if any(stream.n_held() for stream in streams) else None


class _Stream:
    """Pieces of bytes, of which any number can be taken."""

    def __init__(self, pieces: Iterator[Array]) -> None:
        self._pieces = pieces
        self._held: Array | None = None

    def n_held(self) -> int:
        """Return how many bytes are at hand; 0 at the end."""
        while self._held is None or not self._held.size:
            self._held = next(self._pieces, None)
            if self._held is None:
                return 0
        return int(self._held.size)

    def take(self, n: int) -> Array:
        """Return the next bytes, of those at hand."""
        assert self._held is not None
        taken, self._held = self._held[:n], self._held[n:]
        return taken
