"""The module tree of a checkpoint, repeated layers collapsed into one body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from weighttools.core.spec import Spec

MAX_DEPTH = 100
"""Names of more parts than this are shown whole, at the top: no real model nests so deep."""


class NamedSpecs(Protocol):
    """What an outline is made of: a map, or whatever else lists names, specs and sizes in one order."""

    def __iter__(self) -> Iterator[str]:
        """Give the names."""

    def specs(self) -> list[Spec]:
        """Return their specs."""

    def sizes(self) -> list[int]:
        """Return the bytes that each takes."""


Leaf = tuple[Spec, int]
"""A tensor, by what its line shows: its spec, and the bytes it takes."""


class Node:
    """The top, or one numbered module such as ``layers.3``: only such ones repeat, so only they are nodes.

    Attributes
    ----------
    content
        What is in it, in order of appearance: tensors by what is left of their names (in a numbered module, from
        the separator on), and numbered modules by their relative name up to the number, the number, and the separator.
    signature
        The same for two nodes of the same make.
    n_tensors, n_elements, stored_bytes
        Totals of all below.
    """

    __slots__ = ("content", "n_elements", "n_tensors", "signature", "stored_bytes")

    def __init__(self) -> None:
        self.content: dict[str | tuple[str, str, str], Leaf | Node] = {}
        self.signature = self.n_tensors = self.n_elements = self.stored_bytes = 0


class Line(NamedTuple):
    """One line of the printed tree.

    Attributes
    ----------
    depth
        How far to indent.
    label
        A module's or tensor's name below the line it is indented under; ``[0-5]`` stands for the numbers 0 to 5.
    spec
        The tensor's, or None for a module.
    copies
        How many equal modules the line stands for.
    n_tensors, n_elements, stored_bytes
        Totals over all copies (of a tensor: of one).
    """

    depth: int
    label: str
    spec: Spec | None
    copies: int
    n_tensors: int
    n_elements: int
    stored_bytes: int


def outline(tensor_map: NamedSpecs, max_depth: int | None = None) -> list[Line]:
    """Return the module tree as lines, repeated layers collapsed into one body.

    Parameters
    ----------
    tensor_map
        The tensors; parts of a name are parted by dots, or by slashes where a name has no dot.
    max_depth
        Sum up, in one line, all tensors whose names (numbers collapsed) agree in this many parts.
    """
    root = _build(tensor_map)
    _sum(root, {}, _canonical(tensor_map.specs()))
    entries = list(_entries(root, ""))
    return list(_summed(entries, max_depth) if max_depth else _printed(entries, 0))


Place = tuple[Node, str]
Places = dict[str | None, Place]
"""Where modules are, by name; None is the top, for a module may be called nothing, as that of ``.weight``."""


def _build(tensor_map: NamedSpecs) -> Node:
    root = Node()
    places: dict[str, Places] = {separator: {None: (root, "")} for separator in "./"}
    for name, leaf in zip(tensor_map, zip(tensor_map.specs(), tensor_map.sizes(), strict=True), strict=True):
        separator = _separator(name)
        module, found, last = name.rpartition(separator)
        known = places[separator]
        above = module if found else None
        node, rest = known.get(above) or _place(module, separator, known)
        node.content[rest + last] = leaf
    return root


def _separator(name: str) -> str:
    return "." if "." in name else "/"


def _place(module: str, separator: str, known: Places) -> Place:
    """Return the innermost numbered module that holds `module`, and the rest of its name."""
    if len(module) > MAX_DEPTH and module.count(separator) > MAX_DEPTH:
        return known[None][0], module + separator
    above, found, part = module.rpartition(separator)
    node, rest = known.get(above if found else None) or _place(above, separator, known)
    if part.isdecimal() and part.isascii() and len(part) < 10:
        child = Node()
        node.content[rest, part, separator] = child
        place = child, separator
    else:
        place = node, f"{rest}{part}{separator}"
    known[module] = place
    return place


def _canonical(specs: list[Spec]) -> dict[int, int]:
    """Number the specs by the identity of the objects, equal ones alike: a few of them serve all tensors."""
    numbers: dict[Spec, int] = {}
    return {key: numbers.setdefault(spec, len(numbers)) for key, spec in {id(spec): spec for spec in specs}.items()}


def _sum(node: Node, makes: dict[object, int], numbers: dict[int, int]) -> None:
    """Add up totals from below, and give nodes of the same make the same signature."""
    make: list[object] = []
    for name, part in node.content.items():
        if isinstance(part, Node):
            _sum(part, makes, numbers)
            make += (name, part.signature)
            node.n_tensors += part.n_tensors
            node.n_elements += part.n_elements
            node.stored_bytes += part.stored_bytes
        else:
            spec, stored_bytes = part
            make += (name, numbers[id(spec)])
            node.n_tensors += 1
            node.n_elements += spec.n_elements
            node.stored_bytes += stored_bytes
    node.signature = makes.setdefault(tuple(make), len(makes) + 1)


class _Entry(NamedTuple):
    """A tensor, or a group of equal numbered modules with one body."""

    label: str
    spec: Spec | None
    copies: int
    n_tensors: int
    n_elements: int
    stored_bytes: int
    body: list[_Entry]


def _entries(node: Node, prefix: str) -> Iterator[_Entry]:
    """Yield what a node holds: equal modules as one entry, and in the place of a single one what it holds."""
    groups: dict[Any, list[str]] = {}
    for name, part in node.content.items():
        if isinstance(part, Node) and isinstance(name, tuple):
            stem, number, separator = name
            groups.setdefault((stem, part.signature, _padding(number), separator), []).append(number)
        else:
            groups[name] = []
    for key, numbers in _by_number(groups):
        part = node.content[key if isinstance(key, str) else (key[0], numbers[0], key[3])]
        if not isinstance(part, Node):
            yield _Entry(f"{prefix}{key}", part[0], 1, 1, part[0].n_elements, part[1], [])
        elif len(numbers) == 1:
            yield from _entries(part, f"{prefix}{key[0]}{numbers[0]}")
        else:
            n = len(numbers)
            totals = (n * part.n_tensors, n * part.n_elements, n * part.stored_bytes)
            label = f"{prefix}{key[0]}[{ranges(map(int, numbers), key[2])}]"
            yield _Entry(label, None, n, *totals, list(_entries(part, "")))


def _padding(number: str) -> int:
    """How many digits a number is padded to, as ``00`` is to 2; 0 for one that is not."""
    return len(number) if number[0] == "0" and len(number) > 1 else 0


def _by_number(groups: dict[Any, list[str]]) -> list[tuple[Any, list[str]]]:
    """Put the groups of one stem in the order of their numbers: names come sorted as text, where 10 is before 2."""
    stems: dict[str, Iterator[Any]] = {}
    for stem in {key[0] for key in groups if isinstance(key, tuple)}:
        own = [group for group in groups.items() if isinstance(group[0], tuple) and group[0][0] == stem]
        stems[stem] = iter(sorted(own, key=lambda group: min(map(int, group[1]))))
    return [next(stems[key[0]]) if isinstance(key, tuple) else (key, ns) for key, ns in groups.items()]


def _line(depth: int, label: str, entry: _Entry) -> Line:
    return Line(depth, label, entry.spec, entry.copies, entry.n_tensors, entry.n_elements, entry.stored_bytes)


def _printed(entries: Iterable[_Entry], depth: int, cut: int = 0) -> Iterator[Line]:
    """Yield lines: outermost modules that hold several entries get one of their own, and so do groups."""
    for module, part in _by_module(list(entries), depth):
        if module:
            yield _module_line(depth, module, part)
        inner, begin = (depth + 1, len(module) + 1) if module else (depth, cut)
        for entry in part:
            yield _line(inner, entry.label[begin:], entry)
            yield from _printed(entry.body, inner + 1, cut=1)


def _by_module(entries: list[_Entry], depth: int) -> Iterator[tuple[str, list[_Entry]]]:
    """Part the entries of the top level by their first part; below, and where a part is alone, leave them be."""
    parts: dict[str, list[_Entry]] = {}
    for entry in entries:
        first, separator, _ = entry.label.partition(_separator(entry.label))
        parts.setdefault(first if separator and depth == 0 else "", []).append(entry)
    for first, part in parts.items():
        yield (first if len(part) > 1 else ""), part


def _module_line(depth: int, label: str, entries: Sequence[_Entry]) -> Line:
    sums = [sum(values) for values in zip(*((e.n_tensors, e.n_elements, e.stored_bytes) for e in entries), strict=True)]
    return Line(depth, label, None, 1, *sums)


def _summed(entries: Iterable[_Entry], max_depth: int) -> Iterator[Line]:
    """Yield one line for each distinct beginning of `max_depth` parts, counted through groups."""
    sums: dict[str, list[_Entry]] = {}
    for entry in _flattened(entries, "", 1):
        separator = _separator(entry.label)
        beginning = separator.join(entry.label.split(separator)[:max_depth])
        sums.setdefault(beginning, []).append(entry)
    for beginning, part in sums.items():
        whole = len(part) == 1 and part[0].label == beginning and part[0].copies == 1
        yield _line(0, beginning, part[0]) if whole else _module_line(0, beginning, part)


def _flattened(entries: Iterable[_Entry], prefix: str, copies: int) -> Iterator[_Entry]:
    for entry in entries:
        if entry.body:
            yield from _flattened(entry.body, prefix + entry.label, copies * entry.copies)
        else:
            totals = (copies, copies * entry.n_elements, copies * entry.stored_bytes)
            yield _Entry(prefix + entry.label, entry.spec, copies, *totals, [])


def ranges(numbers: Iterable[int], width: int = 0) -> str:
    """Write numbers as ranges, padded with zeros to `width` digits.

    >>> ranges([0, 1, 2, 5, 7, 8]), ranges([0, 1, 2], 2)
    ('0-2,5,7-8', '00-02')
    """
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1][1:] = [n]
        else:
            runs.append([n])
    return ",".join("-".join(str(n).zfill(width) for n in run) for run in runs)
