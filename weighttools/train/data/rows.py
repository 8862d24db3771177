"""Rows of a data file by their column names, with line numbers for what is wrong with them: JSON lines, CSV, TSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.errors import CorruptFileError, SourceError, SpecError, UnsupportedError
from weighttools.io.text import unique_keys
from weighttools.train.autograd.gradients import Array


@dataclass(frozen=True, slots=True)
class Rows:
    """Records with their places.

    Parameters
    ----------
    name
        What to call the source in a message.
    lines
        For each record the line of the file that it begins on, from 1; for records given in memory its number.
    records
        Column name to value.
    """

    name: str
    lines: tuple[int, ...]
    records: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def columns(self) -> list[str]:
        """Return the columns of the first record."""
        return list(self.records[0])

    def place(self, i: int) -> str:
        """Return where record `i` is, as ``reviews.csv:12``."""
        return f"{self.name}:{self.lines[i]}"

    def column(self, name: str) -> list[Any]:
        """Return one column's values.

        Raises
        ------
        SpecError
            The first record has no such column, or a later one lacks it; the names that there are are given.
        """
        found = []
        for i, record in enumerate(self.records):
            if name not in record:
                raise self._lacks(name, i)
            found.append(record[name])
        return found

    def _lacks(self, name: str, i: int) -> SpecError:
        known = [str(key) for key in self.records[i]]
        return SpecError(f"no column {name!r}", subject=self.place(i), expected=f"one of {', '.join(known[:20])}")

    def texts(self, name: str) -> list[str]:
        """Return one column's values, all of them texts; as `column` otherwise."""
        values = self.column(name)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise SpecError(f"{name!r} is {_kind(value)}", subject=self.place(i), expected="a text")
            if has_surrogate(value):
                fact = f"{name!r} holds half of a surrogate pair, which is no character"
                raise SpecError(fact, subject=self.place(i), expected="a text", remedy="leave it out")
        return values

    def numbers(self, name: str) -> list[float]:
        """Return one column's values as finite numbers; as `column` otherwise."""
        return [self._number(name, i, value) for i, value in enumerate(self.column(name))]

    def singles(self, name: str) -> Array:
        """Return one column's values as finite float32; as `numbers` otherwise."""
        values = np.array(self.numbers(name), np.float64)
        beyond = np.flatnonzero(np.abs(values) > np.finfo(np.float32).max)
        if beyond.size:
            at = int(beyond[0])
            fact = f"column {name!r} is {values[at]:g}, beyond float32"
            raise SpecError(fact, subject=self.place(at), expected="3.4e38 at most", remedy="rescale the column")
        return values.astype(np.float32)

    def _number(self, name: str, i: int, value: Any) -> float:
        try:
            number = number_of(value) if isinstance(value, (str, int, float)) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            shown = "empty" if value == "" else _kind(value) if not isinstance(value, str) else repr(value[:40])
            raise SpecError(f"column {name!r} is {shown}", subject=self.place(i), expected="a finite number")
        return number


def number_of(value: str | float) -> float:
    """Return a number, or what a text says as one.

    Raises
    ------
    ValueError
        The text is no number, or one by Python's spelling alone: ``1_0``, or digits that are not ASCII.

    >>> number_of(" 1e3 ")
    1000.0
    """
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)
    return float(value)


def has_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which is no character and cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "a whole number of more than 40 digits"
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", str: "a text"}
    return kinds.get(type(value), repr(value)[:40])


Source = str | os.PathLike[str] | Sequence[Any] | Rows
"""A path, records in memory, or rows that were read already."""


def read_rows(source: Source, columns: Sequence[str] = ("text", "label")) -> Rows:
    """Read the records of a file, or take those in memory.

    Parameters
    ----------
    source
        A path that ends in ``.jsonl`` or ``.ndjson`` (an object a line), ``.json`` (a list of objects), ``.csv``, or
        ``.tsv`` and ``.tab``; or a sequence of mappings, of tuples in the order of `columns`, or of texts; or rows.
    columns
        What tuples hold.

    Raises
    ------
    SourceError, CorruptFileError
        It cannot be read, is not UTF-8, or a line is not what the suffix says.
    SpecError
        There are no records.
    """
    if isinstance(source, Rows):
        return source
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        found = list(_parser(name)(name))
    else:
        name, found = "row", [(i, _record(row, columns)) for i, row in enumerate(source, 1)]
    if not found:
        raise SpecError("holds no rows" if name != "row" else "there are no rows", subject=name)
    lines, records = zip(*found, strict=True)
    return Rows(name, lines, records)


def _record(row: Any, columns: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    return dict(zip(columns, [row] if isinstance(row, str) else row, strict=False))


Records = Iterator[tuple[int, Mapping[str, Any]]]


def _parser(name: str) -> Callable[[str], Records]:
    suffix = Path(name).suffix.lower()
    if suffix not in PARSERS:
        _check_there(name)
        raise UnsupportedError(
            f"no rows are read from {suffix or 'no suffix'}", subject=name, expected=", ".join(PARSERS)
        )
    return PARSERS[suffix]


def _check_there(name: str) -> None:
    if not os.path.exists(name):
        raise SourceError("no such file", subject=name)
    if os.path.isdir(name):
        raise SourceError("is a directory", subject=name, expected=f"a file: {', '.join(PARSERS)}")


def text_of(name: str) -> str:
    """Return a file's text.

    Raises
    ------
    SourceError
        It cannot be read.
    CorruptFileError
        It is not UTF-8; the line is named.
    """
    from weighttools.io.source import LocalFile

    source = LocalFile(name)
    data = source.read(0, source.size)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CorruptFileError("is UTF-16", subject=name, expected="UTF-8", remedy="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fact = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise CorruptFileError(fact, subject=f"{name}:{line}", remedy="save the file as UTF-8") from None


def _json_lines(name: str) -> Records:
    for i, line in enumerate(text_of(name).split("\n"), 1):
        if line.strip():
            yield i, _object(_parsed(line, f"{name}:{i}"), f"{name}:{i}")


def _json_list(name: str) -> Records:
    found = _parsed(text_of(name), name)
    if not isinstance(found, list):
        raise CorruptFileError(f"holds {_kind(found)}", subject=name, expected="a list of objects; .jsonl for lines")
    for i, value in enumerate(found, 1):
        yield i, _object(value, f"{name}: item {i}")


class _TooLongError(Exception):
    """A whole number that no computation takes."""


def _integer(digits: str) -> int:
    if len(digits) > 4300:
        raise _TooLongError(f"{len(digits):,}")
    return int(digits)


def _parsed(text: str, subject: str) -> Any:
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=unique_keys)
    except _TooLongError as error:
        raise CorruptFileError(f"holds a number of {error} digits", subject=subject, expected="4,300 at most") from None
    except RecursionError:
        raise CorruptFileError("its JSON is nested too deeply", subject=subject) from None
    except ValueError as error:
        raise CorruptFileError(f"is not JSON: {error}", subject=subject) from None


def _object(value: Any, subject: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CorruptFileError(f"is {_kind(value)}", subject=subject, expected='an object, as {"text": …, "label": …}')
    return value


def _separated(delimiter: str) -> Callable[[str], Records]:
    def parse(name: str) -> Records:
        csv.field_size_limit(2**31 - 1)  # its own is 131,072, and JSON lines have none
        reader = csv.reader(io.StringIO(text_of(name), newline=""), delimiter=delimiter, strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(header, name, delimiter)
            while True:
                line = reader.line_num + 1
                cells = next(reader, None)
                if cells is None:
                    return
                if cells:
                    yield line, _cells(header, cells, f"{name}:{line}")
        except csv.Error as error:
            raise CorruptFileError(f"is not well-formed: {error}", subject=f"{name}:{reader.line_num}") from None

    return parse


def _check_header(header: Sequence[str], name: str, delimiter: str) -> None:
    if not header:
        raise SpecError("is empty", subject=name, expected="a line of column names, then rows")
    mark = next((c for c in ";\t|," if c in header[0] and c != delimiter), None) if len(header) == 1 else None
    if mark is not None:
        separator = "tabs" if mark == "\t" else repr(mark)
        raise CorruptFileError(
            f"its columns seem to be separated by {separator}",
            subject=f"{name}:1",
            expected="tabs" if delimiter == "\t" else "commas",
            remedy="use commas and the suffix .csv, or tabs and the suffix .tsv",
        )
    twice = next((cell for cell, n in Counter(header).items() if n > 1), None)
    if twice is not None:
        raise CorruptFileError(f"two columns are called {twice!r}", subject=f"{name}:1")


def _cells(header: Sequence[str], cells: Sequence[str], subject: str) -> Mapping[str, Any]:
    if len(cells) != len(header):
        fact = f"{len(cells)} cells in a table of {len(header)} columns"
        raise CorruptFileError(fact, subject=subject, remedy="quote cells that hold the separator")
    return dict(zip(header, cells, strict=True))


PARSERS: Mapping[str, Callable[[str], Records]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".tab": _separated("\t"),
}
"""By suffix."""
