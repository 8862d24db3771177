"""Initial weights: drawn in blocks, determined by (seed, tensor name) alone.

>>> he_normal().std((512, 256))
0.08838834764831845
>>> he_normal().draw((2, 3), seed=0, name="fc.weight").dtype
dtype('float32')

Any run of elements can be drawn alone, by `weighttools.core.random_numbers`: the result does not depend on the size of
the blocks, nor on what other tensors there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from weighttools.core.dtypes import DType
from weighttools.core.random_numbers import SEGMENT, Numbers, parts
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms import initializer_ranges as ranges

if TYPE_CHECKING:
    from weighttools.core.spec import Array

FANS = ("fan_in", "fan_out", "fan_avg")
GAINS: Mapping[str, float] = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "gelu": 1.5335304,  # 1 / sqrt(E[gelu(z)**2]) for a standard normal z
    "silu": 1.6765324,  # the same for silu
    "selu": 3 / 4,
}
"""By how much an activation's weights must be larger than those of none: torch.nn.init.calculate_gain, and two more."""


def gain(activation: str, slope: float = 0.01) -> float:
    """Return the gain of an activation; `slope` is leaky ReLU's below 0.

    >>> gain("relu") == math.sqrt(2), gain("leaky_relu", 1.0)
    (True, 1.0)
    """
    if activation not in GAINS:
        raise SpecError(f"no gain is known for {activation!r}", expected=", ".join(GAINS))
    return math.sqrt(2 / (1 + slope**2)) if activation == "leaky_relu" else GAINS[activation]


def fans(shape: tuple[int, ...], layout: str = "torch") -> tuple[int, int]:
    """Return how many inputs reach an output, and how many outputs an input reaches.

    Parameters
    ----------
    shape
        A weight's; a convolution's window counts with both.
    layout
        ``"torch"``: (out, in, \\*window), as PyTorch and Hugging Face files have it; ``"keras"``: (\\*window, in, out),
        as Keras, JAX and GPT-2's Conv1D have it.

    Raises
    ------
    SpecError
        There are fewer than two axes, or the layout is unknown.

    Examples
    --------
    >>> fans((64, 3, 5, 5)), fans((5, 5, 3, 64), "keras")
    ((75, 1600), (75, 1600))
    """
    _check_layout(layout)
    if len(shape) < 2:
        raise SpecError(
            f"a tensor of shape {shape} has no fan", expected="two axes or more", remedy="use zeros() or normal()"
        )
    ends, window = ((shape[1], shape[0]), shape[2:]) if layout == "torch" else (shape[-2:], shape[:-2])
    return ends[0] * math.prod(window), ends[1] * math.prod(window)


def _check_layout(layout: str) -> None:
    if layout not in ("torch", "keras"):
        raise SpecError(f"layout {layout!r}", expected="'torch' or 'keras'")


@dataclass(frozen=True, slots=True)
class Initializer:
    """How a tensor's first values are drawn: ``distribution`` with standard deviation `std(shape)`.

    Parameters
    ----------
    distribution
        ``"normal"``, ``"uniform"``, ``"truncated_normal"`` (cut at `cut` standard deviations of the uncut one),
        ``"orthogonal"`` or ``"constant"``.
    fan
        ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``: the deviation is ``gain / sqrt(fan)``. None: it is `gain`.
    gain
        The factor, or for ``"constant"`` the value.
    layout
        See `fans`.
    cut
        Where a truncated normal ends.

    Raises
    ------
    SpecError
        The distribution, the fan or the layout is not one of these.
    """

    distribution: str
    fan: str | None = None
    gain: float = 1.0
    layout: str = "torch"
    cut: float = 2.0

    def __post_init__(self) -> None:
        _check_layout(self.layout)
        known = (*_SEGMENTS, "orthogonal", "constant")
        if self.distribution not in known:
            raise SpecError(f"distribution {self.distribution!r}", expected=f"one of {', '.join(known)}")
        if self.fan not in (None, *FANS):
            raise SpecError(f"fan {self.fan!r}", expected=f"one of {', '.join(FANS)}")

    def std(self, shape: tuple[int, ...]) -> float:
        """Return the standard deviation (before truncation) for a shape."""
        if self.fan is None:
            return self.gain
        fan_in, fan_out = fans(shape, self.layout)
        fan = dict(zip(FANS, (fan_in, fan_out, (fan_in + fan_out) / 2), strict=True))[self.fan]
        return self.gain / math.sqrt(max(1, fan))

    def scaled(self, factor: float) -> Initializer:
        """Return the initialiser with its deviation (or constant) times `factor`."""
        return replace(self, gain=self.gain * factor)

    def draw(
        self, shape: tuple[int, ...], *, seed: int, name: str, dtype: Any = np.float32, layout: str | None = None
    ) -> Array:
        """Return a whole tensor."""
        rule = self if layout is None else replace(self, layout=layout)
        flat = rule.run(shape, 0, math.prod(shape), seed=seed, name=name, dtype=dtype)
        return flat.reshape(shape)

    def run(self, shape: tuple[int, ...], start: int, stop: int, *, seed: int, name: str, dtype: Any) -> Array:
        """Return elements `start` to `stop`, flat, of the tensor `name` of `shape`.

        Computed in float32 (float64 for a float64 result) and rounded once. An orthogonal tensor is made whole.
        """
        work = np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)
        if self.distribution == "constant":
            return np.full(stop - start, self.gain, dtype)
        if self.distribution == "orthogonal":
            return _orthogonal(self, shape, seed, name).reshape(-1)[start:stop].astype(dtype)
        make, std = _SEGMENTS[self.distribution], self.std(shape)
        out = np.empty(stop - start, dtype)
        for part in parts(start, stop):
            values = make(Numbers(seed, name).generator(part.segment), work, self)[part.first : part.last]
            values *= std
            out[part.at : part.at + values.size] = values
        return out


def _normal(rng: np.random.Generator, dtype: Any, rule: Initializer) -> Array:
    return rng.standard_normal(SEGMENT, dtype)


def _uniform(rng: np.random.Generator, dtype: Any, rule: Initializer) -> Array:
    """Return numbers of deviation 1, from -sqrt(3) to sqrt(3)."""
    values = rng.random(SEGMENT, dtype)
    values -= 0.5
    values *= math.sqrt(12)
    return values


def _truncated(rng: np.random.Generator, dtype: Any, rule: Initializer) -> Array:
    """Return normal numbers, drawn again until they lie within the cut."""
    values = rng.standard_normal(SEGMENT, dtype)
    while (out := np.flatnonzero(np.abs(values) > rule.cut)).size:
        values[out] = rng.standard_normal(out.size, dtype)
    return values


_SEGMENTS: Mapping[str, Callable[[np.random.Generator, Any, Initializer], Array]] = {
    "normal": _normal,
    "uniform": _uniform,
    "truncated_normal": _truncated,
}


def _orthogonal(rule: Initializer, shape: tuple[int, ...], seed: int, name: str) -> Array:
    """Return a matrix with orthonormal rows or columns, times the gain, uniform among all (Haar).

    References
    ----------
    Saxe, McClelland and Ganguli, arXiv:1312.6120; Mezzadri, arXiv:math-ph/0609050, for the signs.
    """
    if len(shape) < 2:
        raise SpecError(f"a tensor of shape {shape} has no orthogonal matrix", expected="two axes or more")
    split = 1 if rule.layout == "torch" else len(shape) - 1
    rows, columns = math.prod(shape[:split]), math.prod(shape[split:])
    normal = Initializer("normal").run((rows, columns), 0, rows * columns, seed=seed, name=name, dtype=np.float64)
    matrix = normal.reshape(rows, columns)
    q, r = np.linalg.qr(matrix if rows >= columns else matrix.T)
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (rule.gain * (q if rows >= columns else q.T)).reshape(shape)


def xavier_normal(gain: float = 1.0, layout: str = "torch") -> Initializer:
    """Return a normal of deviation ``gain * sqrt(2 / (fan_in + fan_out))`` (Glorot and Bengio, AISTATS 2010)."""
    return Initializer("normal", "fan_avg", gain, layout)


def xavier_uniform(gain: float = 1.0, layout: str = "torch") -> Initializer:
    """Return a uniform of the same deviation: bounds ``gain * sqrt(6 / (fan_in + fan_out))``."""
    return Initializer("uniform", "fan_avg", gain, layout)


def he_normal(gain: float = math.sqrt(2), layout: str = "torch", fan: str = "fan_in") -> Initializer:
    """Return a normal of deviation ``gain / sqrt(fan_in)``, for ReLU by default (He et al., arXiv:1502.01852)."""
    return Initializer("normal", fan, gain, layout)


def he_uniform(gain: float = math.sqrt(2), layout: str = "torch", fan: str = "fan_in") -> Initializer:
    """Return a uniform of the same deviation: bounds ``gain * sqrt(3 / fan_in)``."""
    return Initializer("uniform", fan, gain, layout)


def lecun_normal(layout: str = "torch") -> Initializer:
    """Return a normal of deviation ``1 / sqrt(fan_in)`` (LeCun et al., Efficient BackProp, 1998)."""
    return Initializer("normal", "fan_in", 1.0, layout)


def lecun_uniform(layout: str = "torch") -> Initializer:
    """Return a uniform of the same deviation: bounds ``sqrt(3 / fan_in)``."""
    return Initializer("uniform", "fan_in", 1.0, layout)


def normal(std: float = 0.02) -> Initializer:
    """Return a normal of deviation `std`."""
    return Initializer("normal", None, std)


def uniform(bound: float) -> Initializer:
    """Return a uniform from -bound to bound."""
    return Initializer("uniform", None, bound / math.sqrt(3))


def truncated_normal(std: float = 0.02, cut: float = 2.0) -> Initializer:
    """Return a normal of deviation `std` before it is cut at ``cut * std`` (BERT: 0.02 and 2)."""
    if not cut > 0.1:
        raise SpecError(f"a normal cut at {cut} deviations", expected="a number above 0.1")
    return Initializer("truncated_normal", None, std, cut=cut)


def orthogonal(gain: float = 1.0, layout: str = "torch") -> Initializer:
    """Return orthonormal rows (or columns, where there are more rows), times `gain`."""
    return Initializer("orthogonal", None, gain, layout)


def constant(value: float) -> Initializer:
    """Return one value everywhere."""
    return Initializer("constant", None, value)


def zeros() -> Initializer:
    """Return zeros."""
    return constant(0.0)


def depth_scaled(initializer: Initializer, n_layers: int, branches: int = 2) -> Initializer:
    """Return it divided by ``sqrt(branches * n_layers)``, for the last weight of each residual branch, as in GPT-2."""
    ranges.counts("the depth", 1, n_layers=n_layers, branches=branches)
    return initializer.scaled(1 / math.sqrt(branches * n_layers))


INITIALIZERS: Mapping[str, Callable[..., Initializer]] = {
    f.__name__: f
    for f in (
        xavier_normal,
        xavier_uniform,
        he_normal,
        he_uniform,
        lecun_normal,
        lecun_uniform,
        normal,
        uniform,
        truncated_normal,
        orthogonal,
        constant,
        zeros,
    )
}
"""By name, for the command line and for heads."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A reader of values that are drawn when they are read; frozen and picklable."""

    initializer: Initializer
    shape: tuple[int, ...]
    dtype: DType
    seed: int
    name: str

    @property
    def granularity(self) -> int:
        whole = self.initializer.distribution == "orthogonal"
        return max(1, math.prod(self.shape)) if whole else self.dtype.pack

    @property
    def element_bytes(self) -> int:
        """What an element under way takes: an orthogonal matrix is float64, and decomposed whole."""
        return 48 if self.initializer.distribution == "orthogonal" else 8

    def __call__(self, start: int, stop: int) -> Array:
        rule = self.initializer
        return rule.run(self.shape, start, stop, seed=self.seed, name=self.name, dtype=self.dtype.numpy)


def initialized(
    tensor_map: TensorMap, choose: Callable[[str, Spec], Initializer | None], *, seed: int = 0
) -> TensorMap:
    """Return the map with tensors that are drawn when they are written, in blocks.

    Parameters
    ----------
    choose
        From a tensor's name and spec to its initialiser; None leaves the tensor as it is.
    seed
        With a tensor's name it determines its values.

    Raises
    ------
    SpecError
        The initialiser does not fit the tensor: no fan, or integers.
    """
    tensors = {name: _drawn(name, tensor, choose(name, tensor.spec), seed) for name, tensor in tensor_map.items()}
    return TensorMap(tensors, tensor_map.metadata, tensor_map.aliases, tensor_map.origin)


def _drawn(name: str, tensor: Tensor, rule: Initializer | None, seed: int) -> Tensor:
    if rule is None:
        return tensor
    if not tensor.dtype.is_float and rule.distribution != "constant":
        raise SpecError(f"random values for {tensor.dtype}", subject=name, expected="a floating dtype")
    if len(tensor.shape) < 2 and (rule.fan or rule.distribution == "orthogonal"):
        raise SpecError(
            f"shape {tensor.shape} has no fan",
            subject=name,
            expected="two axes or more",
            remedy="use zeros() or normal()",
        )
    spec = Spec(tensor.dtype, tensor.shape)
    return Tensor(spec, Drawn(rule, tensor.shape, tensor.dtype, seed, name))
