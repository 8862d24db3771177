"""Rows of data files: what is read, and one clear line, with the row's line, for what is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import at_most
from tests.work import Counted, bounded
from weighttools.core.tensor import Tensor
from weighttools.errors import WeighttoolsError
from weighttools.train.data.labels import class_names, classes
from weighttools.train.data.rows import read_rows
from weighttools.train.data.tables import Scaling, npz, table
from weighttools.train.weights import class_weights

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@at_most(100)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), delimiter=st.sampled_from(",\t"))
def test_csv_is_read_as_the_standard_library_writes_it(
    rows: list[tuple[str, str]], delimiter: str, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("rows") / ("x.csv" if delimiter == "," else "x.tsv")
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
    assert [(r["text"], r["label"]) for r in read_rows(path).records] == rows


def test_json_rows_have_their_lines(tmp_path: Path) -> None:
    rows = [{"text": "ünï", "label": 1}, {"text": "b", "label": 0}]
    lines = written(tmp_path / "x.jsonl", "\ufeff" + json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1]) + "\r\n")
    found = read_rows(lines)
    assert list(found.records) == rows and found.lines == (1, 3) and found.place(1) == f"{lines}:3"
    assert list(read_rows(written(tmp_path / "x.json", json.dumps(rows))).records) == rows
    assert read_rows([("a", 1), "b"]).records == ({"text": "a", "label": 1}, {"text": "b"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"", "is empty"),
        ("x.csv", b"text,label\n", "holds no rows"),
        ("x.jsonl", b"\n \n", "holds no rows"),
        ("x.csv", b"text,label\nok,1\ncaf\xe9,0\n", "x.csv:3: byte 0xe9 is not UTF-8"),
        ("x.csv", "text,label\n".encode("utf-16"), "is UTF-16"),
        ("x.csv", b"text,label\na,b,c\n", "x.csv:2: 3 cells in a table of 2 columns"),
        ("x.csv", b"text,text\na,b\n", "two columns are called 'text'"),
        ("x.csv", b'text,label\n"a,1\n', "is not well-formed"),
        ("x.jsonl", b'{"text": "a"}\n{"text": \n', "x.jsonl:2: is not JSON"),
        ("x.jsonl", b'["a"]\n', "x.jsonl:1: is a list"),
        ("x.jsonl", b"[" * 100_000, "nested too deeply"),
        ("x.json", b'{"text": "a"}', "holds an object"),
        ("x.xlsx", b"PK", "no rows are read from .xlsx"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(WeighttoolsError) as caught:
        read_rows(written(tmp_path / name, content))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_columns_that_are_missing_or_misread(tmp_path: Path) -> None:
    for name, content, mark in (
        ("x.csv", "text;label\na;1\n", "';'"),
        ("x.csv", "text;label\nhello, you;1\n", "';'"),
        ("x.csv", "a;b;y\n1,5;2;0\n", "';'"),
        ("x.csv", "text\tlabel\na\t1\n", "tabs"),
        ("x.csv", "text|label\na|1\n", r"'\|'"),
        ("x.tsv", "text,label\na,1\n", "','"),
    ):
        with pytest.raises(WeighttoolsError, match=f":1: its columns seem to be separated by {mark}"):
            read_rows(written(tmp_path / name, content))
    assert read_rows(written(tmp_path / "x.csv", "text\na;1\n")).column("text") == ["a;1"]
    mixed = read_rows([{"text": "a", "x": 1}, {"text": None, "x": "1e3"}, {"text": "b", "x": "one"}, {"text": "c"}])
    with pytest.raises(WeighttoolsError, match="row:2: 'text' is null"):
        mixed.texts("text")
    with pytest.raises(WeighttoolsError, match="row:3: column 'x' is 'one'; expected a finite number"):
        read_rows(mixed.records[:3]).numbers("x")
    with pytest.raises(WeighttoolsError, match="row:4: no column 'x'"):
        mixed.column("x")


def test_classes_are_numbered_by_size_or_by_the_alphabet() -> None:
    assert class_names(["b", "a", "b"]) == ("a", "b")
    assert class_names(["10", "9", 2]) == ("2", "9", "10")
    assert class_names(["01", "1"]) == ("01", "1")
    labels, names = classes(read_rows([("t", True), ("t", False), ("t", True)]), "label")
    assert labels.tolist() == [1, 0, 1] and names == ("false", "true")
    known = classes(read_rows([("t", "pos"), ("t", "neg")]), "label", ("neg", "pos"))[0]
    assert known.tolist() == [1, 0]
    assert classes(read_rows([("t", 1), ("t", "0")]), "label", ("neg", "pos"))[0].tolist() == [1, 0]
    with pytest.raises(WeighttoolsError, match="row:2: label 'meh' is none of the model's; expected one of neg, pos"):
        classes(read_rows([("t", "pos"), ("t", "meh")]), "label", ("neg", "pos"))
    with pytest.raises(WeighttoolsError, match="regress"):
        classes(read_rows([("t", 0.5), ("t", 1.5)]), "label")
    with pytest.raises(WeighttoolsError, match="4 different labels in 4 rows"):
        classes(read_rows([("t", str(i)) for i in range(4)]), "label")


def test_tables_and_their_scaling(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([5, -100, 3], [1, 40, 0], (20, 3))
    text = "a,b,c,y\n" + "\n".join(",".join(map(repr, row)) + f",{i % 3}" for i, row in enumerate(x.tolist()))
    data = table(written(tmp_path / "x.csv", text), target="y")
    assert data.columns == ("a", "b", "c") and np.array_equal(data.x, x.astype(np.float32))
    assert data.target.tolist() == [i % 3 for i in range(20)] and data.names == ("0", "1", "2")
    scaled = data.scaled()
    assert scaled.scaling is not None and Scaling.from_record(scaled.scaling.record()) == scaled.scaling
    assert np.abs(scaled.x[:, :2].mean(0)).max() < 1e-6 and np.abs(scaled.x[:, :2].std(0) - 1).max() < 1e-6
    assert np.abs(scaled.x[:, 2]).max() < 1e-6  # a constant column has no deviation to divide by
    other = table(tmp_path / "x.csv", target="c", task="regress", features=["b", "a"])
    assert other.target.dtype == np.float32 and np.array_equal(other.x[:, 0], x[:, 1].astype(np.float32))
    with pytest.raises(WeighttoolsError, match="'c' is to be predicted from itself"):
        table(tmp_path / "x.csv", target="c", task="regress", features=["c", "a"])
    with pytest.raises(WeighttoolsError, match="trained on the columns a, b, c"):
        other.scaled(scaled.scaling)


def test_archives_of_arrays(tmp_path: Path) -> None:
    good = {"x": np.ones((4, 2)), "y": np.array([0, 1, 1, 2]), "sample_weight": np.array([1, 2, 0, 1.0])}

    def saved(**arrays: Any) -> Path:
        np.savez(tmp_path / "x.npz", **(good | arrays))
        return tmp_path / "x.npz"

    data = npz(saved())
    batch = data.batch(np.array([3, 0]))
    assert (
        batch["target"].tolist() == [2, 0]
        and batch["sample_weight"].tolist() == [1, 1]
        and data.names == ("0", "1", "2")
    )
    assert npz(saved(y=np.array([0.5, 1, 2, 3])), task="regress").target.tolist() == [0.5, 1, 2, 3]
    bad = np.ones((4, 2))
    bad[2, 1] = np.nan
    for arrays, said in (
        ({"x": bad}, "x holds NaN or infinity in 1 rows, first 2"),
        ({"x": np.ones((3, 2))}, "x has 3, y has 4"),
        ({"y": np.array([0, 1, 1, -1])}, "label -1"),
        ({"y": np.array([0.5, 1, 1, 1])}, "y is of float64"),
        ({"sample_weight": np.array([1, -2, 0, 1.0])}, "sample_weight of -2"),
        ({"y": np.float64(3)}, "y is a single number"),
    ):
        with pytest.raises(WeighttoolsError, match=said):
            npz(saved(**arrays))
    np.savez(tmp_path / "x.npz", features=np.ones(3))
    with pytest.raises(WeighttoolsError, match="no array 'x'; expected x and y; there is features"):
        npz(tmp_path / "x.npz")


NOISE = st.one_of(st.binary(max_size=120), st.text('{}[]",:\n\t01a \0\r;e-.', max_size=80).map(str.encode))


def test_an_archive_of_far_more_than_its_bytes_is_refused_unread(tmp_path: Path) -> None:
    """Zeros deflate to a thousandth; what tells anything does not."""
    rng = np.random.default_rng(0)
    for name, rows, columns in (("samples", 600_000, 2), ("numbers", 1_000, 20_000)):
        path = tmp_path / f"{name}.npz"
        np.savez_compressed(path, x=np.zeros((rows, columns), np.uint8), y=np.zeros(rows, np.uint8))
        with pytest.raises(WeighttoolsError, match=f"claims {rows:,} samples"):
            npz(path)
        np.savez(path, x=np.zeros((rows, columns), np.uint8), y=np.zeros(rows, np.uint8))
        assert len(npz(path).target) == rows
    np.savez_compressed(tmp_path / "x.npz", x=rng.random((400_000, 1)), y=rng.integers(0, 2, 400_000))
    assert len(npz(tmp_path / "x.npz").target) == 400_000


@given(content=NOISE, suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".npz"]))
def test_whatever_is_in_a_file_is_data_or_one_line(content: bytes, suffix: str, tmp_path_factory: Any) -> None:
    path = written(tmp_path_factory.mktemp("noise") / f"x{suffix}", content)
    try:
        data = npz(path) if suffix == ".npz" else table(path, target="a", task="regress")
        assert len(data) and np.isfinite(data.x).all() and np.isfinite(data.target).all()
    except WeighttoolsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", '{"text": "a"}\n{"text": "b \\ud800"}\n', "x.jsonl:2: 'text' holds half of a surrogate pair"),
        ("x.jsonl", '{"text": ' + "9" * 50_000 + "}", "x.jsonl:1: holds a number of 50,000 digits; expected 4,300"),
        ("x.jsonl", '{"text": ' + "9" * 4_000 + "}", "'text' is a whole number of more than 40 digits"),
    ],
)
def test_texts_that_are_none_are_named_by_their_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(WeighttoolsError) as caught:
        read_rows(written(tmp_path / name, content)).texts("text")
    assert said in str(caught.value) and "limit" not in str(caught.value)


def test_cells_are_as_long_as_texts_of_json_lines(tmp_path: Path) -> None:
    long = "ab " * 100_000
    assert read_rows(written(tmp_path / "x.csv", f"text,label\n{long},1\n")).texts("text") == [long]


def test_numbers_beyond_float32_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "big.csv", "a,y\n1e300,1\n2,3e39\n")
    with pytest.raises(WeighttoolsError, match=r"big.csv:2: column 'a' is 1e\+300, beyond float32"):
        table(path, target="y")
    with pytest.raises(WeighttoolsError, match=r"big.csv:3: column 'y' is 3e\+39, beyond float32"):
        table(written(path, "a,y\n1,1\n2,3e39\n"), target="y", task="regress")
    with pytest.raises(WeighttoolsError, match=r"weight 1e\+300 for class 1 is beyond float32"):
        class_weights({1: 1e300}, [0, 1], 2)


def test_files_that_are_none_are_told_before_their_suffix(tmp_path: Path) -> None:
    with pytest.raises(WeighttoolsError, match="nonexist: no such file"):
        read_rows(tmp_path / "nonexist")
    with pytest.raises(WeighttoolsError, match="is a directory"):
        read_rows(tmp_path)


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array(["a", 1], object)])
def test_labels_of_text_in_an_archive_are_told(tmp_path: Path, labels: Any) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 2)), y=labels)
    with pytest.raises(WeighttoolsError) as caught:
        npz(tmp_path / "x.npz")
    assert "y holds text or objects; expected numbers" in str(caught.value) or "object" in str(caught.value)


def test_wide_tables_and_many_classes_take_work_in_proportion(tmp_path: Path) -> None:
    """Names that count their comparisons: each with each would be 200 million."""
    wide = written(tmp_path / "x.csv", ",".join(f"c{i}" for i in range(30_000)) + "\n")
    names = [Counted(f"class {i}") for i in range(20_000)]
    with bounded(5 * 50_000):
        with pytest.raises(WeighttoolsError, match="holds no rows"):
            read_rows(wide)
        assert classes(read_rows([("t", i) for i in range(9)]), "label", names)[0].tolist() == list(range(9))


def test_names_that_are_numbers_go_before_numbers() -> None:
    assert classes(read_rows([("t", "1"), ("t", "0"), ("t", "2")]), "label", ("1", "0", "x"))[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cell", ["1_0", "١٢", "１", "\u00a01", "0x1", "1,5"])
def test_numbers_by_pythons_spelling_alone_are_none(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.tsv", f"a\ty\n 1 \t1\n+2.5e-3\t0\n{cell}\t1\n")
    assert read_rows(path).records[0]["a"] == " 1 "
    with pytest.raises(WeighttoolsError, match=r"x.tsv:4: column 'a' is '.*'; expected a finite number"):
        read_rows(path).numbers("a")
    assert read_rows([("t", " 1 "), ("t", "+2.5e-3")]).numbers("label") == [1.0, 0.0025]


def test_labels_by_pythons_spelling_are_names() -> None:
    assert classes(read_rows([("t", "1_5"), ("t", "1_5.5"), ("t", "1_5")]), "label")[1] == ("1_5", "1_5.5")


@pytest.mark.parametrize(("name", "content"), [("x.jsonl", '{"a": 1, "a": 2}\n'), ("x.json", '[{"a": 1, "a": 2}]')])
def test_a_key_that_stands_twice_is_refused(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(WeighttoolsError, match="the key 'a' stands twice"):
        read_rows(written(tmp_path / name, content))


X, Y = np.ones((30, 4), np.float32), np.arange(30) % 3
BY_HEADER: dict[str, tuple[dict[str, Any], str, str]] = {
    "lengths": ({"x": X, "y": Y[:3]}, "classify", "x has 30, y has 3 rows"),
    "one axis": ({"x": X[:, 0], "y": Y}, "classify", r"x is of shape \(30,\); expected a row of features a sample"),
    "no features": ({"x": X[:, :0], "y": Y}, "classify", r"x is of shape \(30, 0\)"),
    "no targets": ({"x": X, "y": X[:, :0]}, "regress", r"y is of shape \(30, 0\)"),
    "complex": ({"x": X + 1j, "y": Y}, "classify", "x is of complex64"),
    "wide weights": ({"x": X, "y": Y, "sample_weight": X}, "classify", r"sample_weight is of shape \(30, 4\)"),
    "fractions": ({"x": X, "y": Y / 2}, "classify", "y is of float64"),
}


@pytest.mark.parametrize("case", BY_HEADER)
def test_what_headers_tell_is_refused_before_values_are_read(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays, task, said = BY_HEADER[case]
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    monkeypatch.setattr(Tensor, "read", lambda self: pytest.fail("values were read"))
    with pytest.raises(WeighttoolsError, match=said):
        npz(tmp_path / "x.npz", task=task)


def test_an_archive_that_is_none_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(WeighttoolsError, match=r"x\.npz: is npy; expected an NPZ archive of x and y"):
        npz(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_values_of_an_archive_beyond_float32_are_named(name: str, tmp_path: Path) -> None:
    """Without a warning: pytest makes errors of them."""
    large = np.ones((30, 4) if name == "x" else 30)
    large[7] = -1e300
    np.savez(tmp_path / "x.npz", **{"x": X, "y": Y, name: large})
    with pytest.raises(
        WeighttoolsError, match=rf"{name} goes up to 1e\+300 in row 7, beyond float32; expected 3\.4e38"
    ):
        npz(tmp_path / "x.npz", task="regress")


def test_large_labels_and_targets_are_told_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X, y=np.full(30, 2**64 - 1, np.uint64))
    with pytest.raises(WeighttoolsError, match="label 18446744073709551615; expected 0 to 9,999"):
        npz(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=X, y=np.full(30, 3e38))
    assert npz(tmp_path / "x.npz", task="regress").notes[1] == "targets from 3e+38 to 3e+38, mean 3e+38"


def test_labels_of_tables_that_are_no_characters_are_named_by_their_line(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", '{"a": 1, "y": "no"}\n{"a": 2, "y": "\\ud800"}\n')
    with pytest.raises(WeighttoolsError, match=r"x.jsonl:2: label 'y' holds half of a surrogate pair"):
        table(path, target="y")
