"""Stretched rotary positions of config.json, as GGUF has them: metadata for most, tensors of divisors for some.

Source: llama.cpp, ``convert_hf_to_gguf.py``; transformers, ``modeling_rope_utils.py``, for the equations.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.errors import SpecError, UnsupportedError, brief

Json = Mapping[str, Any]
DIVISORS = "rope_freqs.weight"
"""A tensor that every rotary frequency is divided by: how GGUF has Llama 3's scaling."""
_MOST = 1 << 16
"""Elements of a head; known models have up to 512."""
_ALL_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all of Llama 3 are stretched by, but for ``factor``."""
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
_YARN = (("attention_factor", "attn_factor"), ("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow"))


def _rule(flat: Json) -> tuple[str, Json]:
    """Return the kind of scaling and its numbers."""
    for key in ("rope_parameters", "rope_scaling"):
        said = flat.get(key)
        said = said.get("full_attention", said) if isinstance(said, dict) else None
        if isinstance(said, dict):
            return str(said.get("rope_type") or said.get("type") or "default"), said
    return "default", {}


def scaling(flat: Json, turns_part: bool, settings: Json) -> dict[str, Any]:
    """Return the metadata of rotary positions beyond their base, by GGUF's keys.

    Parameters
    ----------
    flat
        config.json, flattened.
    turns_part
        Whether the family's heads may turn in part.
    settings
        What is known of the model, by GGUF's keys.

    Raises
    ------
    UnsupportedError
        A kind of scaling that llama.cpp does not have.
    SpecError
        A number that the kind needs is missing.
    """
    kind, rule = _rule(flat)
    size = head_size(settings)
    turned = int(size * _number(flat, "partial_rotary_factor", 1.0))
    found: dict[str, Any] = {"rope.dimension_count": turned} if turned else {}
    if turned != size and not turns_part:
        raise UnsupportedError(f"{turned} of a head's {size} elements turn", subject="config.json", expected="all")
    if kind in ("linear", "yarn"):
        found |= {"rope.scaling.type": kind, "rope.scaling.factor": float32("factor", _number(rule, "factor"))}
    if kind == "yarn":
        found |= {f"rope.scaling.{to}": float32(key, rule[key]) for key, to in _YARN if rule.get(key) is not None}
        found["rope.scaling.original_context_length"] = int(_lengths(flat, rule)[1])
    elif kind == "longrope":
        found |= _longrope(flat, rule)
    elif kind not in ("default", "linear", "llama3"):
        fact = f"rope_type is {brief(kind, 60)!r}, which llama.cpp does not have"
        raise UnsupportedError(fact, subject="config.json", expected="default, linear, llama3, longrope or yarn")
    return found


def head_size(settings: Json) -> int:
    """Return how many elements a head's queries have; 0 where that is not said."""
    size, heads = settings.get("embedding_length", 0), settings.get("attention.head_count", 0)
    found = settings.get("attention.key_length", size // heads if _is_count(size) and _is_count(heads) else 0)
    if not isinstance(found, int) or not 0 <= found <= _MOST:
        raise SpecError(
            f"heads have {brief(repr(found), 60)} elements", subject="config.json", expected=f"at most {_MOST:,}"
        )
    return int(found)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def float32(key: str, value: Any, *, above_0: bool = False) -> float:
    """Return the float32 nearest to an entry of config.json, which must be a number that one can hold.

    Parameters
    ----------
    key
        The entry's name, for messages.
    value
        What config.json says.
    above_0
        Whether it must be above 0, in float32 too.

    Raises
    ------
    SpecError
        It is no such number.
    """
    try:
        found = math.nan if isinstance(value, bool) else struct.unpack("<f", struct.pack("<f", value))[0]
    except (struct.error, OverflowError):  # no number, or one beyond the largest
        found = math.nan
    if not math.isfinite(found) or (above_0 and found <= 0):
        raise SpecError(f"{key} is {brief(repr(value), 60)}", subject="config.json",
                        expected=f"a float32 number{' above 0' * above_0}")  # fmt: skip
    return float(found)


def _number(rule: Json, key: str, default: float | None = None) -> float:
    value = rule.get(key)
    value = default if value is None else value
    if not 0 < float32(key, value, above_0=True) < 1e12:
        raise SpecError(f"{key} is {value!r}", subject="config.json", expected="at most 1e12")
    return float(value or 0)


def _lengths(flat: Json, rule: Json) -> tuple[float, float]:
    original = rule if rule.get("original_max_position_embeddings") is not None else flat
    return _number(flat, "max_position_embeddings"), _number(original, "original_max_position_embeddings")


def _longrope(flat: Json, rule: Json) -> dict[str, Any]:
    """Return what scales attention for the longer context: as transformers computes it, unless it is said."""
    longest, original = _lengths(flat, rule)
    if original <= 1:
        raise SpecError(f"original_max_position_embeddings is {original}", subject="config.json", expected="above 1")
    ratio = longest / original
    factor = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    said = rule.get("attention_factor")
    value = float32("attention_factor", factor if said is None else said)
    return {"rope.scaling.original_context_length": int(original), "rope.scaling.attn_factor": value}


def divisors(flat: Json, settings: Json) -> dict[str, list[float]]:
    """Return the tensors, by GGUF's names, that rotary frequencies are divided by; none where none are.

    Raises
    ------
    SpecError
        A number that the kind of scaling needs is missing.
    """
    kind, rule = _rule(flat)
    if kind == "llama3":
        return {DIVISORS: _llama3(rule, head_size(settings), float(settings.get("rope.freq_base", 1e4)))}
    if kind != "longrope":
        return {}
    turned = int(settings.get("rope.dimension_count", head_size(settings)))
    return {name: _factors(rule, key, turned // 2) for name, key in ((_LONG, "long_factor"), (_SHORT, "short_factor"))}


def llama3_of(divisors: Sequence[float], theta: Any) -> dict[str, Any]:
    """Return the ``rope_parameters`` of Llama 3's rule that give these divisors; nothing where no such rule does.

    Parameters
    ----------
    divisors
        One for each frequency, (head size / 2,), as GGUF stores them in float32.
    theta
        The base of the frequencies, ``rope_theta``.
    """
    is_theta = isinstance(theta, (int, float)) and 1 < theta < 1e12
    if not is_theta or not is_divisors(divisors) or not 1e-3 < max(divisors) < 1e9:
        return {}
    rule = {"rope_type": "llama3", "factor": round(max(divisors), 4), **_ALL_LLAMA3}
    made = _llama3(rule, 2 * len(divisors), float(theta))
    is_rule = all(math.isclose(ours, theirs, rel_tol=1e-5) for ours, theirs in zip(made, divisors, strict=True))
    return rule if is_rule else {}


def is_divisors(said: Any) -> bool:
    """Return whether a value is a list of numbers that rotary frequencies can be divided by."""
    return isinstance(said, list) and bool(said) and all(isinstance(n, (int, float)) and 0 < n < 1e12 for n in said)


def _factors(rule: Json, key: str, n: int) -> list[float]:
    said = rule.get(key)
    if not isinstance(said, list) or len(said) != n:
        raise SpecError(f"{key} of the rotary positions does not fit", subject="config.json", expected=f"{n} numbers")
    return [float32(key, value, above_0=True) for value in said]


def _llama3(rule: Json, size: int, theta: float) -> list[float]:
    """Stretch what turns seldom within the original context, keep what turns often, and go smoothly between."""
    factor, low, high = (_number(rule, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = _number(rule, "original_max_position_embeddings")
    if not low < high or not 0 < theta < 1e12:
        raise SpecError(
            f"low_freq_factor is {low}, high_freq_factor {high}",
            subject="config.json",
            expected="the first below the second",
        )
    found = []
    for i in range(0, size, 2):
        turns = original * theta ** (-i / size) / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append(1 / (kept + (1 - kept) / factor))
    return found
