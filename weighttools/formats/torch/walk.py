"""Walking what a pickle holds: containers and attributes of objects as data, within a budget, to its tensors."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from weighttools.core.budgets import MOST_VALUES
from weighttools.core.budgets import PICKLE_DEPTH as _MAX_DEPTH
from weighttools.core.budgets import PICKLE_NAME as _LONGEST_NAME
from weighttools.core.tensor import Tensor
from weighttools.errors import UnsafeFileError, UnsupportedError, counted
from weighttools.formats.left_out import LeftOut
from weighttools.formats.pickles.arrays import array_of
from weighttools.formats.pickles.objects import Global, Made, Persistent, PickledDict, entries, plain
from weighttools.formats.torch import notes as torch_notes
from weighttools.formats.torch.plumbing import is_plumbing
from weighttools.formats.torch.readers import tensor_of
from weighttools.formats.torch.tensors import QUANTIZED, Shelf, View, is_storage, rebuilding_call, view_of
from weighttools.formats.torch.values import Value, is_numpy_scalar, key_text, small_value

_SCALED = "(integer - zero point) × scale"
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


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
            from weighttools.formats.torch.quantized import quantized_tensor, stored_integers

            integers = stored_integers(call.args, self.shelf)
            leaf = Leaf(path, quantized_tensor(call.args, integers, self.shelf), None)
            self.dequantized.add(_SCALED, ".".join(path))
            self.integers.append(integers)
            return leaf
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
            if not (value.items if type(value) is PickledDict else value) and type(value) in (PickledDict, list, tuple):
                self.visits -= 1  # nothing lies under it
            elif type(value) in (Made, PickledDict, list, tuple) and not is_numpy_scalar(value):
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
    return [(key, part) for key, part in parts if type(part) in (Made, PickledDict, list, tuple)]


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
