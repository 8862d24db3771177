"""Split GGUF files: NAME-00001-of-00003.gguf and the rest, joined as one.

Source: llama.cpp, ``tools/gguf-split``: ``split.no`` counts from 0, ``split.count`` is the number of parts and
``split.tensors.count`` that of all tensors; the first part holds the metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from weighttools.core.spec import Source
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SourceError, few
from weighttools.formats.gguf import header as gguf_header
from weighttools.formats.gguf.header import GGUFHeader
from weighttools.formats.gguf.tensors import NAME, tensor_map
from weighttools.io.beside import links_out
from weighttools.io.source import LocalFile

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
MAX_PARTS = 65_535
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<i>\d{5})-of-(?P<n>\d{5})\.gguf", re.DOTALL)


def n_parts(metadata: Mapping[str, Any]) -> int:
    """Return how many parts metadata says there are; 1 where it says nothing."""
    count = metadata.get(COUNT, 1)
    return int(count) if isinstance(count, int) else 1


def joined(source: Source, header: GGUFHeader) -> TensorMap:
    """Return the map of all parts, of which `source` is one.

    A part that is not a file by the usual name is read alone, and that is said.

    Raises
    ------
    SourceError
        Parts are missing; they are named.
    CorruptFileError
        The parts contradict each other.
    """
    directory, name = os.path.split(source.name)
    named = NUMBERED.fullmatch(name)
    n = n_parts(header.metadata)
    if named is None or not isinstance(source, LocalFile):
        note = f"is one part of {n:,}, read alone: its name does not say where the others are"
        return tensor_map(source, header).noted(note)
    if int(named["n"]) != n or n > MAX_PARTS:
        raise CorruptFileError(f"{COUNT} is {n:,}", subject=source.name, expected=f"{int(named['n'])}, as it is named")
    paths = [os.path.join(directory, f"{named['stem']}-{i:05d}-of-{n:05d}.gguf") for i in range(1, n + 1)]
    missing = [os.path.basename(path) for path in paths if not os.path.lexists(path)]
    if missing:
        fact = f"{len(missing):,} of {n:,} parts are missing: {few(missing)}"
        raise SourceError(fact, subject=source.name, remedy="fetch them into the same directory")
    return _join(source.name, [_part(path, i, n) for i, path in enumerate(paths)])


def _part(path: str, number: int, n: int) -> tuple[LocalFile, GGUFHeader]:
    source = LocalFile(path)
    header = gguf_header.parse(source)
    said = header.metadata.get(NUMBER), n_parts(header.metadata)
    source.close()
    if said != (number, n):
        fact = f"says {NUMBER} {said[0]} and {COUNT} {said[1]}"
        raise CorruptFileError(fact, subject=path, expected=f"{number} and {n}, as it is named")
    return source, header


def _join(path: str, parts: list[tuple[LocalFile, GGUFHeader]]) -> TensorMap:
    maps = [tensor_map(source, header) for source, header in parts]
    found = TensorMap.joined(maps)
    if len(found) != sum(map(len, maps)):
        raise CorruptFileError("a tensor is in two parts", subject=path, expected="each tensor once")
    total = maps[0].metadata.get(TENSORS, len(found))
    if total != len(found):
        raise CorruptFileError(f"{TENSORS} is {total}", subject=path, expected=f"{len(found):,}, as the parts hold")
    metadata, notes = _metadata(maps)
    files = tuple(source.name for source, _ in parts)
    notes += links_out(os.path.dirname(path), files)
    return found.replace(metadata=metadata, origin=Origin(path, NAME, files, tuple(notes)))


def _metadata(maps: Iterable[TensorMap]) -> tuple[dict[str, Any], list[str]]:
    """Join the parts' metadata, less what only tells of the split."""
    metadata: dict[str, Any] = {}
    notes: list[str] = []
    for part in maps:
        clash = [
            key
            for key, value in part.metadata.items()
            if not key.startswith("split.") and metadata.setdefault(key, value) != value
        ]
        notes += [f"parts differ in the metadata entry {key!r}: the first part's is kept" for key in clash]
    return metadata, notes


def of_directory(directory: str | os.PathLike[str], names: Iterable[str]) -> str | None:
    """Return the file to open for a directory whose GGUF files are one file, or the parts of one; else None."""
    files = sorted(name for name in names if name.endswith(".gguf"))
    stems = {(named["stem"], named["n"]) if (named := NUMBERED.fullmatch(name)) else (name, "") for name in files}
    return os.path.join(directory, files[0]) if len(stems) == 1 else None
