"""What is told of names and patterns that match nothing: against a plain edit distance, and in bounded work."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from weighttools.core import near
from weighttools.core.patterns import matching, matching_names
from weighttools.errors import TensorNotFoundError

LAYERS = [
    f"model.layers.{i}.{part}.weight"
    for i in range(2000)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "input_layernorm")
]
BERT = [f"bert.encoder.layer.{i}.attention.output.LayerNorm.{end}" for i in range(12) for end in ("weight", "bias")]


def full_distance(a: str, b: str) -> int:
    """The whole table of optimal string alignment."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = a[i - 1] != b[j - 1]
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + cost)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return int(table[-1, -1])


TEXT = st.text("abc.", max_size=9)


@given(TEXT, TEXT, st.integers(0, 9))
def test_the_distance_is_that_of_the_whole_table(a: str, b: str, most: int) -> None:
    assert near.distance(a, b, most) == min(full_distance(a, b), most + 1)


@given(st.integers(0, len(LAYERS) - 1), st.integers(0, 60), st.sampled_from("qz_9"), st.sampled_from("cid"))
def test_one_slip_among_many_names_finds_the_name(index: int, at: int, letter: str, slip: str) -> None:
    name = LAYERS[index]
    at %= len(name)
    typed = name[:at] + (letter if slip != "d" else "") + name[at + (slip != "i") :]
    if typed not in LAYERS:
        found = near.near(typed, LAYERS, 40)
        assert found and full_distance(typed, found[0]) == 1 and name in found


@pytest.mark.parametrize(
    ("pattern", "known", "told"),
    [
        ("*norm*", BERT, r"differs only in case: \*Norm\*$"),
        ("*.layernorm.weight", BERT, r"differs only in case: \*\.LayerNorm\.weight$"),
        ("BERT.encoder.layer.?.*.LAYERNORM.[bw]*", BERT, r"case: bert\.encoder\.layer\.\?\.\*\.LayerNorm\.\[bw\]\*$"),
        ("*.atention.*", BERT, r"near names: bert\.encoder\.layer\.0\.attention.*; try '\*\.attention\.\*'$"),
        ("*.atttention.otput.*", BERT, r"try '\*\.attention\.output\.\*'$"),
        ("model.layers.1999.mlp.up_porj.weight", LAYERS, r"near names: model\.layers\.1999\.mlp\.up_proj\.weight"),
        ("zzz", BERT, r"near names: bert\.encoder\.layer\.0\.attention\.output\.LayerNorm\.weight"),
        ("re:^norm", BERT, "near names: bert"),
        ("[", BERT, "near names: bert"),
        ("*[a-", BERT, "near names: bert"),
        ("x", [], "there are no tensors"),
    ],
)
def test_near_names(pattern: str, known: list[str], told: str) -> None:
    with pytest.raises(TensorNotFoundError, match=told) as raised:
        matching(known, [pattern])
    assert str(raised.value).isprintable()


def test_a_suggestion_matches() -> None:
    for pattern in ("*norm*", "*.atention.*"):
        with pytest.raises(TensorNotFoundError) as raised:
            matching(BERT, [pattern])
        suggested = str(raised.value).rpartition(" ")[2].strip("'")
        assert matching(BERT, [suggested])


def test_work_is_bounded_whatever_the_names(monkeypatch) -> None:
    """So many lines of Python run, however many and however alike the names are; no clock is asked."""
    computed = []
    real = near.distance
    monkeypatch.setattr(near, "distance", lambda a, b, most: computed.append(len(a) * most) or real(a, b, most))
    letters = random.Random(0)
    many = ["".join(letters.choices(string.ascii_lowercase, k=60)) for _ in range(15_000)]
    for known, typed in (
        (many, many[0][:-1] + "?!"),
        (LAYERS * 2, "model.layers.77.mlp.upp.weihgt"),
        (["a" * n for n in range(15_000)], "a" * 299 + "b"),
    ):
        computed.clear()
        with pytest.raises(TensorNotFoundError):
            matching(known, [typed])
        assert len(computed) <= 4 * near.NEIGHBOURS * (1 + near.MOST_WORDS)
        assert sum(computed) < 4e6


@pytest.mark.parametrize("stars", [2, 20, 60])
def test_many_stars_do_not_multiply(stars: int) -> None:
    """The steps of Python are counted; those of the regular expression show as a test that would never end."""
    known = ["a" * 200 + str(i) for i in range(200)]
    with pytest.raises(TensorNotFoundError):
        matching(known, ["*A" * stars + "*z"])


def test_one_text_is_one_pattern(tmp_path) -> None:
    arrays = {"encoder.weight": np.ones((2, 2), np.float32), "decoder.weight": np.ones((2, 2), np.float32)}
    tensor_map = wt.TensorMap.from_arrays(arrays)
    path = tmp_path / "a.safetensors"
    wt.save(path, tensor_map)
    assert matching_names(arrays, "encoder*") == ["encoder.weight"] == matching_names(arrays, exclude="decoder*")
    assert list(tensor_map.select(exclude="decoder*")) == ["encoder.weight"]
    only = {"include": "encoder*"}
    assert wt.inspect(path, **only)["n_tensors"] == 1 == len(wt.stats(path, **only)["tensors"])
    assert wt.params(path, exclude="decoder*")["n_parameters"] == 4 == wt.estimate(path, **only)["n_parameters"]
    assert wt.check(path, **only)["findings"] is not None
    assert wt.scale(path, by=2.0, **only).report["names"] == ["encoder.weight"]
    assert wt.average([path, path], **only).report["n_changed"] == 1
    record = wt.convert(path, tmp_path / "b.safetensors", dtype="float16", keep_dtype="decoder*")
    assert record["n_cast"] == 1
    wt.convert(path, tmp_path / "c.safetensors", rename="encoder=e", **only)
    assert list(wt.open(tmp_path / "c.safetensors")) == ["e.weight"]
    wt.convert(path, tmp_path / "d.npz", layout="keras", layout_from="torch", layout_rule="*=linear")
    assert len(wt.open(tmp_path / "d.npz")) == 2
