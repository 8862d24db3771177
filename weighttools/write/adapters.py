"""Low-rank adapters as PEFT keeps them: a directory with adapter_model.safetensors and adapter_config.json.

Source: peft, ``tuners/lora/layer.py`` and ``config.py``: a module of weight (out, in, …) has factors A (r, in, …) and
B (out, r, …), and changes it by ``lora_alpha / r * B @ A``, with rsLoRA ``lora_alpha / sqrt(r) * B @ A``; an
embedding (n, size) has lora_embedding_A (r, n) and lora_embedding_B (size, r). ``rank_pattern`` and ``alpha_pattern``
give modules ranks and alphas of their own. ``modules_to_save`` are whole tensors.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weighttools.analyzers.checks.adapter import layouts, n_groups, pairs
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SourceError, SpecError, UnsupportedError, option
from weighttools.families.module_tables import ModuleTable
from weighttools.formats.opening import PathLike, located, open
from weighttools.io.beside import LEAVES
from weighttools.io.home import home_of
from weighttools.transforms.adapter_config import check_config, is_number, listed
from weighttools.transforms.low_rank import Update, all_finite, merged

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CONFIG = "adapter_config.json"
HEAD = "head_config.json"
"""What a config.json would say of the head; beside an adapter, a config.json makes transformers look for a model."""
WRAPPER = "base_model.model."
_MAX_PREFIXES = 16
_HEADS = ("classifier", "score", "qa_outputs")
"""What peft saves whole for the tasks of its Auto classes; early versions did not add it to ``modules_to_save``."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Changes of a base's weights.

    Parameters
    ----------
    updates
        By the module that they change, as peft names it, without ``base_model.model.``; `is_turned` is known only of
        embeddings until the base's shapes are.
    whole
        Tensors that take the place of the base's, by name: ``modules_to_save``, biases.
    config
        adapter_config.json.
    path
        Where it came from.
    """

    updates: Mapping[str, Update]
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter's parts by the names of a base's tensors; `added` are whole tensors that the base does not have."""

    updates: Mapping[str, Update]
    whole: Mapping[str, Tensor]
    added: Mapping[str, Tensor]


def open_adapter(path: PathLike) -> Adapter:
    """Open a LoRA adapter that peft, or `save_adapter`, has saved; only headers are read.

    Parameters
    ----------
    path
        The directory, or the weight file in it with adapter_config.json beside.

    Raises
    ------
    SourceError
        There is none.
    UnsupportedError
        It is of a kind whose factors alone do not say the change: DoRA, PiSSA, …
    CorruptFileError
        Its configuration or its tensors contradict themselves.
    """
    place = located(os.fspath(path))
    home = home_of(place)
    if home is None or not home.is_there:
        raise SourceError("does not exist", subject=path, expected=f"a directory with {WEIGHTS[0]} and {CONFIG}")
    file = next((home.path_of(n) for n in WEIGHTS if home.has(n)), None) if home.is_whole else place
    if file is None:
        raise SourceError("holds no adapter", subject=path, expected=f"{WEIGHTS[0]} and {CONFIG}")
    config = home.read_json(CONFIG)
    if config is None:
        _refuse_layout(file)
        fact = f"is {LEAVES}" if home.is_elsewhere(CONFIG) else "no such file or directory"
        raise SourceError(fact, subject=home.path_of(CONFIG))
    check_config(config, home.path_of(CONFIG))
    return _adapter(open(file), config, os.fspath(path))


def _refuse_layout(file: str) -> None:
    """Say what an adapter without configuration is, where it is of another layout than peft's."""
    kind = next(iter(layouts(open(file))), None)
    if kind is not None:
        raise UnsupportedError(f"is {kind}", subject=file, expected=f"peft's layout: {WEIGHTS[0]} beside {CONFIG}")


def _adapter(tensor_map: TensorMap, config: Mapping[str, Any], path: str) -> Adapter:
    found = pairs(tensor_map)
    if not found:
        raise UnsupportedError("holds no LoRA factors", subject=path, expected="names with lora_A and lora_B")
    factors = {name for pair in found.values() for name, _ in pair.values()}
    ranks, alphas = (ModuleTable(config.get(key), key, path) for key in ("rank_pattern", "alpha_pattern"))
    updates = {}
    for module, pair in found.items():
        if set(pair) != {"A", "B"}:
            raise CorruptFileError(f"{bare(module)!r} has one factor without the other", subject=path)
        a, b = (tensor_map[pair[side][0]] for side in "AB")
        rank = a.shape[0] if a.shape else 0
        _check_rank(rank, ranks.of(bare(module), config.get("r", rank)), bare(module), path)
        scale = _scale(config, alphas.of(bare(module), config["lora_alpha"]), rank, path)
        updates[bare(module)] = Update(a, b, scale, is_turned="lora_embedding_A" in pair["A"][0])
    _check_layers(config, updates, path)
    whole = {_whole_name(name, path): tensor_map[name] for name in tensor_map if name not in factors}
    return Adapter(updates, whole, config, path)


def _check_rank(rank: int, told: Any, module: str, path: str) -> None:
    """Refuse factors of another rank than the configuration says."""
    if rank and rank != told:
        fact = f"{module!r} has factors of rank {rank}, and {CONFIG} says r = {told}"
        raise CorruptFileError(fact, subject=path, expected="equal ranks, or the module's in rank_pattern")


def _check_layers(config: Mapping[str, Any], modules: Iterable[str], path: str) -> None:
    layers = config.get("layers_to_transform")
    wanted = set(map(str, [] if layers is None else listed(layers)))
    if wanted and not any(wanted & set(module.split(".")) for module in modules):
        fact = f"layers_to_transform is {layers!r}, and no factor is of such a layer"
        raise CorruptFileError(fact, subject=path, expected="numbers of layers that have factors")


def bare(name: str) -> str:
    """Return a name without peft's wrapper."""
    return name.removeprefix(WRAPPER).removeprefix("base_model.")


def _whole_name(name: str, path: str) -> str:
    if re.search(r"\.(?:lora_|token_adapter\.|hada_|lokr_|ia3_)", name):
        raise UnsupportedError(f"holds {name!r}, which is not plain LoRA", subject=path, expected="lora_A and lora_B")
    return re.sub(r"\.base_layer(?=\.)|\.modules_to_save(?:\.default)?(?=\.)", "", bare(name))


def _scale(config: Mapping[str, Any], alpha: Any, rank: int, path: str) -> float:
    if not is_number(alpha):
        raise CorruptFileError(f"lora_alpha is {alpha!r}", subject=path, expected="a number")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank) if rank else 0.0


def placed(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], aliases: Iterable[str] = ()) -> Placed:
    """Return an adapter's parts by the names of a base, whose prefix may be another.

    Parameters
    ----------
    shapes
        Of the base's tensors, by name.
    aliases
        Names that are tied to another: a change of one would change the other.

    Raises
    ------
    SpecError
        The adapter changes what the base does not have, or what has another shape, or what is tied.
    """
    names = {name.removesuffix(".weight"): name for name in (*shapes, *aliases)}
    change = _prefix_change(list(adapter.updates), names, adapter.path)
    targets = {names[change(module)]: update for module, update in adapter.updates.items()}
    if tied := set(targets) & set(aliases):
        raise SpecError(
            f"changes {min(tied)!r}, which is tied to another tensor",
            subject=adapter.path or None,
            remedy=f"write the base with {option('tied')} copy; in its config.json set tie_word_embeddings false",
        )
    whole = {change(name): tensor for name, tensor in adapter.whole.items()}
    for name, tensor in whole.items():
        if name in shapes and shapes[name] != tensor.shape:
            told = f"brings {name!r} of shape {tensor.shape}; the base's is {shapes[name]}"
            raise SpecError(told, subject=adapter.path or None, expected="equal shapes")
    for name, update in targets.items():
        _refuse_groups(name, update, shapes[name], adapter.path)
    turned = _turned(targets, shapes, bool(adapter.config.get("fan_in_fan_out")))
    for name, update in turned.items():
        update.check(name, shapes[name])
        _check_finite(name, update, adapter.path)
    for name in adapter.whole:
        _check_owner(name, change(name) in names.values(), adapter)
    kept = {name: tensor for name, tensor in whole.items() if name in shapes}
    return Placed(turned, kept, {name: tensor for name, tensor in whole.items() if name not in shapes})


def _refuse_groups(name: str, update: Update, shape: tuple[int, ...], path: str) -> None:
    """Refuse a grouped convolution: the change reaches from each output over the inputs of all groups."""
    groups = n_groups(update.a.shape, update.b.shape, shape)
    if groups > 1:
        fact = f"changes {name!r}, a convolution of {groups:,} groups, over all of them, which its weight cannot hold"
        raise UnsupportedError(fact, subject=path or None, remedy="use the adapter beside the base, with peft")


def _check_finite(name: str, update: Update, path: str) -> None:
    for factor, side in ((update.a, "A"), (update.b, "B")):
        if not all_finite(factor):
            fact = f"lora_{side} of {name!r} holds NaN or Inf"
            raise SpecError(fact, subject=path or None, expected="finite factors", remedy="train the adapter again")


def _check_owner(name: str, is_known: bool, adapter: Adapter) -> None:
    """Refuse a tensor that neither takes the place of the base's nor is of a module that was saved whole."""
    saved = [*_HEADS, *listed(adapter.config.get("modules_to_save") or [])]
    if not is_known and not any(not module or f".{module}." in f".{name}." for module in saved):
        raise SpecError(
            f"brings {name!r}, which is no factor, nor the base's, nor in modules_to_save",
            subject=adapter.path or None,
            remedy="name its module in modules_to_save if it is meant",
        )


def _prefix_change(modules: list[str], names: Mapping[str, str], path: str) -> Callable[[str], str]:
    """Return how a module's name becomes the base's: by a prefix dropped or added, the same for all."""
    best, missing = -1, ""
    for old, new in _prefixes(modules[0], names):
        absent = [m for m in modules if not m.startswith(old) or new + m.removeprefix(old) not in names]
        if not absent:
            return lambda name: new + name.removeprefix(old)
        if len(modules) - len(absent) > best:
            best, missing = len(modules) - len(absent), absent[0]
    raise SpecError(
        f"changes {missing!r}, which the base does not have",
        subject=path or None,
        remedy=f"is it for another base? a GGUF file's names become Hugging Face's by {option('names')} hf",
    )


def _prefixes(module: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield prefixes to take off and to put on, likeliest first."""
    yield "", ""
    parts = module.split(".", _MAX_PREFIXES)
    yield from ((".".join(parts[:k]) + ".", "") for k in range(1, len(parts)))
    ends = [name.removesuffix(module) for name in names if name.endswith("." + module)]
    yield from (("", prefix) for prefix in ends[:_MAX_PREFIXES])


def _turned(targets: Mapping[str, Update], shapes: Mapping[str, Any], flag: bool) -> dict[str, Update]:
    """Return updates that know whether their weight is stored as (in, out).

    Its shape tells, where it is not square. Square ones are as the others are, or else as ``fan_in_fan_out`` says;
    peft sets that by the last module alone.
    """
    ways = {name: _ways(update, shapes[name]) for name, update in targets.items()}
    told = {fit[0].is_turned for name, fit in ways.items() if len(fit) == 1 and not targets[name].is_turned}
    if len(told) == 2 and (square := [name for name, fit in ways.items() if len(fit) == 2]):
        fact = f"{square[0]!r} is square, and others are stored both as (out, in) and as (in, out)"
        raise SpecError(fact, expected="an adapter of one kind of modules")
    wanted = told.pop() if told else flag
    return {n: next((u for u in fit if u.is_turned == wanted), fit[0]) for n, fit in ways.items()}


def _ways(update: Update, shape: tuple[int, ...]) -> list[Update]:
    """Return the one or two ways in which an update fits a shape; the update itself if it does not."""
    ways = [replace(update, is_turned=turned) for turned in (False, True) if turned or not update.is_turned]
    return [way for way in ways if way.fits(shape)] or [update]


def beside(adapter: Adapter, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the base's config.json with what lies beside the adapter of the head: `HEAD`, or a config.json."""
    home = home_of(located(adapter.path))
    found = (home.read_json(name) for name in (HEAD, "config.json") if home)
    return {**config, **of_head(next((entries for entries in found if entries is not None), {}))}


def of_head(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json says of the head."""
    return {key: config[key] for key in _OF_HEADS if key in config}


_OF_HEADS = ("architectures", "id2label", "label2id", "num_labels", "pad_token_id", "problem_type", "weighttools")


def merge_lora(base: TensorMap, adapter: Adapter | PathLike) -> TensorMap:
    """Return the base with an adapter's changes added to its weights, lazily: each block when it is written.

    ``W + scale B A`` is computed in float64 and rounded once to the base's dtype. Whole tensors of the adapter
    (``modules_to_save``) replace the base's, in its dtype, or are added.

    Raises
    ------
    SpecError
        The adapter does not fit the base, or a weight to change is quantised.
    """
    found = adapter if isinstance(adapter, Adapter) else open_adapter(adapter)
    shapes = dict(zip(base, (spec.shape for spec in base.specs()), strict=True))
    parts = placed(found, shapes, base.aliases)
    whole = {name: _as(tensor, base[name]) for name, tensor in parts.whole.items()} | dict(parts.added)
    grown = _with_whole(base, whole) if whole else base
    report = {
        "transform": "merge-adapter", "adapter": found.path, "n_changed": len(parts.updates) + len(whole),
        "ranks": sorted({update.rank for update in parts.updates.values()}),
        "replaced": sorted(parts.whole), "added": sorted(parts.added), "names": list(parts.updates),
    }  # fmt: skip
    return merged(grown, parts.updates, report)


def _with_whole(base: TensorMap, whole: Mapping[str, Tensor]) -> TensorMap:
    """Return the base with whole tensors in it; one that was tied to another is no longer."""
    parted = [name for name in whole if name in base.aliases]
    aliases = {alias: kept for alias, kept in base.aliases.items() if alias not in whole}
    grown = base.replace(tensors={**dict(base.items()), **whole}, aliases=aliases)
    fix = "set tie_word_embeddings to false in its config.json"
    return grown.noted(f"{parted[0]} is no longer tied to {base.aliases[parted[0]]}: {fix}") if parted else grown


def _as(tensor: Tensor, like: Tensor) -> Tensor:
    from weighttools.transforms.cast import cast

    if tensor.dtype == like.dtype or not like.dtype.is_float:
        return tensor
    return cast(like.dtype)(TensorMap({"": tensor}))[""]


def save_adapter(path: PathLike, tensor_map: TensorMap, config: Mapping[str, Any], *, force: bool = False) -> None:
    """Write a directory that peft, and `open_adapter`, load: it appears whole or not at all.

    Parameters
    ----------
    tensor_map
        Factors and whole tensors by peft's names.
    config
        adapter_config.json.

    Raises
    ------
    SourceError
        The directory exists and is not empty and `force` is not given, or cannot be written.
    """
    from weighttools.formats.safetensors import format as safetensors
    from weighttools.io.directory import atomic_directory, keep_others
    from weighttools.io.sink import new_file

    with atomic_directory(path, force=force) as new:
        with new_file(new / WEIGHTS[0]) as sink:
            safetensors.write(tensor_map.replace(metadata={"format": "pt"}), sink)
        with new_file(new / CONFIG) as sink:
            sink.write((json.dumps(config, indent=2, sort_keys=True) + "\n").encode("utf-8"))
        if Path(path).is_dir():
            keep_others(Path(path), new, lambda name: name in (*WEIGHTS, CONFIG))
