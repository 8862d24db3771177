"""The header of a safetensors file: JSON, taken apart at once where it is spelled as usual, else with care.

By hand, and not by msgspec's typed decoding: that takes a tenth off the whole of `inspect` at best (139,644 tensors),
for a package that takes 10 ms to import; the figures are in ARCHITECTURE.md.

Source: the safetensors README, section "Format".
"""

from __future__ import annotations

import json
import math
import re
from itertools import repeat
from operator import itemgetter, sub
from typing import Any

from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.spec import Source, Spec
from weighttools.core.tensormap import Row
from weighttools.errors import CorruptFileError

METADATA = "__metadata__"
BITMASKS = "weighttools.bitmask"
"""The metadata entry that says which tensors are stored as in `weighttools.encodings.bitmask`."""
MAX_HEADER = 100_000_000

# The format's names for dtypes, from the lowest rank of the reference writer's order to the highest.
NAMES: dict[str, DType] = {
    theirs: DTYPES[ours]
    for theirs, ours in [
        ("BOOL", "bool"),
        ("F4", "float4_e2m1fn"),
        ("F6_E2M3", "float6_e2m3fn"),
        ("F6_E3M2", "float6_e3m2fn"),
        ("U8", "uint8"),
        ("I8", "int8"),
        ("F8_E5M2", "float8_e5m2"),
        ("F8_E4M3", "float8_e4m3fn"),
        ("F8_E8M0", "float8_e8m0fnu"),
        ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
        ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
        ("I16", "int16"),
        ("U16", "uint16"),
        ("F16", "float16"),
        ("BF16", "bfloat16"),
        ("I32", "int32"),
        ("U32", "uint32"),
        ("F32", "float32"),
        ("C64", "complex64"),
        ("F64", "float64"),
        ("I64", "int64"),
        ("U64", "uint64"),
    ]
}
CODES = {ours.name: theirs for theirs, ours in NAMES.items()}

_METADATA_START = '{"__metadata__":'
_RECORD = re.compile(
    r'"([^"\\\x00-\x1f]*)":\{"dtype":"(\w{1,12})","shape":\[([0-9,]*)\],'
    r'"data_offsets":\[(0|[1-9][0-9]{0,17}),(0|[1-9][0-9]{0,17})\]\}(,|\} *\Z)'
)
_FIXED = len('"":{"dtype":"","shape":[],"data_offsets":[,]}')

Pairs = tuple[tuple[str, Any], ...]


def parse(source: Source) -> tuple[dict[str, str], dict[str, Row]]:
    """Return a file's metadata, and a row for each tensor in the order of their bytes.

    Raises
    ------
    CorruptFileError
        Anything in the header is not as the format demands, or the file is longer or shorter than it says.
    """
    text, data_start = _header(source)
    metadata, rows = canonical(text, source, data_start) or checked(text, source, data_start)
    _, _, offset, length = next(reversed(rows.values()), (None, None, data_start, 0))
    _check_length(source, offset + length)
    return metadata, rows


def checked(text: str, source: Source, data_start: int) -> tuple[dict[str, str], dict[str, Row]]:
    """Parse any header, and say of one that is not as it should be what is wrong, and where."""
    entries = _parse(text, source)
    metadata = _metadata(entries.pop(METADATA, ()), source)
    return metadata, _rows(entries, source, data_start)


def canonical(text: str, source: Source, data_start: int) -> tuple[dict[str, str], dict[str, Row]] | None:
    """Parse a header spelled as the reference writer spells it, with nothing wrong in it; of any other give None.

    A header of 100,000 tensors is taken apart column by column here, twice as fast as by a JSON parser and a check
    of each record.
    """
    begin = 1
    metadata: dict[str, str] = {}
    if text.startswith(_METADATA_START):
        try:
            metadata, end = json.JSONDecoder(object_pairs_hook=_plain_strings).raw_decode(text, len(_METADATA_START))
        except (ValueError, RecursionError):
            return None
        begin = end + 1
        if type(metadata) is not dict or text[end : end + 1] != ",":
            return None
    columns = list(zip(*_RECORD.findall(text, begin), strict=True))
    if (
        not columns
        or sum([sum(map(len, column)) for column in columns]) + len(columns[0]) * _FIXED != len(text) - begin
    ):
        return None
    names, codes, shapes, starts, stops, closings = columns
    begins, ends = list(map(int, starts)), list(map(int, stops))
    try:
        specs = {
            key: spec_of("", key[0], json.loads(f"[{key[1]}]"), source) for key in set(zip(codes, shapes, strict=True))
        }
    except ValueError:
        return None
    found = list(map(specs.__getitem__, zip(codes, shapes, strict=True)))
    lengths = [n_bytes for _, n_bytes in found]
    if closings[-1] == "," or begins[0] or begins[1:] != ends[:-1] or list(map(sub, ends, begins)) != lengths:
        return None
    offsets = map(data_start.__add__, begins)
    rows = dict(zip(names, zip([spec for spec, _ in found], repeat(source), offsets, lengths), strict=False))
    return (metadata, rows) if len(rows) == len(names) and METADATA not in rows else None


def _plain_strings(pairs: list[tuple[str, Any]]) -> Any:
    """Make a dictionary of pairs if they are strings, once each and well formed; anything else is not canonical."""
    found = dict(pairs)
    if len(found) != len(pairs) or not all(type(value) is str for value in found.values()):
        raise ValueError
    "".join([*found, *found.values()]).encode("utf-8")
    return found


def _header(source: Source) -> tuple[str, int]:
    """Return the header's text and where the data begins."""
    if source.size < 8:
        raise _corrupt(source, f"is {source.size} bytes long", "at least 8, the header's length", 0)
    length = int.from_bytes(source.read(0, 8), "little")
    if not 2 <= length <= MAX_HEADER:
        raise _corrupt(
            source,
            f"its header length reads {length:,} (HeaderTooLarge)" if length else "its header length is 0",
            f"2 to {MAX_HEADER:,}; this is no safetensors header",
            0,
        )
    if 8 + length > source.size:
        missing = 8 + length - source.size
        raise _corrupt(source, f"the file ends in its header, {missing:,} bytes short", "the whole header", source.size)
    try:
        text = source.read(8, length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _corrupt(
            source, "the header is not UTF-8 (InvalidHeaderDeserialization)", "UTF-8", 8 + error.start
        ) from None
    if not text.startswith("{"):
        raise _corrupt(source, f"the header begins with {text[:1]!r} (InvalidHeaderStart)", "an opening brace", 8)
    return text, 8 + length


def _parse(text: str, source: Source) -> dict[str, Any]:
    """Parse the JSON header; every object within is a tuple of pairs, so that no duplicate is lost."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple, parse_float=_no_float, parse_constant=_no_float)
        if "\\u" in text or "true" in text or "false" in text:
            _refuse_oddities(pairs)
    except RecursionError:
        raise _corrupt(source, "the header is nested too deeply", "an object of objects", 8) from None
    except json.JSONDecodeError as error:
        at = 8 + len(text[: error.pos].encode("utf-8", "replace"))
        raise _corrupt(
            source, f"the header is not JSON: {error.msg} (InvalidHeaderDeserialization)", "JSON", at
        ) from None
    except ValueError as error:
        raise _corrupt(source, f"the header cannot be read: {error}", "strings, whole numbers, objects", 8) from None
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise _corrupt(source, f"the header has two entries {_duplicate(pairs)!r}", "each name once", 8)
    return entries


def _no_float(text: str) -> float:
    raise ValueError(f"{text[:30]} is not a whole number")


def _refuse_oddities(value: Any) -> None:
    """Refuse what would pass for something else: lone surrogates in strings, and truth values, which equal 0 and 1."""
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    elif isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a whole number")
    elif isinstance(value, (tuple, list)):
        for part in value:
            _refuse_oddities(part)


def _duplicate(pairs: Pairs) -> str:
    seen: set[str] = set()
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _metadata(entries: Any, source: Source) -> dict[str, str]:
    if not isinstance(entries, tuple) or not all(type(value) is str for _, value in entries):
        raise _corrupt(source, "its __metadata__ is not an object of strings", "strings only", 8)
    if len(dict(entries)) != len(entries):
        raise _corrupt(source, f"its __metadata__ has two entries {_duplicate(entries)!r}", "each key once", 8)
    return dict(entries)


def _rows(entries: dict[str, Any], source: Source, data_start: int) -> dict[str, Row]:
    """Check the records; put them in the order of their bytes, which must leave no hole and not overlap."""
    known: dict[tuple[Any, ...], tuple[Spec, int]] = {}
    records = [_record(name, fields, known, source) for name, fields in entries.items()]
    records.sort(key=itemgetter(0, 1))
    end = 0
    for start, stop, _, name in records:
        if start != end:
            kind = "overlaps the one before" if start < end else f"leaves a hole of {start - end:,} bytes"
            raise _corrupt(source, f"tensor {name!r} {kind} (InvalidOffset)", f"data from {end:,}", data_start + start)
        end = stop
    return {name: (spec, source, data_start + start, stop - start) for start, stop, spec, name in records}


def _check_length(source: Source, expected: int) -> None:
    if source.size == expected:
        return
    missing = expected - source.size
    if missing > 0:
        fact = f"truncated: {missing:,} bytes are missing of {expected:,} (MetadataIncompleteBuffer)"
        raise CorruptFileError(fact, subject=source.name, remedy="the download stopped early: fetch it again")
    fact = f"{-missing:,} bytes follow the last tensor (incomplete metadata, file not fully covered)"
    raise _corrupt(source, fact, f"{expected:,} bytes", expected)


def _record(
    name: str, fields: Any, known: dict[tuple[Any, ...], tuple[Spec, int]], source: Source
) -> tuple[int, int, Spec, str]:
    """Check one tensor's record; return where it begins and ends, its spec, and its name."""
    try:
        (key_1, code), (key_2, shape), (key_3, offsets) = fields
        if key_1 != "dtype" or key_2 != "shape" or key_3 != "data_offsets":
            code, shape, offsets = _reordered(fields)
        start, stop = offsets
        key = (code, *shape)
        if type(shape) is not list or type(offsets) is not list or type(fields) is not tuple:
            raise ValueError
        found = known.get(key) or known.setdefault(key, spec_of(name, code, shape, source))
        if not 0 <= start <= stop:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CorruptFileError):
            raise
        want = "dtype, shape: [n, …], data_offsets: [begin, end], once each"
        raise _corrupt(source, f"the record of tensor {name!r} is not well formed", want, 8) from None
    spec, n_bytes = found
    if stop - start != n_bytes:
        want = f"{n_bytes:,} bytes for {spec.dtype} of shape {list(spec.shape)}"
        raise _corrupt(source, f"tensor {name!r} has {stop - start:,} bytes (TensorInvalidInfo)", want, 8)
    return start, stop, spec, name


def _reordered(fields: Pairs) -> tuple[Any, Any, Any]:
    """Return the three fields of a record that lists them in another order."""
    entry = dict(fields)
    if len(entry) != 3:
        raise ValueError
    return entry["dtype"], entry["shape"], entry["data_offsets"]


def spec_of(name: str, code: Any, shape: list[Any], source: Source) -> tuple[Spec, int]:
    """Return the spec that a record's dtype and shape mean, and its size in bytes.

    Raises
    ------
    CorruptFileError
        The dtype is unknown, the shape is none, or the elements do not fill whole bytes.
    """
    dtype = NAMES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise _corrupt(source, f"tensor {name!r} has the unknown dtype {code!r}", f"one of {', '.join(NAMES)}", 8)
    if not all(type(n) is int and n >= 0 for n in shape):
        raise _corrupt(source, f"tensor {name!r} has the shape {shape!r}", "a list of whole numbers from 0", 8)
    product = 1
    for n in shape:  # the reference multiplies in 64 bits: parts that overflow are refused even beside a 0
        product *= n
        if n >= 1 << 64 or product >= 1 << 64:
            raise _corrupt(
                source, f"tensor {name!r} has a shape that overflows (ValidationOverflow)", "fewer elements", 8
            )
    spec = Spec(dtype, tuple(shape))
    if math.prod(shape) * dtype.bits % 8:
        raise _corrupt(
            source, f"tensor {name!r} of {dtype} and shape {shape} does not fill whole bytes", "whole bytes", 8
        )
    return spec, spec.nbytes


def _corrupt(source: Source, fact: str, expected: str, offset: int) -> CorruptFileError:
    return CorruptFileError(fact, subject=source.name, expected=expected, offset=offset)
