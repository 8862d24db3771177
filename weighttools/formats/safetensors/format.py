"""safetensors: an 8-byte length, a JSON header, then the tensors' bytes.

Source: the safetensors README, section "Format". The reader is stricter than the reference where that one lets
ambiguity through (duplicate names, ``"__metadata__": null``, unknown fields); the writer gives tensors the order
of the reference writer (descending dtype rank, then name) and metadata a sorted one, so that the same weights and
metadata always give the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from weighttools.core.engine import collector_paused
from weighttools.core.findings import Finding
from weighttools.core.spec import Source, Spec
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import SpecError, few
from weighttools.formats.base import Format, ReadBack, ReadOptions, Region, WriteOptions, instead, text_metadata
from weighttools.formats.safetensors.header import BITMASKS, CODES, MAX_HEADER, METADATA, NAMES, parse

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from weighttools.io.sink import Sink

_RANK = {ours.name: rank for rank, ours in enumerate(NAMES.values())}


def matches(head: bytes) -> bool:
    """Whether a file begins as a safetensors file does: a plausible length, then an opening brace."""
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Read the header of a safetensors file.

    Raises
    ------
    CorruptFileError
        Anything in the header is not as the format demands, or the file is longer or shorter than it says.
    """
    with collector_paused():
        metadata, rows = parse(source)
    found = TensorMap(rows, metadata, origin=Origin(source.name, "safetensors", (source.name,)))
    if BITMASKS in metadata:
        from weighttools.formats.safetensors.bitmask_entry import expanded

        found = expanded(found, source)
        found = found.replace(tensors={name: found[name] for name in stored_specs(found, {})})  # as if it were plain
    return with_ties(found)


def with_ties(tensor_map: TensorMap) -> TensorMap:
    """Move metadata entries that record a tie (dropped name -> kept name, as huggingface_hub writes) to the aliases."""
    entries = [(k, v) for k, v in tensor_map.metadata.items() if isinstance(v, str)]
    ties = {k: v for k, v in entries if v in tensor_map and k not in tensor_map}
    if not ties:
        return tensor_map
    rest = {k: v for k, v in tensor_map.metadata.items() if k not in ties}
    return tensor_map.replace(metadata=rest, aliases={**tensor_map.aliases, **ties})


def losses(tensor_map: TensorMap) -> list[str]:
    """Return what would be lost; raise where the format cannot hold the map.

    Raises
    ------
    SpecError
        A dtype the format does not know, a reserved or unwritable name, packed elements that do not fill a byte.
    """
    _texts(tensor_map)
    odd = [key for key, value in tensor_map.metadata.items() if not isinstance(value, str)]
    return [f"metadata that is not text becomes JSON text: {few(odd)}"] if odd else []


def _texts(tensor_map: TensorMap) -> dict[str, str]:
    """Return the metadata and ties as texts, which may be long work; raise where the format cannot hold the map."""
    for name, tensor in tensor_map.items():
        _check_writable(name, tensor.spec)
    if BITMASKS in tensor_map.metadata:
        raise SpecError(f"the metadata entry {BITMASKS} is the format's own", expected="another name for it")
    texts = {**text_metadata(tensor_map.metadata), **tensor_map.aliases}
    for key, value in texts.items():
        if not _encodable(key + value):
            raise SpecError(f"the metadata entry {key!r} is not valid Unicode", expected="text without lone surrogates")
    return texts


def _check_writable(name: str, spec: Spec) -> None:
    if name == METADATA or not _encodable(name):
        raise SpecError(f"safetensors cannot hold a tensor called {name!r}", remedy="rename it", code="cannot-hold")
    if spec.dtype.name not in CODES:
        raise SpecError(
            f"safetensors has no dtype {spec.dtype} (tensor {name!r})",
            remedy=instead(name, spec, "NPZ"),
            code="cannot-hold",
        )
    if spec.n_elements * spec.dtype.bits % 8:
        raise SpecError(
            f"tensor {name!r} has {spec.n_elements:,} elements of {spec.dtype.bits} bits", expected="whole bytes"
        )


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def stored_specs(tensor_map: TensorMap, bitmasks: Mapping[str, Any]) -> dict[str, Spec]:
    """Return what a header says of each tensor, in the reference writer's order: descending dtype rank, then name."""
    specs = dict(zip(tensor_map, tensor_map.specs(), strict=True))
    if bitmasks:
        from weighttools.encodings.bitmask import as_bytes

        specs |= {name: as_bytes(specs[name], bitmasks[name]) for name in specs if name in bitmasks}
    names = sorted(specs, key=lambda name: (-_RANK[specs[name].dtype.name], name.encode("utf-8")))
    return {name: specs[name] for name in names}


def encode_header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> bytes:
    """Return the header's bytes, length included, padded so that the data begins 8-aligned."""
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name, spec in specs.items():
        offsets = [at, at + spec.nbytes]
        header[name] = {"dtype": CODES[spec.dtype.name], "shape": list(spec.shape), "data_offsets": offsets}
        at += spec.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise SpecError(f"the header would take {len(text):,} bytes", expected=f"at most {MAX_HEADER:,}")
    return struct.pack("<Q", len(text)) + text


def write(tensor_map: TensorMap, sink: Sink, options: WriteOptions | None = None) -> None:
    """Write a map front to back; tensors already stored as they should be are copied undecoded.

    Memory: a few blocks a thread, whatever the size of the map.
    """
    how = options or WriteOptions()
    metadata: dict[str, Any] = {**_texts(tensor_map)}
    bitmasks = {name: how.bitmasks[name] for name in tensor_map if name in how.bitmasks}
    specs = stored_specs(tensor_map, bitmasks)
    if bitmasks:
        from weighttools.formats.safetensors.bitmask_entry import entry

        metadata[BITMASKS] = entry(tensor_map, bitmasks)
    header = encode_header(specs, metadata)
    sink.reserve(len(header) + sum(spec.nbytes for spec in specs.values()))
    sink.write(header)
    _write_values(tensor_map, specs, bitmasks, sink, how)


def _write_values(
    tensor_map: TensorMap, names: Iterable[str], bitmasks: Mapping[str, Any], sink: Sink, how: WriteOptions
) -> None:
    from weighttools.formats.raw import write_raw

    for is_masked, group in groupby(names, bitmasks.__contains__):
        if not is_masked:
            write_raw((tensor_map[name] for name in group), sink, how)
            continue
        from weighttools.encodings.bitmask import write_blocks

        for name in group:
            write_blocks(tensor_map[name], bitmasks[name], sink, how.threads)


def check(source: Source) -> Iterable[Finding]:
    """Return what the reference library says against the file."""
    from weighttools.formats.safetensors.reference import check as by_reference

    return by_reference(source)


def regions(source: Source) -> Iterable[Region]:
    """Return where the header lies, and the number before it that says how long it is."""
    n_header = int.from_bytes(source.read(0, 8), "little")
    return [Region(0, 8, "length of the header"), Region(8, n_header, "header")]


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.safetensors.readback import read_back as opened

    return opened(path, tensor_map)


FORMAT = Format(
    matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back, regions=regions
)
