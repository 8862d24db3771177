"""What kind of parameter a tensor is: a weight, a norm, a bias, an embedding, a head; and whether it decays.

The name's last part decides, and the module directly around it: ``patch_embed.proj.weight`` is a projection. An
adapter's factors are weights, whatever the module that they are for is called.
"""

from __future__ import annotations

import functools
import re

from weighttools.families.role_types import Beside, NameParts, Role, Told

MAGNITUDE = re.compile(r"(?P<of>.+)_g$")
PARAMETRIZED = re.compile(r"[.]parametrizations[.](?P<of>\w+)[.]original(?P<number>\d*)$")
DORA = re.compile(r"(?:^|[./])(?:lora_magnitude_vector(?:[./]\w+)*|dora_scale)$")
FACTOR = re.compile(r"\.lora_|(?:^|[./_])(?:lora|hada|lokr)_")

BIAS = re.compile(r"(?:\w+_)?bias(?:es)?|bias_\w+|beta(?:_?\d+)?|b\d*")
"""What a tensor's own name is, if it is a bias."""

SCALE = re.compile(r"gamma(?:_?\d+)?|(?:\w+_)?(?:logit|layer|residual|skip)_scale\w*|scale|lambda(?:_?\d+)?")
"""What a tensor's own name is, if it is a norm's scale, or one that is learned like it."""

NORM = re.compile(
    r"(?:\w+_)?(?:\w*norm|normali[sz]ation|ln|bn|gn|rms)(?:s|\d+[a-z]?)?(?:_(?!(?:head|proj|linear|dense|fc|conv|net))\w+)?"
)

TABLE = re.compile(
    r"(?!\w*patch|bbox_embed|class_embed(?:_?\d+)?$)"
    r"(?:(?:\w+_)?(?:embed(?:ding)?s?|embd|embs?)|embed_(?:tokens|positions|in)(?:_\w+)?|wte|wpe|shared"
    r"|token_types|(?:\w+_)?(?:embedding|bias)_table|relative_(?:attention|position)_bias|rel_pos_[hw]"
    r"|(?:\w+_)?(?:cls|class|mask|dist|reg|register|query|storage|prompt)_tokens?|pos(?:itional|ition)?_encoding)"
    r"(?:_?\d+)?"
)
"""A module, or an array of its own, that is looked up; a patch embedding is a convolution."""

HEAD = re.compile(
    r"(?:\w+_)?(?:lm_head|classification_head|classifier|qa_outputs)|score|heads?|output|embed_out|unembed|logits"
)
HEAD_INSIDE = re.compile(r"out_proj|decoder")
"""The last layer of a head that has several."""
HEAD_AROUND = re.compile(r"lm_head|classification_head|classifier|predictions|cls")

BELOW = re.compile(
    r"(?:^|[./])(?:(?:\w+_)?(?:embed(?:ding)?s?|embd|emb|wte|wpe)(?:_(?!out\b)\w+)?|shared|token_types|(?:cls|mask|dist)_token)(?:[./]|$)",
    re.IGNORECASE,
)
"""Modules that lie below a model's first layer: its embeddings, and what normalises or projects them."""

KERAS_NUMBERED = re.compile(r"/vars/\d+$")
KERAS_END = re.compile(r"/vars/\d+$|:\d+$")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def decays(name: str, shape: tuple[int, ...], beside: Beside | None = None) -> bool:
    """Whether weight decay applies to a parameter: not to norms, biases, embeddings, nor to anything with one axis."""
    return len(shape) > 1 and parameter(name, shape, beside).role in (Role.WEIGHT, Role.HEAD)


def parameter(name: str, shape: tuple[int, ...], beside: Beside | None = None) -> Told:
    """Say what kind of parameter a tensor is; `roles.aside` has said that it is one.

    Parameters
    ----------
    name, shape
        The tensor's.
    beside
        As for `roles.tell_role`.
    """
    return _alone(name, shape) if beside is None else _kind(name, shape, beside)


@functools.lru_cache(1 << 16)  # asked for each parameter at each step of a training
def _alone(name: str, shape: tuple[int, ...]) -> Told:
    return _kind(name, shape, None)


def _kind(name: str, shape: tuple[int, ...], beside: Beside | None) -> Told:
    parametrized = PARAMETRIZED.search(name)
    if parametrized:
        return _parametrized(name, shape, parametrized, beside)
    at = NameParts.of(name, beside)
    magnitude = MAGNITUDE.fullmatch(at.leaf)
    if magnitude and (at.has(f"{magnitude['of']}_v") if beside is not None else at.leaf == "weight_g"):
        return Told(Role.NORM, f"weight norm's magnitude of {magnitude['of']!r}")
    own = at.leaf.removesuffix("_orig")
    if own.endswith("_v") and at.has(f"{own[:-2]}_g"):
        own = own[:-2]
    return _named(at.stem + own if own != at.leaf else name)


def _parametrized(name: str, shape: tuple[int, ...], found: re.Match[str], beside: Beside | None) -> Told:
    """``parametrizations.weight.original``: what the parametrised tensor is; of weight norm the first is g."""
    begin = name[: found.start("number")]
    is_magnitude = found["number"] == "0" and sum(n != 1 for n in shape) <= 1
    if is_magnitude and (beside is None or f"{begin}1" in beside):
        return Told(Role.NORM, f"weight norm's magnitude of {found['of']!r}")
    return _named(f"{name[: found.start()]}.{found['of']}")


def _named(name: str) -> Told:
    if DORA.search(name):
        return Told(Role.NORM, "DoRA's magnitude")
    if FACTOR.search(name):
        return Told(Role.WEIGHT, "an adapter's factor")
    own, module, around = _ends(name)
    rules = (
        (Role.BIAS, BIAS, (own,)),
        (Role.NORM, SCALE, (own,)),
        (Role.NORM, NORM, (own, module)),
        (Role.EMBEDDING, TABLE, (own, module)),
        (Role.HEAD, HEAD, (module,)),
    )
    for role, pattern, parts in rules:
        if said := next((part for part in parts if pattern.fullmatch(part)), None):
            return Told(role, f"it is called {said}" if said == own else f"its module is called {said}")
    if HEAD_INSIDE.fullmatch(module) and HEAD_AROUND.fullmatch(around):
        return Told(Role.HEAD, f"{module} of a module called {around}")
    return Told(Role.WEIGHT, f"nothing in {f'{module}.{own}' if module else own or name} says otherwise")


def _ends(name: str) -> tuple[str, str, str]:
    """Return what a tensor, the module directly around it, and the one around that are called.

    In lower case, with words parted by ``_``. A number after a plural names one of several modules of that name; after
    a singular, a part of one module. Around a numbered variable of Keras there is its layer, and no module.
    """
    is_numbered = KERAS_NUMBERED.search(name) is not None
    *path, own = re.split(r"[./]", CAMEL.sub("_", KERAS_END.sub("", name)).lower())
    if own.isdigit() and path:
        own = path.pop()
    if path and path[-1].isdigit():
        path.pop()
        path = path if path and path[-1].endswith("s") else []
    if is_numbered:
        path = []
    return own, path[-1] if path else "", path[-2] if len(path) > 1 else ""
