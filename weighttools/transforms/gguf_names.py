"""Translating names between GGUF and Hugging Face, with the changes of layout that the names stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, brief, few
from weighttools.families.gguf.names import ARCHITECTURES, DERIVED, FAMILIES, ArchitectureNames
from weighttools.families.gguf.rope import divisors
from weighttools.families.gguf.settings import flattened, lacking, plain_settings, settings_of, unsaid
from weighttools.families.gguf.special import carried_tokenizer
from weighttools.families.gguf.tokenizer_json import has_tokenizer
from weighttools.io.beside import CONFIGURATIONS, LEAVES
from weighttools.io.home import Home, home_of
from weighttools.transforms.gguf_layout import full, heads, is_full, shifted, transposed

ARCHITECTURE = "general.architecture"
_SUFFIX = re.compile(r"\.(weight|bias)\Z")
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_NUMBER = re.compile(r"-?\d{1,18}(\.\d+)?(e[-+]?\d{1,3})?")

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GGUFModel:
    """An architecture's name, what is known of it, and its settings by GGUF's keys, without its name before them."""

    name: str
    family: ArchitectureNames
    settings: Settings

    def n_heads(self, which: str, layer: int) -> int:
        """Return the number of heads of the q or k projection of a layer.

        Raises
        ------
        SpecError
            The settings do not say.
        """
        n_heads = self.settings.get("attention.head_count")
        found = self.settings.get("attention.head_count_kv", n_heads) if which == "k" else n_heads
        if isinstance(found, Sequence) and not isinstance(found, str) and layer < len(found):
            found = found[layer]
        if not isinstance(found, int):
            raise SpecError(
                f"the number of attention heads is not known, and {self.name} needs it for q and k",
                remedy="put the model's config.json beside its weights",
            )
        return int(found)


def translate(to: str) -> Transform:
    """Return a transform that gives names, and layout, of another library.

    Parameters
    ----------
    to
        ``"hf"``, from GGUF's names, or ``"gguf"``, from Hugging Face's.

    Raises
    ------
    SpecError
        The architecture is not known, or a tensor has no name there.
    """
    directions = {"hf": to_hugging_face, "gguf": to_gguf}
    if to not in directions:
        raise SpecError(f"names cannot be translated to {to!r}", expected=f"one of {', '.join(directions)}")
    return directions[to]


def to_hugging_face(tensor_map: TensorMap) -> TensorMap:
    """Give GGUF's tensors the names and the layout of Hugging Face's classes."""
    model = _model(tensor_map, to_gguf=False)
    table = {theirs: ours for ours, theirs in model.family.pairs}
    kept, dropped = _parted(tensor_map, DERIVED)
    renamed = {name: _renamed(name, table, model) for name in kept}
    tensors = {new: _changed(kept[old], old, model, to_gguf=False) for old, new in renamed.items()}
    aliases = _head(model.family, tensors)
    metadata = {"format": "pt", **tensor_map.metadata}
    found, home = _finished(tensor_map, tensors, aliases, metadata, dropped), home_of(tensor_map.origin)
    notes = home.not_taken(CONFIGURATIONS) if home else []
    return found.noted(*notes) if notes else found


def to_gguf(tensor_map: TensorMap) -> TensorMap:
    """Give tensors of Hugging Face's classes the names and the layout that GGUF has for them.

    The settings that GGUF keeps as metadata are taken from the config.json beside the weights, and the tokenizer from
    the files there. Norms, biases and tables of positions become float32, for llama.cpp reads no other.
    """
    model = _model(tensor_map, to_gguf=True)
    kept, dropped = _parted(tensor_map, model.family.derived)
    plain = {_unwrapped(name, model.family): tensor for name, tensor in kept.items()}
    if len(plain) != len(kept):
        raise SpecError("two tensors would have one name without their prefixes", remedy="choose one model with -i")
    renamed = {name: _renamed(name, dict(model.family.pairs), model) for name in plain}
    tensors = {new: _changed(plain[old], new, model, to_gguf=True) for old, new in renamed.items()}
    if model.name in ("gemma", "gemma2") and "output.weight" in tensors:
        del tensors["output.weight"]
        dropped.append("lm_head.weight")  # these are tied always, and llama.cpp wants it left out
    head = model.family.head or ("", "")
    aliases = {a: k for a, k in tensor_map.aliases.items() if _unwrapped(a, model.family) != head[0]}
    metadata, notes = _gguf_metadata(tensor_map, model, tensors.get("token_embd.weight"))
    tensors = {name: full(tensor) if is_full(name, tensor) else tensor for name, tensor in tensors.items()}
    tensors |= _divisor_tensors(tensor_map, model)
    found = _finished(tensor_map, tensors, aliases, metadata, dropped)
    return found.noted(*notes) if notes else found


def _finished(
    old: TensorMap, tensors: dict[str, Tensor], aliases: dict[str, str], metadata: dict[str, Any], dropped: list[str]
) -> TensorMap:
    found = old.replace(tensors=tensors, metadata=metadata, aliases=aliases)
    return (
        found.noted(f"left out, as the other side derives it or has no place for it: {', '.join(dropped)}")
        if dropped
        else found
    )


def _parted(tensor_map: TensorMap, derived: tuple[str, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """Part what is translated from what is not stored on the other side."""
    pattern = re.compile("|".join(derived))
    dropped = [name for name in tensor_map if pattern.fullmatch(name)]
    return {name: tensor for name, tensor in tensor_map.items() if name not in set(dropped)}, dropped


def _head(family: ArchitectureNames, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the tie that GGUF says by leaving out the output layer."""
    if family.head is None or family.head[0] in tensors or family.head[1] not in tensors:
        return {}
    return {family.head[0]: family.head[1]}


def _renamed(name: str, table: Mapping[str, str], model: GGUFModel) -> str:
    suffix = _SUFFIX.search(name)
    stem = name[: suffix.start()] if suffix else name
    layer = _LAYER.search(stem)
    pattern = table.get(_LAYER.sub("{}", stem, count=1))
    if pattern is None or suffix is None:
        raise SpecError(
            f"tensor {name!r} has no known translation for {model.name}",
            remedy="leave it out with -x, or keep the names",
        )
    return pattern.format(layer[0] if layer else "") + suffix[0]


def _unwrapped(name: str, family: ArchitectureNames) -> str:
    """Return a name without what an outer class puts before it, and with what an inner one leaves off."""
    for prefix, instead in family.wrappers:
        if name.startswith(prefix):
            return instead + name[len(prefix) :]
    return name


def _changed(tensor: Tensor, name: str, model: GGUFModel, *, to_gguf: bool) -> Tensor:
    """Change a tensor, known by GGUF's name, to the layout of the other side."""
    stem = _SUFFIX.sub("", name).rpartition(".")[2]
    change = model.family.changes
    if name.endswith("norm.weight") and "norm" in change:
        return shifted(tensor, 1 if to_gguf else -1)
    kind = change.get(stem)
    if kind == "transpose":
        return transposed(tensor, name) if name.endswith(".weight") else tensor
    if kind is None:
        return tensor
    layer = _LAYER.search(name)
    return heads(tensor, model.n_heads(kind, int(layer[0]) if layer else 0), name, interleave=to_gguf)


def _model(tensor_map: TensorMap, *, to_gguf: bool) -> GGUFModel:
    """Find out the architecture and its settings: by the metadata, else by the config.json beside the weights.

    Where a whole directory is given, its config.json comes before what a file's metadata say.
    """
    home = home_of(tensor_map.origin)
    config = _config(home)
    said = tensor_map.metadata.get(ARCHITECTURE) or ARCHITECTURES.get(str(config.get("model_type")))
    family = FAMILIES.get(str(said))
    if family is None:
        what = said or config.get("model_type")
        why = f": config.json is {LEAVES}" if home and home.is_elsewhere("config.json") else ""
        raise SpecError(
            f"the architecture {brief(repr(what), 60)} has no table of names"
            if what
            else f"the architecture is not known{why}",
            subject=tensor_map.origin.path or None,
            expected=f"one of {', '.join(FAMILIES)}",
            remedy="put the model's config.json beside its weights" if not what else None,
        )
    prefix = f"{said}."
    own = {key.removeprefix(prefix): _typed(v) for key, v in tensor_map.metadata.items() if key.startswith(prefix)}
    theirs = settings_of(config, str(said)) if to_gguf else plain_settings(config)
    is_whole = home is not None and home.is_whole
    return GGUFModel(str(said), family, {**own, **theirs} if is_whole else {**theirs, **own})


def _config(home: Home | None) -> Mapping[str, Any]:
    return (home.read_json("config.json") or {}) if home else {}


def _typed(value: Any) -> Any:
    """Return a setting that went through text-only metadata as the number it was."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return value
    return int(value) if value.lstrip("-").isdigit() else float(value)


def _gguf_metadata(
    tensor_map: TensorMap, model: GGUFModel, embedding: Tensor | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata, and what llama.cpp will miss in them."""
    home = home_of(tensor_map.origin)
    own = {f"{model.name}.{key}": value for key, value in model.settings.items()}
    rest = {key: value for key, value in tensor_map.metadata.items() if key != "format"}
    n_rows = embedding.shape[0] if embedding is not None and embedding.shape else 0
    tokenizer, other = carried_tokenizer(home, _config(home), n_rows) if home and n_rows else ({}, [])
    if tokenizer:
        rest = {key: value for key, value in rest.items() if not key.startswith("tokenizer.")}
    name = home.name if home and home.is_whole else ""
    general = {"general.type": "model", "general.name": name} if name else {}
    missing = lacking(model.settings, model.name)
    notes = [*(home.not_taken() if home else []), *unsaid(_config(home), model.name)]
    notes += [f"llama.cpp will not run it without {few(missing)}: config.json does not say"] if missing else []
    if not tokenizer and not has_tokenizer(rest):
        notes.append("llama.cpp will not run it without a tokenizer: there is no tokenizer.json beside the weights")
    return {ARCHITECTURE: model.name, **general, **rest, **own, **tokenizer}, [*notes, *other]


def _divisor_tensors(tensor_map: TensorMap, model: GGUFModel) -> dict[str, Tensor]:
    """Return the tensors that stand in GGUF for a rule of config.json."""
    config = flattened(_config(home_of(tensor_map.origin)))
    if "rope.freq_base" not in model.settings:
        return {}
    import numpy as np

    found = {name: np.array(values, np.float32) for name, values in divisors(config, model.settings).items()}
    return dict(TensorMap.from_arrays(found))
