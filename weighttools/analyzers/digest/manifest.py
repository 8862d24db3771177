"""A manifest: what files a checkpoint has, and what is in them, to be held against it later.

Our own is JSON with the schema ``weighttools.manifest/1``; `weighttools.analyzers.digest.statement` is the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.analyzers.digest.algorithms import ALGORITHMS
from weighttools.analyzers.digest.files import sha256
from weighttools.analyzers.digest.tree import PIECE_ELEMENTS, TensorDigest, content_digest, joined_digest, kind_of
from weighttools.core import engine
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, UnsupportedError, few
from weighttools.io.beside import check_name
from weighttools.io.home import Home
from weighttools.io.source import LocalFile

if TYPE_CHECKING:
    from concurrent.futures import Executor

SCHEMA = "weighttools.manifest/1"


class FileEntry(NamedTuple):
    """A file: its name below the checkpoint's directory, with ``/`` between folders, its size, its SHA-256."""

    name: str
    size: int | None
    sha256: str


class TensorEntry(NamedTuple):
    """A tensor: its dtype (or encoding), shape, digest, and the digests of its pieces, all hexadecimal."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is to be found.

    Parameters
    ----------
    kind
        ``"manifest"``, ours, or ``"oms"``.
    files
        In the order of their names.
    algorithm, content, tensors, aliases, decoded
        Of the content, as `weighttools.verbs.hash` has it; None, and nothing, of a statement about files alone.
    ignored
        Files, and folders with all that is in them, that are no part of it though they lie there.
    is_whole
        Whether it is of a whole directory, so that a file more there is no part of the checkpoint.
    notes
        What should be said of it.
    """

    kind: str
    files: tuple[FileEntry, ...]
    algorithm: str | None = None
    content: str | None = None
    tensors: tuple[TensorEntry, ...] = ()
    aliases: Mapping[str, str] | None = None
    decoded: bool = False
    ignored: tuple[str, ...] = ()
    is_whole: bool = True
    notes: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether a file is no part of it by its name, or by a folder's that it lies in."""
        return any(name == one or name.startswith(f"{one}/") for one in self.ignored)

    def record(self) -> dict[str, Any]:
        """Return our own form."""
        return {
            "schema": SCHEMA,
            "whole": self.is_whole,
            "files": [{"path": f.name, "size": f.size, "sha256": f.sha256} for f in self.files],
            "algorithm": self.algorithm,
            "content": self.content,
            "decoded": self.decoded,
            "piece_elements": PIECE_ELEMENTS,
            "tensors": [
                {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "hash": t.digest, "pieces": list(t.pieces)}
                for t in self.tensors
            ],
            "aliases": dict(self.aliases or {}),
        }


def tensor_entries(
    tensor_map: TensorMap, stored: Mapping[str, TensorDigest], is_decoded: bool = False
) -> tuple[TensorEntry, ...]:
    """Return the entries of a map's tensors, whose digests are of decoded values or not."""
    return tuple(
        TensorEntry(name, kind_of(spec, is_decoded), spec.shape, one.digest.hex(), tuple(p.hex() for p in one.pieces))
        for (name, one), spec in zip(stored.items(), tensor_map.specs(), strict=True)
    )


def named_files(home: Home, weights: Sequence[str], is_whole: bool) -> tuple[dict[str, LocalFile], list[str]]:
    """Return the files of a checkpoint by name, and what is left out.

    Parameters
    ----------
    home
        Where it lies.
    weights
        Its weight files, which may be links to anywhere.
    is_whole
        Whether it is the whole directory; else only the weight files count.
    """
    found, beyond = {}, []
    known = {name: path for path in weights if (name := _below(home, path)) is not None}
    for name in sorted({*known, *(home.files() if is_whole else ())}):
        source = LocalFile(known[name]) if name in known else home.open(name)
        if isinstance(source, LocalFile):
            found[name] = source
        else:
            beyond.append(name)
    notes = [f"left out, for they are links out of the directory or no regular files: {few(beyond)}"] if beyond else []
    return found, notes


def hidden_names(home: Home) -> list[str]:
    """Return the hidden files and folders of a directory and its folders, of which manifests say nothing."""
    seen = set(home.files())
    return list(_hidden(home, "", seen))


def _hidden(home: Home, folder: str, seen: Container[str]) -> Iterator[str]:
    for name in home.names(folder):
        path = f"{folder}/{name}" if folder else name
        if name.startswith("."):
            yield path
        elif path not in seen:  # a folder: one that is a link is named like a file
            yield from _hidden(home, path, seen)


def _below(home: Home, path: str) -> str | None:
    from pathlib import Path

    try:
        return Path(path).relative_to(home.place).as_posix()
    except ValueError:
        return None


def file_entries(files: Mapping[str, LocalFile], executor: Executor | None = None) -> tuple[FileEntry, ...]:
    """Return the entries of files, each of which is read.

    Raises
    ------
    UnsafeFileError
        A file has a name that not every system takes alike, by which no manifest can name it.
    """
    for name in files:
        check_name(name, "the manifest")
    ordered = sorted(files.items())
    found = engine.run(sha256, (file for _, file in ordered), executor, window=engine.n_threads() + 2)
    return tuple(FileEntry(name, file.size, one) for (name, file), one in zip(ordered, found, strict=True))


def parse(found: Mapping[str, Any], subject: str) -> Manifest:
    """Read our own form, every part of it checked.

    Raises
    ------
    CorruptFileError
        It is not what it should be, or its digests contradict each other.
    MissingDependencyError
        The package of its algorithm is not installed.
    UnsafeFileError
        It names a file outside its directory.
    UnsupportedError
        It is of another version, or its algorithm is not known.
    """
    if found.get("schema") != SCHEMA:
        fact = f"has the schema {found.get('schema')!r}"
        raise UnsupportedError(fact, subject=subject, expected=SCHEMA, code="unknown-manifest")
    if found.get("piece_elements") != PIECE_ELEMENTS:
        raise ManifestReader(subject).wrong("piece_elements", f"{PIECE_ELEMENTS}")
    read = ManifestReader(subject)
    files = tuple(read.file(row) for row in read.rows(found, "files"))
    tensors = tuple(read.tensor(row) for row in read.rows(found, "tensors"))
    aliases, is_decoded = found.get("aliases", {}), read.boolean(found, "decoded", False)
    if not (isinstance(aliases, dict) and all(isinstance(kept, str) for kept in aliases.values())):
        raise read.wrong("aliases", "an object of names")
    algorithm, content = read.text(found, "algorithm"), read.hexadecimal(found, "content")
    _check_digests(tensors, aliases, algorithm, content, read)
    is_whole = read.boolean(found, "whole", True)
    return Manifest("manifest", files, algorithm, content, tensors, aliases, is_decoded, is_whole=is_whole)


def _check_digests(
    tensors: Sequence[TensorEntry], aliases: Mapping[str, str], algorithm: str, content: str, read: ManifestReader
) -> None:
    """Refuse what was changed by hand or by accident: pieces must make their tensor, and tensors the content."""
    if algorithm not in ALGORITHMS:
        fact = f"has the algorithm {algorithm!r}"
        raise UnsupportedError(fact, subject=read.subject, expected=", ".join(ALGORITHMS), code="unknown-manifest")
    named = {one.name: bytes.fromhex(one.digest) for one in tensors}
    if len(named) < len(tensors) or named.keys() & aliases.keys() or not named.keys() >= set(aliases.values()):
        raise read.wrong("tensors", "each name once, and aliases of names that are there")
    for one in tensors:
        if joined_digest(one.dtype, one.shape, map(bytes.fromhex, one.pieces), algorithm).hex() != one.digest:
            raise read.wrong("hash", f"the digest that the pieces of {one.name!r} make")
    named |= {alias: named[kept] for alias, kept in aliases.items()}
    if content_digest(named, algorithm).hex() != content:
        raise read.wrong("content", "the digest that the tensors make")


@dataclass(frozen=True, slots=True)
class ManifestReader:
    """Takes the parts of a manifest, each checked; errors name the file, `subject`, and the part."""

    subject: str

    def wrong(self, key: str, expected: str) -> CorruptFileError:
        return CorruptFileError(f"{key!r} is not right", subject=self.subject, expected=expected, code="bad-manifest")

    def rows(self, found: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
        rows = found.get(key)
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise self.wrong(key, "a list of objects")
        yield from rows

    def text(self, row: Mapping[str, Any], key: str) -> str:
        value = row.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def boolean(self, row: Mapping[str, Any], key: str, default: bool) -> bool:
        value = row.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def hexadecimal(self, row: Mapping[str, Any], key: str) -> str:
        value = self.text(row, key)
        if not _is_digest(value):
            raise self.wrong(key, "hexadecimal digits, two a byte")
        return value

    def sha256(self, row: Mapping[str, Any], key: str) -> str:
        value = self.hexadecimal(row, key)
        if len(value) != 64:
            raise self.wrong(key, "the 64 hexadecimal digits of a SHA-256")
        return value

    def file(self, row: Mapping[str, Any], key: str = "path", digest: str = "sha256") -> FileEntry:
        name, size = self.text(row, key), row.get("size")
        check_name(name, self.subject)
        if not (size is None or _is_length(size)):
            raise self.wrong("size", "a number of bytes")
        return FileEntry(name, size, self.sha256(row, digest))

    def tensor(self, row: Mapping[str, Any]) -> TensorEntry:
        shape, pieces = row.get("shape"), row.get("pieces")
        if not (isinstance(shape, list) and all(map(_is_length, shape))):
            raise self.wrong("shape", "a list of lengths")
        if not (isinstance(pieces, list) and all(map(_is_digest, pieces))):
            raise self.wrong("pieces", "a list of digests")
        name, dtype, digest = self.text(row, "name"), self.text(row, "dtype"), self.hexadecimal(row, "hash")
        return TensorEntry(name, dtype, tuple(shape), digest, tuple(pieces))


def _is_length(value: object) -> bool:
    return type(value) is int and value >= 0  # True is an int, and no length


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("(?:[0-9a-f]{2})+", value) is not None


def to_bytes(record: Mapping[str, Any]) -> bytes:
    """Return a record as JSON, a line a value."""
    return (json.dumps(record, indent=1, ensure_ascii=True) + "\n").encode()
