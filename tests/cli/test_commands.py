"""Every command by its options, run in this process; the numbers come from NumPy and the official library."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import TINY
from weighttools import __version__

INSPECT_KEYS = {
    "schema", "path", "format", "kind", "metadata", "n_tensors", "n_parameters", "n_buffers", "n_elements",
    "stored_bytes", "dtypes", "aliases", "tensors",
}  # fmt: skip
TENSOR_KEYS = {"name", "dtype", "shape", "n_elements", "stored_bytes", "encoding"}


def good(ran) -> str:
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def table(text: str) -> list[list[str]]:
    """The cells of an aligned table, or of the last one in `text`, without its head; cells never hold two spaces."""
    lines = text.rstrip("\n").split("\n")
    rule = max(i for i, line in enumerate(lines) if line.startswith("─"))
    return [line.strip().split("  ") for line in lines[rule + 1 :]]


def words(row: list[str]) -> list[str]:
    return [cell.strip() for cell in row if cell.strip()]


# inspect


def test_inspect_table(inside, tiny: Path) -> None:
    out = good(inside("inspect", tiny))
    assert out == good(inside("info", tiny)), "info is an alias"
    head, _, tree = out.partition("\n\n")
    facts = dict(line.split(maxsplit=1) for line in head.splitlines() if not line.startswith(" "))
    assert facts == {
        "file": str(tiny),
        "format": "safetensors",
        "kind": "checkpoint",
        "size": "68 B",
        "tensors": "3",
        "parameters": "15",
        "buffers": "1 element",
        "dtype": "int64: 1 tensor, 1 element, 8 B",
        "metadata": "format: pt",
    }
    assert "float32: 2 tensors, 15 elements, 60 B" in head
    assert [words(row) for row in table(tree)] == [
        ["steps", "int64", "1", "1", "8 B"],
        ["fc", "2 tensors", "15", "60 B"],
        ["bias", "float32", "3", "3", "12 B"],
        ["weight", "float32", "3 × 4", "12", "48 B"],
    ]


def test_inspect_json(inside, tiny: Path) -> None:
    record = json.loads(good(inside("inspect", tiny, "--json")))
    assert record == json.loads(good(inside("inspect", tiny, "--format", "json")))
    assert record.keys() >= INSPECT_KEYS
    assert record["schema"] == "weighttools.inspect/1" and record["path"] == str(tiny)
    assert (record["format"], record["kind"], record["metadata"]) == ("safetensors", "checkpoint", {"format": "pt"})
    counts = [record[key] for key in ("n_tensors", "n_parameters", "n_buffers", "n_elements", "stored_bytes")]
    assert counts == [3, 15, 1, 16, 68]
    assert record["dtypes"] == {
        "int64": {"n_tensors": 1, "n_elements": 1, "stored_bytes": 8},
        "float32": {"n_tensors": 2, "n_elements": 15, "stored_bytes": 60},
    }
    assert record["aliases"] == {}
    assert all(row.keys() >= TENSOR_KEYS for row in record["tensors"])
    assert {row["name"]: (row["dtype"], row["shape"], row["stored_bytes"]) for row in record["tensors"]} == {
        name: (array.dtype.name, list(array.shape), array.nbytes) for name, array in TINY.items()
    }


def test_inspect_several(inside, tiny: Path, make) -> None:
    other = make({"x": np.zeros(2, np.float16)})
    records = json.loads(good(inside("inspect", tiny, other, "--json")))
    assert [record["path"] for record in records] == [str(tiny), str(other)]
    out = good(inside("inspect", tiny, other))
    assert out.count("file ") == 2 and f"\n\nfile        {other}\n" in out
    rows = [json.loads(line) for line in good(inside("inspect", tiny, other, "--format", "jsonl")).splitlines()]
    assert [(row["path"], row["name"]) for row in rows] == [
        *((str(tiny), name) for name in ("steps", "fc.bias", "fc.weight")), (str(other), "x"),
    ]  # fmt: skip


def test_inspect_csv_and_markdown(inside, tiny: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(good(inside("inspect", tiny, "--format", "csv", "--offsets")))))
    assert [(r["name"], r["shape"], r["stored_bytes"]) for r in rows] == [
        ("steps", "1", "8"), ("fc.bias", "3", "12"), ("fc.weight", "3x4", "48"),
    ]  # fmt: skip
    data = tiny.read_bytes()
    for row in rows:  # the offset is where the bytes are
        array = TINY[row["name"]]
        assert data[int(row["offset"]) :][: array.nbytes] == array.tobytes() and row["file"] == str(tiny)
    lines = good(inside("inspect", tiny, "--format", "markdown")).splitlines()
    assert lines[1].replace("-", "").strip("|") in ("|" * 6, " |" * 6) or set(lines[1]) <= set("|-: ")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["path", "name", "dtype", "shape", "n_elements", "stored_bytes", "encoding"]
    assert cells[2] == [str(tiny), "steps", "int64", "1", "1", "8", "raw"]


def test_markdown_escapes_bars(inside, make) -> None:
    path = make({"a|b": np.zeros(1, np.float32)})
    assert "a\\|b" in good(inside("inspect", path, "--format", "markdown"))


def test_inspect_selects(inside, tiny: Path) -> None:
    def names(*options: str) -> list[str]:
        record = json.loads(good(inside("inspect", tiny, "--json", *options)))
        assert record["n_tensors"] == len(record["tensors"])
        return [row["name"] for row in record["tensors"]]

    assert names("-i", "fc*") == ["fc.bias", "fc.weight"]
    assert names("--include", "re:eps$", "-i", "*bias") == ["steps", "fc.bias"]
    assert names("-x", "*.bias", "--exclude", "steps") == ["fc.weight"]
    assert names("-i", "fc*", "-x", "*.bias") == ["fc.weight"]


@pytest.mark.parametrize("option", ["-i", "-x", "--keep-dtype"])
def test_a_pattern_that_matches_nothing(inside, tiny: Path, tmp_path: Path, option: str) -> None:
    command = (
        ["inspect", tiny] if option != "--keep-dtype" else ["convert", tiny, tmp_path / "o.npz", "--dtype", "float16"]
    )
    ran = inside(*command, option, "*.wieght")
    assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1
    assert "'*.wieght'" in ran.err and "fc.weight" in ran.err, "near names are given"
    assert not (tmp_path / "o.npz").exists()


def test_inspect_orders(inside, make) -> None:
    path = make({"l.10": np.zeros(1, np.float32), "l.2": np.zeros(9, np.float32), "l.9": np.zeros(4, np.int64)})

    def order(*options: str) -> list[str]:
        return [row[0].strip() for row in table(good(inside("inspect", path, *options)))]

    assert order("--flat") == ["l.9", "l.10", "l.2"], "the file's order"
    assert order("--sort", "name") == ["l.2", "l.9", "l.10"]
    assert order("--sort", "size") == ["l.2", "l.9", "l.10"]
    assert order("--sort", "offset") == ["l.9", "l.10", "l.2"]
    offsets = [words(row) for row in table(good(inside("inspect", path, "--offsets")))]
    assert [row[-1] for row in offsets] == [str(path)] * 3
    starts = [int(row[-2].replace(",", "")) for row in offsets]
    assert np.diff(starts).tolist() == [32, 4]


def test_inspect_depth(inside, make) -> None:
    arrays = {f"enc.layers.{i}.{part}.weight": np.zeros(2, np.float32) for i in range(12) for part in ("q", "k")}
    path = make(arrays | {"enc.norm": np.zeros(3, np.float32)})

    def lines(*options: object) -> list[list[str]]:
        return [words(row) for row in table(good(inside("inspect", path, *options)))]

    assert lines("--depth", 1) == [["enc", "25 tensors", "51", "204 B"]]
    assert lines("--depth", 2) == [
        ["enc.layers", "24 tensors", "48", "192 B"],
        ["enc.norm", "float32", "3", "3", "12 B"],
    ]
    assert lines() == [
        ["enc", "25 tensors", "51", "204 B"],
        [["layers.[0-11]", "(x12)"][0], "(x12)", "24 tensors", "48", "192 B"],
        ["k.weight", "float32", "2", "2", "8 B"],
        ["q.weight", "float32", "2", "2", "8 B"],
        ["norm", "float32", "3", "3", "12 B"],
    ]
    assert inside("inspect", path, "--depth", 0).code == 2


def test_an_empty_file(inside, make) -> None:
    path = make({})
    record = json.loads(good(inside("inspect", path, "--json")))
    assert (record["kind"], record["n_tensors"], record["tensors"]) == ("empty", 0, [])
    assert "tensors     0" in good(inside("inspect", path)) and "total" in good(inside("params", path))


# params


def test_params(inside, tiny: Path) -> None:
    record = json.loads(good(inside("params", tiny, "--json")))
    assert record["schema"] == "weighttools.params/1" and record["path"] == str(tiny)
    assert (record["n_parameters"], record["n_buffers"], record["n_elements"]) == (15, 1, 16)
    assert [(g["group"], g["n_parameters"], g["n_buffers"], g["stored_bytes"]) for g in record["groups"]] == [
        ("int64", 0, 1, 8), ("float32", 15, 0, 60),
    ]  # fmt: skip
    assert [words(row) for row in table(good(inside("params", tiny)))] == [
        ["int64", "1", "0", "0", "1", "8 B"],
        ["float32", "2", "15", "15", "0", "60 B"],
        ["total", "3", "15", "15", "1", "68 B"],
    ]


def test_params_of_many(inside, tiny: Path, make) -> None:
    other = make({"w": np.zeros((2, 3))}, "other.safetensors")
    records = json.loads(good(inside("params", tiny, other, "--json")))
    assert [record["path"] for record in records] == [str(tiny), str(other)] and records[1]["n_parameters"] == 6
    first, second = good(inside("params", tiny, other)).split("\n\n")
    assert first.splitlines()[0] == f"{tiny}:" and second.splitlines()[0] == f"{other}:"
    assert "\n".join(first.splitlines()[1:]) in good(inside("params", tiny))
    rows = list(csv.DictReader(io.StringIO(good(inside("params", tiny, other, "--format", "csv")))))
    assert {row["path"] for row in rows} == {str(tiny), str(other)} and rows[-1]["group"] == "float64"


@pytest.mark.parametrize("command", ["inspect", "params", "stats", "spectrum", "init-check", "estimate"])
def test_a_selection_that_leaves_nothing_is_an_error(inside, tiny: Path, command: str) -> None:
    ran = inside(command, tiny, "-x", "*")
    assert (ran.code, ran.out) == (2, "") and ran.err.endswith("the pattern '*' leaves out every tensor\n")


def test_params_groups(inside, make) -> None:
    arrays = {f"enc.{i}.{w}": np.zeros(10, np.float32) for i in range(3) for w in ("a", "b")} | {"x": np.zeros(1, "f2")}
    path = make(arrays)

    def groups(*options: object) -> dict[str, int]:
        record = json.loads(good(inside("params", path, "--json", *options)))
        assert sum(g["n_parameters"] for g in record["groups"]) == record["n_parameters"]
        return {group["group"]: group["n_parameters"] for group in record["groups"]}

    assert groups("--by", "module") == {"enc.0": 20, "enc.1": 20, "enc.2": 20, "(top)": 1}
    assert groups("--by", "depth") == {"enc": 60, "x": 1}
    assert (
        groups("--depth", 2) == groups("--by", "depth", "--depth", 2) == {"enc.0": 20, "enc.1": 20, "enc.2": 20, "x": 1}
    )
    assert groups("--by", "dtype", "-i", "enc.0*") == {"float32": 20}
    rows = list(csv.DictReader(io.StringIO(good(inside("params", path, "--format", "csv", "--by", "depth")))))
    assert [(row["group"], row["n_parameters"]) for row in rows] == [("enc", "60"), ("x", "1")]
    assert json.loads(good(inside("params", path, "--format", "jsonl")).splitlines()[0])["group"] == "float32"
    assert "| enc" in good(inside("params", path, "--format", "markdown", "--by", "depth"))


def test_tied_tensors_count_once(inside, make) -> None:
    path = make({"embed": np.zeros((4, 2), np.float32)}, head="embed", format="pt")
    record = json.loads(good(inside("params", path, "--json")))
    assert (record["n_parameters"], record["aliases"]) == (8, {"head": "embed"})
    assert "head = embed" in good(inside("params", path)) and "head = embed" in good(inside("inspect", path))
    assert good(inside("get", path, "head")).splitlines()[1:] == good(inside("get", path, "embed")).splitlines()[1:]


# get


def shown(out: str) -> np.ndarray:
    text = out.partition("\n")[2]
    return np.array(json.loads(text.replace(".]", ".0]").replace(".,", ".0,")))


def test_get_prints(inside, tiny: Path) -> None:
    weight = TINY["fc.weight"]
    for key, want in {
        "fc.weight": weight, "fc.weight[1]": weight[1], "fc.weight[-1, 1:3]": weight[-1, 1:3],
        "fc.weight[..., ::2]": weight[..., ::2], "fc.weight[::-1]": weight[::-1], "steps": TINY["steps"],
    }.items():  # fmt: skip
        out = good(inside("get", tiny, key))
        shape = " × ".join(map(str, want.shape))
        assert out.startswith(f"{key}: {want.dtype}, {shape}\n")
        assert np.array_equal(shown(out), want)


def test_get_saves(inside, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "w.npy"
    good(inside("get", tiny, "fc.weight[:2]", "-o", target))
    assert np.array_equal(np.load(target), TINY["fc.weight"][:2])
    assert inside("get", tiny, "steps", "-o", target).code == 2, "no --force"
    good(inside("get", tiny, "steps", "-o", target, "--force"))
    assert np.array_equal(np.load(target), TINY["steps"])
    good(inside("get", tiny, "fc.bias", "-o", tmp_path / "b.safetensors"))
    assert load_file(tmp_path / "b.safetensors")["fc.bias"].tobytes() == TINY["fc.bias"].tobytes()


SPECIAL = np.array([[np.nan, 1.5], [np.inf, -np.inf]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_get_json_has_no_bare_nan(inside, make, dtype: object) -> None:
    path = make({"w": SPECIAL.astype(dtype)})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    record = json.loads(good(inside("get", path, "w", "--json")), parse_constant=refuse)
    assert (record["schema"], record["name"]) == ("weighttools.get/1", "w")
    assert (record["dtype"], record["shape"]) == (np.dtype(dtype).name, [2, 2])
    assert (record["n_nan"], record["n_inf"], record["values"]) == (1, 2, [[None, 1.5], [None, None]])


def test_get_json_is_exact(inside, make) -> None:
    arrays = {
        "i": np.array([2**63 - 1, -(2**63)]), "u": np.array([2**64 - 1], np.uint64), "b": np.array([True, False]),
        "z": np.zeros((0, 3), np.float32), "s": np.array(0.1, np.float64), "f": np.array([0.1], np.float32),
        "c": np.array([1 + 2j], np.complex64),
    }  # fmt: skip
    path = make({k: v for k, v in arrays.items() if v.ndim})
    save_file({"s": arrays["s"]}, path.with_name("s.safetensors"))

    def values(name: str, file: Path = path) -> object:
        return json.loads(good(inside("get", file, name, "--json")))["values"]

    assert values("i") == [2**63 - 1, -(2**63)] and values("u") == [2**64 - 1] and values("b") == [True, False]
    assert values("z") == [] and values("s", path.with_name("s.safetensors")) == 0.1
    assert np.float32(values("f")[0]) == np.float32(0.1) and values("c") == [[1.0, 2.0]]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4), (1, 70_000), (2, 1, 66_000)])
def test_get_json_nests_as_numpy_does(inside, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A row longer than what is turned into text at once is still one list."""
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    path = tmp_path / "n.safetensors"
    save_file({"n": array}, path)
    assert json.loads(good(inside("get", path, "n", "--json")))["values"] == array.tolist()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("fc.wieght", "fc.weight"),
        ("fc.weight[9]", "out of range"),
        ("fc.weight[0,0,0]", "at most 2"),
        ("fc.weight[__import__('os')]", "cannot read slice"),
        ("fc.weight[::0]", "step"),
    ],
)
def test_get_refuses(inside, tiny: Path, key: str, said: str) -> None:
    ran = inside("get", tiny, key)
    assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1 and said in ran.err


# formats, version, help, completion scripts


def test_formats(inside) -> None:
    rows = json.loads(good(inside("formats", "--json")))
    assert {"safetensors", "huggingface", "npz", "npy"} <= {row["format"] for row in rows}
    assert all({"format", "what", "suffixes", "reads", "writes", "extra"} <= row.keys() for row in rows)
    assert len(table(good(inside("formats")))) == len(rows)
    assert len(good(inside("formats", "--format", "csv")).splitlines()) == len(rows) + 1
    assert len(good(inside("formats", "--format", "markdown")).splitlines()) == len(rows) + 2
    assert [json.loads(line)["format"] for line in good(inside("formats", "--format", "jsonl")).splitlines()] == [
        row["format"] for row in rows
    ]


def test_version(inside) -> None:
    assert good(inside("--version")).split() == ["weighttools,", "version", __version__]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["inspekt", "x"], "did you mean inspect?"),
        (["zzz"], "see weighttools --help"),
        (["inspect"], "PATH"),
        (["inspect", "x", "--frmat", "csv"], "--format"),
        (["inspect", "x", "--format", "yaml"], "yaml"),
        (["inspect", "/nonexistent/x.safetensors"], "no such file"),
        (["convert", "x"], "DST"),
        (["params", "x", "--by", "size"], "size"),
    ],
)
def test_usage(inside, args: list[str], said: str) -> None:
    ran = inside(*args)
    assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1 and said in ran.err, ran
    assert ran.err.startswith("weighttools: ")
