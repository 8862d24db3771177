"""What is to be written, held against what is read for it and against what else is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from weighttools.core.tensor import sources
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap


class Target(NamedTuple):
    """Something to be written.

    Parameters
    ----------
    name
        What to call it in a message, e.g. ``"the output"``.
    given
        Its path as the user gave it.
    files
        Every file that is made or removed, links followed.
    is_directory
        Whether it is a directory, exchanged whole.
    is_alone
        Whether it is a directory in which nothing else may lie.
    """

    name: str
    given: str
    files: frozenset[Path]
    is_directory: bool = False
    is_alone: bool = False

    @property
    def place(self) -> Path:
        """Where it lies, links followed."""
        return real(self.given)


def real(path: str | os.PathLike[str]) -> Path:
    """Return a path with all links followed."""
    return Path(os.path.realpath(path))


def file(name: str, given: str) -> Target:
    """Return a target that is one file."""
    return Target(name, given, frozenset({real(given)}))


def check_suffix(given: str, what: str) -> None:
    """Refuse the name of a file that is to be written if its suffix names no format.

    Parameters
    ----------
    given
        The path as the user gave it.
    what
        What is written, and how, e.g. ``"masks are saved as a file"``.

    Raises
    ------
    SpecError
        With the suffixes of the formats that are written.
    """
    from weighttools.formats import by_any_suffix, known_suffixes

    if by_any_suffix(given) is None or given.endswith(("/", os.sep)):
        known = ", ".join(known_suffixes(written=True))
        raise SpecError(what, subject=given, expected=f"a name that ends in one of {known}")


def refuse_read(targets: Iterable[Target], inputs: Iterable[str], replaced: Iterable[str] = ()) -> None:
    """Refuse to write over what is read: a file, or one that there is in a directory that is read.

    Parameters
    ----------
    targets
        What is written.
    inputs
        What is read; none of them standard input.
    replaced
        Files that are read, and that may be replaced by what becomes of them.

    Raises
    ------
    SpecError
        With the file that would be lost.
    """
    spared = {real(path) for path in replaced}
    read = [given for given in inputs if os.path.exists(given)]
    for target in targets:
        for path in sorted(target.files - spared):
            if path.exists() and any(path.samefile(given) or real(given) in path.parents for given in read):
                subject = target.given if path == target.place else path
                remedy = "give another name"
                raise SpecError("is read too", subject=subject, expected="a file of its own", remedy=remedy)


def refuse_loss(target: Target, tensor_map: TensorMap) -> None:
    """Refuse a target that would take the place of what its values come from.

    One checkpoint may be replaced by what becomes of it, but as a whole: not a shard of it, whose tensors the others
    go without; and none of several that are put together.

    Parameters
    ----------
    target
        What is written.
    tensor_map
        The map that is written: where it came from, and the files that its tensors are read from beside, which it was
        put together of by hand.

    Raises
    ------
    SpecError
        With the file that would be lost.
    """
    origin = tensor_map.origin
    read = {real(file) for file in origin.files}
    whole = target._replace(files=target.files | {target.place})
    refuse_read([whole], origin.others)
    if any(path.exists() for path in whole.files):
        refuse_read([whole], [path for path in _read_from(tensor_map) if real(path) not in read])
    lost = read & target.files
    if lost and lost != read:
        raise SpecError(
            "is a part of what is read", subject=min(lost), expected="a place of its own", remedy="give another name"
        )


def _read_from(tensor_map: TensorMap) -> set[str]:
    """Return the files that tensors are read from, as far as their readers tell."""
    looked_at: set[int] = set()
    found: set[str] = set()
    for tensor in tensor_map.values():
        if tensor.decode is None and tensor.stored is not None:
            if id(tensor.stored.source) in looked_at:  # most lie in one file
                continue
            looked_at.add(id(tensor.stored.source))
        found.update(sources(tensor))
    return found


def refuse_shared(targets: Iterable[Target]) -> None:
    """Refuse targets that would replace each other, or a directory inside one that is exchanged whole.

    Raises
    ------
    SpecError
        With the two.
    """
    for one, other in combinations(targets, 2):
        if one.place == other.place:
            raise _shared(other, f"is {one.name} too")
        for outer, inner in ((one, other), (other, one)):
            if outer.place in inner.place.parents and (outer.is_alone or (outer.is_directory and inner.is_directory)):
                raise _shared(inner, f"lies in {outer.name}, {outer.given}")
        if one.files & other.files:
            raise _shared(other, f"is written by {one.name} too")


def _shared(target: Target, fact: str) -> SpecError:
    return SpecError(fact, subject=target.given, expected="a place of its own", remedy="give another name")
