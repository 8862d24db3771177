"""Which names stand for which tensor, once some are given anew: ties kept, parted or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError, few


class Tied(NamedTuple):
    """Tensors by name, and second names of some."""

    tensors: Mapping[str, Any]
    aliases: Mapping[str, str]

    def homes(self, side: int) -> dict[str, tuple[int, str]]:
        """Return whose tensor each name is: the side that has it, and the name that it is stored by there."""
        return {name: (side, self.aliases.get(name, name)) for name in (*self.tensors, *self.aliases)}


class United(NamedTuple):
    """What comes of two; and what is to be said: second names that changed too, and such as are tied no longer."""

    tensors: dict[str, Any]
    aliases: dict[str, str]
    followed: list[tuple[str, str]]
    parted: list[tuple[str, str]]

    def notes(self) -> list[str]:
        """Say what became of ties."""
        followed = few([f"{alias!r} (tied to {kept!r})" for alias, kept in self.followed])
        parted = few([f"{alias!r} and {kept!r}" for alias, kept in self.parted])
        return [
            *([f"changed too, as a second name of what was assigned: {followed}"] if self.followed else []),
            *([f"no longer tied, because each was assigned a tensor of its own: {parted}"] if self.parted else []),
        ]


def united(old: Tied, new: Tied) -> United:
    """Give the names of `new` its tensors, and leave all others as they are in `old`.

    Names keep their places; those that are new, or become tensors of their own, come last. A second name follows the
    one that it is tied to unless it is given a tensor itself.

    Raises
    ------
    SpecError
        A second name is given a tensor, and the name that it is tied to is not: one of them would change unasked.
    """
    given = new.homes(1)
    for alias, kept in old.aliases.items():
        if alias in given and kept not in given:
            raise SpecError(
                f"tensor {alias!r} is tied to {kept!r}, which is not assigned",
                remedy=f"assign {kept!r}, and both change; or untie({alias!r}) first, and it changes alone",
                code="tied",
            )
    homes = {**old.homes(0), **given}
    followed = [(alias, kept) for alias, kept in old.aliases.items() if alias not in given and kept in given]
    homes.update((alias, homes[kept]) for alias, kept in followed)
    stored = _stored(homes, [*old.tensors])
    sides = (old.tensors, new.tensors)
    tensors = {name: sides[home[0]][home[1]] for name, home in homes.items() if stored[home] == name}
    aliases = {name: stored[home] for name, home in homes.items() if stored[home] != name}
    parted = [(alias, kept) for alias, kept in old.aliases.items() if homes[alias] != homes[kept]]
    return United(tensors, aliases, followed, parted)


def _stored(homes: Mapping[str, tuple[int, str]], before: Iterable[str]) -> dict[tuple[int, str], str]:
    """Return the name that each tensor is stored by: one that was stored before, if there is one."""
    before, everyone = list(before), list(homes)
    own = [name for name in before if homes[name][1] == name]
    found: dict[tuple[int, str], str] = {}
    for name in (*own, *before, *(name for name in everyone if homes[name][1] == name), *everyone):
        found.setdefault(homes[name], name)
    return found


def ties_given(given: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the ties that hold on among what is given: names that were tied and are given one object."""
    return {alias: kept for alias, kept in aliases.items() if alias in given and given[alias] is given.get(kept)}


def tensors_of(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Tensor]:
    """Return what a user gives for tensors as such, by name."""
    found: dict[str, Tensor] = {}
    for name, value in values.items() if isinstance(values, Mapping) else values:
        if not isinstance(name, str):
            raise SpecError(f"{name!r} cannot be the name of a tensor", expected="a string")
        try:
            found[name] = value if isinstance(value, Tensor) else Tensor.from_array(value)
        except SpecError as error:
            raise error.about(repr(name)) from None
    return found
