"""From what a pickle holds to named tensors: nested containers flattened with dots, wrappers taken off and said.

A checkpoint is a state dict, or a dictionary that holds one beside an optimizer, a scheduler and numbers, or a
pickled module, or a TorchScript object. Dictionaries, lists and the attributes of objects are walked as data; an
object of a class that is not ours to know stays an inert placeholder, and is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from weighttools.core import budgets
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SpecError, printable
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.objects import entries
from weighttools.formats.torch import notes as torch_notes
from weighttools.formats.torch.tensors import Shelf, refuse_repetition
from weighttools.formats.torch.walk import Leaf, Walk

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
METADATA = {"format": "pt"}
"""What safetensors files made from PyTorch say of themselves; loaders take it to mean torch's layouts."""


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
        code="no-such-root",
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
    outside = [leaf for leaf in leaves if len(leaf.path) == 1 and leaf.tensor.n_elements > 1]
    if len(found) != 1 or not all(_TRAINING.search(leaf.path[0]) for leaf in outside):
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
            raise CorruptFileError(f"two tensors are called {name[:200]!r}", subject=subject, code="names-collide")
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
