"""A manifest as OpenSSF model signing v1.0 has it: an in-toto statement about files, unsigned, for others to sign.

Source: sigstore/model-transparency, ``model_signing/_signing/signing.py`` and ``manifest.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from weighttools.analyzers.digest.manifest import FileEntry, Manifest, ManifestReader, parse
from weighttools.errors import CorruptFileError, UnsupportedError, few
from weighttools.io.beside import check_name

PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT = "https://in-toto.io/Statement/v1"
WHOLE = "."
"""What the only file is called where the model is a file."""


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
    read = ManifestReader(subject)
    predicate = _predicate(found, subject)
    method = predicate["serialization"]
    rows = list(read.rows(predicate, "resources"))
    if others := sorted({str(row.get("algorithm")) for row in rows} - {"sha256"}):
        fact = f"has files hashed by {few(others)}"
        raise UnsupportedError(fact, subject=subject, expected="sha256", code="unknown-manifest")
    files = tuple(read.file(row, "name", "digest") for row in rows)
    called, digest = _subject(found, read)
    if digest != _root(files):
        raise read.wrong("subject", "the SHA-256 of the digests of its resources, in their order")
    is_whole = [file.name for file in files] != [WHOLE]
    if not is_whole:
        check_name(called, subject)
        files = (files[0]._replace(name=called),)
    ignored = _ignored(method, read)
    more = (f"left out, as the statement says: {few(list(ignored))}",) if ignored else ()
    return Manifest("oms", files, ignored=ignored, is_whole=is_whole, notes=(*notes, *more))


def _predicate(found: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
    """Return what a statement says, which is of one kind."""

    def other(fact: str, expected: str) -> UnsupportedError:
        return UnsupportedError(fact, subject=subject, expected=expected, code="unknown-manifest")

    predicate = found.get("predicate")
    if found.get("_type") != STATEMENT:
        raise other(f"has the type {found.get('_type')!r}", STATEMENT)
    if found.get("predicateType") != PREDICATE or not isinstance(predicate, dict):
        raise other(f"has the predicate type {found.get('predicateType')!r}", PREDICATE)
    method = predicate.get("serialization")
    if not (isinstance(method, dict) and (method.get("method"), method.get("hash_type")) == ("files", "sha256")):
        fact = "describes files by something else than one SHA-256 each"
        raise other(fact, "method files, hash_type sha256")
    return predicate


def _subject(found: Mapping[str, Any], read: ManifestReader) -> tuple[str, str]:
    """Return what a statement is of, and the digest of all."""
    subjects = list(read.rows(found, "subject"))
    digest = subjects[0].get("digest") if len(subjects) == 1 else None
    if not isinstance(digest, dict):
        raise read.wrong("subject", "one, with its digest")
    return read.text(subjects[0], "name"), read.sha256(digest, "sha256")


def _root(files: Sequence[FileEntry]) -> str:
    """Return the SHA-256 of files' digests, as bytes, in the order that they are given in."""
    import hashlib

    return hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()


def _ignored(method: Mapping[str, Any], read: ManifestReader) -> tuple[str, ...]:
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


def statement(files: Sequence[FileEntry], name: str, serialization: Mapping[str, Any]) -> dict[str, Any]:
    """Return an unsigned statement about files, for others to sign.

    Parameters
    ----------
    files
        The files; one of the name `WHOLE` where the model is a file.
    name
        What the model is called.
    serialization
        What `serialization` gives.

    Notes
    -----
    in-toto Statement v1 with the predicate of OpenSSF model signing v1.0: the digest of the subject is the SHA-256 of
    the files' digests, as bytes, in the alphabetical order of their names, folder by folder.
    """
    ordered = sorted(files, key=lambda file: PurePosixPath(file.name).parts)
    resources = [{"name": file.name, "algorithm": "sha256", "digest": file.sha256} for file in ordered]
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(ordered)}}],
        "predicateType": PREDICATE,
        "predicate": {"serialization": dict(serialization), "resources": resources},
    }


def serialization(ignored: Sequence[str], has_links: bool) -> dict[str, Any]:
    """Return how files become a statement.

    Parameters
    ----------
    ignored
        Names below the directory that it says nothing of, and that verifiers pass over.
    has_links
        Whether some of the files are links, at which verifiers stop where they are not told.
    """
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": has_links}
    return {**method, "ignore_paths": list(ignored)}


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
