"""Names taken apart: which module a tensor belongs to, and what it is called there.

Keras's files name a layer more than once (``model_weights/dense_1/sequential/dense_1/kernel``), or by its class and a
number (``layers/dense/vars/0``): here it has the name that the model gives it, once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from weighttools.core.tensormap import TensorMap
from weighttools.formats.hdf5 import keras_layout
from weighttools.transforms import layout_tables as tables

COLLECTIONS = ("params", "batch_stats")
"""Flax's, which come first in a path."""


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor's name taken apart: the parts of its module's path, and what it is called there."""

    name: str
    module: tuple[str, ...]
    leaf: str

    @classmethod
    def of(cls, name: str, framework: str) -> Named:
        """Take a framework's name apart; Flax's collections and Keras's ``:0`` are no part of it."""
        plain = name[:-2] if framework == "keras" and name.endswith(":0") else name
        parts = plain.split(tables.SEPARATORS[framework])
        if framework == "flax" and len(parts) > 1 and parts[0] in COLLECTIONS:
            parts = parts[1:]
        return cls(name, tuple(parts[:-1]), parts[-1])

    @property
    def layer(self) -> str:
        """The module's own name, in lower case; of numbered ones (``layers.0``) it says nothing."""
        return self.module[-1].lower() if self.module else ""


def names_of(tensor_map: TensorMap, framework: str) -> dict[str, Named]:
    """Take the names of a map apart, aliases too."""
    named = {name: Named.of(name, framework) for name in (*tensor_map, *tensor_map.aliases)}
    return _once(_with_variables(named), tensor_map) if framework == "keras" else named


def _with_variables(named: Mapping[str, Named]) -> dict[str, Named]:
    """Give Keras 3's numbered variables the names that the class of their layer gives them, where it has all of them.

    A layer without a bias has one variable less; of a normalisation that lacks some it cannot be told which.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, one in named.items():
        if one.module[-1:] == ("vars",) and one.leaf.isdecimal():
            groups.setdefault(one.module, []).append(name)
    found = dict(named)
    for module, names in groups.items():
        kind = re.sub(r"_\d+$", "", module[-2]) if len(module) > 1 else ""
        leaves = tables.KERAS_VARIABLES.get(kind, ())
        if len(names) == len(leaves) or (leaves[:1] == ("kernel",) and len(names) == 1):
            by_number = sorted(names, key=lambda name: int(named[name].leaf))
            found |= {name: Named(name, module[:-1], leaf) for name, leaf in zip(by_number, leaves, strict=False)}
    return found


def _once(named: Mapping[str, Named], tensor_map: TensorMap) -> dict[str, Named]:
    """Give modules the names of their layers, once, where two tensors do not then have one name."""
    own = keras_layout.names_of(tensor_map) or {}
    groups = keras_layout.groups_of(tensor_map)
    short = {name: replace(one, module=_module(one, own, groups)) for name, one in named.items()}
    seen = Counter((one.module, one.leaf) for one in short.values())
    return {name: one if seen[one.module, one.leaf] == 1 else named[name] for name, one in short.items()}


def _module(named: Named, own: Mapping[str, str], groups: Set[str]) -> tuple[str, ...]:
    path = named.name.split("/")
    group = next((g for at in range(len(path) - 1, 0, -1) if (g := "/".join(path[:at])) in groups), None)
    if group is None:
        return tuple(_by_layer(named.module, own)) if own else named.module
    layer = tuple(group.split("/"))
    inside = named.module[len(layer) :]
    if layer[0] == keras_layout.MODEL:
        layer = layer[1:]
    again = [at for at, part in enumerate(inside) if re.fullmatch(rf"{re.escape(layer[-1])}(_\d+)?", part)]
    return (*layer, *(inside[again[0] + 1 :] if again else inside))


def _by_layer(module: Sequence[str], own: Mapping[str, str]) -> Iterator[str]:
    """Yield the parts of a Keras 3 path, ``layers/dense`` as the layer's own name where the file tells it."""
    at = 0
    while at < len(module):
        path = "/".join(module[: at + 2])
        is_layer = module[at] == "layers" and path in own
        yield own[path] if is_layer else module[at]
        at += 2 if is_layer else 1
