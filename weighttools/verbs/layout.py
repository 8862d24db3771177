"""What ``inspect`` says under ``layout``: the byte map of each file, and the first values of each tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from weighttools.analyzers.byte_map import FileMap, NamedSizes, byte_maps, sizes_of
from weighttools.analyzers.glimpse import first_values
from weighttools.core.tensormap import TensorMap
from weighttools.core.tree import outline
from weighttools.errors import WeighttoolsError, counted, few
from weighttools.families.of_maps import roles

if TYPE_CHECKING:
    from weighttools.verbs.record_types import FileLayout, LayoutRecord, ShareRow

MOST_LISTED = 1000
"""Pieces, gaps and overlaps of a file that are listed; all are counted."""
HEX_BYTES = 64
"""Bytes of a file's head and tail that are shown."""
MODULE_PARTS = 2
"""Parts of a name, numbers as one, that say which module a tensor is counted with."""


def layout_record(tensor_map: TensorMap) -> LayoutRecord:
    """Return the byte maps of the files of a map, and the first values of its tensors."""
    maps, homeless = byte_maps(tensor_map)
    names, told = list(tensor_map), [one.role.value for one in roles(tensor_map)]
    values = {name: first_values(tensor) for name, tensor in tensor_map.items()}
    return {
        "files": [_file(found, names, tensor_map, told) for found in maps],
        "first_values": values,
        "notes": _notes(maps, [names[index] for index in homeless], [n for n, v in values.items() if v is None]),
    }


def _notes(maps: Iterable[FileMap], homeless: Sequence[str], unread: Sequence[str]) -> list[str]:
    notes = [f"{found.name}: {found.unknown}" for found in maps if found.unknown]
    if homeless:
        notes.append(f"in no place of a file that is known: {counted(len(homeless), 'tensor')} ({few(homeless)})")
    if unread:
        why = "they are damaged, or lie in blocks too large to decode for it"
        notes.append(f"no first values of {counted(len(unread), 'tensor')}, for {why}: {few(unread)}")
    return notes


def _file(found: FileMap, names: Sequence[str], tensor_map: TensorMap, told: Sequence[str]) -> FileLayout:
    size, specs, sizes = found.source.size, tensor_map.specs(), sizes_of(found)
    head, tail, tail_offset = _ends(found)
    gaps = [piece for piece in found.pieces if piece.what == "gap"]
    return {
        "path": found.name,
        "n_bytes": size,
        "parts": _shares((piece.what, piece.length) for piece in found.pieces),
        "n_pieces": len(found.pieces),
        "pieces": [{"offset": p.offset, "n_bytes": p.length, "what": p.what} for p in found.pieces[:MOST_LISTED]],
        "n_gaps": len(gaps),
        "gaps": [{"offset": p.offset, "n_bytes": p.length, "what": p.what} for p in gaps[:MOST_LISTED]],
        "n_overlaps": len(found.overlaps),
        "overlaps": [
            {"offset": o.offset, "n_bytes": o.length, "tensors": [o.first, o.second]}
            for o in found.overlaps[:MOST_LISTED]
        ],
        "dtypes": _shares((specs[index].label, n_bytes) for index, n_bytes in sizes.items()),
        "roles": _shares((told[index], n_bytes) for index, n_bytes in sizes.items()),
        "modules": _modules(NamedSizes([names[i] for i in sizes], [specs[i] for i in sizes], list(sizes.values()))),
        "head": head.hex(),
        "tail": tail.hex(),
        "tail_offset": tail_offset,
    }


def _ends(found: FileMap) -> tuple[bytes, bytes, int]:
    """Return a file's first and last bytes, and where the last ones begin; none if it cannot be read any more."""
    size = found.source.size
    at = max(0, size - HEX_BYTES)
    try:
        return found.source.read(0, min(HEX_BYTES, size)), found.source.read(at, size - at), at
    except (WeighttoolsError, OSError):
        return b"", b"", at


def _shares(parts: Iterable[tuple[str, int]]) -> list[ShareRow]:
    """Add up bytes by what they are, the largest first."""
    rows: dict[str, ShareRow] = {}
    for what, n_bytes in parts:
        row = rows.setdefault(what, {"what": what, "n": 0, "n_bytes": 0})
        row["n"] += 1
        row["n_bytes"] += n_bytes
    return sorted(rows.values(), key=lambda row: -row["n_bytes"])


def _modules(sizes: NamedSizes) -> list[ShareRow]:
    rows: list[ShareRow] = [
        {"what": line.label, "n": line.n_tensors, "n_bytes": line.stored_bytes} for line in outline(sizes, MODULE_PARTS)
    ]
    return sorted(rows, key=lambda row: -row["n_bytes"])
