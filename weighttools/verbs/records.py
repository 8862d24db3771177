"""Records: plain dictionaries with stable keys, as the commands print them in JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from weighttools.analyzers import counts
from weighttools.analyzers.alike import TensorFamily, families
from weighttools.core.encodings import BITMASK
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, few
from weighttools.families.of_maps import roles, wordings
from weighttools.families.role_types import Told
from weighttools.formats.base import plain

if TYPE_CHECKING:
    from weighttools.verbs.record_types import (
        Bitmasks,
        Counts,
        FormatRow,
        GroupRow,
        InspectRecord,
        ParamsRecord,
        Sizes,
        TensorRow,
    )

Record = dict[str, Any]


def inspect_record(tensor_map: TensorMap, path: str, *, tensors: bool) -> InspectRecord:
    """Return a ``weighttools.inspect/1`` record, with a list of all tensors or without."""
    from weighttools.analyzers.configuration import not_taken
    from weighttools.analyzers.kind import kind

    found = families(tensor_map)
    groups = counts.by_dtype(found)
    kind_name, evidence = kind(found, tensor_map.origin)
    said = {
        "schema": "weighttools.inspect/1",
        "path": path,
        "format": tensor_map.origin.format,
        "kind": kind_name,
        "evidence": evidence,
        "metadata": plain(tensor_map.metadata) if tensors else dict(tensor_map.metadata),
        "n_tensors": len(tensor_map),
        **_totals(groups),
        "dtypes": {name: _dtype_record(count) for name, count in groups.items()},
        "aliases": dict(tensor_map.aliases),
        "values": {name: _shown(value) for name, value in tensor_map.origin.values.items()},
        "foreign_globals": [dict(entry) for entry in tensor_map.origin.foreign],
        "files": list(tensor_map.origin.files),
        "notes": [*tensor_map.origin.notes, *not_taken(tensor_map.origin)],
        "tensors": [_tensor_record(name, tensor) for name, tensor in tensor_map.items()] if tensors else [],
    }
    record = cast("InspectRecord", said)
    if masked := _bitmasks(found):
        record["bitmasks"] = masked
    if any(isinstance(text, str) and text[:1] in ("{", "[") for text in tensor_map.metadata.values()):
        from weighttools.analyzers.glimpse import expanded

        if texts := expanded(tensor_map.metadata):
            record["expanded"] = texts
    return record


def params_record(tensor_map: TensorMap, path: str, by: str, depth: int) -> ParamsRecord:
    """Return a ``weighttools.params/1`` record.

    Raises
    ------
    SpecError
        `by` is not ``"dtype"``, ``"module"``, ``"depth"`` or ``"role"``, or `depth` is less than 1.
    """
    if by not in ("dtype", "module", "depth", "role") or depth < 1:
        raise SpecError(
            f"cannot count by {by!r} at depth {depth}",
            expected="dtype, module, role, or depth from 1",
            code="unknown-option-value",
        )
    told = roles(tensor_map) if by == "role" else []
    groups = counts.by_role(tensor_map, told) if by == "role" else _groups(tensor_map, by, depth)
    evidence = _evidence(told)
    return {
        "schema": "weighttools.params/1",
        "path": path,
        **_totals(groups),
        "aliases": dict(tensor_map.aliases),
        "notes": [*tensor_map.origin.notes, *packed_notes(tensor_map, families(tensor_map))],
        "groups": [_group_record(name, count, evidence.get(name)) for name, count in groups.items()],
    }


def _evidence(told: Iterable[Told]) -> dict[str, dict[str, int]]:
    """Return, for each role, what says so, and of how many tensors."""
    found: dict[str, dict[str, int]] = {}
    for role, why in told:
        because = found.setdefault(role.value, {})
        because[why] = because.get(why, 0) + 1
    return found


def _shown(value: Any) -> Any:
    """Return a small value for a record; JSON has no infinity and no NaN, so these are words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else plain(value)


def packed_notes(tensor_map: TensorMap, found: Iterable[TensorFamily]) -> list[str]:
    """Say that counts of packed weights are of what is stored."""
    from weighttools.families.packed import counted_as_stored, recognise

    words = ((family.words, family.spec) for family in found)
    packed = recognise(words, tensor_map.metadata, tensor_map.origin)
    if packed is None:
        return []
    unknown = _unknown_scales(tensor_map) if "keras" in packed.encodings else []
    names = (name for name, word in zip(tensor_map, wordings(tensor_map), strict=True) if word in packed.members)
    some = [(name, tensor_map[name].spec) for name in islice(names, _LIKE)]  # for their names still have numbers
    named = recognise(some, tensor_map.metadata, tensor_map.origin)
    return [counted_as_stored(packed._replace(evidence=named.evidence) if named else packed), *unknown]


def _unknown_scales(tensor_map: TensorMap) -> list[str]:
    """Say of which layers it is not known what their numbered variables are."""
    from weighttools.families.keras_quantized import numbered_scales

    unknown = numbered_scales(tensor_map).unknown
    what = "nothing tells which of their floats are scales: all are counted as parameters"
    return [f"{few(unknown, 3)}: {what}"] if unknown else []


_LIKE = 200
"""Parts of packed weights that are looked at by name: those of one weight lie near each other."""


def _groups(tensor_map: TensorMap, by: str, depth: int) -> dict[str, counts.Count]:
    if by == "dtype":
        return counts.by_dtype(families(tensor_map))
    return counts.by_name(tensor_map, counts.module if by == "module" else counts.first_parts(depth))


def _totals(groups: dict[str, counts.Count]) -> Counts:
    total = counts.total(groups)
    return {
        "n_parameters": total.n_parameters,
        "n_buffers": total.n_buffers,
        "n_state": total.n_state,
        "n_elements": total.n_elements,
        "stored_bytes": total.stored_bytes,
    }


def _dtype_record(count: counts.Count) -> Sizes:
    return {"n_tensors": count.n_tensors, "n_elements": count.n_elements, "stored_bytes": count.stored_bytes}


def _bitmasks(found: Iterable[TensorFamily]) -> Bitmasks | None:
    """Return how many tensors are stored as bitmasks, in how many bytes, and what they would take; if there are any."""
    masked = [family for family in found if family.spec.encoding == BITMASK]
    if not masked:
        return None
    return {
        "n_tensors": sum(family.n_tensors for family in masked),
        "stored_bytes": sum(family.n_tensors * family.stored_bytes for family in masked),
        "raw_bytes": sum(family.n_tensors * family.spec.nbytes for family in masked),
    }


def _tensor_record(name: str, tensor: Tensor) -> TensorRow:
    spec, stored = tensor.spec, tensor.stored
    return {
        "name": name,
        "dtype": spec.dtype.name,
        "shape": list(spec.shape),
        "n_elements": spec.n_elements,
        "stored_bytes": tensor.stored_bytes,
        "encoding": spec.encoding,
        "offset": stored.offset if stored else None,
        "file": stored.source.name if stored else None,
    }


def _group_record(name: str, count: counts.Count, because: dict[str, int] | None) -> GroupRow:
    row: GroupRow = {
        "group": name,
        "n_tensors": count.n_tensors,
        "n_parameters": count.n_parameters,
        "n_buffers": count.n_buffers,
        "n_state": count.n_state,
        "stored_bytes": count.stored_bytes,
    }
    if because is not None:
        row["because"] = because
    return row


def format_records() -> list[FormatRow]:
    """Return what is read and written, the extra that it needs, and the installed package that adds it, if one does."""
    from weighttools.formats import DIRECTORY, FORMATS, ROWS, Row, load, plugins

    def described(row: Row, *, writes: bool) -> FormatRow:
        return {
            "format": row.name,
            "what": row.title,
            "suffixes": list(row.suffixes),
            "reads": True,
            "writes": writes,
            "extra": row.extra,
            "package": "",
            "error": "",
        }

    rows = [described(row, writes=load(row.name).write is not None) for row in ROWS]
    index = described(DIRECTORY, writes=True)
    return [*rows[:1], index, *rows[1:], *cast("list[FormatRow]", plugins.records(FORMATS))]
