"""Which tensors a transform of values changes: parameters, and by rule no norms, biases or embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from weighttools.core.patterns import matching_names
from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.families.of_maps import roles
from weighttools.families.role_types import Role, Told
from weighttools.families.roles import tell_role

NOT_FLOAT = "integers, booleans and complex numbers"
QUANTIZED = "quantised tensors (convert --dequantize decodes them)"
SMALL = "norms and biases (fewer than two dimensions, or named so)"
EMBEDDINGS = "embeddings"
SCALES = "scales of quantised tensors"
STATE = "optimizer state"

_ASIDE = {
    Role.STATE: STATE,
    Role.BUFFER: "buffers",
    Role.STATISTIC: "buffers",
    Role.VECTOR: "vectors of spectral norm",
    Role.MASK: "masks",
    Role.SCALE: SCALES,
}
"""The rule that leaves what is no parameter alone, whatever is asked for."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a transform changes, and what it leaves alone.

    Parameters
    ----------
    names
        Tensors to change, in the map's order.
    left
        Rule to the tensors that it leaves alone; those that no pattern asks for are not among them.
    because
        What each of these is told to be, and what says so.
    """

    names: tuple[str, ...]
    left: dict[str, list[str]] = field(default_factory=dict)
    because: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """Return how many tensors are changed, how many each rule leaves alone, and why each of these."""
        left = {rule: len(names) for rule, names in self.left.items()}
        return {"n_changed": len(self.names), "left_alone": left, "because": self.because}


def select(
    tensor_map: TensorMap, include: Sequence[str] = (), exclude: Sequence[str] = (), include_all: bool = False
) -> Selection:
    """Choose the tensors to change.

    Parameters
    ----------
    include, exclude
        Name patterns of tensors to change, and of tensors to leave alone.
    include_all
        Change norms, biases and embeddings too. What is no parameter (integers, buffers, masks, vectors of spectral
        norm, scales of quantised tensors, optimizer state), quantised tensors and floats of less than 8 bits are never
        changed.

    Raises
    ------
    TensorNotFoundError
        A pattern matches nothing.
    SpecError
        Nothing is left to change.
    """
    ties: dict[str, list[str]] = {}
    for alias, kept in tensor_map.aliases.items():
        ties.setdefault(kept, []).append(alias)
    found = dict(zip(tensor_map, roles(tensor_map), strict=True))
    names: list[str] = []
    left: dict[str, list[str]] = {}
    because: dict[str, str] = {}
    for name in matching_names(tensor_map, include, exclude):
        spec = tensor_map[name].spec
        tied = [tell_role(alias, spec, tensor_map) for alias in ties.get(name, ())]
        rule = rule_of([found[name], *tied], spec, include_all)
        if rule is None:
            names.append(name)
        else:
            left.setdefault(rule, []).append(name)
            because[name] = f"{found[name].role}: {found[name].why}"
    if not names:
        raise _nothing(tensor_map, left)
    return Selection(tuple(names), left, because)


def rule_of(found: Sequence[Told], spec: Spec, include_all: bool) -> str | None:
    """Return the rule that leaves a tensor alone, or None.

    Parameters
    ----------
    found
        What it is told to be, by its own name and by those tied to it.
    spec
        Its dtype and shape.
    include_all
        As for `select`.
    """
    return next((rule for rule, holds in _rules([one.role for one in found], spec, include_all) if holds), None)


def _rules(found: Sequence[Role], spec: Spec, include_all: bool) -> Iterator[tuple[str, bool]]:
    yield STATE, Role.STATE in found
    yield NOT_FLOAT, not spec.dtype.is_float
    yield from ((rule, role in found) for role, rule in _ASIDE.items())
    yield QUANTIZED, spec.is_quantized
    yield "floats of less than 8 bits", spec.dtype.bits < 8
    if not include_all:
        yield SMALL, len(spec.shape) < 2 or Role.NORM in found or Role.BIAS in found
        yield EMBEDDINGS, Role.EMBEDDING in found


def _nothing(tensor_map: TensorMap, left: dict[str, list[str]]) -> SpecError:
    why = "; ".join(f"{len(names):,} {rule}" for rule, names in left.items())
    optional = {SMALL, EMBEDDINGS} & set(left)
    return SpecError(
        f"no tensor is left to change: {why or 'there is none'}",
        subject=tensor_map.origin.path or None,
        expected="floating parameters",
        remedy=f"{option('include_all')} takes norms, biases and embeddings too" if optional else None,
    )


def select_plain(
    tensor_map: TensorMap, include: Sequence[str] = (), exclude: Sequence[str] = (), include_all: bool = False
) -> Selection:
    """Choose as `select`, without what packed weights consist of: to change a scale changes what is packed.

    Raises
    ------
    TensorNotFoundError, SpecError
        As for `select`.
    """
    from weighttools.families.packed import packed, refuse

    selected, found = select(tensor_map, include, exclude, include_all), packed(tensor_map)
    out = [name for name in selected.names if found and name in found.members]
    if not found or not out:
        return selected
    if len(out) == len(selected.names):
        refuse(tensor_map)
    names = tuple(name for name in selected.names if name not in found.members)
    return Selection(names, {**selected.left, f"parts of weights packed as {found.title}": out})
