"""Carrying tensors from one framework's names and axes to another's, by tables, or refusing.

What a tensor is, is told by its name, its rank and its siblings (a bias has the length of the output axis). Where
those leave a choice that would change values or names, nothing is guessed: the tensor is refused, by name, until an
explicit rule says what it is. Transposes are lazy: a layout only changes where elements are read from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from weighttools.core.patterns import listed, matching
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, few, option
from weighttools.families.packed import refuse
from weighttools.transforms import layout_keras
from weighttools.transforms import layout_tables as tables
from weighttools.transforms.layout_change import Change, Layout
from weighttools.transforms.layout_detect import detect
from weighttools.transforms.layout_names import Named
from weighttools.transforms.layout_roles import RECURRENT, Ground, Guess, guess

KEEP, DROP = "keep", "drop"
SORTED = ("safetensors", "huggingface")
"""Formats whose order of tensors says nothing: the reference writer sorts them by dtype and name."""
_SHOWN = 5


def layout(
    tensor_map: TensorMap,
    target: str,
    source: str | None = None,
    rules: Sequence[str] = (),
    structure: str | None = None,
) -> Layout:
    """Plan the change of a map to the layout of `target`.

    Parameters
    ----------
    target, source
        ``"torch"``, ``"keras"``, ``"flax"`` or ``"mlx"``; without `source` it is found out.
    rules
        ``PATTERN=RULE``: what the tensors are whose source names match. RULE is a name of `layout_tables.RULES`
        (``depthwise2d:2`` for a depth multiplier of 2), ``keep``, ``drop``, or ``transpose(3,2,1,0)``.
    structure
        Which file of Keras the map is for, and so what its layers are called there: ``"weights"`` (``.weights.h5``)
        or ``"legacy"`` (``.h5``); see `layout_keras`.

    Raises
    ------
    SpecError
        The source cannot be told, a rule does not fit, what some tensors are cannot be known, or weights are packed:
        their scales belong to axes that would be exchanged without them.
    TensorNotFoundError
        A pattern matches nothing.
    """
    for framework in (target, source or target):
        if framework not in tables.FRAMEWORKS:
            raise SpecError(f"unknown layout {framework!r}", expected="one of " + ", ".join(tables.FRAMEWORKS))
    found, evidence = (source, ["you say so"]) if source else detect(tensor_map)
    if found == target and structure in (None, layout_keras.structure_of(tensor_map)):
        return _unchanged(tensor_map, found, evidence)
    explicit = _explicit(tensor_map, rules)
    refuse(tensor_map, option("layout"), [name for name, said in explicit.items() if said.rule in (KEEP, DROP)])
    ground = Ground.of(tensor_map, found, target)
    names = [*tensor_map, *tensor_map.aliases]
    shapes = {name: tensor_map[name].shape for name in names}
    guesses = {name: explicit.get(name) or guess(ground, ground.named[name]) for name in names}
    _refuse_unknown(guesses)
    changes = {name: _change(ground.named[name], guesses[name], shapes[name], found, target) for name in names}
    kept, copies = _ties(tensor_map, changes)
    notes = tuple(_notes(ground, guesses, changes, copies))
    own = tuple(changes[name] for name in tensor_map)
    planned = Layout(found, target, tuple(evidence), own, kept, copies, notes)
    return planned if structure is None else _structured(planned, tensor_map, structure)


def _structured(planned: Layout, tensor_map: TensorMap, structure: str) -> Layout:
    """Return the change with the names of a file of Keras's."""
    own = layout_keras.structure_of(tensor_map)
    if (own, structure) == (layout_keras.WEIGHTS, layout_keras.LEGACY):
        raise SpecError(
            "a .weights.h5 file does not tell the order of a model's layers, by which a .h5 file goes",
            remedy="name a target that ends in .weights.h5",
        )
    ordered = own is not None or tensor_map.origin.format not in SORTED
    return layout_keras.structured(planned, structure, ordered)


def _unchanged(tensor_map: TensorMap, framework: str, evidence: Sequence[str]) -> Layout:
    """Return the change that is none."""
    shapes = {name: tensor.shape for name, tensor in tensor_map.items()}
    same = tuple(
        Change(name, name, KEEP, "it lies so already", shape, shape, tuple(range(len(shape))), shape)
        for name, shape in shapes.items()
    )
    note = f"the layout is {framework}'s already ({'; '.join(evidence)}): nothing is renamed or transposed"
    return Layout(framework, framework, tuple(evidence), same, tensor_map.aliases, (), (note,))


def _explicit(tensor_map: TensorMap, rules: Sequence[str]) -> dict[str, Guess]:
    """Return what the user says that tensors are; of two rules for one tensor the later wins."""
    names = [*tensor_map, *tensor_map.aliases]
    found: dict[str, Guess] = {}
    for text in listed(rules):
        pattern, equals, rule = text.rpartition("=")
        if not equals or not pattern:
            raise SpecError(f"{text!r} is no layout rule", expected="PATTERN=RULE, as in '*.emb.weight=embedding'")
        if rule.partition(":")[0] not in (*tables.RULES, KEEP, DROP) and not re.fullmatch(_TRANSPOSE, rule):
            known = ", ".join([*tables.RULES, KEEP, DROP, "transpose(3,2,1,0)"])
            raise SpecError(f"unknown layout rule {rule!r}", expected=f"one of {known}")
        found |= dict.fromkeys(matching(names, [pattern]), Guess(rule, "you say so"))
    return found


_TRANSPOSE = r"transpose\((\d\s*(?:,\s*\d\s*)*)\)"


def _refuse_unknown(guesses: Mapping[str, Guess]) -> None:
    unknown = [(name, found.why) for name, found in guesses.items() if not found.rule]
    if not unknown:
        return
    (name, why), n = unknown[0], len(unknown)
    more = f" (and {n - 1:,} more: {', '.join(other for other, _ in unknown[1:_SHOWN])})" if n > 1 else ""
    if why == RECURRENT:
        raise SpecError(
            f"{name!r} is of {why}{more}",
            remedy=f"leave such tensors out with {option('exclude')}, or convert without {option('layout')}, "
            "which keeps them as they are",
        )
    raise SpecError(
        f"it cannot be known what {name!r} is: {why}{more}",
        remedy=f"say it: {option('layout_rule')} '{name}=RULE' with a rule such as linear, embedding, conv2d, "
        f"depthwise2d, norm, transpose(1,0), keep or drop; or leave it out with {option('exclude')}",
    )


def _change(named: Named, found: Guess, shape: tuple[int, ...], source: str, target: str) -> Change:
    """Work out one tensor's change from what it was taken for."""
    rule = found.rule.partition(":")[0]
    if rule == DROP:
        return Change(named.name, None, rule, found.why, shape, shape, tuple(range(len(shape))), shape)
    folded, axes, after = _axes(named.name, found.rule, shape, source, target)
    leaf = _leaf(named, rule, target)
    dst = None if leaf is None else _path(named, leaf, rule, source, target)
    return Change(named.name, dst, found.rule, found.why, shape, folded, axes, after)


def _leaf(named: Named, rule: str, target: str) -> str | None:
    """Return the last part of the new name; None if the target has no such tensor."""
    if rule == KEEP:
        return named.leaf
    if rule.startswith("transpose"):
        return tables.KERNEL[target] if named.leaf in tables.KERNEL.values() else named.leaf
    return tables.RULES[rule].leaves.get(target)


def _path(named: Named, leaf: str, rule: str, source: str, target: str) -> str:
    old, new = tables.SEPARATORS[source], tables.SEPARATORS[target]
    parts = [*named.module, leaf]
    if old != new and any(new in part for part in parts):
        raise SpecError(
            f"the name {named.name!r} holds {new!r}, which separates parts of names in {target}",
            remedy="leave it out with -x",
        )
    if target == "flax":
        parts.insert(0, "batch_stats" if rule in tables.STATISTICS else "params")
    return new.join(parts)


def _axes(
    name: str, rule: str, shape: tuple[int, ...], source: str, target: str
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the shape to transpose, the transpose, and the shape after."""
    explicit = re.fullmatch(_TRANSPOSE, rule)
    kind, _, parameter = rule.partition(":")
    if explicit:
        axes = tuple(int(axis) for axis in explicit[1].split(","))
        if sorted(axes) != list(range(len(shape))):
            raise SpecError(f"{rule} does not fit {name!r} of shape {shape}", expected=f"{len(shape)} axes, once each")
        return shape, axes, tuple(shape[axis] for axis in axes)
    orders = {} if kind == KEEP else tables.RULES[kind].axes
    rank = len(next(iter(orders.values()))) if orders else tables.RANKS.get(kind, len(shape))
    if len(shape) != rank:
        raise SpecError(f"{name!r} of shape {shape} is no {kind}", expected=f"{rank} axes")
    if not orders:
        return shape, tuple(range(rank)), shape
    if source not in orders or target not in orders:
        raise SpecError(f"{name!r} is a {kind}, which cannot be carried from {source} to {target}", remedy="-x it")
    axes = tuple(orders[source].index(axis) for axis in orders[target])
    folded = shape
    if kind.startswith("depthwise") and source == "keras":  # (…, C, m) -> (…, 1, C*m): no element moves
        folded = (*shape[:-2], 1, shape[-2] * shape[-1])
    after = tuple(folded[axis] for axis in axes)
    if kind.startswith("depthwise") and target == "keras":
        after = _depthwise_shape(name, after, parameter)
    return folded, axes, after


def _depthwise_shape(name: str, shape: tuple[int, ...], parameter: str) -> tuple[int, ...]:
    """(…, 1, C*m) -> (…, C, m), for a depth multiplier m."""
    m = int(parameter or 1) if re.fullmatch(r"([1-9][0-9]{0,8})?", parameter) else 0
    if shape[-2] != 1 or not m or shape[-1] % m:
        fact = f"{name!r} with {shape[-2]} inputs to each of {shape[-1]} outputs is not depthwise"
        raise SpecError(f"{fact} of multiplier {parameter or 1}", expected="1 input, and outputs a multiple of it")
    return (*shape[:-2], shape[-1] // m, m)


def _ties(tensor_map: TensorMap, changes: Mapping[str, Change]) -> tuple[dict[str, str], tuple[Change, ...]]:
    """Return the ties that hold in the new layout, and the aliases that no longer equal what they are tied to."""
    ties: dict[str, str] = {}
    copies = []
    for alias, kept in tensor_map.aliases.items():
        one, other = changes[alias], changes[kept]
        same = (one.folded, one.axes, one.shape) == (other.folded, other.axes, other.shape)
        if one.dst is None or (other.dst is None and same):
            continue
        if same and other.dst is not None:
            ties[one.dst] = other.dst
        else:
            copies.append(one)
    return ties, tuple(copies)


def _notes(
    ground: Ground, guesses: Mapping[str, Guess], changes: Mapping[str, Change], copies: Sequence[Change]
) -> Iterator[str]:
    """Yield what the user must know, because the file does not tell it."""
    rules = {name: found.rule.partition(":")[0] for name, found in guesses.items()}
    if any(rule in tables.STATISTICS for rule in rules.values()):
        yield (
            "BatchNorm's epsilon is not in the file (default 1e-5 in torch, Flax and MLX, 1e-3 in Keras): "
            "give the target's layers the source's"
        )
    dropped = [name for name, change in changes.items() if change.dst is None]
    if dropped:
        yield f"{len(dropped):,} tensors have no place in {ground.target} and are left out: {few(dropped, _SHOWN)}"
    assumed = [name for name, found in guesses.items() if found.assumed]
    if assumed:
        yield (
            f"{len(assumed):,} tensors were taken for what they most often are (the log says why): "
            f"{few(assumed, _SHOWN)}"
        )
    if copies:
        names = few([copy.src for copy in copies], _SHOWN)
        yield f"tied tensors lie differently in {ground.target} and become copies: {names}"
    flattened = list(_after_flatten(ground, rules, changes))
    if flattened:
        yield (
            f"if these layers take flattened feature maps, their inputs are ordered by channels first in torch and "
            f"channels last elsewhere, which is not undone here: {few(flattened, _SHOWN)}"
        )


def _after_flatten(ground: Ground, rules: Mapping[str, str], changes: Mapping[str, Change]) -> Iterator[str]:
    """Yield dense layers whose inputs are several times the outputs of the convolution before them."""
    if (ground.source == "torch") == (ground.target == "torch"):
        return
    channels = 0
    for name, rule in rules.items():
        order = tables.RULES[rule].axes.get(ground.source, "") if rule in tables.RULES else ""
        shape = changes[name].shape_src
        if rule.startswith(("conv", "depthwise")):
            channels = math.prod(shape[-2:]) if rule[0] == "d" and ground.source == "keras" else shape[order.index("o")]
        elif rule == "linear" and channels:
            n_inputs = shape[order.index("i")]
            if n_inputs > channels and n_inputs % channels == 0:
                yield name
            channels = 0
