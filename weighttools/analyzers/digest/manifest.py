"""A manifest: what files a checkpoint has, and what is in them, to be held against it later.

Our own is JSON with the schema ``weighttools.manifest/1``; `statement` is the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from weighttools.analyzers.digest.algorithms import ALGORITHMS
from weighttools.analyzers.digest.files import sha256
from weighttools.analyzers.digest.tree import PIECE_ELEMENTS, TensorDigest, content_digest, joined_digest, kind_of
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, UnsupportedError, few
from weighttools.io.beside import check_name
from weighttools.io.home import Home
from weighttools.io.source import LocalFile

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
    notes: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether a file is no part of it by its name, or by a folder's that it lies in."""
        return any(name == one or name.startswith(f"{one}/") for one in self.ignored)

    def record(self) -> dict[str, Any]:
        """Return our own form."""
        return {
            "schema": SCHEMA,
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
    """Return the hidden files and folders of a directory, of which manifests say nothing."""
    return [name for name in home.names() if name.startswith(".")]


def _below(home: Home, path: str) -> str | None:
    from pathlib import Path

    try:
        return Path(path).relative_to(home.place).as_posix()
    except ValueError:
        return None


def file_entries(files: Mapping[str, LocalFile]) -> tuple[FileEntry, ...]:
    """Return the entries of files, each of which is read."""
    return tuple(FileEntry(name, file.size, sha256(file)) for name, file in sorted(files.items()))


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
        raise _Reading(subject).wrong("piece_elements", f"{PIECE_ELEMENTS}")
    read = _Reading(subject)
    files = tuple(read.file(row) for row in read.rows(found, "files"))
    tensors = tuple(read.tensor(row) for row in read.rows(found, "tensors"))
    aliases, is_decoded = found.get("aliases", {}), found.get("decoded", False)
    if not (isinstance(aliases, dict) and all(isinstance(kept, str) for kept in aliases.values())):
        raise read.wrong("aliases", "an object of names")
    if not isinstance(is_decoded, bool):
        raise read.wrong("decoded", "true or false")
    algorithm, content = read.text(found, "algorithm"), read.hexadecimal(found, "content")
    _check_digests(tensors, aliases, algorithm, content, read)
    return Manifest("manifest", files, algorithm, content, tensors, aliases, is_decoded)


def _check_digests(
    tensors: Sequence[TensorEntry], aliases: Mapping[str, str], algorithm: str, content: str, read: _Reading
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
class _Reading:
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


def parse_statement(found: Mapping[str, Any], subject: str) -> Manifest:
    """Read a statement of OpenSSF model signing v1.0, or a bundle that holds one; no signature is checked.

    Raises
    ------
    CorruptFileError
        It is not what it should be, or the subject's digest is not that of the files' digests.
    UnsupportedError
        It is another kind of statement, or files are cut into parts, or hashed by something else than SHA-256.
    """
    notes = ("who signed it, and whether at all, is not checked",)
    envelope = found.get("dsseEnvelope")
    if isinstance(envelope, dict):
        found = _payload(envelope, subject)
    read = _Reading(subject)
    predicate = found.get("predicate")
    if found.get("_type") != STATEMENT:
        fact = f"has the type {found.get('_type')!r}"
        raise UnsupportedError(fact, subject=subject, expected=STATEMENT, code="unknown-manifest")
    if found.get("predicateType") != PREDICATE or not isinstance(predicate, dict):
        fact = f"has the predicate type {found.get('predicateType')!r}"
        raise UnsupportedError(fact, subject=subject, expected=PREDICATE, code="unknown-manifest")
    method = predicate.get("serialization")
    if not (isinstance(method, dict) and (method.get("method"), method.get("hash_type")) == ("files", "sha256")):
        fact = "describes files by something else than one SHA-256 each"
        raise UnsupportedError(
            fact, subject=subject, expected="method files, hash_type sha256", code="unknown-manifest"
        )
    rows = list(read.rows(predicate, "resources"))
    if others := sorted({str(row.get("algorithm")) for row in rows} - {"sha256"}):
        fact = f"has files hashed by {few(others)}"
        raise UnsupportedError(fact, subject=subject, expected="sha256", code="unknown-manifest")
    files = tuple(read.file(row, "name", "digest") for row in rows)
    if _subject_digest(found, read) != _root(files):
        raise read.wrong("subject", "the SHA-256 of the digests of its resources, in their order")
    ignored = _ignored(method, read)
    more = (f"left out, as the statement says: {few(list(ignored))}",) if ignored else ()
    return Manifest("oms", files, ignored=ignored, notes=(*notes, *more))


def _subject_digest(found: Mapping[str, Any], read: _Reading) -> str:
    subjects = list(read.rows(found, "subject"))
    digest = subjects[0].get("digest") if len(subjects) == 1 else None
    if not isinstance(digest, dict):
        raise read.wrong("subject", "one, with its digest")
    return read.sha256(digest, "sha256")


def _root(files: Sequence[FileEntry]) -> str:
    """Return the SHA-256 of files' digests, as bytes, in the order that they are given in."""
    import hashlib

    return hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()


def _ignored(method: Mapping[str, Any], read: _Reading) -> tuple[str, ...]:
    paths = method.get("ignore_paths") or []
    if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
        raise read.wrong("ignore_paths", "a list of paths")
    return tuple(paths)


def _payload(envelope: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
    import base64
    import binascii

    from weighttools.io.text import parse_json

    try:
        data = base64.b64decode(str(envelope.get("payload")), validate=True)
    except (binascii.Error, ValueError):
        raise CorruptFileError("the payload is no base64", subject=subject, code="bad-manifest") from None
    return parse_json(data, subject)


PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT = "https://in-toto.io/Statement/v1"


def statement(files: Sequence[FileEntry], name: str, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """Return an unsigned statement about files, for others to sign.

    Parameters
    ----------
    files
        The files.
    name
        What the model is called.
    ignored
        Names below the directory that it says nothing of, and that verifiers pass over.

    Notes
    -----
    in-toto Statement v1 with the predicate of OpenSSF model signing v1.0: the digest of the subject is the SHA-256 of
    the files' digests, as bytes, in the alphabetical order of their names.
    """
    ordered = sorted(files, key=lambda file: file.name)
    resources = [{"name": file.name, "algorithm": "sha256", "digest": file.sha256} for file in ordered]
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(ignored)}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(ordered)}}],
        "predicateType": PREDICATE,
        "predicate": {"serialization": method, "resources": resources},
    }


def is_manifest(found: Mapping[str, Any]) -> bool:
    """Whether JSON is one of the forms that are read here."""
    schema = found.get("schema")
    ours = isinstance(schema, str) and schema.startswith("weighttools.manifest/")
    return ours or "predicateType" in found or "dsseEnvelope" in found


def read_manifest(found: Mapping[str, Any], subject: str) -> Manifest:
    """Read either form; see `parse` and `parse_statement`.

    Raises
    ------
    CorruptFileError
        A file stands twice.
    """
    made = parse(found, subject) if "schema" in found else parse_statement(found, subject)
    names = [file.name for file in made.files]
    if len(set(names)) < len(names):
        raise CorruptFileError("a file stands twice", subject=subject, code="bad-manifest")
    return made


def to_bytes(record: Mapping[str, Any]) -> bytes:
    """Return a record as JSON, a line a value."""
    return (json.dumps(record, indent=1, ensure_ascii=True) + "\n").encode()
