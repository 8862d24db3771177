"""A LoRA adapter against the base it is for.

Source: peft, ``tuners/lora/layer.py``: a module of weight (out, in, …) has factors A (r, in, …) and B (out, r, …); an
embedding of weight (n, dim) has lora_embedding_A (r, n) and lora_embedding_B (dim, r); a convolution of g groups has B
(out, r / g, …); a parameter of E experts (E, in, out) has A (r E, in) and B (out, r E), or turned. Layouts of others
are told, and not held against the base.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError, counted, few
from weighttools.families.module_tables import ModuleTable
from weighttools.io.home import home_of

_FACTOR = re.compile(
    r"(?P<module>.+?)\.lora_(?P<kind>|embedding_)(?P<side>A|B)(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
)
CONFIG = "adapter_config.json"
_WRAPPERS = ("base_model.model.", "base_model.")
_COMPONENTS = re.compile(r"(?:unet|transformer|text_encoder(?:_\d)?|prior|diffusion_model)\.")
"""What diffusers and ComfyUI put before the names of a pipeline's parts."""
LAYOUTS: Mapping[str, re.Pattern[str]] = {
    "LyCORIS's LoHa": re.compile(r".*\.hada_[wt]\d"),
    "LyCORIS's LoKr": re.compile(r".*\.lokr_[wt]\d"),
    "kohya's LoRA": re.compile(r".*\.lora_(?:down|up|mid)\b|lora_\w+\.alpha$"),
    "early diffusers' LoRA": re.compile(r".*(?:_|\.)lora\.(?:down|up)\."),
    "whole differences": re.compile(r".*\.(?:diff|diff_b|w_norm|b_norm)$"),
    "IA3": re.compile(r".*\.ia3_l"),
    "OFT": re.compile(r".*\.(?:oft|boft)_"),
    "VeRA": re.compile(r".*\.vera_lambda_"),
}
"""Adapters whose names or formulas are not peft's LoRA, by a part of their names."""
_PARTS: Mapping[str, re.Pattern[str]] = {
    "DoRA's magnitudes": re.compile(r".*\.(?:lora_magnitude_vector|dora_scale)\b"),
    "biases of factors": re.compile(r".*\.lora_(?:embedding_)?[AB]\.(?:\w+\.)?bias$"),
    "token adapters": re.compile(r".*\.token_adapter\."),
    "alphas": re.compile(r".*\.alpha$"),
}
_DEPTH = 8
Shape = tuple[int, ...]
Pair = dict[str, tuple[str, Shape]]


def check(adapter: TensorMap, base: TensorMap) -> Iterator[Finding]:
    """Yield a finding for factors that fit no weight of the base, or not each other, and for what is not looked at."""
    weights = dict(zip(base, (spec.shape for spec in base.specs()), strict=True))
    weights |= {alias: weights[kept] for alias, kept in base.aliases.items() if kept in weights}
    found, ends = pairs(adapter), None
    foreign = []
    for module, pair in found.items():
        name = _target(module, weights)
        if name is None and _COMPONENTS.match(module):
            ends = _ends(weights) if ends is None else ends
            name = ends.get(module.partition(".")[2])
            if name is None:
                foreign += [tensor for tensor, _ in pair.values()]
                continue
        yield from _of_module(module, pair, name, weights)
    yield from _of_config(adapter, found)
    factors = {tensor for pair in found.values() for tensor, _ in pair.values()}
    yield from _whole(adapter, factors, weights)
    yield from _unchecked(
        foreign, [name for name in adapter if name not in factors], n_checked=len(factors) - len(foreign)
    )


def pairs(adapter: TensorMap) -> dict[str, Pair]:
    """Return the factors of each module: side to name and shape; an embedding's are turned to a matrix's."""
    found: dict[str, Pair] = {}
    for name, spec in zip(adapter, adapter.specs(), strict=True):
        match = _FACTOR.fullmatch(name)
        if match:
            found.setdefault(match["module"], {})[match["side"]] = name, spec.shape
    return found


def layouts(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names that are of a layout other than peft's, by what it is called."""
    return _by(LAYOUTS, names)


def n_groups(a: Shape, b: Shape, weight: Shape) -> int:
    """Return the groups of a grouped convolution whose weight (out, in / groups, …) factors are for; 1 for none."""
    if len(weight) < 3 or len(a) != len(weight) or len(b) != len(weight) or not b[1] or a[0] % b[1]:
        return 1
    groups = a[0] // b[1]
    return groups if (b[0], a[1], *a[2:]) == (weight[0], weight[1] * groups, *weight[2:]) else 1


def _by(table: Mapping[str, re.Pattern[str]], names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kind = next((kind for kind, pattern in table.items() if pattern.match(name)), None)
        if kind is not None:
            found[kind].append(name)
    return found


def _of_module(module: str, pair: Pair, name: str | None, weights: Mapping[str, Shape]) -> Iterator[Finding]:
    if name is None and (experts := _experts(module, weights)):
        yield from _fits_experts(module, pair, experts)
    elif name is None:
        told = f"the adapter changes {module!r}, which the base does not have"
        yield Finding(ERROR, "adapter-target", told, next(iter(pair.values()))[0])
    elif set(pair) == {"A", "B"}:
        yield from _fits(pair, name, weights[name])
    else:
        yield from _alone(pair)


def _of_config(adapter: TensorMap, found: Mapping[str, Pair]) -> Iterator[Finding]:
    """Yield findings for modules whose factors have another rank than adapter_config.json says, or if it is missing."""
    home = home_of(adapter.origin)
    ours = {module: pair for module, pair in found.items() if module.startswith(_WRAPPERS)}
    if not ours or home is None:
        return
    path = home.path_of(CONFIG)
    try:
        config = home.read_json(CONFIG)
        if config is None:
            fact = f"there is no {CONFIG} beside the adapter: nothing tells its scale, lora_alpha / r, nor loads it"
            yield Finding(WARNING, "adapter-config", fact)
        elif config.get("peft_type", "LORA") == "LORA":
            yield from _ranks(ours, config, path)
    except WeighttoolsError as error:
        yield Finding(WARNING, "broken-config", str(error))


def _ranks(found: Mapping[str, Pair], config: Mapping[str, Any], path: str) -> Iterator[Finding]:
    told, own = config.get("r"), config.get("rank_pattern")
    table = ModuleTable(own if isinstance(own, dict) else None, "rank_pattern", path)
    wrong: dict[tuple[int, Any], list[str]] = defaultdict(list)
    for module, pair in found.items():
        if set(pair) != {"A", "B"} or config.get("target_parameters"):  # of experts, whose factors lie together
            continue
        (name, a), (_, b) = pair["A"], pair["B"]
        wanted = table.of(module.removeprefix(_WRAPPERS[0]).removeprefix(_WRAPPERS[1]), told)
        if type(wanted) is int and len(a) > 1 and len(b) > 1 and a[0] != wanted:
            wrong[a[0], wanted].append(name)
    for (rank, wanted), names in wrong.items():
        fact = f"{CONFIG} says r = {wanted}, and the factors of {counted(len(names), 'module')} have rank {rank}"
        yield Finding(ERROR, "adapter-rank", f"{fact}: {few(names, 2)}", names[0])


def _alone(pair: Pair) -> Iterator[Finding]:
    [(side, (tensor, _))] = pair.items()
    yield Finding(ERROR, "adapter-shape", f"{tensor!r} is factor {side} without the other", tensor)


def _stems(module: str) -> Iterator[str]:
    """Yield a module's name without what usual wrappers put before it, shortest first."""
    stems = [module, *(module.removeprefix(wrapper) for wrapper in _WRAPPERS if module.startswith(wrapper))]
    stems += [stem.removeprefix("model.") for stem in stems if stem.startswith("model.")]
    return reversed(stems)


def _target(module: str, weights: Mapping[str, Shape]) -> str | None:
    """Return the base's weight of a module, whatever of the usual wrappers is in its name."""
    names = (name for stem in _stems(module) for name in (f"{stem}.weight", f"model.{stem}.weight", stem))
    return next((name for name in names if name in weights), None)


def _ends(weights: Mapping[str, Shape]) -> dict[str, str | None]:
    """Return the base's weights by the ends of their modules' names; None for an end that several have."""
    found: dict[str, str | None] = {}
    for name in weights:
        parts = name.removesuffix(".weight").rsplit(".", _DEPTH)
        for k in range(len(parts)):
            end = ".".join(parts[k:])
            found[end] = None if end in found else name
    return found


def _experts(module: str, weights: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the parameters of three axes that a module has itself, as fused experts have: peft's target_parameters."""
    while module.endswith(".base_layer"):  # of several parameters of a module
        module = module.removesuffix(".base_layer")
    homes = {home for stem in _stems(module) for home in (stem, f"model.{stem}")}
    return {n: shape for n, shape in weights.items() if len(shape) == 3 and n.rpartition(".")[0] in homes}


def _fits_experts(module: str, pair: Pair, experts: Mapping[str, Shape]) -> Iterator[Finding]:
    if set(pair) != {"A", "B"}:
        yield from _alone(pair)
        return
    (a_name, a), (b_name, b) = pair["A"], pair["B"]
    named = ", ".join(f"{name!r} ({_text(shape)})" for name, shape in list(experts.items())[:4])
    fits = [
        name for name, (n, *sides) in experts.items()
        if len(a) == len(b) == 2 and n and a[0] == b[1] and not a[0] % n and sorted((a[1], b[0])) == sorted(sides)
    ]  # fmt: skip
    if not fits:
        told = f"{a_name!r} is {_text(a)}, {b_name!r} {_text(b)}, which do not fit {named} of {module!r}"
        yield Finding(ERROR, "adapter-shape", told, a_name)
    elif len(fits) > 1:
        names = " and ".join(map(repr, fits))
        told = f"{a_name!r} is of a parameter with three axes: it fits {names}, and target_parameters says which"
        yield Finding(NOTE, "adapter-unchecked", told, a_name)


def _fits(pair: Pair, name: str, weight: Shape) -> Iterator[Finding]:
    (a_name, a), (b_name, b) = pair["A"], pair["B"]
    told = f"{a_name!r} is {_text(a)}, {b_name!r} {_text(b)}"
    if (groups := n_groups(a, b, weight)) > 1:
        yield Finding(NOTE, "adapter-grouped", f"{name!r} is a convolution of {groups:,} groups", a_name)
    elif len(a) < 2 or len(b) < 2 or a[0] != b[1]:
        yield Finding(ERROR, "adapter-shape", f"{told}: they have no common rank", a_name)
    elif {(b[0], a[1])}.isdisjoint(_sides(weight)):
        yield Finding(ERROR, "adapter-shape", f"{told}, which do not fit {name!r} of {_text(weight)}", a_name)


def _whole(adapter: TensorMap, factors: set[str], weights: Mapping[str, Shape]) -> Iterator[Finding]:
    """Yield a finding for each tensor that takes the place of the base's and is of another shape."""
    for name, spec in zip(adapter, adapter.specs(), strict=True):
        if name in factors:
            continue
        bare = re.sub(r"\.base_layer(?=\.)|\.modules_to_save(?:\.default)?(?=\.)", "", name)
        theirs = next((weights[stem] for stem in _stems(bare) if stem in weights), spec.shape)
        if theirs != spec.shape:
            told = f"{name!r} is {_text(spec.shape)} and takes the place of the base's {_text(theirs)}"
            yield Finding(ERROR, "adapter-shape", told, name)


def _unchecked(foreign: list[str], rest: list[str], n_checked: int) -> Iterator[Finding]:
    """Yield a finding for each kind of tensors that was not held against the base."""
    kinds = {"diffusers' LoRA": foreign} if foreign else {}
    kinds |= _by(LAYOUTS, rest)
    for kind, names in kinds.items():
        told = f"{counted(len(names), 'tensor')} of {kind} not held against the base: {few(names, 2)}"
        yield Finding(WARNING, "adapter-unchecked", told, names[0])
    told_of = {name for names in kinds.values() for name in names}
    others = [name for name in rest if name not in told_of]
    for kind, names in _by(_PARTS, others).items():
        told = f"{counted(len(names), 'tensor')} not held against the base, {kind}: {few(names, 2)}"
        yield Finding(NOTE, "adapter-unchecked", told, names[0])
    if not n_checked and not kinds:
        yield Finding(WARNING, "adapter-unchecked", "no LoRA factors are in it: nothing was held against the base")


def _sides(weight: Shape) -> set[Shape]:
    """Return (out, in) as a weight may mean it: also transposed, as GPT-2's and embeddings' are."""
    return {weight[:2], weight[1::-1]} if len(weight) > 1 else set()


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "scalar"
