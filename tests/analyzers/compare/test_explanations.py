"""Explanations of randomised pairs: the true causes are named, and none that is not."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.analyzers.compare.nets import figures, tensor_map
from tests.analyzers.compare.pairs import MAKERS, Case, made
from tests.thorough import amount
from weighttools.analyzers.compare.explain import explain
from weighttools.analyzers.compare.explain.context import ExplanationContext
from weighttools.analyzers.compare.pair import Explanation, Pair


def explained(case: Case) -> list[Explanation]:
    """Return what explains a case, from figures by NumPy."""
    before, after = tensor_map(case.before), tensor_map(case.after)
    pairs = [Pair(name, name, "name", before[name], after[name]) for name in before if name in after]
    alike = [pair for pair in pairs if pair.before.shape == pair.after.shape]
    found = [(pair, figures(pair)) for pair in alike]
    context = ExplanationContext(
        unchanged=[pair for pair, figure in found if not figure.n_changed],
        reshaped=[pair for pair in pairs if pair.before.shape != pair.after.shape],
        names=frozenset(after),
        others=[tensor_map(other) for other in case.others],
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


def test_true_causes_are_named_and_no_false_one() -> None:
    """Of 1,000 pairs in the thorough run; each kind once in the quick one."""
    n_pairs = amount(len(MAKERS), 1000)
    n_true, lost, false = 0, [], []
    for number in range(n_pairs):
        kind, case = made(number)
        told = explained(case)
        n_true += len(case.expected)
        lost += [f"{number} {kind}: {code} {[one.text for one in told]}" for code in missed(case, told)]
        false += [f"{number} {kind}: {text}" for text in false_ones(case, told)]
    assert false == []
    assert len(lost) <= 0.05 * n_true, "\n".join(lost)
