"""Two tensors that belong together, and the figures of how they differ."""

from __future__ import annotations

from typing import NamedTuple

from weighttools.core.tensor import Tensor


class Pair(NamedTuple):
    """A tensor of the new checkpoint, and what it is held against.

    Parameters
    ----------
    old, new
        The names in both; of several parts that make one, the names joined by `` + ``.
    how
        Why they belong together: ``"name"``, ``"map"`` (the user says so), ``"tie"``, or what content tells:
        ``"renamed"``, ``"transposed"``, ``"cast"``, ``"joined"``, ``"split"``, ``"dequantized"``.
    before
        The old tensor, arranged as the new one is: a view where it is transposed, joined or a part.
    after
        The new tensor.
    """

    old: str
    new: str
    how: str
    before: Tensor
    after: Tensor


_NEAR = 0.1
"""Of either norm: differences that are less tell the cosine better than products do."""


class PairFigures(NamedTuple):
    """How the elements of a pair differ, in float64 (of complex numbers, magnitudes).

    Differences, norms and products are over the elements that are finite on both sides. NaN equals NaN whatever its
    bits, and -0.0 equals 0.0, but for `n_bits`.

    Parameters
    ----------
    n_elements
        Elements of each side.
    n_bits
        Elements whose bits differ; None where the dtypes do.
    n_changed
        Elements whose values differ.
    n_beyond
        Elements that are not within the tolerances, as `numpy.isclose` with ``equal_nan`` tells.
    n_not_finite
        Elements that are NaN or infinite on one side or both.
    n_zero_before, n_zero_after, n_zeroed
        Zeros of each side, and elements that are zero after and were not before.
    max_abs, max_at
        The largest magnitude of a difference, and the flat position of the first such; None where nothing is finite.
    l2, l2_before, l2_after
        Norms of the difference and of each side.
    dot
        The sum of products of both sides.
    unit_dot
        `dot` by both norms, made before either could overflow; None where one is 0.
    broken_at
        The flat position of the first element that changed and is NaN or infinite on one side; None where there is
        none. No figure above takes it in.
    """

    n_elements: int
    n_bits: int | None
    n_changed: int
    n_beyond: int
    n_not_finite: int
    n_zero_before: int
    n_zero_after: int
    n_zeroed: int
    max_abs: float | None
    max_at: int | None
    l2: float
    l2_before: float
    l2_after: float
    dot: float
    unit_dot: float | None = None
    broken_at: int | None = None

    @property
    def rel_l2(self) -> float | None:
        """The norm of the difference by that of the old tensor; None where that is 0."""
        return self.l2 / self.l2_before if self.l2_before else None

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between both; None where one is 0.

        Of vectors close to each other it is 1 less what the difference says (the law of cosines): there the product's
        rounding, 1e-8 of it where it is summed in float32, is much of what the cosine is short of 1.
        """
        if self.l2_before and self.l2_after and self.l2 < _NEAR * min(self.l2_before, self.l2_after):
            by, ratio = self.l2 / self.l2_before, self.l2_after / self.l2_before
            return 1.0 - (by * by - (1.0 - ratio) ** 2) / (2.0 * ratio)
        both = self.l2_before * self.l2_after
        found = self.unit_dot if self.unit_dot is not None or not both else self.dot / both
        return None if found is None else max(-1.0, min(1.0, found))


class Explanation(NamedTuple):
    """What explains a change, with its evidence.

    Parameters
    ----------
    code
        A stable name of the kind of cause, e.g. ``"frozen"``, ``"low-rank"``.
    text
        One sentence.
    tensors
        New names that it is about.
    evidence
        The figures that it rests on, plain values with stable keys.
    """

    code: str
    text: str
    tensors: tuple[str, ...]
    evidence: dict[str, object]
