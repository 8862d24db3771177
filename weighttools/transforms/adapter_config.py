"""What an adapter_config.json of plain LoRA may say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from weighttools.errors import CorruptFileError, UnsupportedError

_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
"""Entries of adapter_config.json that are used here, or that do not change what the factors mean."""
_MOVES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Initialisations after which the base is no longer the file's: the factors alone do not tell the change."""
_MAX_RANK = 1 << 31


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _are_names(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, list) and all(type(v) is str for v in value))


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MAX_RANK


def listed(value: Any) -> list[Any]:
    """Return a list, or one of the value alone."""
    return value if isinstance(value, list) else [value]


_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "lora_alpha": (is_number, "a number"),
    "r": (_is_rank, "a whole number of 1 or more"),
    "rank_pattern": (
        lambda v: v is None or (isinstance(v, dict) and all(map(_is_rank, v.values()))),
        "a table of ranks",
    ),
    "use_rslora": (lambda v: v is None or isinstance(v, bool), "true or false"),
    "fan_in_fan_out": (lambda v: v is None or isinstance(v, bool), "true or false"),
    "layers_to_transform": (lambda v: v is None or all(type(n) is int for n in listed(v)), "layers' numbers"),
    "lora_dropout": (lambda v: v is None or (is_number(v) and 0 <= v < 1), "a number from 0, below 1"),
    "alpha_pattern": (lambda v: v is None or isinstance(v, dict), "a table"),
    "target_modules": (_are_names, "names"),
    "modules_to_save": (_are_names, "names"),
}
"""What entries that are used must be."""


def check_config(config: Mapping[str, Any], subject: str) -> None:
    """Refuse an adapter_config.json that is not of plain LoRA, or whose entries are of a wrong type.

    Raises
    ------
    UnsupportedError
        It is of another kind.
    CorruptFileError
        An entry is not what it must be.
    """
    kind, init = config.get("peft_type", "LORA"), str(config.get("init_lora_weights", True)).lower()
    if kind != "LORA":
        raise UnsupportedError(f"is an adapter of type {kind!r}", subject=subject, expected="'LORA'")
    odd = [key for key, value in config.items() if value and key not in _HARMLESS]
    if odd:
        raise UnsupportedError(f"asks for {', '.join(odd)}, which is not plain LoRA", subject=subject)
    for key, (fits, expected) in _TYPES.items():
        if key in config and not fits(config[key]):
            raise CorruptFileError(f"{key} is {_shown(config[key])}", subject=subject, expected=expected)
    if "lora_alpha" not in config:
        raise CorruptFileError("has no lora_alpha", subject=subject, expected="a number")
    if init.startswith(_MOVES_BASE):
        raise UnsupportedError(
            f"was begun by {init!r}, which moves the base's weights too",
            subject=subject,
            remedy="save it as plain LoRA: peft's save_pretrained(path_initial_model_for_weight_conversion=…)",
        )


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
