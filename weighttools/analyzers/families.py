"""Families: tensors whose names are alike but for numbers, and that share one spec.

A checkpoint of 100,000 tensors has some dozens of families, so what depends only on the words of a name and on the
spec (roles, counts, kinds) is asked of the families, not of every tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from weighttools.core.tensor import Spec
from weighttools.core.tensormap import TensorMap


class Family(NamedTuple):
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
    """

    words: str
    spec: Spec
    stored_bytes: int
    n_tensors: int


def families(tensor_map: TensorMap) -> list[Family]:
    """Return the families of a map, in order of first appearance."""
    specs = tensor_map.specs()
    by_id = {id(spec): spec for spec in specs}
    keys = zip(wordings(tensor_map), map(id, specs), tensor_map.sizes(), strict=True)
    return [Family(words, by_id[spec], size, n) for (words, spec, size), n in Counter(keys).items()]


def wordings(names: Iterable[str]) -> list[str]:
    """Return names without their digits; all at once, for a hundred thousand of them."""
    known = list(names)
    everything = "\n".join(known).encode("utf-8", "surrogatepass").translate(None, b"0123456789")
    found = everything.decode("utf-8", "surrogatepass").split("\n")
    if len(found) == len(known):
        return found
    return [word for name in known for word in wordings([name.replace("\n", " ")])] if known else []
