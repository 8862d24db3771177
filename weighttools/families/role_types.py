"""What is said of a tensor, its role and the evidence for it, and what that is read from: a name among others."""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum
from typing import NamedTuple

Beside = Container[str]
"""The names of a map, in which a tensor's neighbours are looked up; for a family, its words."""


class Role(StrEnum):
    """What a tensor is for; training may change the first five, and they alone are counted as parameters."""

    WEIGHT = "weight"
    NORM = "norm"
    BIAS = "bias"
    EMBEDDING = "embedding"
    HEAD = "head"
    BUFFER = "buffer"
    STATISTIC = "running statistic"
    VECTOR = "spectral norm's vector"
    MASK = "mask"
    SCALE = "quantisation scale"
    STATE = "training state"

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter of the model."""
        return self in _PARAMETERS


_PARAMETERS = frozenset({Role.WEIGHT, Role.NORM, Role.BIAS, Role.EMBEDDING, Role.HEAD})


class Told(NamedTuple):
    """A role, and the evidence for it in a few words."""

    role: Role
    why: str

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter of the model."""
        return self.role.is_parameter


class NameParts(NamedTuple):
    """A name taken apart: what comes before the last part, with its separator, and that part without ``:0``."""

    name: str
    stem: str
    leaf: str
    beside: Beside | None

    @classmethod
    def of(cls, name: str, beside: Beside | None) -> NameParts:
        cut = max(name.rfind("."), name.rfind("/")) + 1
        return cls(name, name[:cut], name[cut:].partition(":")[0], beside)

    def has(self, *leaves: str) -> bool:
        """Whether one of these stands beside it."""
        return self.beside is not None and any(
            self.stem + leaf in self.beside or f"{self.stem}{leaf}:0" in self.beside for leaf in leaves
        )
