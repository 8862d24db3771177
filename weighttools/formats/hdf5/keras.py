"""Keras 3 archives (``.keras``) and sharded Keras weights. Source: Keras ``src/saving/saving_lib.py``.

An archive is a zip of ``metadata.json``, ``config.json`` and ``model.weights.h5``, or, instead of that, of
``model.weights.json`` and numbered shards. Weights that are stored are read in place; deflated ones are unpacked to
a temporary file. The two JSON texts are kept as metadata and never acted upon: no class is looked up, no layer made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from weighttools.core import budgets
from weighttools.core.findings import Finding
from weighttools.core.spec import Source, Span
from weighttools.core.tensor import spans
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, UnknownFormatError, UnsafeFileError, few
from weighttools.formats import members_check
from weighttools.formats.base import HEAD_BYTES, Format, ReadOptions, Region
from weighttools.formats.hdf5.format import matches as matches_hdf5
from weighttools.formats.hdf5.format import read_span
from weighttools.io.archive import Member, first_member, members, needs
from weighttools.io.beside import links_out, weights
from weighttools.io.source import LocalFile, spooled
from weighttools.io.text import parse_json, read_json

WEIGHTS, INDEX, INDEX_SUFFIX = "model.weights.h5", "model.weights.json", ".weights.json"
TEXTS = ("metadata.json", "config.json")
ASSETS = "assets/"


def matches(head: bytes) -> bool:
    """Whether a file begins as a zip whose first member is one of a Keras archive."""
    name, _ = first_member(head) or (b"", b"")
    return name in {text.encode() for text in (WEIGHTS, INDEX, *TEXTS)} or name.startswith(ASSETS.encode())


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """List the weights of an archive.

    Raises
    ------
    CorruptFileError
        The archive or its weights are damaged.
    UnknownFormatError
        There are no weights in it.
    """
    chosen = options or ReadOptions()
    found = members(source)
    if INDEX in found:
        most = min(budgets.JSON_BYTES, budgets.deflated_index(found[INDEX].span.length))
        record = parse_json(_text(found[INDEX], most).encode("utf-8"), f"{source.name}: {INDEX}")
        inside = _joined(record, f"{source.name}: {INDEX}", lambda name: _member(source, found, name, chosen))
    elif WEIGHTS in found:
        inside = _member(source, found, WEIGHTS, chosen)
    else:
        raise UnknownFormatError(
            "is a zip archive without Keras weights", subject=source.name, expected=f"{WEIGHTS} or {INDEX} in it"
        )
    texts = {name: _text(found[name]) for name in TEXTS if name in found}
    assets = [name for name in found if name.startswith(ASSETS) and not name.endswith("/")]
    notes = [f"left out: {few(assets)} (assets of layers, such as vocabularies)"] if assets else []
    origin = Origin(source.name, "keras", (source.name,), (*inside.origin.notes, *notes))
    return inside.replace(metadata={**texts, **inside.metadata}, origin=origin)


def _member(source: Source, found: Mapping[str, Member], name: str, options: ReadOptions) -> TensorMap:
    member = found.get(name)
    if member is None:
        raise CorruptFileError(f"its index names {name!r}, which is not in the archive", subject=source.name)
    if not member.deflated:
        listed = read_span(member.span, options)
        places = {span[1:3] for tensor in listed.values() for span in spans(tensor) if span.content}
        needs(member, sum(length for _, length in places))
        return listed
    if not matches_hdf5(member.head(HEAD_BYTES)):
        raise CorruptFileError(f"{name} has no HDF5 signature", subject=source.name)
    unpacked = spooled(member.chunks(), f"{source.name}: {name}")
    return read_span(Span(unpacked, 0, unpacked.size), options)


def _text(member: Member, most: int = budgets.CONFIG_BYTES) -> str:
    subject = f"{member.span.source.name}: {member.name}"
    if member.size > most:
        raise CorruptFileError(f"is {member.size:,} bytes long", subject=subject, expected=f"at most {most:,}")
    try:
        return member.content().decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptFileError("is not UTF-8", subject=subject) from None


# -- shards -----------------------------------------------------------------------------------------------------------


def read_index(path: str | Path, options: ReadOptions | None = None) -> TensorMap:
    """Read the shards that a ``*.weights.json`` names, all of them beside it.

    Raises
    ------
    CorruptFileError
        The index is none, or a shard does not hold what the index says.
    UnsafeFileError
        A shard's name would leave the directory.
    SourceError
        A shard is missing.
    """
    index = Path(path)
    files: list[str] = []

    def shard(name: str) -> TensorMap:
        source = LocalFile(weights(index.parent, name, index))
        files.append(source.name)
        return read_span(Span(source, 0, source.size), options or ReadOptions())

    found = _joined(read_json(index), str(index), shard)
    notes = (*found.origin.notes, *links_out(index.parent, files))
    return found.replace(origin=found.origin._replace(path=str(index), files=tuple(files), notes=notes))


def _joined(record: Mapping[str, Any], subject: str, shard: Callable[[str], TensorMap]) -> TensorMap:
    groups = _weight_map(record, subject)
    names = list(dict.fromkeys(name for shards in groups.values() for name in shards))
    maps = {name: shard(name) for name in names}
    found = TensorMap.joined(maps.values())
    _check(groups, maps, len(found), subject)
    notes = tuple(note for part in maps.values() for note in part.origin.notes)
    metadata: dict[str, Any] = {}
    for part in maps.values():
        for key, value in part.metadata.items():
            both = isinstance(value, dict) and isinstance(metadata.get(key), dict)
            metadata[key] = {**metadata[key], **value} if both else metadata.get(key, value)
    return found.replace(metadata=metadata, origin=Origin(subject, "keras", tuple(names), notes))


def _weight_map(record: Mapping[str, Any], subject: str) -> dict[str, list[str]]:
    """Return the path of each group of variables to the shards that hold them."""
    raw = record.get("weight_map")
    if not isinstance(raw, dict):
        raise CorruptFileError("has no weight_map", subject=subject, expected='{"weight_map": {group: file}}')
    groups = {path.strip("/"): shards if isinstance(shards, list) else [shards] for path, shards in raw.items()}
    for name in (name for shards in groups.values() for name in shards):
        if type(name) is not str or name in ("", ".", "..") or any(c in name for c in "/\\\0:"):
            raise UnsafeFileError(f"names the shard {name!r}", subject=subject, expected="a plain file name")
    return groups


def _check(groups: Mapping[str, list[str]], maps: Mapping[str, TensorMap], n_joined: int, subject: str) -> None:
    """Hold index and shards against each other, both ways."""
    if n_joined != sum(map(len, maps.values())):
        raise CorruptFileError("two of its shards hold a variable of one name", subject=subject)
    held = {(path.rpartition("/")[0], shard) for shard, part in maps.items() for path in part}
    named = {(path, shard) for path, shards in groups.items() for shard in shards}
    for path, shard in sorted(held ^ named):
        what = "does not name" if (path, shard) in held else "names, wrongly,"
        raise CorruptFileError(f"{what} variables of {path!r} in {shard}", subject=subject)


def check(source: Source) -> Iterator[Finding]:
    """Yield bytes around the archive, and what is found in its members: pickles among its assets."""
    from weighttools.formats.pickles.scan import of_archive

    yield from members_check.surroundings(source)
    yield from of_archive(source)


def regions(source: Source) -> list[Region]:
    """Return the parts of the archive."""
    from weighttools.io.archive_places import archive_places

    return [Region(*place) for place in archive_places(source)]


FORMAT = Format(matches=matches, read=read, check=check, regions=regions)
