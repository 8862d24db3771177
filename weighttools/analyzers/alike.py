"""Families: tensors whose names are alike but for numbers, and that share one spec.

A checkpoint of 100,000 tensors has some dozens of families, so what depends only on the words of a name and on the
spec (roles, counts, kinds) is asked of the families, not of every tensor.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap
from weighttools.families.of_maps import asides, wordings
from weighttools.families.role_types import Told
from weighttools.families.roles import aside, needs_neighbours


class TensorFamily(NamedTuple):
    """Alike tensors.

    Parameters
    ----------
    words
        Their name without its digits.
    spec
        Their common spec.
    stored_bytes
        What each of them takes.
    n_tensors
        How many they are.
    aside
        What they are, if they are no parameters; None for parameters.
    """

    words: str
    spec: Spec
    stored_bytes: int
    n_tensors: int
    aside: Told | None = None

    @property
    def is_parameter(self) -> bool:
        """Whether they are parameters."""
        return self.aside is None


class _Words(frozenset[str]):
    """The words of a map's names; a name is in it by its own words."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(wordings([str(name)])[0])


def families(tensor_map: TensorMap) -> list[TensorFamily]:
    """Return the families of a map, in order of first appearance.

    Roles are told by words. Words that mean one thing beside some neighbours and another beside others, in one map,
    are told name by name, and so may make two families.
    """
    specs = tensor_map.specs()
    by_id = {id(spec): spec for spec in specs}
    worded, sizes = wordings(tensor_map), tensor_map.sizes()
    found = Counter(zip(worded, map(id, specs), sizes, strict=True))
    known = _Words(dict.fromkeys(words for words, _, _ in found))
    open_words = {words for words in known if needs_neighbours(words) or "/vars/" in words}
    if not open_words:
        return [TensorFamily(w, by_id[s], size, n, aside(w, by_id[s], known)) for (w, s, size), n in found.items()]
    roles = asides(tensor_map)
    apart = Counter(zip(worded, map(id, specs), sizes, roles, strict=True))
    return [TensorFamily(w, by_id[s], size, n, role) for (w, s, size, role), n in apart.items()]
