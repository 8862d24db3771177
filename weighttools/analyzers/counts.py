"""Counting: parameters, buffers, training state, elements, bytes; by dtype, by module, by depth. From headers alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from weighttools.analyzers.alike import TensorFamily
from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.families.of_maps import asides
from weighttools.families.role_types import Role, Told


@dataclass(slots=True)
class Count:
    """A running count; `n_parameters`, `n_buffers` and `n_state` add up to `n_elements`.

    Parameters
    ----------
    n_tensors
        Stored tensors, each once, whatever names they are tied to.
    n_parameters
        Elements of floating tensors that are neither buffers nor training state.
    n_buffers
        Elements of buffers: integers, running statistics, masks, scales of quantised tensors.
    stored_bytes
        Bytes in the file.
    n_state
        Elements of training state: an optimizer's, a callback's.
    """

    n_tensors: int = 0
    n_parameters: int = 0
    n_buffers: int = 0
    stored_bytes: int = 0
    n_state: int = 0

    @property
    def n_elements(self) -> int:
        """Every element, once."""
        return self.n_parameters + self.n_buffers + self.n_state

    def add(self, family: TensorFamily) -> None:
        """Count a family's tensors."""
        n_elements = family.n_tensors * family.spec.n_elements
        self.n_tensors += family.n_tensors
        self.stored_bytes += family.n_tensors * family.stored_bytes
        if family.aside is None:
            self.n_parameters += n_elements
        elif family.aside.role is Role.STATE:
            self.n_state += n_elements
        else:
            self.n_buffers += n_elements


def by_dtype(found: Iterable[TensorFamily]) -> dict[str, Count]:
    """Count by dtype, or by encoding where that is a quantisation, in order of first appearance."""
    groups: dict[str, Count] = {}
    for family in found:
        groups.setdefault(family.spec.label, Count()).add(family)
    return groups


def by_name(tensor_map: TensorMap, key: Callable[[str], str]) -> dict[str, Count]:
    """Count by a group that `key` makes of the name, in order of first appearance."""
    return _grouped(tensor_map, map(key, tensor_map), asides(tensor_map))


def by_role(tensor_map: TensorMap, told: Sequence[Told]) -> dict[str, Count]:
    """Count by what tensors are told to be, in the order of `Role`."""
    found = _grouped(tensor_map, (one.role.value for one in told), [None if one.is_parameter else one for one in told])
    return {role.value: found[role.value] for role in Role if role.value in found}


def _grouped(tensor_map: TensorMap, labels: Iterable[str], told: Iterable[Told | None]) -> dict[str, Count]:
    groups: dict[str, Count] = {}
    for label, spec, size, aside in zip(labels, tensor_map.specs(), tensor_map.sizes(), told, strict=True):
        groups.setdefault(label, Count()).add(TensorFamily("", spec, size, 1, aside))
    return groups


def total(groups: Mapping[str, Count]) -> Count:
    """Add groups up."""
    parts = list(groups.values())
    return Count(
        sum(c.n_tensors for c in parts),
        sum(c.n_parameters for c in parts),
        sum(c.n_buffers for c in parts),
        sum(c.stored_bytes for c in parts),
        sum(c.n_state for c in parts),
    )


def module(name: str) -> str:
    """The module a tensor belongs to: its name without the last part."""
    cut = max(name.rfind("."), name.rfind("/"))
    return name[:cut] if cut > 0 else "(top)"


def first_parts(depth: int) -> Callable[[str], str]:
    """Return the grouping by the first `depth` parts of the name.

    >>> first_parts(2)("encoder.layer.0.bias")
    'encoder.layer'
    """
    start = re.compile(rf"(?:[^./]+[./]){{0,{depth - 1}}}[^./]+")

    def key(name: str) -> str:
        match = start.match(name)
        return match[0] if match else name

    return key


_GROUPINGS: dict[str, Callable[[int], Callable[[str, Spec], str]]] = {
    "tensor": lambda depth: lambda name, spec: name,
    "dtype": lambda depth: lambda name, spec: spec.dtype.name,
    "module": lambda depth: lambda name, spec: module(name),
    "depth": lambda depth: _by_depth(first_parts(depth)),
}


def _by_depth(parts: Callable[[str], str]) -> Callable[[str, Spec], str]:
    return lambda name, spec: parts(name)


def grouping(by: str, depth: int) -> Callable[[str, Spec], str]:
    """Return what gives the group of a tensor of a name and a spec: once for all tensors that are grouped.

    Parameters
    ----------
    by
        ``"tensor"`` (each its own), ``"module"``, ``"dtype"`` or ``"depth"``.
    depth
        How many parts of the name make a group by depth.

    Raises
    ------
    SpecError
        There is no such grouping.
    """
    if by not in _GROUPINGS or depth < 1:
        raise SpecError(
            f"cannot group by {by!r} at depth {depth}",
            expected="tensor, dtype, module, or depth from 1",
            code="unknown-option-value",
        )
    return _GROUPINGS[by](depth)
