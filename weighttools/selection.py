"""Which tensors a transform of values changes: parameters, and by rule no norms, biases or embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from weighttools.analyzers.roles import BUFFER, OPTIMIZER, role
from weighttools.core.patterns import chosen
from weighttools.core.tensor import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError

NOT_FLOAT = "integers, booleans and complex numbers"
QUANTIZED = "quantised tensors (convert --dequantize decodes them)"
SMALL = "norms and biases (fewer than two dimensions, or named so)"
EMBEDDINGS = "embeddings"
SCALES = "scales of quantised tensors"

_EMBEDDING = re.compile(
    r"(?:^|[./_])(?:[a-z]*embe?d[a-z]*|wte|wpe)(?:[./_:]|$)|(?:^|[./])shared[./](?:weight|embedding)$", re.IGNORECASE
)
_NORM = re.compile(r"norm|(?:^|[./_])(?:ln|bn)(?:_[a-z0-9]+|[0-9]+)?[./]|bias(?:[./:]|$)", re.IGNORECASE)
_SCALE = re.compile(r"(?:scale_inv|_scale|\.scales)$")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a transform changes, and what it leaves alone.

    Parameters
    ----------
    names
        Tensors to change, in the map's order.
    left
        Rule to the tensors that it leaves alone; those that no pattern asks for are not among them.
    """

    names: tuple[str, ...]
    left: dict[str, list[str]] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """Return how many tensors are changed, and how many each rule leaves alone."""
        return {"n_changed": len(self.names), "left_alone": {rule: len(names) for rule, names in self.left.items()}}


def select(
    tensor_map: TensorMap, include: Sequence[str] = (), exclude: Sequence[str] = (), include_all: bool = False
) -> Selection:
    """Choose the tensors to change.

    Parameters
    ----------
    include, exclude
        Name patterns of tensors to change, and of tensors to leave alone.
    include_all
        Change norms, biases and embeddings too. Integers, buffers, optimizer state, quantised tensors and floats of
        less than 8 bits are never changed.

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
    names: list[str] = []
    left: dict[str, list[str]] = {}
    for name in chosen(tensor_map, include, exclude):
        rule = rule_of([name, *ties.get(name, ())], tensor_map[name].spec, include_all)
        if rule is None:
            names.append(name)
        else:
            left.setdefault(rule, []).append(name)
    if not names:
        raise _nothing(tensor_map, left)
    return Selection(tuple(names), left)


def rule_of(names: Sequence[str], spec: Spec, include_all: bool) -> str | None:
    """Return the rule that leaves a tensor alone, or None; `names` are its own and those tied to it."""
    return next((rule for rule, holds in _rules(names, spec, include_all) if holds), None)


def _rules(names: Sequence[str], spec: Spec, include_all: bool) -> Iterator[tuple[str, bool]]:
    roles = {role(name, spec.dtype) for name in names}
    yield "optimizer state", OPTIMIZER in roles
    yield NOT_FLOAT, not spec.dtype.is_float
    yield "buffers", BUFFER in roles
    yield QUANTIZED, spec.is_quantized
    yield "floats of less than 8 bits", spec.dtype.bits < 8
    yield SCALES, spec.dtype.name == "float8_e8m0fnu" or _any(_SCALE, names)
    if not include_all:
        yield SMALL, len(spec.shape) < 2 or _any(_NORM, names)
        yield EMBEDDINGS, _any(_EMBEDDING, names)


def _any(pattern: re.Pattern[str], names: Iterable[str]) -> bool:
    return any(pattern.search(name) for name in names)


def _nothing(tensor_map: TensorMap, left: dict[str, list[str]]) -> SpecError:
    why = "; ".join(f"{len(names):,} {rule}" for rule, names in left.items())
    optional = {SMALL, EMBEDDINGS} & set(left)
    return SpecError(
        f"no tensor is left to change: {why or 'there is none'}",
        subject=tensor_map.origin.path or None,
        expected="floating parameters",
        remedy="--include-all takes norms, biases and embeddings too" if optional else None,
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

    chosen, found = select(tensor_map, include, exclude, include_all), packed(tensor_map)
    out = [name for name in chosen.names if found and name in found.members]
    if not found or not out:
        return chosen
    if len(out) == len(chosen.names):
        refuse(tensor_map)
    names = tuple(name for name in chosen.names if name not in found.members)
    return Selection(names, {**chosen.left, f"parts of weights packed as {found.title}": out})
