"""An index against its shards, both ways, told as findings; and the index that the shards would have.

Source: huggingface_hub, ``serialization/_base.py`` (names of shards), as in `huggingface`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weighttools.core.findings import ERROR, WARNING, Finding, summed_up
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SourceError, UnsafeFileError, WeighttoolsError
from weighttools.formats import read_file
from weighttools.formats.huggingface.format import INDEX
from weighttools.io.beside import check_name, is_inside, weights
from weighttools.io.source import LocalFile
from weighttools.io.text import read_json

_SHARD = re.compile(r"(?P<stem>.+)-(?P<i>\d{1,9})-of-(?P<n>\d{1,9})\.safetensors")
_FIX = "weighttools check --fix-index"


@dataclass(frozen=True, slots=True)
class Shards:
    """An index and the shards beside it.

    Parameters
    ----------
    index
        The index file, which need not exist.
    weight_map, metadata
        What it says; empty where it cannot be read.
    held
        The tensors of each shard of its stem, by the file's name.
    """

    index: Path
    weight_map: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, TensorMap] = field(default_factory=dict)

    @property
    def stored_bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(sum(shard.sizes()) for shard in self.held.values())


def indexes(place: str) -> list[Path]:
    """Return the safetensors indexes that a path means: itself, or those of a directory."""
    path = Path(place)
    if place.endswith(INDEX):
        return [path]
    return sorted(path.glob(f"*{INDEX}")) if path.is_dir() else []


def check(index: Path) -> Iterator[Finding]:
    """Yield what is wrong between an index and its shards; of each kind the first few, and how many more there are.

    Raises
    ------
    WeighttoolsError
        A shard cannot be read.
    """
    yield from summed_up(_all(index))


def _all(index: Path) -> Iterator[Finding]:
    try:
        weight_map, metadata = _read(index)
    except (CorruptFileError, UnsafeFileError) as error:
        yield Finding(ERROR, "broken-index", str(error), remedy=_FIX)
        return
    directory = index.parent
    named = Counter(weight_map.values())
    absent = {file for file in named if not os.path.isfile(directory / file)}  # Path.is_file raises for long names
    for file in named:
        if file in absent:
            told = f"{index.name} places {named[file]:,} tensors in {file:.200}, which is not there"
            yield Finding(ERROR, "missing-shard", told, None, "fetch it")
    stray = sorted(set(_files(index)) - set(named))
    for file in stray:
        yield Finding(WARNING, "stray-shard", f"{file} is not named by {index.name}", remedy="remove it, or " + _FIX)
    held = {file: _shard(directory, file) for file in named if file not in absent}
    yield from _both_ways(Shards(index, weight_map, metadata, held), complete=not absent)


def _both_ways(shards: Shards, *, complete: bool) -> Iterator[Finding]:
    where: dict[str, str] = {}
    for file, shard in shards.held.items():
        for name in shard:
            if name in where:
                told = f"{name!r} is in {where[name]} and in {file}"
                yield Finding(ERROR, "duplicate-tensor", told, name, "find out which is right")
            where.setdefault(name, file)
    yield from _unnamed(shards, where)
    for name, file in shards.weight_map.items():
        if file in shards.held and name not in where and name not in shards.held[file].aliases:
            yield Finding(ERROR, "index-extra", f"{shards.index.name} names {name!r}; no shard holds it", name, _FIX)
    claimed = shards.metadata.get("total_size")
    if complete and claimed is not None and claimed != shards.stored_bytes:
        told = f"{shards.index.name} says total_size {claimed!r}; the shards hold {shards.stored_bytes:,} bytes"
        yield Finding(WARNING, "stale-total", told, remedy=_FIX)


def _unnamed(shards: Shards, where: Mapping[str, str]) -> Iterator[Finding]:
    for name, file in where.items():
        placed = shards.weight_map.get(name)
        if placed is None:
            told = f"{file} holds {name!r}, which {shards.index.name} does not name"
            yield Finding(ERROR, "index-missing", told, name, _FIX)
        elif name not in shards.held.get(placed, {}):
            told = f"{shards.index.name} places {name!r} in {placed}; it is in {file}"
            yield Finding(ERROR, "index-misplaced", told, name, _FIX)


def _read(index: Path) -> tuple[dict[str, str], dict[str, Any]]:
    record = read_json(index)
    weight_map, metadata = record.get("weight_map"), record.get("metadata")
    if not isinstance(weight_map, dict) or not all(type(file) is str for file in weight_map.values()):
        raise CorruptFileError(
            "has no weight_map", subject=index, expected='{"weight_map": {tensor: file}}', code="bad-index"
        )
    for file in set(weight_map.values()):
        check_name(file, index)
    return weight_map, metadata if isinstance(metadata, dict) else {}


def _files(index: Path) -> list[str]:
    """Return the shards beside an index that have its stem, and where there are several sets, of the set it names."""
    stem = index.name.removesuffix(INDEX)
    matches = [match for match in map(_SHARD.fullmatch, sorted(os.listdir(index.parent))) if match]
    return [match[0] for match in matches if match["stem"] == stem]


def _shard(directory: Path, file: str) -> TensorMap:
    path = weights(directory, file, directory)
    source = LocalFile(path, name=str(path))
    try:
        return read_file(source)
    finally:
        source.close()


def fix(index: Path, *, follow: bool = False) -> int:
    """Write an index anew from the shards beside it, atomically; return how many tensors it names.

    Ties and other entries of the old index's metadata are kept, if it can be read; of one that lies outside the
    directory only ties, so that nothing else of a file elsewhere is copied.

    Parameters
    ----------
    index
        The index file.
    follow
        Whether a person gave its path, which is then written through if it is a link; a link that was found in a
        directory is replaced itself.

    Raises
    ------
    SourceError
        There are no shards, or not all of one set.
    CorruptFileError
        Two shards hold a tensor of one name.
    """
    from weighttools.io.sink import atomic_file

    files = _complete(index)
    shards = {file: _shard(index.parent, file) for file in files}
    weight_map: dict[str, str] = {}
    for file, shard in shards.items():
        for name in shard:
            if name in weight_map:
                raise CorruptFileError(f"{name!r} is in {weight_map[name]} and in {file}", subject=index)
            weight_map[name] = file
    total = Shards(index, held=shards).stored_bytes
    metadata = {**_kept(index, weight_map), "total_size": total}
    text = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"
    with atomic_file(index, force=True, follow=follow) as sink:
        sink.write(text.encode("utf-8"))
    return len(weight_map)


def _complete(index: Path) -> list[str]:
    files = _files(index)
    matches = [match for match in map(_SHARD.fullmatch, files) if match]
    counts = {int(match["n"]) for match in matches}
    if len(counts) != 1 or {int(match["i"]) for match in matches} != set(range(1, min(max(counts), len(files)) + 1)):
        raise SourceError(
            f"beside it are {len(files)} shards, no complete set of one count",
            subject=index,
            expected="NAME-00001-of-0000N.safetensors and the rest",
            remedy="fetch what is missing, or remove what is of another set",
        )
    if len(files) != max(counts):
        raise SourceError(f"of {max(counts):,} shards there are {len(files):,}", subject=index, remedy="fetch the rest")
    return files


def _kept(index: Path, weight_map: Mapping[str, str]) -> dict[str, Any]:
    try:
        metadata = read_json(index).get("metadata")
    except WeighttoolsError:
        return {}
    entries = metadata.items() if isinstance(metadata, dict) else ()
    kept = {key: value for key, value in entries if key not in weight_map}
    if is_inside(index.parent, index):
        return kept
    return {key: value for key, value in kept.items() if isinstance(value, str) and value in weight_map}
