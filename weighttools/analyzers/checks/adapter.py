"""A LoRA adapter against the base it is for.

Source: peft, ``tuners/lora/layer.py``: a module of weight (out, in, …) has factors A (r, in, …) and B (out, r, …); an
embedding of weight (n, dim) has lora_embedding_A (r, n) and lora_embedding_B (dim, r).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from weighttools.core.findings import ERROR, Finding
from weighttools.core.tensormap import TensorMap

_FACTOR = re.compile(r"(?P<module>.+?)\.lora_(?P<kind>|embedding_)(?P<side>A|B)(?:\.(?!weight$)[^.]+)?(?:\.weight)?")
_WRAPPERS = ("base_model.model.", "base_model.")
Shape = tuple[int, ...]
Pair = dict[str, tuple[str, Shape]]


def check(adapter: TensorMap, base: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each pair of factors that fits no weight of the base, or not each other."""
    weights = dict(zip(base, (spec.shape for spec in base.specs()), strict=True))
    weights |= {alias: weights[kept] for alias, kept in base.aliases.items() if kept in weights}
    for module, pair in pairs(adapter).items():
        name = _target(module, weights)
        if name is None:
            told = f"the adapter changes {module!r}, which the base has not"
            yield Finding(ERROR, "adapter-target", told, next(iter(pair.values()))[0])
        elif set(pair) == {"A", "B"}:
            yield from _fits(pair, name, weights[name])
        else:
            [(side, (tensor, _))] = pair.items()
            yield Finding(ERROR, "adapter-shape", f"{tensor!r} is factor {side} without the other", tensor)


def pairs(adapter: TensorMap) -> dict[str, Pair]:
    """Return the factors of each module: side to name and shape; an embedding's are turned to a matrix's."""
    found: dict[str, Pair] = {}
    for name, spec in zip(adapter, adapter.specs(), strict=True):
        match = _FACTOR.fullmatch(name)
        if match:
            found.setdefault(match["module"], {})[match["side"]] = name, spec.shape
    return found


def _target(module: str, weights: Mapping[str, Shape]) -> str | None:
    """Return the base's weight of a module, whatever of the usual wrappers is in its name."""
    stems = [module, *(module.removeprefix(wrapper) for wrapper in _WRAPPERS if module.startswith(wrapper))]
    stems += [stem.removeprefix("model.") for stem in stems if stem.startswith("model.")]
    for stem in reversed(stems):
        for name in (f"{stem}.weight", f"model.{stem}.weight", stem):
            if name in weights:
                return name
    return None


def _fits(pair: Pair, name: str, weight: Shape) -> Iterator[Finding]:
    (a_name, a), (b_name, b) = pair["A"], pair["B"]
    told = f"{a_name!r} is {_text(a)}, {b_name!r} {_text(b)}"
    if len(a) < 2 or len(b) < 2 or a[0] != b[1]:
        yield Finding(ERROR, "adapter-shape", f"{told}: they have no common rank", a_name)
    elif {(b[0], a[1])}.isdisjoint(_sides(weight)):
        yield Finding(ERROR, "adapter-shape", f"{told}, which do not fit {name!r} of {_text(weight)}", a_name)


def _sides(weight: Shape) -> set[Shape]:
    """Return (out, in) as a weight may mean it: also transposed, as GPT-2's and embeddings' are."""
    return {weight[:2], weight[1::-1]} if len(weight) > 1 else set()


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "scalar"
