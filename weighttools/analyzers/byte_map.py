"""What lies where in a checkpoint's files: headers, tensors, padding, gaps, overlaps; from headers and a few bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from weighttools.core import budgets
from weighttools.core.spec import Source, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.formats.base import Region

TENSORS, OTHERS, PADDING, GAP, STRUCTURE = "tensors", "other tensors", "padding", "gap", "structure or gap"


class Stretch(NamedTuple):
    """A run of a file's bytes of one kind; pieces of a file follow one another without a hole.

    Parameters
    ----------
    offset, length
        In bytes.
    what
        ``"tensors"``; ``"other tensors"`` of the file, which the map does not have; what the format says, as
        ``"header"``; ``"padding"``, short and zero; ``"gap"``, of no use that is known; ``"structure or gap"``, where
        the format is not told apart.
    """

    offset: int
    length: int
    what: str


class SharedBytes(NamedTuple):
    """Bytes that belong to two tensors; `offset` and `length` say which."""

    offset: int
    length: int
    first: str
    second: str


class TensorPlace(NamedTuple):
    """A tensor, or a part of one, in a file: its number in the map, and its bytes."""

    number: int
    offset: int
    length: int


class FileMap(NamedTuple):
    """One file: its pieces, overlaps, and the tensors that lie in it; why its structure is not known, if it is not."""

    name: str
    source: Source
    pieces: list[Stretch]
    overlaps: list[SharedBytes]
    placed: list[TensorPlace]
    unknown: str


def byte_maps(tensor_map: TensorMap) -> tuple[list[FileMap], list[int]]:
    """Return the map of each file that tensors lie in, and the numbers of tensors that lie in no known place."""
    found, homeless = _placed(tensor_map)
    names = list(tensor_map)
    maps = []
    for name in dict.fromkeys((*tensor_map.origin.files, *found)):
        by_source = found.get(name, [])
        source = _source(name, [one for one, _ in by_source])
        if source is not None:
            placed = [place for one, place in by_source if one.size == source.size and _fits(place, source)]
            maps.append(_file_map(name, source, placed, names))
            if len(placed) < len(by_source):  # copied out of the file, as HDF5 keeps small ones within its structure
                homeless += {place.number for _, place in by_source} - {place.number for place in placed}
    return maps, sorted(homeless)


def _fits(place: TensorPlace, source: Source) -> bool:
    return place.offset >= 0 and place.offset + place.length <= source.size


def _placed(tensor_map: TensorMap) -> tuple[dict[str, list[tuple[Source, TensorPlace]]], list[int]]:
    """Return where each tensor lies, by the names of files; and those of which it is not known."""
    found: dict[str, list[tuple[Source, TensorPlace]]] = {}
    homeless = []
    for number, tensor in enumerate(tensor_map.values()):
        spans = list(places(tensor))
        for source, offset, length in map(_in_file, spans):
            found.setdefault(source.name, []).append((source, TensorPlace(number, offset, length)))
        if not spans and tensor.n_elements:
            homeless.append(number)
    return found, homeless


def places(tensor: Tensor) -> Iterator[Span]:
    """Yield the runs of bytes that hold a tensor's values; none where that is not known."""
    return iter([tensor.stored]) if tensor.stored is not None else _spans(tensor.decode, 8)


def _spans(part: object, depth: int) -> Iterator[Span]:
    if isinstance(part, Span):
        yield part
    elif hasattr(part, "places"):
        yield from part.places()
    elif depth:
        slots = [getattr(part, name, None) for name in getattr(type(part), "__slots__", ())]
        inner = part if type(part) is tuple else part.args if isinstance(part, partial) else slots
        for one in inner:
            yield from _spans(one, depth - 1)


def _in_file(span: Span) -> tuple[Source, int, int]:
    """Return a span by the file that it lies in, where its source is a part of that."""
    from weighttools.io.source import Part

    source: Source = span.source
    offset = span.offset
    while isinstance(part := source, Part):
        source, offset = part.whole, offset + part.start
    return source, offset, span.length


def _source(name: str, seen: Iterable[Source]) -> Source | None:
    """Return the file itself, not values of it that were copied into memory; None where it cannot be read any more."""
    from weighttools.io.source import Bytes, LocalFile

    known = list(seen)
    for source in known:
        if not isinstance(source, Bytes):
            return source
    with suppress(WeighttoolsError, OSError, ValueError):
        return LocalFile(name)
    return next(iter(known), None)


def _file_map(name: str, source: Source, placed: list[TensorPlace], names: Sequence[str]) -> FileMap:
    regions, unknown = _regions(source)
    spans = sorted((place for place in placed if place.length), key=lambda place: (place.offset, -place.length))
    is_told = regions is not None
    pieces = list(_merged(_pieces(source, spans, regions or [], is_told)))
    if any(piece.what in (GAP, STRUCTURE) for piece in pieces):
        also = _apart([*(regions or []), *_others(source)], source.size)
        pieces = list(_merged(_pieces(source, spans, also, is_told)))
    return FileMap(name, source, pieces, _overlaps(spans, names), placed, unknown)


def _regions(source: Source) -> tuple[list[Region] | None, str]:
    """Return what the file's format says of its parts, in order and apart; None, and why, if it says nothing."""
    from weighttools.formats import format_of

    try:
        known = format_of(source)
        if known is not None and known.regions is not None:
            return _apart(known.regions(source), source.size), ""
    except WeighttoolsError as error:
        return None, str(error)
    return None, "this format's own structure is not told apart"


def _apart(regions: Iterable[Region], size: int) -> list[Region]:
    """Return regions in order, cut where they reach over another or the file's end."""
    end, apart = 0, []
    for offset, length, what in sorted(regions):
        begin, stop = max(end, offset), min(offset + length, size)
        if begin < stop:
            apart.append(Region(begin, stop - begin, what))
            end = stop
    return apart


def _others(source: Source) -> Iterator[Region]:
    """Yield where all tensors of a file lie: a map may have some of them only."""
    from weighttools.formats import read_file

    with suppress(WeighttoolsError, OSError):
        for tensor in read_file(source).values():
            for one, offset, length in map(_in_file, places(tensor)):
                if one.name == source.name and one.size == source.size:
                    yield Region(offset, length, OTHERS)


def _pieces(source: Source, spans: Iterable[TensorPlace], regions: list[Region], is_told: bool) -> Iterator[Stretch]:
    """Yield the pieces of a file in order: tensors, and between them what regions and bytes say."""
    between = _Between(source, regions, is_told)
    end = 0
    for _, offset, length in spans:
        yield from between.pieces(end, offset)
        begin, stop = max(end, offset), offset + length
        if begin < stop:
            yield Stretch(begin, stop - begin, TENSORS)
            end = stop
    yield from between.pieces(end, source.size)


class _Between:
    """Tells what the bytes are that hold no tensor."""

    def __init__(self, source: Source, regions: list[Region], is_told: bool) -> None:
        self._source, self._regions, self._is_told = source, regions, is_told
        self._ends = [offset + length for offset, length, _ in regions]
        self._left = budgets.GAPS_LOOKED_AT

    def pieces(self, start: int, stop: int) -> Iterator[Stretch]:
        """Yield the pieces from `start` to `stop`, no tensor among them."""
        at = bisect_right(self._ends, start)
        while start < stop:
            region = self._regions[at] if at < len(self._regions) else Region(stop, 0, "")
            begin = min(stop, max(start, region.offset))
            if start < begin:
                yield Stretch(start, begin - start, self._unclaimed(start, begin - start))
            end = min(stop, region.offset + region.length)
            if begin < end:
                yield Stretch(begin, end - begin, region.what)
            start, at = max(begin, end), at + 1

    def _unclaimed(self, offset: int, length: int) -> str:
        """Say what bytes are that no region claims: short ones are looked at."""
        if length <= budgets.PADDING_LOOKED_AT and self._left > 0:
            self._left -= 1
            if not any(self._source.read(offset, length)):
                return PADDING
        return GAP if self._is_told else STRUCTURE


def _merged(pieces: Iterable[Stretch]) -> Iterator[Stretch]:
    """Join neighbours of one kind."""
    last: Stretch | None = None
    for piece in pieces:
        if last is not None and last.what == piece.what:
            last = last._replace(length=last.length + piece.length)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _overlaps(spans: Iterable[TensorPlace], names: Sequence[str]) -> list[SharedBytes]:
    """Return where tensors begin within another; of several, the one that reaches furthest is named."""
    found = []
    holder: TensorPlace | None = None
    for span in spans:
        end = holder.offset + holder.length if holder else 0
        if holder is not None and span.offset < end and span.number != holder.number:
            length = min(end, span.offset + span.length) - span.offset
            found.append(SharedBytes(span.offset, length, names[holder.number], names[span.number]))
        if holder is None or span.offset + span.length > end:
            holder = span
    return found


class NamedSizes:
    """Some tensors of a map, with the bytes that they take in one file: what a module tree is made of."""

    def __init__(self, names: Sequence[str], specs: list[Spec], sizes: list[int]) -> None:
        self._names, self._specs, self._sizes = names, specs, sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def specs(self) -> list[Spec]:
        """Return their specs."""
        return self._specs

    def sizes(self) -> list[int]:
        """Return the bytes of each."""
        return self._sizes


def sizes_of(found: FileMap) -> Mapping[int, int]:
    """Return the bytes that each tensor takes in a file, by its number in the map."""
    sizes: dict[int, int] = {}
    for number, _, length in found.placed:
        sizes[number] = sizes.get(number, 0) + length
    return sizes
