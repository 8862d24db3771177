"""Which parameters decay, and at what rate each learns: rules by name and shape, and a way to print them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

from weighttools.errors import counted, few
from weighttools.train.tape import Array

Rule = Callable[[str, Array], bool]

_BIAS = re.compile(r"(?:\w+_)?bias(?:es)?|bias_\w+|(?:beta|gamma)(?:_?\d+)?|b\d*")
"""What a tensor's own name is, if it is a bias or a norm's scale."""
_NORM = re.compile(
    r"(?:\w+_)?(?:\w*norm|normali[sz]ation|ln|bn|gn)(?:s|\d+[a-z]?)?(?:_(?!(?:head|proj|linear|dense|fc|conv|net))\w+)?"
)
_TABLE = re.compile(
    r"(?!\w*patch)(?:(?:\w+_)?(?:embed(?:ding)?s?|embd|emb)|embed_(?:tokens|positions|in)(?:_\w+)?|wte|wpe|shared"
    r"|token_types|(?:\w+_)?(?:embedding|bias)_table|relative_(?:attention|position)_bias|(?:cls|mask|dist)_token)"
    r"(?:_?\d+)?"
)
"""A module, or an array of its own, that is looked up; a patch embedding is a convolution."""
_KERAS = re.compile(r"/vars/\d+$|:\d+$")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LAYER = re.compile(r"(?:^|[._/])(?:layers?|h|blocks?|blk|transformer)[._/](\d+)[._/]")
_BELOW = re.compile(
    r"(?:^|[./])(?:(?:\w+_)?(?:embed(?:ding)?s?|embd|emb|wte|wpe)(?:_(?!out\b)\w+)?|shared|token_types|(?:cls|mask|dist)_token)(?:[./]|$)",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(?:^|[._/])(?:lm_head|classifier|score|head|output|embed_out|unembed)(?:[._/]weight)?$")


def decays(name: str, array: Array) -> bool:
    """Whether weight decay applies: not to norms, biases and embeddings by name, nor to anything with one axis.

    The name's last part decides, and the module directly around it: ``patch_embed.proj.weight`` is a projection. An
    adapter's factors decay, whatever the module that they are for is called.

    >>> import numpy as np
    >>> [decays(n, np.zeros((2, 2))) for n in ("fc.weight", "h.0.ln_1.weight", "wte.weight", "experts.bias")]
    [True, False, False, False]
    """
    return array.ndim > 1 and (".lora_" in name or not _is_exempt(name))


@functools.lru_cache(1 << 16)  # asked for each parameter at each step
def _is_exempt(name: str) -> bool:
    own, module = _ends(name)
    return any(rule.fullmatch(own) for rule in (_BIAS, _NORM, _TABLE)) or any(
        rule.fullmatch(module) for rule in (_NORM, _TABLE)
    )


def _ends(name: str) -> tuple[str, str]:
    """Return what a tensor and the module directly around it are called, in lower case, with words parted by ``_``.

    A number after a plural names one of several modules of that name; after a singular, a part of one module.
    """
    *path, own = re.split(r"[./]", _CAMEL.sub("_", _KERAS.sub("", name)).lower())
    if own.isdigit() and path:
        own = path.pop()
    if path and path[-1].isdigit():
        path.pop()
        path = path if path and path[-1].endswith("s") else []
    return own, path[-1] if path else ""


def is_hidden_matrix(name: str, array: Array) -> bool:
    """Whether a parameter is a matrix between hidden layers: neither an embedding nor an output head."""
    return array.ndim == 2 and decays(name, array) and not _HEAD.search(name)


def layerwise(names: Iterable[str], decay: float = 0.9) -> dict[str, float]:
    """Return each parameter's share of the learning rate: ``decay ** (layers above it)``.

    Embeddings lie below layer 0; what has no layer number (heads, final norms) gets the full rate.

    >>> layerwise(["embeddings.word.weight", "layer.0.fc.weight", "layer.1.fc.weight", "head.weight"], 0.5)
    {'embeddings.word.weight': 0.125, 'layer.0.fc.weight': 0.25, 'layer.1.fc.weight': 0.5, 'head.weight': 1.0}
    """
    known = list(names)
    numbers = {n: int(m[1]) for n in known if (m := _LAYER.search(n))}
    top = max(numbers.values(), default=-1) + 1
    depths = {n: numbers.get(n, -1 if _BELOW.search(n) else top) for n in known}
    return {n: float(decay ** (top - depth)) for n, depth in depths.items()}


def describe(params: Mapping[str, Array], held_small: str, rule: Rule, rates: Mapping[str, float]) -> str:
    """Return the groups as lines to print before training: decay, learning-rate share, counts, examples.

    Parameters
    ----------
    held_small
        What is done to the parameters that `rule` names, in words: ``"decay 0.01, L1 0.001"``.
    rates
        Each parameter's share of the learning rate; 1 where it is not named.
    """
    groups: dict[tuple[str, float], list[str]] = {}
    for name, array in params.items():
        key = (held_small if rule(name, array) else "decay 0", rates.get(name, 1.0))
        groups.setdefault(key, []).append(name)
    lines = []
    for (words, rate), names in groups.items():
        n = sum(params[name].size for name in names)
        count = f"{counted(len(names), 'tensor')}, {counted(n, 'parameter')}"
        lines.append(f"{words}, rate x {rate:g}: {count} ({few(names, 3)})")
    return "\n".join(lines)
