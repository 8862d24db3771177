"""What a checkpoint is (adapter, optimizer state, shard, …), and the evidence for saying so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from weighttools.analyzers.alike import TensorFamily
from weighttools.analyzers.configuration import read_beside
from weighttools.core.tensormap import Origin
from weighttools.errors import WeighttoolsError
from weighttools.families.role_types import Role

_LORA = ("lora_A", "lora_B", "lora_down", "lora_up", "lora_embedding_", "lora_magnitude", ".lora.", "hada_w", "lokr_w")
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.\w+$")

Finding = tuple[str, list[str]]
Families = Sequence[TensorFamily]


def kind(found: Families, origin: Origin) -> Finding:
    """Return the kind and the evidence, each a short line."""
    config = _configuration(origin)
    for rule in _RULES:
        finding = rule(found, origin, config)
        if finding:
            return finding
    return "checkpoint", _architecture(config)


def _configuration(origin: Origin) -> Mapping[str, Any]:
    """Read the configuration beside the weights, adapter's first; anything wrong with it is not our subject here."""
    for name in ("adapter_config.json", "config.json"):
        try:
            found = read_beside(origin, name)
        except WeighttoolsError:
            return {}
        if found is not None:
            return found
    return {}


def _architecture(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return [f"config.json: {', '.join(names)}"]
    return []


def _with(found: Families, parts: Iterable[str]) -> int:
    """Count the tensors whose names hold any of `parts`."""
    return sum(family.n_tensors for family in found if any(part in family.words for part in parts))


def _of_role(found: Families, role: Role) -> int:
    return sum(family.n_tensors for family in found if family.aside is not None and family.aside.role is role)


def _all(found: Families) -> int:
    return sum(family.n_tensors for family in found)


def _empty(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    return None if found else ("empty", ["no tensor in it"])


def _adapter(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    n = _with(found, _LORA)
    if not n:
        return None
    evidence = [f"{n:,} of {_all(found):,} names are LoRA factors"]
    if "peft_type" in config:
        rank, alpha = config.get("r"), config.get("lora_alpha")
        evidence.append(f"adapter_config.json: {config['peft_type']}, r={rank}, alpha={alpha}")
    return "LoRA adapter", evidence


def _optimizer(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    n = _of_role(found, Role.STATE)
    if not n:
        return None
    evidence = [f"{n:,} of {_all(found):,} names are training state: an optimizer's or a callback's"]
    return ("optimizer state" if n == _all(found) else "training state"), evidence


def _shard(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    numbered = _SHARD.search(origin.path)
    if not numbered or len(origin.files) > 1:
        return None
    return "shard", [f"named {int(numbered[1])} of {int(numbered[2])}; give the directory for the whole checkpoint"]


def _quantized(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    from weighttools.families.packed import recognise

    packed = recognise(((family.words, family.spec) for family in found), {}, origin)
    told = (f"packed as {packed.title}, counted as stored", packed.says) if packed else ()
    evidence = [text for text in told if text]
    scales = _of_role(found, Role.SCALE)
    if scales and not packed:
        evidence.append(f"{scales:,} names are quantisation scales")
    blocks = sorted({family.spec.encoding for family in found if family.spec.is_quantized})
    if blocks:
        n = sum(family.n_tensors for family in found if family.spec.is_quantized)
        evidence.append(f"{n:,} tensors are {', '.join(blocks)} blocks (counted as the weights they encode)")
    if not evidence:
        return None
    return "quantized checkpoint" + _sharded(origin), evidence + _architecture(config)


def _set(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    n = len(origin.files)
    if n < 2:
        return None
    return "checkpoint" + _sharded(origin), _architecture(config)


def _sharded(origin: Origin) -> str:
    n = len(origin.files)
    return f" in {n:,} shards" if n > 1 else ""


def _array(found: Families, origin: Origin, config: Mapping[str, Any]) -> Finding | None:
    return ("array", ["an NPY file holds one"]) if origin.format == "npy" else None


_RULES: tuple[Callable[[Families, Origin, Mapping[str, Any]], Finding | None], ...] = (
    _empty,
    _array,
    _adapter,
    _optimizer,
    _shard,
    _quantized,
    _set,
)
