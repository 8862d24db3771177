"""Cells of CSV and Markdown are text and no more: against Python's csv reader and a Markdown renderer."""

from __future__ import annotations

import csv
import html
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from weighttools.cli import output

EVIL = [
    "=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(1+9)", "\t=1", "\r=1", "\uff1d1+1", "-0.5", "+3e-4", "-", "plain",
    "<img src=x onerror=alert(1)>", "[click](https://evil.example)", "![x](http://evil.example/p.png)",
    "https://evil.example", "www.evil.example", "a@evil.example", "`code`", "**bold**", "a|b", "a\\|b", "&lt;b&gt;",
    "layer_norm.weight", "enc.0.w[1]", "~~x~~", "<https://evil.example>", "xmpp:a@b.c",
]  # fmt: skip
VERBS = (
    ["inspect"], ["inspect", "--flat"], ["params", "--by", "module"], ["stats"], ["check", "--headers"], ["estimate"], ["spectrum"],
)  # fmt: skip
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    path = tmp_path_factory.mktemp("evil") / "a.safetensors"
    save_file({f"{name}": np.full((2, 2), -0.5, np.float32) for name in EVIL}, path)
    return path


def is_formula(cell: str) -> bool:
    return cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")) and not NUMBER.fullmatch(cell)


@pytest.mark.parametrize("verb", VERBS)
def test_no_cell_of_csv_is_a_formula(verb, evil, inside) -> None:
    ran = inside(*verb, evil, "--format", "csv")
    rows = list(csv.reader(io.StringIO(ran.out)))
    assert ran.code in (0, 1) and len(rows) > 1
    assert not [cell for row in rows for cell in row if is_formula(cell)]


def test_numbers_stay_numbers(evil, inside) -> None:
    rows = list(csv.DictReader(io.StringIO(inside("stats", evil, "--format", "csv").out)))
    assert {float(row["min"]) for row in rows} == {-0.5}
    names = [row["name"] for row in rows]
    assert "-0.5" in names and "+3e-4" in names and "'-2+3+cmd" in names and "'=1+1" in names and "'-" in names


def rendered(text: str) -> list[list[str]]:
    """The cells of a table as a page shows them, and nothing but text in them."""
    markdown = pytest.importorskip("markdown_it")
    page = (
        markdown.MarkdownIt("commonmark", {"html": True, "linkify": False})
        .enable("table")
        .enable("strikethrough")
        .render(text)
    )
    cells = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    assert not [cell for row in cells for cell in row if "<" in cell], "a cell holds more than text"
    return [[html.unescape(cell) for cell in row] for row in cells]


@pytest.mark.parametrize("verb", VERBS)
def test_cells_of_markdown_are_text(verb, evil, inside) -> None:
    ran = inside(*verb, evil, "--format", "markdown")
    assert ran.code in (0, 1)
    assert len({len(row) for row in rendered(ran.out)}) == 1
    assert not re.search(r"https?://|www\.|\w@\w", ran.out), "GitHub makes links of such text by itself"


def test_markdown_shows_the_very_names(evil, inside) -> None:
    head, *rows = rendered(inside("inspect", evil, "--format", "markdown").out)
    shown = {row[head.index("name")] for row in rows}
    stored = {t["name"] for t in json.loads(inside("inspect", evil, "--json").out)["tensors"]}
    assert {name for name in stored if name.isprintable()} <= shown


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_text(name: str) -> None:
    cell = output._inert(name)
    assert not is_formula(cell) and cell.isprintable()


@pytest.mark.parametrize(
    ("target", "dtype", "told"),
    [
        ("a.gguf", np.bool_, "leave it out with -x odd"),
        ("a.gguf", np.complex64, "leave it out with -x odd"),
        ("a.gguf", np.uint16, "leave it out with -x odd"),
        ("a.safetensors", np.complex128, "write NPZ, or leave it out with -x odd"),
    ],
)
def test_remedies_for_dtypes_that_a_format_lacks_work(target, dtype, told, tmp_path, inside) -> None:
    """--dtype casts floats only, so it is no remedy for booleans and complex numbers; leaving them out is."""
    np.savez(tmp_path / "m.npz", odd=np.ones(3, dtype), w=np.ones((2, 32), np.float32))
    ran = inside("convert", tmp_path / "m.npz", tmp_path / target)
    assert ran.code == 2 and ran.err.rstrip().endswith(told) and "--dtype" not in ran.err
    assert inside("convert", tmp_path / "m.npz", tmp_path / target, "-x", "odd").code == 0


def test_floats_that_a_format_lacks_are_cast(tmp_path, inside) -> None:
    import ml_dtypes

    save_file({"w": np.ones((2, 32), ml_dtypes.float8_e5m2)}, tmp_path / "m.safetensors")
    ran = inside("convert", tmp_path / "m.safetensors", tmp_path / "a.gguf")
    assert ran.code == 2 and "cast with --dtype, or leave it out with -x w" in ran.err
    assert inside("convert", tmp_path / "m.safetensors", tmp_path / "a.gguf", "--dtype", "float32").code == 0
