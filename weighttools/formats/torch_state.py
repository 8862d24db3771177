"""From what a pickle holds to named tensors: nested containers flattened with dots, wrappers taken off and said.

A checkpoint is a state dict, or a dictionary that holds one beside an optimizer, a scheduler and numbers, or a
pickled module, or a TorchScript object. Dictionaries, lists and the attributes of objects are walked as data; an
object of a class that is not ours to know stays an inert placeholder, and is listed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from weighttools.core import budgets
from weighttools.core.budgets import MOST_VALUES
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, UnsupportedError, counted, printable
from weighttools.formats import torch_notes
from weighttools.formats.left_out import LeftOut
from weighttools.formats.pickled_arrays import array_of
from weighttools.formats.pickles import Global, Machine, Made, Persistent, Table, entries, plain
from weighttools.formats.torch_readers import tensor_of
from weighttools.formats.torch_tensors import (
    QUANTIZED,
    Shelf,
    View,
    is_plumbing,
    is_storage,
    rebuilding_call,
    refuse_repetition,
    view_of,
)
from weighttools.formats.torch_values import Value, is_numpy_scalar, key_text, small_value

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "ema",
    "params_ema",
    "params",
    "net",
    "generator",
    "weights",
)
"""Keys under which checkpoints keep the model's weights."""

KEEP = "."
"""The root that takes nothing off."""
EMPTY = "holds no tensors"
"""How the note begins that says so."""

_TRAINING = re.compile(
    r"(?i)(optim|opt_state|scheduler|lr_|scaler|amp|rng|random|callback|loop|epoch|step|iter|hyper|args|config|best|loss)"
)
_SCALED = "(integer - zero point) × scale"
_MAX_DEPTH = 200
_LONGEST_NAME = 1000
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
METADATA = {"format": "pt"}
"""What safetensors files made from PyTorch say of themselves; loaders take it to mean torch's layouts."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor and the path to it: keys of nested dictionaries; what lies inside an object is one last part."""

    path: tuple[str, ...]
    tensor: Tensor
    view: View | None

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


@dataclass(slots=True)
class Walk:
    """Walks what a pickle holds, once, in order, without recursion, and within a budget that its size sets.

    Parameters
    ----------
    shelf
        Where storages are looked up.
    visits, letters
        How many values may still be visited, and how long the names may still be in all: containers may refer to
        one another so that walking them would never end.
    array_bytes
        How many bytes NumPy arrays may still hold in all: several may be made of one text, each anew.
    integers
        What the quantised tensors show of their storages.
    """

    shelf: Shelf
    visits: int
    letters: int
    array_bytes: int = sys.maxsize
    left_out: LeftOut = field(default_factory=LeftOut)
    dequantized: LeftOut = field(default_factory=LeftOut)
    integers: list[View] = field(default_factory=list)
    placeholders: Counter[str] = field(default_factory=Counter)
    plain_values: Counter[str] = field(default_factory=Counter)
    values: dict[str, Value] = field(default_factory=dict)
    n_cycles: int = 0

    def leaves(self, value: Any) -> Iterator[Leaf]:
        """Yield the tensors in `value`, in order."""
        levels: list[tuple[int, Iterator[_Child]]] = [(0, iter([_Child((), value, False)]))]
        above: set[int] = set()
        while levels:
            here, rest = levels[-1]
            child = next(rest, None)
            if child is None:
                levels.pop()
                above.discard(here)
                continue
            self._spend(child.path)
            try:
                leaf = self._leaf(child)
            except UnsupportedError as error:
                self.left_out.add(error.fact, ".".join(child.path) or "the value itself")
                continue
            if leaf is not None:
                yield leaf
            elif id(child.value) in above:
                self.n_cycles += 1
            elif (below := self._below(child)) is not None:
                if len(levels) > _MAX_DEPTH:
                    raise UnsafeFileError(f"nests deeper than {_MAX_DEPTH} levels", subject=self.shelf.name)
                above.add(id(child.value))
                levels.append((id(child.value), below))

    def _spend(self, path: tuple[str, ...]) -> None:
        self.visits -= 1
        self.letters -= sum(map(len, path))
        if self.visits < 0 or self.letters < 0:
            raise UnsafeFileError(
                "its containers hold one another so often that they unfold to far more than the file",
                subject=self.shelf.name,
            )

    def _leaf(self, child: _Child) -> Leaf | None:
        if type(child.value) is not Made:
            return None
        path = child.path or ("tensor",)
        call = rebuilding_call(child.value)
        if call is not None and call.callee == QUANTIZED:
            from weighttools.formats.torch_quantized import quantized_tensor, stored_integers

            self.dequantized.add(_SCALED, ".".join(path))
            self.integers.append(stored_integers(call.args, self.shelf))
            return Leaf(path, quantized_tensor(call.args, self.integers[-1], self.shelf), None)
        view = view_of(call, self.shelf)
        found = tensor_of(view) if view else self._array(child.value)
        return Leaf(path, found, view) if isinstance(found, Tensor) else None

    def _array(self, value: Made) -> Tensor | list[Any] | None:
        found = array_of(value, self.shelf.name)
        if isinstance(found, Tensor):
            self.array_bytes -= found.spec.nbytes
            if self.array_bytes < 0:
                raise UnsafeFileError("its NumPy arrays repeat one another without measure", subject=self.shelf.name)
        return found

    def _below(self, child: _Child) -> Iterator[_Child] | None:
        """Return what a value holds: a container's elements, an object's attributes; None for neither."""
        value = child.value
        if (found := entries(value)) is not None:
            return self._children(child, _last_of_each(found), is_mapping=True)
        if type(value) in (list, tuple):
            return self._children(child, enumerate(value), is_mapping=False)
        return self._attributes(child, value) if type(value) is Made else None

    def _attributes(self, child: _Child, value: Made) -> Iterator[_Child]:
        listed = _array_elements(value, self.shelf.name) or plain(value)
        if type(listed) in (list, tuple):
            return self._children(child, enumerate(listed), is_mapping=False)
        attributes = [*_state(value), *_last_of_each(value.items)]
        if type(value.callee) is Global and is_plumbing(value.callee):
            if not attributes and not value.callee.module.startswith("__torch__."):  # a device, a complex number
                self.plain_values[(child.path or ("",))[0][:40]] += 1
        else:
            self.placeholders[_described(value)] += 1
            attributes += _loose_parts(value)
        return self._children(child, attributes, is_mapping=False)

    def _children(self, parent: _Child, found: Iterable[tuple[Any, Any]], *, is_mapping: bool) -> Iterator[_Child]:
        closed = parent.closed or not is_mapping
        for key, value in found:
            if not (value.items if type(value) is Table else value) and type(value) in (Table, list, tuple):
                self.visits -= 1  # nothing lies under it
            elif type(value) in (Made, Table, list, tuple) and not is_numpy_scalar(value):
                yield _Child(_extended(parent, key), value, closed)
            else:
                self._pass_over(parent, key, value)

    def _pass_over(self, parent: _Child, key: Any, value: Any) -> None:
        """Count a value that is no tensor; keep a small one that has a name, such as an epoch."""
        self.visits -= 1
        if is_storage(value):
            self.left_out.add("a storage that no tensor shows", ".".join(_extended(parent, key)))
            return
        self.plain_values[(parent.path or (key_text(key),))[0][:40]] += 1
        room = len(self.values) < (MOST_VALUES if parent.path else 2 * MOST_VALUES)  # epoch and step stand outside
        is_name = type(key) is str and len(key) + sum(map(len, parent.path)) <= _LONGEST_NAME
        if room and is_name and (small := small_value(value)) is not None:
            self.values[".".join(_extended(parent, key))] = small[0]

    def notes(self) -> list[str]:
        """Say what was read in another form, what was left out and why."""
        notes = self.left_out.notes()
        if self.dequantized:
            n, listed = self.dequantized.counts.total(), self.dequantized.listed(_SCALED)
            notes.append(f"{counted(n, 'quantised tensor')} read as float32, {_SCALED}: {listed}")
        notes += torch_notes.object_notes(self.placeholders) + torch_notes.value_notes(self.plain_values)
        if self.n_cycles:
            notes.append(f"{self.n_cycles:,} containers hold themselves: each is read once")
        return notes


@dataclass(frozen=True, slots=True)
class _Child:
    """A value on the way: its path, and whether the path's last part is still growing (inside an object)."""

    path: tuple[str, ...]
    value: Any
    closed: bool


def _extended(parent: _Child, key: Any) -> tuple[str, ...]:
    text = key_text(key)
    return (*parent.path[:-1], f"{parent.path[-1]}.{text}") if parent.closed and parent.path else (*parent.path, text)


def _last_of_each(found: list[tuple[Any, Any]]) -> Iterable[tuple[Any, Any]]:
    """Keep, of a key set twice, the last value at the first place, as a dictionary does."""
    last: dict[Any, tuple[Any, Any]] = {}
    for at, (written, value) in enumerate(found):
        key = plain(written)
        simple = type(key) in (str, int, bytes, float, bool, type(None))
        last[(type(key), key) if simple else at] = (key, value)
    return last.values()


def _state(value: Made) -> list[tuple[Any, Any]]:
    """Return an object's attributes; of a module its parameters, buffers and modules, by their own names."""
    parts = value.state if type(value.state) is tuple and len(value.state) == 2 else (value.state,)
    found = [pair for part in parts for pair in entries(part) or []]
    own = {key: held for key, held in found if type(key) is str and key in _MODULE_PARTS}
    rest = [pair for pair in found if not (type(pair[0]) is str and pair[0].startswith("_"))] if own else found
    return [*(pair for part in _MODULE_PARTS for pair in entries(own.get(part)) or []), *rest]


def _loose_parts(value: Made) -> list[tuple[Any, Any]]:
    """Return what an object holds beside attributes, by its place: containers in its arguments or as its state.

    A named tuple has its elements as arguments.
    """
    parts: list[tuple[Any, Any]] = [*enumerate(value.args)]
    held = value.state if type(value.state) is tuple and len(value.state) == 2 else (value.state,)
    if all(entries(part) is None for part in held):
        parts.append(("state", value.state))
    return [(key, part) for key, part in parts if type(part) in (Made, Table, list, tuple)]


def _array_elements(value: Made, subject: str) -> list[Any] | None:
    try:
        found = array_of(value, subject)
    except UnsupportedError:
        return None
    return found if type(found) is list else None


def _described(value: Made) -> str:
    callee = value.callee.id[1] if type(value.callee) is Persistent and _names_module(value.callee) else value.callee
    name = str(callee) if type(callee) is Global else "a call of what is no global"
    return f"{name[:200]} ({len(value.args)} arguments)"


def _names_module(persistent: Persistent) -> bool:
    """Whether a persistent id is a legacy file's ``("module", class, file, source)``."""
    parts = persistent.id
    return type(parts) is tuple and len(parts) == 4 and parts[0] == "module"


def tensor_map(
    value: Any, machine: Machine, shelf: Shelf, root: str | None, notes: Iterable[str] = (), *, unwrap: bool = True
) -> TensorMap:
    """Return the tensors that a pickle's value holds, by name.

    Parameters
    ----------
    value
        What the machine gave.
    machine
        It, for the size of its work, which bounds ours.
    shelf
        Where storages are looked up.
    root
        The part to take, by its dotted path; `KEEP` for everything by its full path; None for the usual wrappers
        taken off.
    unwrap
        Whether wrappers may be taken off when `root` is None.

    Raises
    ------
    SpecError
        There is no such root.
    CorruptFileError
        A tensor does not fit its storage, or two have one name.
    UnsafeFileError
        There is no tensor, but what unpickling would call.
    UnsupportedError
        There are only tensors of kinds that are not read.
    """
    walk = Walk(
        shelf,
        budgets.visits(machine.n_opcodes),
        budgets.letters(machine.stream.position),
        budgets.views(machine.stream.position),
    )
    leaves = list(walk.leaves(value))
    said = list(notes)
    if root is not None and root != KEEP:
        leaves = _under(leaves, root, shelf.name)
    elif root is None and unwrap:
        leaves = _named_optimizer(value, _unwrapped(leaves, said), said)
    tensors, aliases = _by_name(leaves, shelf.name)
    if not tensors and (error := torch_notes.nothing_read(machine, walk.left_out, bool(walk.values), shelf.name)):
        raise error
    shown = [leaf.view for leaf in leaves if leaf.view is not None and leaf.name in tensors]
    refuse_repetition([*shown, *walk.integers], shelf.name)
    said += [*_overlaps(leaves, aliases), *torch_notes.prefix_notes(tensors), *walk.notes()]
    if not tensors:
        said.append(f"{EMPTY}: {torch_notes.summary(value)}")
    origin = Origin(shelf.name, "pytorch", (shelf.name,), tuple(said))
    start = "" if root in (None, KEEP) else f"{root}."
    values = {name.removeprefix(start): held for name, held in walk.values.items() if name.startswith(start)}
    foreign = torch_notes.foreign_globals(machine)
    return TensorMap(tensors, METADATA, aliases, origin._replace(values=values, foreign=foreign))


def _under(leaves: list[Leaf], root: str, subject: str) -> list[Leaf]:
    start = root + "."
    found = [
        Leaf((leaf.name.removeprefix(start),), leaf.tensor, leaf.view) for leaf in leaves if leaf.name.startswith(start)
    ]
    if found:
        return found
    heads = list(dict.fromkeys(leaf.path[0] for leaf in leaves if len(leaf.path) > 1))
    choices = ", ".join(printable(head) for head in heads[:8])
    raise SpecError(
        f"no tensor lies under {root!r}",
        subject=subject,
        expected=f"one of {choices}, or {KEEP} for everything" if heads else f"{KEEP}, for everything",
    )


def _unwrapped(leaves: list[Leaf], notes: list[str]) -> list[Leaf]:
    """Take off, again and again, the one wrapper that holds the model's weights; its companions keep their names."""
    while (wrapper := _wrapper(leaves)) is not None:
        stripped = [
            Leaf(leaf.path[1:], leaf.tensor, leaf.view) if leaf.path[0] == wrapper and len(leaf.path) > 1 else leaf
            for leaf in leaves
        ]
        if len({leaf.name for leaf in stripped}) != len(stripped):
            return leaves
        others = list(dict.fromkeys(leaf.path[0] for leaf in leaves if leaf.path[0] != wrapper))
        beside = f"; {', '.join(map(printable, others[:5]))} beside it keep their names" if others else ""
        notes.append(
            f"the weights lie under {wrapper!r}, which is taken off their names (--root {KEEP} keeps it){beside}"
        )
        leaves = stripped
    several = [
        head for head in dict.fromkeys(leaf.path[0] for leaf in leaves if len(leaf.path) > 1) if head in WRAPPERS
    ]
    if len(several) > 1:
        notes.append(f"holds several sets of weights: {', '.join(several)}; --root NAME takes one of them")
    return leaves


def _wrapper(leaves: list[Leaf]) -> str | None:
    heads = {leaf.path[0] for leaf in leaves if len(leaf.path) > 1}
    found = [head for head in heads if head in WRAPPERS]
    if len(found) != 1 or any(len(leaf.path) == 1 and leaf.tensor.n_elements > 1 for leaf in leaves):
        return None
    return found[0] if all(head in WRAPPERS or _TRAINING.match(head) for head in heads) else None


def _named_optimizer(value: Any, leaves: list[Leaf], notes: list[str]) -> list[Leaf]:
    """Put an optimizer's own state dict under ``optimizer.``, so that it is not taken for weights."""
    keys = {key for key, _ in entries(value) or [] if type(key) is str}
    if not leaves or not {"state", "param_groups"} <= keys:
        return leaves
    notes.append("is an optimizer's state: its names are put under 'optimizer.'")
    return [Leaf(("optimizer", *leaf.path), leaf.tensor, leaf.view) for leaf in leaves]


def _by_name(leaves: Iterable[Leaf], subject: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, and the names that show the very same place as an earlier one."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for leaf in leaves:
        name = leaf.name
        if name in tensors or name in aliases:
            raise CorruptFileError(f"two tensors are called {name[:200]!r}", subject=subject)
        place = leaf.view.place if leaf.view is not None else (name,)
        kept = first.setdefault(place, name)
        if kept == name:
            tensors[name] = leaf.tensor
        else:
            aliases[name] = kept
    return tensors, aliases


def _overlaps(leaves: Iterable[Leaf], aliases: dict[str, str]) -> list[str]:
    """Say how many tensors share a part of their storage with a different one."""
    views = [leaf.view for leaf in leaves if leaf.view and leaf.view.n_elements and leaf.name not in aliases]
    runs = sorted((view.storage.key, *view.run) for view in views)
    n, key, end = 0, None, 0
    for storage, first, last in runs:
        n += storage == key and first < end
        key, end = storage, max(last, end) if storage == key else last
    return [f"{n:,} tensors overlap others in a storage they share: each is read as a tensor of its own"] if n else []
