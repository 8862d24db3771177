"""Singular values of matrices, and what they tell: ranks, energy, the tail's power law, the edge of noise.

A tensor of more than two axes is folded to a matrix of its first axis by all others. Exact spectra come from the
eigenvalues of the smaller Gram matrix in float64 (singular values below 1e-8 of the largest are rounding there);
beyond `EXACT_LIMIT` rows and columns, the largest few come from a randomized range finder, with a bound on their error.

References
----------
N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011), algorithm 4.4.
O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007.
V. A. Marchenko and L. A. Pastur, Math. USSR Sbornik 1 (1967).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.power_law import fit, scaled
from weighttools.core.readers import Raw
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor, confirm
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.spec import Array

Record = dict[str, Any]
Method = Callable[[Tensor, int], "Spectrum | None"]
"""(tensor, exponent) -> its spectrum, scaled by ``2**-exponent``; None where squares are not safe."""

EXACT_LIMIT = 4096
"""Matrices whose smaller side is up to this are decomposed exactly."""

SKETCH = 256
"""Singular values that a randomized decomposition gives."""

_OVERSAMPLED = 32
_POWERS = 3
_NEAR = 0.01
_ENERGIES = (0.5, 0.9, 0.99)
_BLOCK_ELEMENTS = 1 << 18


ZERO = "it is zero"
"""Why a matrix of zeros has no spectrum."""


@dataclass(frozen=True, slots=True)
class SpectrumRequest:
    """What to compute.

    Parameters
    ----------
    ranks
        Ranks to give the energy at.
    exact_limit
        The smaller side up to which a decomposition is exact.
    values
        Whether to list the singular values.
    """

    ranks: tuple[int, ...] = (1, 8, 16, 32, 64)
    exact_limit: int = EXACT_LIMIT
    values: bool = False

    def __post_init__(self) -> None:
        if any(rank < 1 for rank in self.ranks) or self.exact_limit < 0:
            raise SpecError(
                f"ranks {list(self.ranks)}, exact limit {self.exact_limit}",
                expected="ranks from 1 on",
                code="out-of-range",
            )


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a matrix, largest first.

    Parameters
    ----------
    values
        float64; all of them, or the largest few.
    squares
        The sum of the squares of all of them: the squared Frobenius norm.
    exponent
        The power of two that all of this is to be multiplied with.
    errors
        How far, at most, a singular value of the matrix is from each one given; None for exact ones.
    """

    values: Array
    squares: float
    exponent: int = 0
    errors: Array | None = None

    @property
    def n_near(self) -> int:
        """How many of the largest values are within `_NEAR` of one of the matrix."""
        if self.errors is None:
            return self.values.size
        far = np.flatnonzero(self.errors > _NEAR * self.values)
        return int(far[0]) if far.size else self.values.size


def is_matrix(spec: Spec) -> bool:
    """Whether a tensor has a spectrum: floating, two sides of two or more when folded."""
    return spec.dtype.is_float and len(spec.shape) > 1 and min(folded(spec)) > 1


def folded(spec: Spec) -> tuple[int, int]:
    """Return rows and columns: the first axis by all others."""
    return spec.shape[0], math.prod(spec.shape[1:])


def analyse(tensor: Tensor, request: SpectrumRequest) -> Record:
    """Return the figures of one tensor; null, with the reason, where it holds NaN or Inf, or only zeros."""
    n_rows, n_columns = folded(tensor.spec)
    shape = {"n_rows": n_rows, "n_columns": n_columns}
    exact = min(n_rows, n_columns) <= request.exact_limit
    with np.errstate(all="ignore"):  # NaN, Inf and overflow are ordinary here
        found = _spectrum(tensor, gram_spectrum if exact else sketched_spectrum)
    confirm(tensor)
    if isinstance(found, str):
        silent: Record = {**dict.fromkeys(_FIGURES), "energy": {}, "rank_for_energy": {}}
        return {**shape, **silent, "method": None, "skipped": found}
    record = {**shape, **figures(found, tensor.spec, request), "method": "exact" if exact else "randomized"}
    return {**record, "skipped": None}


def _spectrum(tensor: Tensor, method: Method) -> Spectrum | str:
    """Return the spectrum, or why there is none; values are scaled only where their squares leave float64's range."""
    found = method(tensor, 0)
    if found is not None:
        return found
    exponent = _exponent(tensor)
    if isinstance(exponent, str):
        return exponent
    found = method(tensor, exponent)
    assert found is not None, "scaled squares are safe"
    return found


def exact_spectrum(tensor: Tensor) -> Spectrum | str:
    """Return all singular values, as `gram_spectrum` gives them, or why there are none; of any numeric dtype."""
    with np.errstate(all="ignore"):  # NaN, Inf and overflow are ordinary here
        return _spectrum(tensor, gram_spectrum)


_LEAST_SAFE = 1e-200


def _is_safe(squares: float) -> bool:
    return _LEAST_SAFE < squares < 1 / _LEAST_SAFE


def _exponent(tensor: Tensor) -> int | str:
    """Return the power of two just above the largest magnitude, or why there is no spectrum."""
    largest = 0.0
    for _, values in bands(tensor, 0):
        top = float(np.max(np.abs(values), initial=0.0))
        if not math.isfinite(top):
            return "it holds NaN or Inf"
        largest = max(largest, top)
    return math.frexp(largest)[1] if largest else ZERO


def bands(tensor: Tensor, exponent: int) -> Iterator[tuple[int, Array]]:
    """Yield a tensor as bands of whole rows in float64, scaled by ``2**-exponent``, each with its first row.

    A band is valid until the next is asked for: all are made in the same memory, for the first touch of fresh pages
    takes longer than what is done with them.
    """
    n_rows, n_columns = folded(tensor.spec)
    reader = tensor.reader
    unit = max(reader.granularity, tensor.dtype.pack)
    step = max(1, _BLOCK_ELEMENTS // n_columns)
    step += -step % (unit // math.gcd(unit, n_columns))  # bands begin where a run can begin
    stored, wide = np.empty(0, np.uint8), np.empty(min(step, n_rows) * n_columns)
    if isinstance(reader, Raw):
        stored = np.empty(tensor.dtype.nbytes(wide.size) + 8, np.uint8)
    for first in range(0, n_rows, step):
        start, stop = first * n_columns, min(n_rows, first + step) * n_columns
        values = reader.read_into(start, stop, stored) if isinstance(reader, Raw) else reader(start, stop)
        band = wide[: stop - start]
        np.copyto(band, values, casting="unsafe")
        yield first, (np.ldexp(band, -exponent, out=band) if exponent else band).reshape(-1, n_columns)


def gram_spectrum(tensor: Tensor, exponent: int) -> Spectrum | None:
    """Return all singular values, from the eigenvalues of the smaller Gram matrix; None where squares are not safe.

    Notes
    -----
    Memory is 8 bytes times the square of the smaller side, twice; and, where rows are fewer than columns, the whole
    matrix in float64. A singular value s is off by about 1e-16 n times the largest one squared over s, and by 1e-8
    sqrt(n) times the largest at most, for a smaller side of n.
    """
    n_rows, n_columns = folded(tensor.spec)
    if n_rows < n_columns:
        whole = np.empty((n_rows, n_columns))
        for first, band in bands(tensor, exponent):
            whole[first : first + len(band)] = band
        gram = whole @ whole.T
    else:
        gram = np.zeros((n_columns, n_columns))
        for _, band in bands(tensor, exponent):
            gram += band.T @ band
    squares = float(np.trace(gram))
    if not _is_safe(squares):
        return None
    eigenvalues = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return Spectrum(np.sqrt(eigenvalues), squares, exponent)


def sketched_spectrum(tensor: Tensor, exponent: int) -> Spectrum | None:
    """Return the `SKETCH` largest singular values by a randomized range finder with power iterations.

    None where squares are not safe.

    Notes
    -----
    With Q the orthonormal basis found and s, u, v a triplet of Q^T W, W^T (Q u) = s v holds exactly, and a singular
    value of W lies within ``|W v - s Q u|`` of s: that is the error of each. Each of the passes reads the tensor once.
    """
    n_rows, n_columns = folded(tensor.spec)
    n = min(SKETCH + _OVERSAMPLED, n_rows, n_columns)
    image, squares = _times(tensor, exponent, np.random.default_rng(0).standard_normal((n_columns, n)))
    if not _is_safe(squares):
        return None
    basis = np.linalg.qr(image)[0]
    for _ in range(_POWERS):
        across = np.linalg.qr(_transposed_times(tensor, exponent, basis))[0]
        basis = np.linalg.qr(_times(tensor, exponent, across)[0])[0]
    u, s, v = np.linalg.svd(_transposed_times(tensor, exponent, basis), full_matrices=False)
    residuals = _times(tensor, exponent, u[:, :SKETCH])[0] - basis @ (v[:SKETCH].T * s[:SKETCH])
    return Spectrum(s[:SKETCH], squares, exponent, np.linalg.norm(residuals, axis=0))


def _times(tensor: Tensor, exponent: int, right: Array) -> tuple[Array, float]:
    """Return W right, and the sum of the squares of W."""
    product, squares = np.empty((folded(tensor.spec)[0], right.shape[1])), 0.0
    for first, band in bands(tensor, exponent):
        product[first : first + len(band)] = band @ right
        squares += float(np.vdot(band, band))
    return product, squares


def _transposed_times(tensor: Tensor, exponent: int, left: Array) -> Array:
    """Return W^T left."""
    product = np.zeros((folded(tensor.spec)[1], left.shape[1]))
    for first, band in bands(tensor, exponent):
        product += band.T @ left[first : first + len(band)]
    return product


_FIGURES = (
    "spectral_norm", "error", "frobenius_norm", "nuclear_norm", "stable_rank", "effective_rank", "rank",
    "condition_number", "alpha", "alpha_ks", "alpha_xmin", "alpha_n_tail", "alpha_std_error", "alpha_n_fitted",
    "mp_edge", "n_above_mp_edge",
)  # fmt: skip


def figures(found: Spectrum, spec: Spec, request: SpectrumRequest) -> Record:
    """Return what a spectrum tells.

    Notes
    -----
    stable_rank is the squared Frobenius norm over the squared spectral norm. effective_rank is exp of the entropy of
    the singular values divided by their sum (Roy and Vetterli). rank counts singular values above the largest one
    times the larger side times the dtype's eps. energy is the part of the squared Frobenius norm that the first r
    singular values hold. mp_edge is rms * (sqrt(rows) + sqrt(columns)): no singular value of a large matrix of
    independent entries of that root mean square is above it. alpha is that of the squared singular values; see
    `power_law`. Figures that need all singular values are null for a randomized spectrum. Its alpha is that of the
    values that are within 1 % of one of the matrix (`alpha_n_fitted` of them): a tail needs no values below its
    beginning, which is looked for among these only, where an exact spectrum's is looked for among all.
    """
    s = found.values
    complete = s.size == min(folded(spec))
    record: Record = dict.fromkeys(_FIGURES)
    record |= {**_of_the_largest(found, spec), **_tail(found)}
    if complete:
        record |= _of_all(found, spec)
    energy = np.cumsum(s * s) / found.squares
    record["energy"] = {str(r): float(min(1.0, energy[r - 1])) for r in request.ranks if r <= s.size}
    record["rank_for_energy"] = {
        f"{part:g}": int(np.searchsorted(energy, part)) + 1 if energy[-1] >= part else None for part in _ENERGIES
    }
    if request.values:
        record["singular_values"] = [scaled(value, found.exponent) for value in s.tolist()]
    return record


def _of_the_largest(found: Spectrum, spec: Spec) -> Record:
    n_rows, n_columns = folded(spec)
    s, scale = found.values, found.exponent
    edge = math.sqrt(found.squares / (n_rows * n_columns)) * (math.sqrt(n_rows) + math.sqrt(n_columns))
    above = int(np.count_nonzero(s > edge))
    return {
        "spectral_norm": scaled(s[0], scale),
        "error": 0.0 if found.errors is None else scaled(found.errors[0], scale),
        "frobenius_norm": scaled(math.sqrt(found.squares), scale),
        "stable_rank": float(found.squares / s[0] ** 2),
        "mp_edge": scaled(edge, scale),
        "n_above_mp_edge": above,
    }


def _tail(found: Spectrum) -> Record:
    s = found.values[: found.n_near]
    tail = fit(s * s)
    return {"alpha_n_fitted": s.size, **({} if tail is None else tail.record(2 * found.exponent))}


def _of_all(found: Spectrum, spec: Spec) -> Record:
    s, scale = found.values, found.exponent
    shares = s[s > 0] / s.sum()
    rank = int(np.count_nonzero(s > s[0] * max(folded(spec)) * _eps(spec)))
    return {
        "nuclear_norm": scaled(s.sum(), scale),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "rank": rank,
        "condition_number": float(s[0] / s[-1]) if rank == s.size else None,
    }


def _eps(spec: Spec) -> float:
    import ml_dtypes

    smallest = 1e-7  # what the Gram matrix in float64 resolves, with some room
    if spec.is_quantized:
        return smallest
    return max(smallest, min(float(ml_dtypes.finfo(spec.dtype.numpy).eps), 1e-3))  # type: ignore[no-untyped-call]


def matrix_names(names: Sequence[str], specs: Sequence[Spec]) -> list[str]:
    """Return the names of the tensors that have a spectrum."""
    return [name for name, spec in zip(names, specs, strict=True) if is_matrix(spec)]
