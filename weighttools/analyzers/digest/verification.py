"""Holding a checkpoint against a manifest: what is missing, what is more, what is another, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.digest.canonical import stored_span
from weighttools.analyzers.digest.files import sha256
from weighttools.analyzers.digest.manifest import FileEntry, Manifest, TensorEntry
from weighttools.analyzers.digest.tree import PIECE_ELEMENTS, TensorDigest, kind_of
from weighttools.core import engine
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import counted
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Problem(NamedTuple):
    """What is not as it should be: `what` is missing, extra, changed or unverified, and `kind` file or tensor."""

    what: str
    kind: str
    name: str
    detail: str | None = None


def file_problems(
    manifest: Manifest, files: Mapping[str, LocalFile], executor: Executor | None = None, progress: Progress = silent
) -> Iterator[Problem]:
    """Yield what is wrong with files; each that is there, and of the right size, is read.

    Parameters
    ----------
    manifest
        What is to be found.
    files
        What is there, by name.
    executor
        Threads to read files in; None reads here.
    progress
        Called with the size of each file that is done.
    """

    def checked(entry: FileEntry) -> Problem | None:
        return _file_problem(entry, files.get(entry.name))

    found = engine.run(checked, manifest.files, executor, window=engine.n_threads() + 2)
    for entry, problem in zip(manifest.files, found, strict=True):
        progress(files[entry.name].size if entry.name in files else 0)
        if problem is not None:
            yield problem
    known = {entry.name for entry in manifest.files}
    more = (name for name in sorted(files) if name not in known and not manifest.ignores(name))
    yield from (Problem("extra", "file", name) for name in more if manifest.is_whole)


def _file_problem(entry: FileEntry, file: LocalFile | None) -> Problem | None:
    if file is None:
        return Problem("missing", "file", entry.name)
    if entry.size is not None and file.size != entry.size:
        return Problem("changed", "file", entry.name, f"{file.size:,} bytes instead of {entry.size:,}")
    return Problem("changed", "file", entry.name, "another SHA-256") if sha256(file) != entry.sha256 else None


def tensor_problems(
    manifest: Manifest, tensor_map: TensorMap, digests: Callable[[TensorMap], Mapping[str, TensorDigest]]
) -> Iterator[Problem]:
    """Yield what is wrong with tensors; those of the right dtype and shape are read by `digests`."""
    known = {entry.name: entry for entry in manifest.tensors}
    known |= {alias: known[kept] for alias, kept in (manifest.aliases or {}).items() if kept in known}
    there = [*tensor_map, *tensor_map.aliases]
    is_decoded = manifest.decoded
    kinds = {name: _type_problem(known[name], tensor_map[name], is_decoded) for name in there if name in known}
    same = [name for name, problem in kinds.items() if problem is None]
    stored = {tensor_map.aliases.get(name, name) for name in same}
    found = digests(tensor_map.keep(name for name in tensor_map if name in stored))
    for name, entry in known.items():
        if name not in tensor_map:
            yield Problem("missing", "tensor", name)
        elif detail := kinds[name]:
            yield Problem("changed", "tensor", name, detail)
        elif (one := found[tensor_map.aliases.get(name, name)]).digest.hex() != entry.digest:
            yield Problem("changed", "tensor", name, _where(entry, one, tensor_map[name], is_decoded))
    yield from (Problem("extra", "tensor", name) for name in there if name not in known)


def _type_problem(entry: TensorEntry, tensor: Tensor, is_decoded: bool) -> str | None:
    kind, shape = kind_of(tensor.spec, is_decoded), tensor.shape
    if (kind, shape) == (entry.dtype, entry.shape):
        return None
    return f"{kind} {list(shape)} instead of {entry.dtype} {list(entry.shape)}"


def _where(entry: TensorEntry, found: TensorDigest, tensor: Tensor, is_decoded: bool) -> str:
    """Say which pieces are others, and where the first of them lies in its file."""
    pieces = [piece.hex() for piece in found.pieces]
    if len(pieces) != len(entry.pieces):
        return "another digest"
    differ = [i for i, (one, other) in enumerate(zip(pieces, entry.pieces, strict=True)) if one != other]
    if not differ:
        return "another digest"
    first, last = differ[0] * PIECE_ELEMENTS, min((differ[0] + 1) * PIECE_ELEMENTS, tensor.n_elements)
    more = f" and {counted(len(differ) - 1, 'more piece')}" if len(differ) > 1 else ""
    span = stored_span(tensor, first, last, is_decoded)
    place = f", bytes {span.offset:,} to {span.offset + span.length - 1:,} of {span.source.name}" if span else ""
    return f"elements {first:,} to {last - 1:,}{place}{more}"
