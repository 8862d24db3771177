"""Explanations of randomised pairs: the true causes are named, and none that is not."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.analyzers.compare.nets import tensor_map
from tests.analyzers.compare.pairs import MAKERS, Case, made
from tests.thorough import amount
from weighttools import diff
from weighttools import open as open_weights
from weighttools.analyzers.axes import padded
from weighttools.analyzers.compare.explain import CODES, explain
from weighttools.analyzers.compare.explain.context import ChangedPair, ExplanationContext
from weighttools.analyzers.compare.explain.questions import PairQuestions, finish_states, merge_states
from weighttools.analyzers.compare.explain.sketch import numbers, sketch_question
from weighttools.analyzers.compare.figures import compare_pairs
from weighttools.analyzers.compare.pair import Explanation, Pair, PairFigures
from weighttools.analyzers.compare.row_sums import RowSums
from weighttools.core.dtypes import DTYPES
from weighttools.core.fold import BlockSizes, Fold, fold_blocks
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap


def explained(case: Case, executor: Executor | None = None) -> list[Explanation]:
    """Return what explains a case."""
    before, after = tensor_map(case.before), tensor_map(case.after)
    pairs = [Pair(name, name, "name", before[name], after[name]) for name in before if name in after]
    alike = [pair for pair in pairs if pair.before.shape == pair.after.shape]
    found = list(zip(alike, compare_pairs(alike), strict=True))
    context = ExplanationContext(
        unchanged=[pair for pair, figure in found if not figure.n_changed],
        reshaped=[pair for pair in pairs if pair.before.shape != pair.after.shape],
        names=frozenset(after),
        others=[tensor_map(other) for other in case.others],
        executor=executor,
    )
    return explain(found, context)


def false_ones(case: Case, told: list[Explanation]) -> Iterator[str]:
    """Yield explanations that are not true of a case, by the values themselves."""
    for one in told:
        if one.code not in case.allowed | case.expected.keys():
            yield f"{one.code}: {one.text}"
        elif one.code == "frozen" and not all(torch.equal(case.before[n], case.after[n]) for n in one.tensors):
            yield f"not frozen: {one.text}"
        elif one.code == "low-rank" and not all(is_of_rank(case, n, one.evidence["rank"]) for n in one.tensors):
            yield f"not of that rank: {one.text}"
        elif one.code == "low-rank" and one.evidence["is_alone"] and "low-rank" not in case.expected:
            yield f"no LoRA: {one.text}"
        elif one.code == "rows-trained" and not all(has_changed_rows(case, n, one) for n in one.tensors):
            yield f"not those rows: {one.text}"


def is_of_rank(case: Case, name: str, rank: object) -> bool:
    """Whether what a decomposition leaves beyond a rank is no more than rounding of the new values and of the change."""
    assert isinstance(rank, int)
    before, after = case.before[name].double(), case.after[name].double()
    values = torch.linalg.svdvals((after - before).flatten(1))
    eps = torch.finfo(case.after[name].dtype).eps
    rounding = (eps * after.norm()) ** 2 + (eps * (after - before).norm()) ** 2
    return bool((values[rank:] ** 2).sum() <= rounding / 3 + 1e-12 * (values**2).sum())


def has_changed_rows(case: Case, name: str, told: Explanation) -> bool:
    changed = (case.before[name] != case.after[name]).any(dim=1)
    return int(changed.sum()) == told.evidence["n_changed_rows"]


def missed(case: Case, told: list[Explanation]) -> list[str]:
    """Return the expected causes that are not named, or not with the right figures."""
    return [
        code
        for code, holds in case.expected.items()
        if not any(one.code == code and holds(one.evidence) for one in told)
    ]


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Nets this small take a thread of torch's longer to hand over than to compute."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.mark.usefixtures("one_torch_thread")
def test_true_causes_are_named_and_no_false_one() -> None:
    """Of 1,000 pairs in the thorough run; each kind once in the quick one. Evidence is plain JSON."""
    n_pairs = amount(len(MAKERS), 1000)
    n_true, lost, false = 0, [], []
    for number in range(n_pairs):
        kind, case = made(number)
        told = explained(case)
        n_true += len(case.expected)
        lost += [f"{number} {kind}: {code} {[one.text for one in told]}" for code in missed(case, told)]
        false += [f"{number} {kind}: {text}" for text in false_ones(case, told)]
        for one in told:
            assert one.tensors and one.text.endswith(".") and one.code in CODES
            assert json.loads(json.dumps(one.evidence, allow_nan=False)) == one.evidence
    assert false == []
    assert len(lost) <= 0.05 * n_true, "\n".join(lost)


def pairs_of(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[Pair, PairFigures]]:
    """Return arrays of one name as pairs, with their figures."""
    old, new = TensorMap.from_arrays(before), TensorMap.from_arrays(after)
    pairs = [Pair(name, name, "name", old[name], new[name]) for name in before]
    return list(zip(pairs, compare_pairs(pairs), strict=True))


def test_integers_that_one_was_added_to_are_not_rounded() -> None:
    """Each odd number from 2049 on plus one is what rounding to float16 gives; tensors of one value tell nothing."""
    old = {f"layer.{i}": np.full(4, i, np.float32) for i in range(1500, 3500)}
    new = {name: one + np.float32(1) for name, one in old.items()}
    told = diff(TensorMap.from_arrays(old), TensorMap.from_arrays(new))["explanation"]
    assert not [one for one in told if one["code"] == "rounded"]


def test_small_tensors_that_were_all_rounded_are_told() -> None:
    rng = np.random.default_rng(0)
    old = {f"layer.{i}": rng.standard_normal(4).astype(np.float32) for i in range(20)}
    new = {name: one.astype(np.float16).astype(np.float32) for name, one in old.items()}
    told = diff(TensorMap.from_arrays(old), TensorMap.from_arrays(new))["explanation"]
    assert [(one["code"], one["evidence"]["dtype"]) for one in told] == [("rounded", "float16")]


def test_nothing_explains_nothing() -> None:
    weights = {"w": np.arange(12.0).reshape(3, 4)}
    assert explain(pairs_of(weights, weights), ExplanationContext()) == []


@pytest.mark.parametrize("shape", [(300, 1001), (1001, 300)])
def test_a_sketch_is_the_product_with_its_random_matrix(shape: tuple[int, int]) -> None:
    """Rows that blocks share are added up, on either side; singular values are those of NumPy."""
    rng = np.random.default_rng(0)
    before = {"w": rng.standard_normal(shape)}
    after = {"w": before["w"] + rng.standard_normal(shape)}
    [(pair, figure)] = pairs_of(before, after)
    change = ChangedPair(pair, figure)
    question = sketch_question(change, ExplanationContext())
    assert question is not None
    [state] = fold_blocks(
        [Fold((pair.before, pair.after), PairQuestions((("sketch", question),)))], merge_states, BlockSizes(1000, 7000)
    )
    long = max(shape)
    basis, _ = np.linalg.qr(numbers(0, long, question.width).astype(np.float64))
    matrix = after["w"] - before["w"] if shape[0] < shape[1] else (after["w"] - before["w"]).T
    values = np.linalg.svd(matrix @ basis, compute_uv=False) * np.sqrt(long / question.width)
    found = finish_states(state)["sketch"]
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    np.testing.assert_allclose(found.fourth, ((after["w"] - before["w"]) ** 4).sum(), rtol=1e-6)  # in float32


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(2, 5))
def test_row_sums_do_not_depend_on_where_blocks_are_cut(lengths: list[int], n_columns: int) -> None:
    values = np.arange(float(sum(lengths)))
    starts = np.cumsum([0, *lengths[:-1]])
    parts = [padded(values[at : at + n], int(at), n_columns) for at, n in zip(starts, lengths, strict=True)]
    found = reduce(RowSums.merge, (RowSums(first, rows.sum(axis=1, keepdims=True)) for first, rows in parts))
    _, whole = padded(values, 0, n_columns)
    np.testing.assert_array_equal(found.values, whole.sum(axis=1, keepdims=True))


def test_explanations_are_the_same_in_any_executor() -> None:
    """Questions pickle, and threads and processes answer as this one does."""
    for number in (5, 13, 15):
        _, case = made(number)
        here = explained(case)
        assert here
        with ThreadPoolExecutor(2) as pool:
            assert explained(case, pool) == here
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert explained(case, pool) == here


@dataclass(frozen=True, slots=True)
class Counting:
    """A reader that counts the elements it reads."""

    array: np.ndarray[Any, Any]
    counts: dict[str, int]
    granularity: int = 1

    def __call__(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        self.counts["n"] = self.counts.get("n", 0) + stop - start
        return self.array.reshape(-1)[start:stop]


def test_only_changed_pairs_are_read_again_and_once() -> None:
    """All causes that ask share one reading; an other checkpoint takes one more."""
    rng = np.random.default_rng(0)
    old, new = rng.standard_normal((64, 600)), rng.standard_normal((64, 600))
    same = rng.standard_normal((64, 64))
    counts: dict[str, int] = {}

    def counted(array: np.ndarray[Any, Any]) -> Tensor:
        return Tensor(Spec(DTYPES["float64"], array.shape), Counting(array, counts))

    [(pair, figure)] = pairs_of({"w": old}, {"w": new})
    changed = pair._replace(before=counted(old), after=counted(new))
    unchanged = Pair("s", "s", "name", counted(same), counted(same))
    explain([(changed, figure)], ExplanationContext(unchanged=[unchanged]))
    assert counts["n"] == 2 * old.size
    explain([(changed, figure)], ExplanationContext(unchanged=[unchanged], others=[TensorMap.from_arrays({"w": old})]))
    assert counts["n"] == 6 * old.size


@pytest.mark.parametrize("encoding", ["Q8_0", "Q5_1", "Q4_0", "Q4_1"])
def test_an_encoding_of_blocks_is_named_if_its_error_is_that_of_the_encoding(encoding: str, tmp_path: Path) -> None:
    """Files by the gguf package: the same weights, and others."""
    rng = np.random.default_rng(0)
    weights, others = (rng.standard_normal((64, 256)).astype(np.float32) for _ in range(2))
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "test")
    kind = gguf.GGMLQuantizationType[encoding]
    writer.add_tensor("w", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    after = open_weights(path)["w"]
    for before, codes in ((weights, ["quantized"]), (others, [])):
        pair = Pair("w", "w", "name", TensorMap.from_arrays({"w": before})["w"], after)
        told = explain(list(zip([pair], compare_pairs([pair]), strict=True)), ExplanationContext())
        assert [one.code for one in told] == codes
        assert not told or told[0].evidence["scheme"] == encoding.lower()


def test_a_lora_is_named_among_frozen_weights_and_not_among_trained_ones() -> None:
    """A low rank is told of wherever it is; that it is consistent with a LoRA where no other weight changed."""
    rng = np.random.default_rng(0)
    before = {f"layers.{n}.{m}.weight": rng.standard_normal((64, 64)) for n in range(2) for m in ("q_proj", "v_proj")}
    factors = {name: rng.standard_normal((64, 4)) @ rng.standard_normal((4, 64)) for name in before}
    after = {name: w + 0.01 * factors[name] for name, w in before.items()}
    [told] = explain(pairs_of(before, after), ExplanationContext())
    assert "consistent with a LoRA of rank 4 on q_proj and v_proj: 99.99 % of the change's energy" in told.text
    after["layers.0.q_proj.weight"] = before["layers.0.q_proj.weight"] + 0.01 * rng.standard_normal((64, 64)) ** 3
    [told] = explain(pairs_of(before, after), ExplanationContext())
    assert "of rank 4 on v_proj and q_proj" in told.text and "LoRA" not in told.text and len(told.tensors) == 3


def test_names_are_shown_safe_for_a_terminal() -> None:
    weights = {"a\x1b[31m.weight": np.arange(1.0, 65.0)}
    [told] = explain(pairs_of(weights, {name: 0.9 * w for name, w in weights.items()}), ExplanationContext())
    assert "\x1b" not in told.text and "\\x1b[31m" in told.text


@dataclass(frozen=True, slots=True)
class Made:
    """A reader of a matrix that is nowhere: a hash of the position, and a product of two vectors of it."""

    n_columns: int
    share: float
    granularity: int = 1

    def __call__(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        at = np.arange(start, stop)
        hashed = (at * 2654435761 % 4294967291 / 4294967291 - 0.5).astype(np.float32)
        row, column = np.divmod(at, self.n_columns)
        return hashed + np.float32(self.share) * np.cos(row * row % 1013).astype(np.float32) * np.sin(column).astype(
            np.float32
        )


def test_memory_does_not_grow_with_a_pair() -> None:
    """64 MB are read; what is held is blocks and a sketch."""
    spec = Spec(DTYPES["float32"], (2048, 4096))
    pair = Pair("a.weight", "a.weight", "name", Tensor(spec, Made(4096, 0.0)), Tensor(spec, Made(4096, 0.1)))
    found = list(zip([pair], compare_pairs([pair]), strict=True))
    explain([], ExplanationContext())
    tracemalloc.start()
    told = explain(found, ExplanationContext())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.code for one in told] == ["low-rank"] and told[0].evidence["rank"] == 1
    assert peak < 50e6


EXTREMES = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-300, 5e-324, 65504.0, 3e38, 1e200, 1.7e308, np.inf, -np.inf, np.nan]


@given(st.data())
def test_anything_is_explained_without_a_fault(data: st.DataObject) -> None:
    """Whatever the values, dtypes and shapes: no error, no warning, and evidence that JSON holds."""
    names = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "bool", "complex64"]
    shapes = [(), (0,), (1,), (17,), (0, 3), (4, 1), (1, 40), (40, 33), (64, 32), (3, 2, 8, 4)]
    maps: list[dict[str, Any]] = [{}, {}, {}]
    for at in range(data.draw(st.integers(1, 4))):
        shape = data.draw(st.sampled_from(shapes))
        seed = data.draw(st.integers(0, 99))
        for n, one in enumerate(maps):
            rng = np.random.default_rng((seed, n))
            values = rng.standard_normal(shape) * data.draw(st.sampled_from([0.0, 1.0, 1e-30, 1e30, 1e-160, 1e160]))
            if data.draw(st.booleans()):
                values = np.where(rng.random(shape) < 0.1, data.draw(st.sampled_from(EXTREMES)), values)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one[f"m.{at}.q_proj.weight"] = np.asarray(values).astype(
                    DTYPES[data.draw(st.sampled_from(names))].numpy
                )
    before, after, other = map(TensorMap.from_arrays, maps)
    record = diff(before, after, others=[other])
    json.dumps(record, allow_nan=False)
