"""Class and sample weights, against scikit-learn's formula and by counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from weighttools.errors import SpecError
from weighttools.train import losses, weights


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    found = weights.class_weights("balanced", labels, 5)
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=np.array(labels))
    assert np.allclose(found[present], expected, rtol=1e-6)
    assert not found[np.setdiff1d(np.arange(5), present)].any()
    report = weights.effective_weights(labels, found)
    assert np.allclose(np.array(report.shares)[present], 1 / len(present), rtol=1e-6)


def test_the_effective_weights_are_the_shares_of_the_loss() -> None:
    """At equal logits every term is log(n): the loss restricted to a class is its share of the whole."""
    labels, w, each = np.array([0, 0, 1, 2, -100]), np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 1.0, 1.0, 9.0])
    report = weights.effective_weights(labels, w, each)
    z = np.zeros((5, 3))
    whole = losses.cross_entropy(z, target=labels, weight=w, sample_weight=each, reduction="sum")
    for k in range(3):
        part = np.where(labels == k, labels, -100)
        one = losses.cross_entropy(z, target=part, weight=w, sample_weight=each, reduction="sum")
        assert report.shares[k] == pytest.approx(one / whole)
    assert report.effective_samples == pytest.approx(11**2 / (1 + 9 + 4 + 25))
    assert "class 2: 1 samples x 5 = 45.5 % of the loss" in str(report)


def test_class_weights_may_be_one_a_class_or_for_some() -> None:
    expected = np.array([0.5, 1.0, 3.0], np.float32)
    for spec in ([0.5, 1, 3], (0.5, 1.0, 3.0), expected, expected.astype(np.float64), {0: 0.5, np.int64(2): 3}):
        assert (weights.class_weights(spec, [0], 3) == expected).all()


@pytest.mark.parametrize("replace", [True, False])
def test_sampling_follows_the_weights(replace: bool) -> None:
    w = np.array([0, 1, 2, 0, 5.0])
    first = [weights.sampled(w, 1, seed=(1, i), replace=replace)[0] for i in range(4000)]
    assert np.allclose(np.bincount(first, minlength=5) / 4000, w / 8, atol=0.03)
    many = weights.sampled(w, 3, seed=4, replace=replace)
    assert (w[many] > 0).all() and (replace or len(set(many.tolist())) == 3)
    assert many.tolist() == weights.sampled(w, 3, seed=4, replace=replace).tolist()


def test_bad_weights_are_one_clear_line() -> None:
    for call in (
        lambda: weights.class_weights("heavy", [0], 2),
        lambda: weights.class_weights({2: 1.0}, [0], 2),
        lambda: weights.class_weights({0: float("nan")}, [0], 2),
        lambda: weights.class_weights({1.0: 2.0}, [0], 2),
        lambda: weights.class_weights({"1": 2.0}, [0], 2),
        lambda: weights.class_weights({1: "2"}, [0], 2),
        lambda: weights.class_weights([1.0, 2.0, 3.0], [0], 2),
        lambda: weights.class_weights([1.0, -2.0], [0], 2),
        lambda: weights.class_weights(np.ones((2, 1)), [0], 2),
        lambda: weights.class_weights(np.array(1.0), [0], 2),
        lambda: weights.class_weights(5, [0], 2),
        lambda: weights.class_weights(None, [2], 2),
        lambda: weights.class_weights(None, [0.5], 2),
        lambda: weights.sampled([0, 0], 1, seed=0),
        lambda: weights.sampled([1, 0], 2, seed=0, replace=False),
        lambda: weights.effective_weights([0, 1], np.ones(2), [1.0]),
    ):
        with pytest.raises(SpecError):
            call()
