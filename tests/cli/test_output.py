"""Sizes, counts, shapes and tables as people read them."""

from __future__ import annotations

import pytest

from weighttools.cli import output
from weighttools.errors import SpecError
from weighttools.write.destination import parse_size


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB (1000 B)"),
        (1024, "1.02 kB (1 KiB)"),
        (90_868_376, "90.9 MB (86.7 MiB)"),
        (999_999_999, "1 GB (954 MiB)"),
        (4_980_000_000, "4.98 GB (4.64 GiB)"),
        (1_029_000_000_000, "1.03 TB (958 GiB)"),
    ],
)
def test_size(n: int, said: str) -> None:
    assert output.size(n) == said


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0"), (999, "999"), (1000, "1K"), (1234, "1.23K"), (22_713_728, "22.7M"), (7_620_000_000, "7.62B"),
        (999_999, "1M"), (134_515_008, "135M"), (1_029_000_000_000, "1.03T"), (10**15, "1Q"), (10**18, "1000Q"),
    ],
)  # fmt: skip
def test_count(n: int, said: str) -> None:
    assert output.count(n) == said


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("5GB", 5 * 10**9), ("5gb", 5 * 10**9), ("1.5 GiB", 3 << 29), ("500MiB", 500 << 20), ("1", 1), (7, 7),
        ("2KB", 2000), ("2KiB", 2048), (" 10 B ", 10), ("1TB", 10**12),
    ],
)  # fmt: skip
def test_parse_size(text: str | int, n: int) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5XB", "1e9", "nan", "0", "0.0001", "5GB5", "٣GB"])
def test_parse_size_refuses(text: str) -> None:
    with pytest.raises(SpecError, match="is no size"):
        parse_size(text)


def test_no_escape_is_in_a_table() -> None:
    lines = output.table(["true", "\x1b[31mred\n"], [["\x1b]0;x\x07", "1"]])
    assert all(line.isprintable() for line in lines) and r"\x1b[31mred\n" in lines[0]


def test_table_aligns() -> None:
    lines = output.table(["a", "n"], [["x", "1"], ["long name", "1,000"]], " r")
    assert lines == ["a              n", "─────────  ─────", "x              1", "long name  1,000"]
