"""What Keras's files call the layers of a flat model, Sequential or functional, so that ``load_weights`` takes them.

A ``.weights.h5`` numbers the layers of each class and the variables of a layer (``layers/dense_1/vars/0``): Keras's
``src/saving/saving_lib.py``, `_save_container_state`. A legacy ``.h5`` lists layers and weights in the model's order:
``src/legacy/saving/legacy_h5_format.py``, `save_weights_to_hdf5_group`. Both go by order, not by name; what belongs to
no layer of Keras's has no place in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, few
from weighttools.formats.hdf5 import keras_layout
from weighttools.formats.hdf5.listing import natural
from weighttools.transforms import layout_tables as tables
from weighttools.transforms.layout_change import Change, Layout

WEIGHTS, LEGACY = "weights", "legacy"
_VERSION = "3.0.0"
"""Which Keras a legacy file says it is from; without one, Keras 2 takes it for Keras 1's and transposes kernels."""
_SHOWN = 12
_CLASSES = {"linear": "dense", "linear_in_out": "dense", "embedding": "embedding"} | {
    rule: name
    for n in (1, 2, 3)
    for rule, name in {
        f"conv{n}d": f"conv{n}d",
        f"conv_transpose{n}d": f"conv{n}d_transpose",
        f"depthwise{n}d": f"depthwise_conv{n}d",
    }.items()
}
_NORMS = {"norm", "norm_bias", *tables.STATISTICS}
_GROUPS = re.compile(r"group_?norm|(^|_)gn(_|\d|$)", re.IGNORECASE)


def structure_for(path: str) -> str | None:
    """Return the structure that a target's name asks for; None where it is no HDF5 file."""
    name = path.lower()
    return WEIGHTS if name.endswith(".weights.h5") else LEGACY if name.endswith((".h5", ".hdf5")) else None


def structure_of(tensor_map: TensorMap) -> str | None:
    """Return the structure that a map of Keras's has; None where it has neither."""
    if keras_layout.layers_of(tensor_map) is not None:
        return LEGACY
    return WEIGHTS if any("/vars/" in name for name in tensor_map) else None


def structured(planned: Layout, structure: str, ordered: bool) -> Layout:
    """Return a change to Keras's layout with the names that tensors have in a file of Keras's.

    Parameters
    ----------
    planned
        The change, with names such as ``fc1/kernel``.
    structure
        ``"weights"`` or ``"legacy"``.
    ordered
        Whether the order of the tensors may be the model's. If not, modules go in the natural order of their names.

    Raises
    ------
    SpecError
        A tensor belongs to no layer that Keras has.
    """
    layers = _layers_of(planned)
    order = sorted(layers, key=_by_number) if not ordered or list(layers) == sorted(layers) else list(layers)
    classes = {module: _class_of(module, layers[module]) for module in order}
    groups = _numbered(classes) if structure == WEIGHTS else {module: module or classes[module] for module in order}
    new: dict[str, str] = {}
    for module in order:
        for number, (leaf, change) in enumerate(_variables(module, classes[module], layers[module])):
            last = f"vars/{number}" if structure == WEIGHTS else leaf
            new[change.dst or ""] = f"{groups[module]}/{last}"
    return replace(
        planned,
        changes=tuple(_renamed(change, new) for change in planned.changes),
        copies=tuple(_renamed(change, new) for change in planned.copies),
        aliases={new[alias]: new[kept] for alias, kept in planned.aliases.items()},
        metadata=_metadata(groups, new, structure),
        notes=(*planned.notes, _order_note(order, structure, ordered)),
    )


def _layers_of(planned: Layout) -> dict[str, list[Change]]:
    """Return each module's tensors, ties among them as if they were their own."""
    changes = [change for change in (*planned.changes, *planned.copies) if change.dst is not None]
    by_name = {change.dst: change for change in changes}
    ties = [replace(by_name[kept], dst=alias) for alias, kept in planned.aliases.items()]
    found: dict[str, list[Change]] = {}
    for change in (*changes, *ties):
        found.setdefault((change.dst or "").rpartition("/")[0], []).append(change)
    return found


def _by_number(module: str) -> list[list[object]]:
    return [natural(part) for part in module.split("/")]


def _class_of(module: str, members: Iterable[Change]) -> str:
    """Return Keras's class of a layer, in snake case as its files have it, by what its tensors were taken for."""
    rules = {change.rule.partition(":")[0]: change for change in members}
    kernels = {found for rule, change in rules.items() if (found := _CLASSES.get(rule) or _turned(rule, change))}
    if len(kernels) == 1 and not rules.keys() & _NORMS:
        return kernels.pop()
    if kernels or not rules.keys() <= _NORMS:
        rule, change = next((rule, change) for rule, change in rules.items() if rule not in _NORMS)
        raise SpecError(
            f"{change.src!r} ({rule}) belongs to no layer that Keras has: {module or 'it'} is no layer of one kernel, "
            "embedding or norm",
            remedy="leave it out with -x, or name a target that is no .h5 file",
        )
    return _norm_class(module.rpartition("/")[2], rules)


def _turned(rule: str, change: Change) -> str | None:
    """Return the class of a kernel that an explicit transpose makes."""
    n = len(change.shape) - 2
    return None if not rule.startswith("transpose") else "dense" if n == 0 else f"conv{n}d" if 1 <= n <= 3 else None


def _norm_class(layer: str, rules: Mapping[str, Change]) -> str:
    if rules.keys() & set(tables.STATISTICS):
        return "batch_normalization"
    if "rms" in layer.lower() and "norm_bias" not in rules:
        return "rms_normalization"
    return "group_normalization" if _GROUPS.search(layer) else "layer_normalization"


def _numbered(classes: Mapping[str, str]) -> dict[str, str]:
    """Return each module's group: its class, and behind the first of a class a number."""
    seen: Counter[str] = Counter()
    found = {}
    for module, name in classes.items():
        found[module] = f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}"
        seen[name] += 1
    return found


def _variables(module: str, kind: str, members: Iterable[Change]) -> list[tuple[str, Change]]:
    """Return a layer's tensors with their names, in the order in which its class makes them."""
    leaves = tables.KERAS_VARIABLES[kind]
    named = {(change.dst or "").rpartition("/")[2].replace("depthwise_kernel", "kernel"): change for change in members}
    odd = [change.src for leaf, change in named.items() if leaf not in leaves]
    if odd:
        raise SpecError(f"{odd[0]!r} belongs to no {kind} layer of Keras", expected=" and ".join(leaves))
    return [(leaf, named[leaf]) for leaf in leaves if leaf in named]


def _renamed(change: Change, new: Mapping[str, str]) -> Change:
    return change if change.dst is None else replace(change, dst=new[change.dst])


def _metadata(groups: Mapping[str, str], new: Mapping[str, str], structure: str) -> dict[str, object]:
    if structure == WEIGHTS:
        return {keras_layout.NAMES: {group: module or group for module, group in groups.items()}}
    weights: dict[str, list[str]] = {group: [] for group in groups.values()}
    for path in new.values():
        group, _, leaf = path.rpartition("/")
        weights[group].append(leaf)
    return {
        "keras_version": _VERSION,
        keras_layout.LAYERS: list(weights),
        keras_layout.WEIGHTS: weights,
    }


def _order_note(order: Sequence[str], structure: str, ordered: bool) -> str:
    why = "in which the tensors come" if ordered else "of their names, for the file's own says nothing"
    legacy = structure == LEGACY
    which, by_name = (
        ("layers", " (load_weights(path, by_name=True) does)") if legacy else ("the layers of each class", "")
    )
    return (
        f"Keras takes {which} by their order in the model, not by name{by_name}; they are written in the order {why}, "
        f"which must be the model's: {few(order, _SHOWN)}"
    )
