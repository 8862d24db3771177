"""What tensors a family's models have, and what config.json says of their shapes: one table a family.

A row of it is a name (``{}`` stands for a number), which of weight and bias it has, the axes, and when it is there.
`weighttools.families.models` holds the tables; this module reads them and answers for a configuration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]
Length = Callable[[Config], int | None]
"""The length of an axis; None where the configuration does not tell."""
Condition = Callable[[Config], bool | None]
"""Whether tensors are there: True, they must be; False, nothing reads them; None, both are well."""


class Expected(NamedTuple):
    """What a family says of a tensor.

    Parameters
    ----------
    lengths
        Of its axes, in order.
    when
        Whether it is there.
    reason
        What in the configuration decides that; empty where nothing does.
    """

    lengths: tuple[Length, ...]
    when: Condition
    reason: str = ""


class TensorTable:
    """The tensors of a family of models, by their names without prefix, each number in a name as ``{}``.

    Parameters
    ----------
    anchor
        A tensor that every whole model has; what precedes it in a file's name is the prefix.
    body, heads
        The tensors of the model, and of what may stand on it: tables, as `rows` takes them apart when they are asked
        for.
    sizes, conditions
        What the tables call lengths, and when tensors are there.
    counts
        Of each ``{}`` in a layer's name, the entry that says how many there are; their default, 0 for none.
    whole_heads
        The entries of a length and of heads that must divide it, if any.
    """

    def __init__(
        self,
        anchor: str,
        body: str,
        heads: str,
        sizes: Mapping[str, Length],
        conditions: Mapping[str, Condition],
        counts: tuple[tuple[str, int], ...] = (("num_hidden_layers", 0),),
        whole_heads: tuple[str, str] | None = None,
    ) -> None:
        self.anchor, self.counts, self.whole_heads = anchor, counts, whole_heads
        self._tables, self._words = (body, heads), (sizes, conditions)

    @functools.cached_property
    def body(self) -> Mapping[str, Expected]:
        """The tensors of the model."""
        return rows(self._tables[0], *self._words)

    @functools.cached_property
    def heads(self) -> Mapping[str, Expected]:
        """The tensors of what may stand on it."""
        return rows(self._tables[1], *self._words)

    def n_layers(self, place: int, config: Config) -> int | None:
        """Return how many layers the configuration says that there are."""
        key, default = self.counts[place]
        return number(config, key) or default or None


def number(config: Config, *keys: str) -> int | None:
    """Return the first of a configuration's entries that is there, if it is a whole number above 0 of 64 bits."""
    value = next((config[key] for key in keys if config.get(key) is not None), None)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else None


_MOST = 1 << 63


def entry(*keys: str, default: int | None = None) -> Length:
    """Return a length that an entry of the configuration gives; `default` where none is there."""

    def length(config: Config) -> int | None:
        is_there = any(config.get(key) is not None for key in keys)
        return number(config, *keys) if is_there else default

    return length


def product(*parts: Length | int) -> Length:
    """Return a length that is the product of others."""

    def length(config: Config) -> int | None:
        found = 1
        for part in parts:
            one = part if isinstance(part, int) else part(config)
            if one is None:
                return None
            found *= one
        return found

    return length


def flag(key: str, default: bool = False) -> Condition:
    """Return the condition that an entry of the configuration is true."""
    return lambda config: bool(config.get(key, default))


def always(config: Config) -> bool | None:
    """The condition of what every model of the family has."""
    return True


def maybe(config: Config) -> bool | None:
    """The condition of what some models of the family have."""
    return None


def fixed(n: int) -> Length:
    """Return a length that is the same in every model."""
    return lambda config: n


def rows(table: str, sizes: Mapping[str, Length], conditions: Mapping[str, Condition]) -> dict[str, Expected]:
    """Return the tensors that a table describes.

    Parameters
    ----------
    table
        A row a line: a name; ``w``, ``b`` or ``wb`` for its weight, bias or both, ``-`` for the name alone; the axes,
        by names of `sizes` or as numbers; after a colon, when it is there: ``?`` for perhaps, a name of `conditions`,
        else an entry of the configuration that must be true. A bias has the first axis only.
    """
    found: dict[str, Expected] = {}
    for line in filter(None, map(str.strip, table.splitlines())):
        row, _, word = map(str.strip, line.partition(":"))
        name, parts, *axes = row.split()
        lengths = tuple(fixed(int(axis)) if axis.isdigit() else sizes[axis] for axis in axes)
        when = {"": always, "?": maybe}.get(word) or conditions.get(word) or flag(word)
        reason = word if word not in ("", "?") else ""
        ends = {"w": (".weight", lengths), "b": (".bias", lengths[:1]), "-": ("", lengths)}
        found |= {name + ends[part][0]: Expected(ends[part][1], when, reason) for part in parts}
    return found
