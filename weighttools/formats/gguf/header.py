"""The header of a GGUF file: metadata and the table of tensors, read with exact integers and without NumPy.

Source: the GGUF specification (ggml, ``docs/gguf.md``) and ggml's own reader, ``src/gguf.cpp``. Every count is held
against the bytes that are left before anything is read or allocated.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from weighttools.core import budgets
from weighttools.core.dtypes import DTYPES
from weighttools.core.encodings import BIG_ENDIAN, QUANTIZED
from weighttools.core.spec import Source, Spec
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.formats.gguf.values import Cursor, value

MAGIC = b"GGUF"
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME = 65_535
MAX_ELEMENTS = 1 << 60
"""Of 8 bytes each, more than a signed 64-bit size holds."""
_LEAST_PAIR = 8 + 4 + 1
_LEAST_INFO = 8 + 4 + 4 + 8

RAW: dict[int, str] = {
    0: "float32",
    1: "float16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    30: "bfloat16",
}
"""ggml's type numbers of plain elements."""
BLOCKS: dict[int, str] = {
    2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k",
    14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
    22: "iq2_s", 23: "iq4_xs", 29: "iq1_m", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0",
}  # fmt: skip
"""ggml's type numbers of quantised blocks."""
REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8",
           38: "IQ4_NL_8_8"}  # fmt: skip
"""Type numbers that ggml has given up."""


@dataclass(frozen=True, slots=True)
class Info:
    """One line of the table of tensors: its spec, where its data begins in the file, and how long it is."""

    spec: Spec
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a header says.

    Parameters
    ----------
    version
        2 or 3.
    order
        Byte order, ``"<"`` or ``">"``.
    metadata
        Keys to typed values; see `weighttools.formats.gguf.values`.
    tensors
        Names to infos, in the file's order.
    alignment
        What every tensor's offset is a multiple of.
    data_start
        Where the data begins, in bytes.
    end
        Where the header ends, before the padding in front of the data.
    """

    version: int
    order: str
    metadata: dict[str, Any]
    tensors: dict[str, Info]
    alignment: int
    data_start: int
    end: int


def parse(source: Source) -> GGUFHeader:
    """Read a header.

    Raises
    ------
    CorruptFileError
        It contradicts itself, the specification or the length of the file.
    UnsupportedError
        A version or a tensor type that is not read.
    """
    version, order = _version(source)
    cursor = Cursor(source, 8, order)
    n_tensors = cursor.number("Q", "the number of tensors")
    n_pairs = cursor.number("Q", "the number of metadata pairs")
    cursor.bounded(n_tensors * _LEAST_INFO + n_pairs * _LEAST_PAIR, 1, "bytes of metadata and tensors at least")
    metadata = _metadata(cursor, n_pairs)
    alignment = _alignment(cursor, metadata)
    known: dict[tuple[int, tuple[int, ...]], tuple[Spec, int]] = {}
    rows = [_info(cursor, known) for _ in range(n_tensors)]
    twice = [name for name, n in Counter(name for name, _, _, _ in rows).items() if n > 1]
    if twice:
        raise cursor.corrupt(f"two tensors are called {twice[0]!r}", "each name once")
    end = cursor.at
    start = -(-end // alignment) * alignment
    infos = {name: Info(spec, start + offset, length) for name, spec, offset, length in rows}
    _check_places(source, infos, start, alignment)
    return GGUFHeader(version, order, metadata, infos, alignment, start, end)


def _version(source: Source) -> tuple[int, str]:
    """Return version and byte order: the version's number tells it, being small in one of the two only."""
    head = source.read(0, min(8, source.size))
    if not head.startswith(MAGIC):
        raise CorruptFileError(
            f"begins with {head[:4]!r}", subject=source.name, expected="GGUF", offset=0, remedy="fetch the file again"
        )
    if len(head) < 8:
        raise CorruptFileError(f"is {len(head)} bytes long", subject=source.name, expected="at least 24")
    order = ">" if head[4:6] == b"\0\0" else "<"
    version = int.from_bytes(head[4:], "big" if order == ">" else "little")
    if version not in (2, 3):
        raise UnsupportedError(
            f"is GGUF version {version}", subject=source.name, expected="version 2 or 3", remedy="convert it anew"
        )
    return version, order


def _metadata(cursor: Cursor, n_pairs: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text("a metadata key", MAX_NAME)
        if key in found:
            raise cursor.corrupt(f"the metadata key {key!r} stands twice", "each key once")
        found[key] = value(cursor, key)
    return found


def _alignment(cursor: Cursor, metadata: dict[str, Any]) -> int:
    found = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1 or found & (found - 1):
        raise cursor.corrupt(f"{ALIGNMENT} is {found!r}", "a power of two")
    if found > budgets.ALIGNMENT:
        raise cursor.corrupt(f"{ALIGNMENT} is {found:,}", f"at most {budgets.ALIGNMENT:,}")
    return int(found)


def _info(cursor: Cursor, known: dict[tuple[int, tuple[int, ...]], tuple[Spec, int]]) -> tuple[str, Spec, int, int]:
    """Read one line of the table: name, spec, offset from the start of the data, length."""
    name = cursor.text("a tensor's name", MAX_NAME)
    n_dimensions = cursor.number("I", f"the shape of {name!r}")
    if n_dimensions > MAX_DIMENSIONS:
        raise cursor.corrupt(f"tensor {name!r} has {n_dimensions:,} dimensions", f"at most {MAX_DIMENSIONS}")
    shape = tuple(reversed([cursor.number("Q", f"the shape of {name!r}") for _ in range(n_dimensions)]))
    code = cursor.number("I", f"the type of {name!r}")
    offset = cursor.number("Q", f"the offset of {name!r}")
    found = known.get((code, shape))
    if found is None:
        found = known[code, shape] = _spec(cursor, name, code, shape)
    return name, found[0], offset, found[1]


def _spec(cursor: Cursor, name: str, code: int, shape: tuple[int, ...]) -> tuple[Spec, int]:
    """Return a tensor's spec and its length in bytes."""
    n_elements = math.prod(shape)
    if math.prod(n for n in shape if n) >= MAX_ELEMENTS:  # beside a 0, too: no array has such sides
        raise cursor.corrupt(f"tensor {name!r} has the shape {list(shape)}, which overflows", "fewer elements")
    big = cursor.order == ">"
    if code in RAW:
        spec = Spec(DTYPES[RAW[code]], shape, "big-endian" if big and DTYPES[RAW[code]].bits > 8 else "raw")
        return spec, spec.nbytes
    if code not in BLOCKS:
        raise _unknown_type(cursor, name, code)
    block = QUANTIZED[BLOCKS[code]]
    if not shape or shape[-1] % block.elements:
        rows = f"rows of {shape[-1]:,}" if shape else "no rows"
        raise cursor.corrupt(f"tensor {name!r} is {BLOCKS[code]} with {rows}", f"a multiple of {block.elements}")
    spec = Spec(DTYPES["float32"], shape, BLOCKS[code] + (BIG_ENDIAN if big else ""))
    return spec, n_elements // block.elements * block.n_bytes


def _unknown_type(cursor: Cursor, name: str, code: int) -> Exception:
    if code in REMOVED:
        return UnsupportedError(
            f"tensor {name!r} has the type {REMOVED[code]}, which ggml has given up",
            subject=cursor.source.name,
            remedy="quantise the model anew",
        )
    return cursor.corrupt(f"tensor {name!r} has the unknown type {code}", f"at most {max(BLOCKS)}")


def _check_places(source: Source, infos: dict[str, Info], start: int, alignment: int) -> None:
    """Hold the tensors' places against the file, the alignment and each other."""
    end, last = start, ""
    for name, info in sorted(infos.items(), key=lambda item: (item[1].offset, item[1].length)):
        if (info.offset - start) % alignment:
            fact = f"tensor {name!r} begins {info.offset - start:,} bytes into the data"
            raise CorruptFileError(fact, subject=source.name, expected=f"a multiple of {alignment}")
        if info.offset < end and info.length:
            fact = f"tensors {last!r} and {name!r} overlap"
            raise CorruptFileError(fact, subject=source.name, offset=info.offset, expected=f"data from {end:,}")
        end, last = max(end, info.offset + info.length), name
    if infos and end > source.size:
        fact = f"truncated: {end - source.size:,} bytes are missing of {end:,}"
        raise CorruptFileError(fact, subject=source.name, remedy="the download stopped early: fetch it again")
