"""How the values of a layer are distributed, against what initialisers give: which layers look untouched by training.

One pass collects power sums, sums of rows and columns, and a sample at places that depend only on the shape. Untouched
values are independent and of one distribution: mean, skewness, kurtosis and the sample's Kolmogorov-Smirnov distance
must fit a normal, uniform or truncated normal law, and rows and columns must differ in mean and variance no more than
chance lets them. Training breaks the last of these first.

References
----------
X. Glorot and Y. Bengio, AISTATS 2010, equations 12 and 16. K. He et al., ICCV 2015, equations 10 and 14.
Truncated normal: at two standard deviations, as Keras and JAX have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.analyzers.axes import folded, line_sums
from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap

if TYPE_CHECKING:
    from weighttools.analyzers.run import Block
    from weighttools.core.spec import Array

Record = dict[str, Any]

LEAST = 512
"""Elements below which nothing is said: too few to tell laws apart."""

SAMPLE = 8192

_Z = 4.5
"""Standard errors that a figure may be off: by chance one in 100,000 is."""

_TRUNCATED_STD = 0.87962566103423978
"""The standard deviation of a standard normal truncated at 2."""

GAINS = {"linear": 1.0, "tanh": 1.0, "relu": 0.5, "gelu": 0.425, "silu": 0.356}
"""The part of a unit normal input's mean square that an activation lets through (tanh: near zero)."""

_KERNEL = re.compile(r"(?:^|[./])(?:kernel|depthwise_kernel|pointwise_kernel)(?::0)?$")


@dataclass(frozen=True, slots=True, eq=False)
class InitializationSums:
    """What the pass collects; `first` is the first row that the part touches.

    Parameters
    ----------
    n, powers
        Finite elements, and the sums of their first to fourth powers.
    first, rows, row_squares
        Sums over the columns, from row `first` on.
    columns, column_squares
        Sums over the rows.
    sample
        Every k-th element, where k depends on the shape.
    largest
        The largest magnitude.
    """

    n: int
    powers: Array
    first: int
    rows: Array
    row_squares: Array
    columns: Array
    column_squares: Array
    sample: Array
    largest: float

    def merge(self, other: InitializationSums) -> InitializationSums:
        """Return the sums over both parts of one tensor."""
        first = min(self.first, other.first)
        return InitializationSums(
            self.n + other.n,
            self.powers + other.powers,
            first,
            _joined(self.first - first, self.rows, other.first - first, other.rows),
            _joined(self.first - first, self.row_squares, other.first - first, other.row_squares),
            self.columns + other.columns,
            self.column_squares + other.column_squares,
            np.concatenate([self.sample, other.sample]),
            max(self.largest, other.largest),
        )

    def finish(self, spec: Spec | None = None) -> Record:
        """Return nothing: `describe` does."""
        return {}


def _joined(at: int, a: Array, start: int, b: Array) -> Array:
    out = np.zeros(max(at + a.size, start + b.size))
    out[at : at + a.size] += a
    out[start : start + b.size] += b
    return out


def is_layer(spec: Spec) -> bool:
    """Whether a tensor is looked at: a floating matrix (or kernel) whose rows and columns can be held."""
    return spec.dtype.is_float and folded(spec) is not None


def of(block: Block) -> InitializationSums:
    """Return the sums of a block; NaN and Inf count as zeros and are left out of `n`."""
    matrix = folded(block.spec)
    assert matrix is not None, "only layers are folded"
    x, squares, higher = (block.room(name) for name in ("x", "squares", "higher"))
    np.copyto(x, block.values, casting="unsafe")
    n = x.size
    if not np.isfinite(x.sum()):
        finite = np.isfinite(x)
        n = int(np.count_nonzero(finite))
        x[~finite] = 0.0
    np.multiply(x, x, out=squares)
    third, fourth = np.multiply(squares, x, out=higher).sum(), np.multiply(squares, squares, out=higher).sum()
    first, rows, columns = line_sums(x, block.start, matrix[1])
    _, row_squares, column_squares = line_sums(squares, block.start, matrix[1])
    stride = _stride(block.spec, matrix[1])
    sample = x[-block.start % stride :: stride].copy()
    largest = float(max(x.max(initial=0.0), -x.min(initial=0.0)))
    powers = np.array([rows.sum(), row_squares.sum(), third, fourth])
    return InitializationSums(n, powers, first, rows, row_squares, columns, column_squares, sample, largest)


def _stride(spec: Spec, columns: int) -> int:
    """Return the sample's stride: one that meets all columns."""
    stride = max(1, spec.n_elements // SAMPLE)
    while math.gcd(stride, columns) > 1:
        stride += 1
    return stride


_ERF_STEP = 1 / 256


@cache
def _erf_table() -> tuple[Array, Array]:
    """Return the error function and its derivative at multiples of `_ERF_STEP` from 0 to 6, where it is 1."""
    at = np.arange(6 / _ERF_STEP + 2) * _ERF_STEP
    return np.array([math.erf(v) for v in at]), 2 / math.sqrt(math.pi) * np.exp(-at * at)


def _erf(x: Array) -> Array:
    """Return the error function, by cubic interpolation between values and derivatives: to 1e-12."""
    value, slope = _erf_table()
    place = np.minimum(np.abs(x), 6.0) / _ERF_STEP
    i = place.astype(np.intp)
    t = place - i
    u, rise = 1 - t, value[i + 1] - value[i]
    bend = _ERF_STEP * (slope[i] * u - slope[i + 1] * t) + rise * (t - u)
    return np.copysign(value[i] + t * (rise + u * bend), x)


@dataclass(frozen=True, slots=True)
class Law:
    """A law that initialisers draw from: excess kurtosis, and its distribution function for standard deviation 1."""

    name: str
    kurtosis: float
    limit: float

    def cdf(self, x: Array) -> Array:
        """Return the distribution function at `x`."""
        if self.name == "uniform":
            uniform: Array = np.clip((x + self.limit) / (2 * self.limit), 0.0, 1.0)
            return uniform
        wide = 1.0 if self.name == "normal" else _TRUNCATED_STD
        values = 0.5 * _erf(x * (wide / math.sqrt(2)))
        mass = 1.0 if self.name == "normal" else math.erf(math.sqrt(2))
        result: Array = np.clip(values / mass + 0.5, 0.0, 1.0)
        return result


LAWS = (
    Law("normal", 0.0, math.inf),
    Law("uniform", -1.2, math.sqrt(3)),
    Law("truncated normal", -0.6344632828703505, 2 / _TRUNCATED_STD),
)


def fans(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return fan-in and fan-out: torch's axes (out, in, …), or (…, in, out) of what is called a kernel.

    >>> fans("conv.weight", (64, 3, 7, 7)), fans("dense/kernel", (784, 10))
    ((147, 3136), (784, 10))
    """
    if _KERNEL.search(name):
        field = math.prod(shape[:-2])
        return shape[-2] * field, shape[-1] * field
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def schemes(fan_in: int, fan_out: int) -> dict[str, tuple[str, float]]:
    """Return the usual initialisers: name to law and standard deviation."""
    both, one = math.sqrt(2 / (fan_in + fan_out)), math.sqrt(1 / fan_in)
    return {
        "xavier_normal": ("normal", both),
        "xavier_uniform": ("uniform", both),
        "he_normal": ("normal", math.sqrt(2) * one),
        "he_uniform": ("uniform", math.sqrt(2) * one),
        "lecun_normal": ("normal", one),
        "lecun_uniform": ("uniform", one),
        "torch_default": ("uniform", one / math.sqrt(3)),
        "normal_0.02": ("normal", 0.02),
        "normal_1": ("normal", 1.0),
        "glorot_normal_keras": ("truncated normal", both),
        "he_normal_keras": ("truncated normal", math.sqrt(2) * one),
        "lecun_normal_keras": ("truncated normal", one),
        "truncated_normal_0.02": ("truncated normal", 0.02 * _TRUNCATED_STD),
    }


def describe(name: str, spec: Spec, sums: InitializationSums, activation: str = "relu") -> Record:
    """Return the row of one layer; see `api.init_check` for its keys."""
    fan_in, fan_out = fans(name, spec.shape)
    usual = schemes(fan_in, fan_out)
    n = sums.n
    square = float(sums.powers[1] / n) if n else 0.0
    gain = GAINS[activation] * fan_in * square
    row: Record = {
        "name": name,
        "shape": list(spec.shape),
        "fan_in": fan_in,
        "fan_out": fan_out,
        "expected_std": {scheme: std for scheme, (_, std) in usual.items() if scheme.startswith(("xavier", "he_"))},
        "gain": gain if math.isfinite(gain) else None,
        "signal": "vanishing" if gain < 0.1 else "exploding" if gain > 10 else "healthy",
    }
    return row | _verdict(spec, sums, usual)


def _verdict(spec: Spec, sums: InitializationSums, usual: dict[str, tuple[str, float]]) -> Record:
    silent = dict.fromkeys(("std", "law", "ks", "skewness", "kurtosis", "scheme", "untouched"))
    if sums.n < max(LEAST, spec.n_elements):
        return {**silent, "why": "too few elements" if spec.n_elements < LEAST else "it holds NaN or Inf"}
    mean, m2, m3, m4 = _central(sums)
    if not all(map(math.isfinite, (mean, m2, m3, m4, m2 * m2))):
        return {**silent, "untouched": False, "why": "its values are beyond what can be squared"}
    if m2 <= 0 or m2 * m2 == 0:
        return {**silent, "std": 0.0, "untouched": None, "why": "it is constant, or too small to be squared"}
    std = math.sqrt(m2)
    kurtosis, skewness = m4 / m2**2 - 3, m3 / m2**1.5
    law = min(LAWS, key=lambda one: abs(one.kurtosis - kurtosis))
    ks = _ks(sums.sample, mean, std, law)
    why = _misfit(sums, law, (mean, std, skewness, kurtosis, ks))
    scheme = _scheme(usual, law, std, sums.n) if why is None else None
    return {
        "std": std, "law": law.name, "ks": ks, "skewness": skewness, "kurtosis": kurtosis, "scheme": scheme,
        "untouched": why is None, "why": why,
    }  # fmt: skip


def _central(sums: InitializationSums) -> tuple[float, float, float, float]:
    """Return mean, and second to fourth central moments."""
    a, b, c, d = (float(power) / sums.n for power in sums.powers)
    return a, b - a * a, c - 3 * a * b + 2 * a * a * a, d - 4 * a * c + 6 * a * a * b - 3 * a * a * a * a


def _ks(sample: Array, mean: float, std: float, law: Law) -> float:
    x = law.cdf((np.sort(sample) - mean) / std)
    steps = np.arange(x.size + 1) / x.size
    return float(max(np.max(x - steps[:-1]), np.max(steps[1:] - x)))


def _misfit(sums: InitializationSums, law: Law, found: tuple[float, float, float, float, float]) -> str | None:
    """Return the first reason why values are not independent draws from `law`, or None."""
    mean, std, skewness, kurtosis, ks = found
    n = sums.n
    spread = math.sqrt((law.kurtosis + 2) / (4 * n))  # the standard error of a standard deviation, relative
    tests = (
        (abs(mean) > _Z * std / math.sqrt(n), "its mean is not zero"),
        (abs(skewness) > _Z * math.sqrt(6 / n), "it is skewed"),
        (abs(kurtosis - law.kurtosis) > _Z * math.sqrt(24 / n), "its tails are not those of a normal or uniform law"),
        (sums.largest > (1 + _Z * spread) * law.limit * std + abs(mean), "values lie outside the law's range"),
        (ks > 1.95 / math.sqrt(sums.sample.size), f"its distribution is not {law.name}"),
        (_uneven(sums.row_squares, sums.columns.size, std**2, kurtosis), "its rows differ in size"),
        (_uneven(sums.column_squares, sums.rows.size, std**2, kurtosis), "its columns differ in size"),
        (_uneven(sums.rows, sums.columns.size, std, None), "its rows differ in mean"),
        (_uneven(sums.columns, sums.rows.size, std, None), "its columns differ in mean"),
    )
    return next((why for failed, why in tests if failed), None)


def _uneven(totals: Array, n_each: int, scale: float, kurtosis: float | None) -> bool:
    """Whether sums over lines of `n_each` elements vary more than those of independent elements do.

    `scale` is the standard deviation of an element, or for sums of squares (`kurtosis` is given) its square.
    """
    if totals.size < 8:
        return False
    spread = float(np.var(totals / scale, ddof=1)) / (n_each * (1.0 if kurtosis is None else max(kurtosis + 2, 0.2)))
    heavy = 0.0 if kurtosis is None else 12 / (n_each * totals.size)
    return spread - 1 > _Z * math.sqrt(2 / (totals.size - 1) + heavy) + (0.0 if n_each > 8 else 1.0)


def _scheme(usual: dict[str, tuple[str, float]], law: Law, std: float, n: int) -> str | None:
    """Return the initialiser of that law whose standard deviation is nearest, if it is within chance."""
    error = math.sqrt((law.kurtosis + 2) / (4 * n))
    near = {name: abs(std / expected - 1) for name, (kind, expected) in usual.items() if kind == law.name}
    best = min(near, key=lambda name: near[name])
    return best if near[best] <= _Z * error + 2e-3 else None


def layers(tensor_map: TensorMap) -> list[str]:
    """Return the names of the tensors that are looked at: layers that are parameters, and no norms or biases."""
    from weighttools.families.of_maps import roles
    from weighttools.families.role_types import Role

    rows = zip(tensor_map, tensor_map.specs(), roles(tensor_map), strict=True)
    drawn = (Role.WEIGHT, Role.HEAD, Role.EMBEDDING)
    return [name for name, spec, told in rows if is_layer(spec) and told.role in drawn]
