"""TensorMap: what it keeps, what it refuses, what it shows."""

from __future__ import annotations

import fnmatch
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refused import refused
from tests.strategies import assert_same, random_array, same_bits, tensor_maps
from tests.work import Counted, bounded
from weighttools.core import patterns
from weighttools.core.dtypes import DTYPES
from weighttools.core.notebook import MOST_LINES
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.io.source import Bytes


def small() -> TensorMap:
    arrays = {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.zeros(2), "step": np.int64(3)}
    return TensorMap.from_arrays(arrays, {"format": "pt"}, {"head.weight": "fc.weight"})


def test_a_mapping_in_order() -> None:
    found = small()
    assert list(found) == ["fc.weight", "fc.bias", "step"] and len(found) == 3
    assert "fc.bias" in found and "head.weight" in found and "nothing" not in found and 3 not in found
    assert found["head.weight"] is found["fc.weight"]
    assert found.get("nothing") is None
    assert found.totals() == (9, 72) and found.sizes() == [48, 16, 8]
    assert [spec.shape for spec in found.specs()] == [(2, 3), (2,), ()]


def test_nothing_of_it_can_be_changed() -> None:
    found = small()
    for mapping in (found.metadata, found.aliases, found):
        with pytest.raises(TypeError):
            mapping["x"] = "y"  # type: ignore[index]
    arrays = {"a": np.zeros(1)}
    held = TensorMap.from_arrays(arrays)
    arrays["b"] = np.zeros(1)
    assert list(held) == ["a"]


def test_unknown_name_gives_near_ones() -> None:
    with refused(TensorNotFoundError, "tensor-not-found", "'fc.weigth'", "near names: fc.weight") as caught:
        small()["fc.weigth"]
    assert isinstance(caught.value, KeyError)
    with refused(TensorNotFoundError, "tensor-not-found", "there are no tensors"):
        TensorMap({})["a"]


def test_a_tensor_without_a_name_is_not_every_missing_one() -> None:
    found = TensorMap.from_arrays({"": np.zeros(2), "a": np.ones(1)}, {}, {"b": "a"})
    assert found[""].shape == (2,) and found["b"] is found["a"]
    with refused(TensorNotFoundError, "tensor-not-found", "'c'"):
        found["c"]


@pytest.mark.parametrize("expression", ["re:(", "re:" + "(" * 5000, "re:a{99999999999}"])
def test_a_regular_expression_that_does_not_compile(expression: str) -> None:
    with refused(SpecError, "regular-expression"):
        small().select(expression)


def test_select_and_drop() -> None:
    found = small()
    assert found.select() is found
    assert list(found.select("fc.*")) == ["fc.weight", "fc.bias"]
    assert list(found.select("step", "fc.b*")) == ["fc.bias", "step"]  # in the file's order
    assert list(found.select("*", exclude=["re:weight$"])) == ["fc.bias", "step"]
    assert dict(found.select("fc.weight").aliases) == {"head.weight": "fc.weight"}
    assert dict(found.drop("fc.weight").aliases) == {}
    assert found.drop("step").metadata == {"format": "pt"}
    for call in (found.select, found.drop):
        with refused(TensorNotFoundError, "pattern-matches-nothing", "'nothing.*'"):
            call("nothing.*")


def test_rename() -> None:
    renamed = small().rename({"fc.weight": "w", "head.weight": "tie"})
    assert list(renamed) == ["w", "fc.bias", "step"] and dict(renamed.aliases) == {"tie": "w"}
    upper = small().rename(str.upper)
    assert list(upper) == ["FC.WEIGHT", "FC.BIAS", "STEP"] and dict(upper.aliases) == {"HEAD.WEIGHT": "FC.WEIGHT"}
    with refused(SpecError, "names-collide", "'x'"):
        small().rename(lambda name: "x")
    with refused(SpecError, "names-collide", "'step'"):
        small().rename({"fc.bias": "step"})
    with refused(TensorNotFoundError, "tensor-not-found", "'fc.biases'"):
        small().rename({"fc.biases": "b"})


def test_rename_of_many_that_clash_is_refused_in_linear_work() -> None:
    many = TensorMap(dict.fromkeys((Counted(i) for i in range(50_000)), small()["step"]))
    with bounded(20 * 50_000), pytest.raises(SpecError, match="two tensors would be called '49999'"):
        many.rename({"49998": "49999"})


def test_map_and_pipe_are_lazy() -> None:
    seen: list[str] = []

    def note(name: str, tensor: Tensor) -> Tensor:
        seen.append(name)
        return Tensor(Spec(DTYPES["float32"], (1,)), lambda a, b: 1 / 0)  # type: ignore[arg-type, return-value]

    changed = small().pipe(lambda tm: tm.drop("step"), lambda tm: tm.map(note))
    assert seen == ["fc.weight", "fc.bias"] and changed["fc.bias"].shape == (1,)
    with pytest.raises(ZeroDivisionError):
        changed.map(lambda name, tensor: tensor).read()


def test_read_takes_patterns_and_gives_ties_as_the_very_array() -> None:
    assert list(small().read("fc.*")) == ["fc.weight", "fc.bias"]
    arrays = small().read(aliases=True)
    assert arrays["head.weight"] is arrays["fc.weight"]


@given(tensor_maps())
def test_pickling_keeps_everything(tensor_map: TensorMap) -> None:
    found = pickle.loads(pickle.dumps(tensor_map.noted("a note")))
    assert_same(found.read(), tensor_map.read())
    assert list(found) == list(tensor_map)
    assert found.metadata == tensor_map.metadata and found.aliases == tensor_map.aliases
    assert found.origin == Origin(notes=("a note",))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=np.int16)[::-3],
        np.arange(12, dtype=">f8").reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=">u4").reshape(3, 4)),
        np.broadcast_to(np.float16(2), (3, 4)),
        np.float32(1),
        [1, 2, 3],
        True,
        np.zeros((0, 3), np.complex64)[:, ::2],
    ],
)
def test_arrays_of_any_layout_are_taken(array: Any) -> None:
    expected = np.asarray(array)
    expected = expected.astype(expected.dtype.newbyteorder("="))
    tensor = TensorMap.from_arrays({"a": array})["a"]
    assert same_bits(tensor.read(), expected)
    whole = np.concatenate([*tensor.blocks(5), np.empty(0, expected.dtype)])
    assert same_bits(whole, np.ascontiguousarray(expected).reshape(-1))
    assert same_bits(np.asarray(tensor), expected)
    assert tensor.stored_bytes == expected.nbytes


@pytest.mark.parametrize("array", ["text", np.array([None]), np.zeros(2, "V2"), np.zeros(1, "i4,i4")])
def test_arrays_without_numbers_are_refused(array: Any) -> None:
    with refused(SpecError, "unsupported-dtype"):
        TensorMap.from_arrays({"a": array})


def test_repr_tells_what_it_is() -> None:
    text = repr(small().replace(origin=Origin("dir/\x1b[31mmodel.safetensors")))
    assert text.splitlines()[0] == ("TensorMap: 3 tensors, 9 elements, 72 bytes from dir/\\x1b[31mmodel.safetensors")
    assert text.splitlines()[1:] == [
        "  fc.weight  float64    2 × 3",
        "  fc.bias    float64    2",
        "  step       int64      scalar",
    ]
    many = TensorMap.from_arrays({f"t{i}": np.zeros(1) for i in range(20)})
    assert repr(many).splitlines()[-1] == "  … and 8 more"
    assert repr(TensorMap({})) == "TensorMap: 0 tensors, 0 elements, 0 bytes"


def test_html_escapes_what_a_file_says() -> None:
    hostile = TensorMap.from_arrays({"<script>alert(1)</script>": np.zeros(1), "\x1b": np.zeros(1)})
    html = hostile.replace(origin=Origin("<b>"))._repr_html_()
    assert "<script>" not in html and "<b>" not in html and "\x1b" not in html
    assert "&lt;script&gt;" in html and html.count(": float64 1, 1 elements") == 2
    many = TensorMap.from_arrays({f"t{i}": np.zeros(1) for i in range(MOST_LINES + 10)})
    assert "… and 10 more" in many._repr_html_()


def test_rows_of_a_header_become_tensors_when_asked_for() -> None:
    array = random_array(DTYPES["bfloat16"], (2, 3), 1)
    source = Bytes(b"xx" + array.tobytes())
    found = TensorMap({"a": (Spec(DTYPES["bfloat16"], (2, 3)), source, 2, 12)})
    assert same_bits(found["a"].read(), array)
    assert found.totals() == (6, 12)
    joined = TensorMap.joined([small(), found])
    assert list(joined) == ["fc.weight", "fc.bias", "step", "a"] and not joined.metadata and not joined.aliases


NAMES = ["a.weight", "a.bias", "b.c.weight", "A.weight", "x[0]", "line\nfeed", "a"]


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [
        ("*", NAMES),
        ("*.weight", ["a.weight", "b.c.weight", "A.weight"]),
        ("a", ["a"]),
        ("a.*", ["a.weight", "a.bias"]),
        ("?.weight", ["a.weight", "A.weight"]),
        ("[ab].*", ["a.weight", "a.bias", "b.c.weight"]),
        ("x[[]0]", ["x[0]"]),
        ("line*", ["line\nfeed"]),
        ("re:weight$", ["a.weight", "b.c.weight", "A.weight"]),
        ("re:^a", ["a.weight", "a.bias", "a"]),
        ("re:c", ["b.c.weight"]),
    ],
)
def test_patterns(pattern: str, hits: list[str]) -> None:
    assert patterns.matching_names(NAMES, [pattern]) == hits
    rest = [name for name in NAMES if name not in hits]
    if rest:
        assert patterns.matching_names(NAMES, exclude=[pattern]) == rest


@pytest.mark.parametrize(("include", "exclude"), [((), ["*"]), (["a.*"], ["a.*"]), (["a.*"], ["*.bias", "a.w*"])])
def test_patterns_that_leave_nothing(include: list[str], exclude: list[str]) -> None:
    with refused(TensorNotFoundError, "nothing-left"):
        patterns.matching_names(NAMES, include, exclude)
    assert patterns.matching_names([]) == []


@pytest.mark.parametrize("pattern", ["re:(", "re:*", "re:[", "re:(?P<a"])
def test_pattern_that_does_not_compile(pattern: str) -> None:
    with refused(SpecError, "regular-expression"):
        patterns.matching(NAMES, [pattern])


@given(st.lists(st.text(max_size=5), max_size=8), st.text(max_size=5))
def test_a_pattern_selects_or_says_that_it_matches_nothing(names: list[str], pattern: str) -> None:
    expected = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
    if pattern.startswith("re:"):
        return
    if expected:
        assert patterns.matching(names, [pattern]) == expected
    else:
        with pytest.raises(TensorNotFoundError) as caught:
            patterns.matching(names, [pattern])
        assert str(caught.value).isprintable()
