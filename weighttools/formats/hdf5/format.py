"""HDF5: numeric data sets by path, Keras's files among them. Source: HDF5 File Format Specification 3.0.

The structure is listed by libhdf5 in a child process (`hdf5_process`); the values are read here, by offset, and chunks
are decompressed and checked here (`hdf5_chunks`). So libhdf5 is relied on for superblock, groups, object headers,
attributes and chunk indexes, and a fault in it can at worst end the child. Nothing outside the file is followed:
external and user-defined links, external storage and virtual data sets are named as left out, and refused where
nothing else is there. Soft links within the file are names of what they point to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from weighttools.core import budgets
from weighttools.core.findings import Finding
from weighttools.core.spec import Source, Span
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, Row, TensorMap
from weighttools.errors import CorruptFileError, UnsafeFileError, UnsupportedError, counted, few
from weighttools.formats import trailing
from weighttools.formats.base import Format, ReadBack, ReadOptions, refuse_shapes
from weighttools.formats.hdf5 import keras_layout
from weighttools.formats.hdf5 import names as hdf5_names
from weighttools.formats.hdf5 import tensors as hdf5_tensors
from weighttools.formats.hdf5.process import end_of_file, listing, user_block
from weighttools.formats.hdf5.write import write
from weighttools.formats.left_out import LeftOut

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

Json = dict[str, Any]
MAX_AXES = 32
"""H5S_MAX_RANK of libhdf5."""
_MOST_NOTES = 5
_MOST_STEPS = 64


def matches(head: bytes) -> bool:
    """Whether a file has the HDF5 signature at its beginning, or behind a small user block."""
    return user_block(head) is not None


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """List the data sets of a file; as `read_span`."""
    return read_span(Span(source, 0, source.size), options or ReadOptions())


def read_span(span: Span, options: ReadOptions) -> TensorMap:
    """List the data sets of the HDF5 file that lies in `span`.

    Raises
    ------
    CorruptFileError
        It is damaged, or libhdf5 did not survive it.
    UnsafeFileError
        It points to other files.
    UnsupportedError
        It holds data sets, but none of numbers.
    """
    subject = span.source.name
    found = listing(span)
    order, metadata = keras_layout.described(found, subject)
    record = hdf5_names.parse_sidecar(metadata.pop(hdf5_names.SIDECAR, "{}"), subject)
    tensors, left_out = _tensors(found, span, options)
    _refuse_costly(found, span)
    if not tensors:
        _refuse_nothing(found, left_out, subject)
    ties, more = _ties(found, tensors)
    notes = [*_outside(found).notes(), *left_out.notes(), *_attribute_notes(found)]
    ordered = {path: tensors[path] for path in order if path in tensors}
    tensor_map = TensorMap(ordered, metadata, ties, Origin(subject, "hdf5", (subject,), _shortened(notes + more)))
    return _by_record(tensor_map, record, subject)


def _outside(found: Json) -> LeftOut:
    """Return what lies in other files: it is never followed."""
    outside = LeftOut()
    for path, why in found["outside"]:
        outside.add(f"{why}, which is not followed", repr(path))
    return outside


def _refuse_nothing(found: Json, left_out: LeftOut, subject: str) -> None:
    """Refuse a file of which nothing is read, if it holds anything at all."""
    outside = _outside(found)
    if outside:
        raise UnsafeFileError(
            f"holds no values of its own: {few(list(outside), 3)}",
            subject=subject,
            expected="a file that holds all of its values",
            remedy="copy it with its values: h5repack, or h5copy -f ext",
        )
    if left_out:
        raise UnsupportedError(f"holds no data set of numbers: {few(list(left_out), 3)}", subject=subject)


def _attribute_notes(found: Json) -> list[str]:
    """Say how many attributes of groups and data sets nothing takes up; the file's own are its metadata."""
    n, some = found["n_attributes"], found["some_attributes"]
    more = ", …" if n > len(some) else ""
    return [f"left out: {counted(n, 'attribute')} of groups and data sets ({', '.join(some)}{more})"] if n else []


def _refuse_costly(found: Json, span: Span) -> None:
    """Hold what all data sets together claim against the file: there may be thousands, each within its bounds."""
    unwritten = sum(map(hdf5_tensors.unstored_bytes, found["tensors"]))
    if unwritten > budgets.UNWRITTEN_BYTES + span.length:
        raise UnsafeFileError(
            f"its data sets claim {unwritten:,} bytes that were never written",
            subject=span.source.name,
            expected=f"at most {budgets.UNWRITTEN_BYTES:,}, and as many as the file has",
            code="inflates-without-measure",
        )
    inflated = sum(map(hdf5_tensors.chunk_bytes, found["tensors"]))
    if inflated > budgets.inflated(span.length):
        raise UnsafeFileError(
            f"its chunks would inflate to {inflated:,} bytes",
            subject=span.source.name,
            expected=f"at most {budgets.INFLATED_TIMES} for each stored byte, and {budgets.INFLATED_FREE:,}",
            remedy="if it is meant to be so, repack it without filters: h5repack -f NONE",
            code="inflates-without-measure",
        )


def _tensors(found: Json, span: Span, options: ReadOptions) -> tuple[dict[str, Tensor | Row], LeftOut]:
    tensors: dict[str, Tensor | Row] = {}
    left_out = LeftOut()
    for path, why in found["left_out"]:
        left_out.add(why, path)
    for entry in found["tensors"]:
        try:
            tensors[entry["path"]] = hdf5_tensors.tensor(entry, span, options.assume)
        except UnsupportedError as error:
            left_out.add(str(error), entry["path"])
    return tensors, left_out


def _shortened(notes: list[str]) -> tuple[str, ...]:
    more = [f"… and {len(notes) - _MOST_NOTES:,} more"] if len(notes) > _MOST_NOTES else []
    return tuple(notes[:_MOST_NOTES] + more)


def _ties(found: Json, tensors: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the further names of tensors, by hard and soft links, and what is to be said of the other links."""
    soft = dict(found["soft"])
    hard = dict(found["aliases"])
    ties, notes = {}, []
    for path, kept in {**hard, **{path: _followed(path, soft, hard) for path in soft}}.items():
        if kept in tensors:
            ties[path] = kept
        elif kept in found["groups"] or (path in hard and kept == ""):
            notes.append(f"link {path!r} is another name of the group '/{kept}': it is not followed")
        elif path in soft:
            notes.append(f"link {path!r} points to {soft[path]!r}, which is no data set of numbers: it is left out")
    return ties, notes


def _followed(path: str, soft: Mapping[str, str], hard: Mapping[str, str]) -> str:
    """Return where a soft link leads, links on the way resolved by text alone; to the root if astray."""
    parts, done = path.split("/"), list[str]()
    for _ in range(_MOST_STEPS):
        if not parts:
            return "/".join(done)
        done.append(parts.pop(0))
        here = "/".join(done)
        if here in soft:
            target = soft[here].split("/")
            done = [] if soft[here].startswith("/") else done[:-1]
            parts = [part for part in target if part not in ("", ".")] + parts
        elif here in hard:
            done = hard[here].split("/")
    return ""


def _by_record(tensor_map: TensorMap, record: Json, subject: str) -> TensorMap:
    """Give back the names, ties, order and metadata that HDF5 itself could not hold."""
    if not any(record.values()):
        return tensor_map
    names, order, ties = record["names"], record["order"], record["aliases"]
    first = {**{path: path for path in tensor_map}, **tensor_map.aliases}
    entries = tensor_map.replace(aliases={})
    by_name = {names.get(path, path): kept for path, kept in first.items()}
    if ties:
        _check_ties(ties, by_name, subject)
    kept_names = [name for name in by_name if name not in ties] if ties else [names.get(p, p) for p in entries]
    aliases = ties or {names.get(p, p): names.get(k, k) for p, k in tensor_map.aliases.items()}
    if sorted(order or kept_names) != sorted(kept_names) or len(by_name) != len(first):
        raise CorruptFileError("its attribute __weighttools__ does not fit its data sets", subject=subject)
    tensors = {name: entries[by_name[name]] for name in order or kept_names}
    return tensor_map.replace(
        tensors=tensors, aliases=dict(aliases), metadata={**tensor_map.metadata, **record["metadata"]}
    )


def _check_ties(ties: Mapping[str, str], by_name: Mapping[str, str], subject: str) -> None:
    for alias, kept in ties.items():
        if kept in ties or kept not in by_name or by_name.get(alias) != by_name[kept]:
            raise CorruptFileError(f"ties {alias!r} to {kept!r}, which is not the same data set", subject=subject)


def losses(tensor_map: TensorMap) -> list[str]:
    """Refuse what HDF5 cannot hold; it holds all else.

    Raises
    ------
    SpecError
        A tensor has more than 32 axes (H5S_MAX_RANK).
    """
    refuse_shapes(tensor_map, "HDF5", MAX_AXES, most_bytes=math.inf)
    return []


def check(source: Source) -> Iterator[Finding]:
    """Yield bytes behind the end of the file that its superblock gives."""
    end = end_of_file(Span(source, 0, source.size))
    if end:
        yield from trailing.behind(source, end, "the end that its superblock gives")


def read_back(path: Path, tensor_map: TensorMap) -> AbstractContextManager[ReadBack]:
    """Open what was written with the reference reader."""
    from weighttools.formats.hdf5.readback import read_back as opened

    return opened(path, tensor_map)


FORMAT = Format(matches=matches, read=read, write=write, losses=losses, check=check, read_back=read_back)
