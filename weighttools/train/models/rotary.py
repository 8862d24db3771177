"""Rotary positions as config.json states them: the frequencies, and how they are stretched for longer contexts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.errors import SpecError, UnsupportedError
from weighttools.train.autograd.gradients import Array
from weighttools.train.ops import concat, rope

_NUMBERS = {
    "attention_factor", "beta_fast", "beta_slow", "factor", "high_freq_factor", "low_freq_factor", "mscale",
    "mscale_all_dim", "original_max_position_embeddings", "partial_rotary_factor", "rope_theta",
}  # fmt: skip

PARTIAL = ("phi3",)
"""Models of whose heads a part alone turns where config.json says so; by ``model_type``."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all of Llama 3 are stretched by, but for ``factor``."""

Frequencies = Callable[[Array, Mapping[str, Any]], Array]


@dataclass(frozen=True, slots=True)
class Rotary:
    """Angles of positions.

    Parameters
    ----------
    frequencies
        float64, (half of what is rotated of a head,): the angle between neighbouring positions.
    factor
        What cosines and sines are multiplied by (YaRN).
    """

    frequencies: Array
    factor: float = 1.0

    def tables(self, positions: Any, dtype: Any) -> tuple[Array, Array]:
        """Return cosines and sines, each (positions, len(frequencies))."""
        angles = np.asarray(positions)[:, None] * self.frequencies
        return (np.cos(angles) * self.factor).astype(dtype), (np.sin(angles) * self.factor).astype(dtype)


def rotated(x: Any, tables: tuple[Array, Array]) -> Any:
    """Return heads (..., positions, n_heads, size) turned by their positions' angles, the first part of each if fewer.

    References
    ----------
    Su et al., RoFormer, arXiv:2104.09864, in the order of halves that Hugging Face files use.
    """
    cos, sin = tables
    size = 2 * cos.shape[1]
    if size == x.shape[-1]:
        return rope(x, cos=cos, sin=sin)
    return concat(rope(x[..., :size], cos=cos, sin=sin), x[..., size:], axis=-1)


def plain(theta: float, size: int) -> Array:
    """Return ``theta ** (-2 i / size)`` for the pairs of a head of `size`."""
    found: Array = theta ** -(np.arange(0, size, 2) / size)
    return found


def rotary(parameters: Mapping[str, Any], head_size: int, theta: float = 1e4) -> Rotary:
    """Return the angles that config.json's ``rope_parameters`` (``rope_theta`` with ``rope_scaling``) ask for.

    Raises
    ------
    UnsupportedError
        A kind of scaling that is not known here.
    SpecError
        A number that the kind needs is missing, or not above 0.
    """
    parameters = _checked(parameters)
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    size = int(head_size * (parameters.get("partial_rotary_factor") or 1))
    before = plain(float(parameters.get("rope_theta") or theta), size)
    if not isinstance(kind, str) or kind not in SCALED:
        raise UnsupportedError(f"rope_type is {kind!r}", expected="default, linear, llama3 or yarn")
    try:
        return Rotary(SCALED[kind](before, parameters), _yarn_factor(parameters) if kind == "yarn" else 1.0)
    except KeyError as error:
        raise SpecError(f"the scaling of rotary positions {kind!r} lacks {error}", subject="config.json") from None


def _checked(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters that are not null, once the numbers among them are seen to be numbers above 0."""
    known = {key: value for key, value in parameters.items() if value is not None}
    for key in _NUMBERS & known.keys():
        value = known[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise SpecError(f"{key} is {value!r}", subject="config.json", expected="a number above 0")
    return known


def _linear(frequencies: Array, o: Mapping[str, Any]) -> Array:
    found: Array = frequencies / o["factor"]
    return found


def _divided(frequencies: Array, o: Mapping[str, Any]) -> Array:
    """Divide by a number a frequency: what GGUF stores in place of Llama 3's rule."""
    said = o["divisors"]
    if not _is_divisors(said) or len(said) != len(frequencies):
        raise SpecError("the divisors of rotary frequencies do not fit", expected=f"{len(frequencies)} numbers above 0")
    found: Array = frequencies / np.asarray(said, np.float64)
    return found


def _llama3(frequencies: Array, o: Mapping[str, Any]) -> Array:
    """Stretch what turns seldom within the original context, keep what turns often, and go smoothly between."""
    low, high = o["low_freq_factor"], o["high_freq_factor"]
    if not low < high:
        raise SpecError(f"low_freq_factor is {low}, high_freq_factor {high}", subject="config.json")
    turns = o["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    found: Array = frequencies * (kept + (1 - kept) / o["factor"])
    return found


def llama3_of(divisors: Sequence[float], theta: Any) -> dict[str, Any]:
    """Return the ``rope_parameters`` of Llama 3's rule that give these divisors; nothing where no such rule does.

    Parameters
    ----------
    divisors
        One for each frequency, (head size / 2,), as GGUF stores them in float32.
    theta
        The base of the frequencies, ``rope_theta``.
    """
    if not _is_divisors(divisors) or not isinstance(theta, (int, float)) or not 1 < theta < 1e12:
        return {}
    rule = {"rope_type": "llama3", "factor": round(max(divisors), 4), **_LLAMA3}
    before = plain(float(theta), 2 * len(divisors))
    return rule if np.allclose(before / _llama3(before, rule), divisors, rtol=1e-5, atol=0) else {}


def _is_divisors(said: Any) -> bool:
    return isinstance(said, list) and bool(said) and all(isinstance(n, (int, float)) and 0 < n < 1e12 for n in said)


def _yarn(frequencies: Array, o: Mapping[str, Any]) -> Array:
    """Peng et al., YaRN, arXiv:2309.00071, section 3.2."""
    n, size = len(frequencies), 2 * len(frequencies)
    theta = float(o.get("rope_theta") or 1e4)

    def pair(n_turns: float) -> float:
        return size * math.log(o["original_max_position_embeddings"] / (n_turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(o.get("beta_fast") or 32), pair(o.get("beta_slow") or 1)
    if o.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(n) - low) / (high - low or 0.001), 0, 1)
    found: Array = frequencies * (1 - ramp + ramp / o["factor"])
    return found


def _yarn_factor(o: Mapping[str, Any]) -> float:
    def growth(m: float) -> float:
        return 0.1 * m * math.log(o["factor"]) + 1 if o["factor"] > 1 else 1.0

    if o.get("attention_factor") is not None:
        return float(o["attention_factor"])
    both = o.get("mscale"), o.get("mscale_all_dim")
    return growth(both[0]) / growth(both[1]) if both[0] and both[1] else growth(1)


SCALED: Mapping[str, Frequencies] = {
    "default": lambda frequencies, o: frequencies,
    "divided": _divided,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
"""By config.json's ``rope_type``."""
