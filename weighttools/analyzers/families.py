"""Families: tensors whose names are alike but for numbers, and that share one spec.

A checkpoint of 100,000 tensors has some dozens of families, so what depends only on the words of a name and on the
spec (roles, counts, kinds) is asked of the families, not of every tensor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from weighttools.core.tensor import Spec
from weighttools.core.tensormap import TensorMap

_VARIABLE = re.compile(r"(?<=/vars/)([0-9])$", re.MULTILINE)


def variable_letter(number: int) -> str:
    """Return the letter that stands for a Keras variable's number, 0 to 9, in a family's words."""
    return "abcdefghij"[number]


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
    """Return names without their digits; all at once, for a hundred thousand of them.

    The number of a Keras variable says what it is (``vars/2`` of a batch normalisation is its moving mean), so that
    stays, as a letter.
    """
    known = list(names)
    text = "\n".join(known)
    if "/vars/" in text:
        text = _VARIABLE.sub(lambda found: variable_letter(int(found[1])), text)
    everything = text.encode("utf-8", "surrogatepass").translate(None, b"0123456789")
    found = everything.decode("utf-8", "surrogatepass").split("\n")
    if len(found) == len(known):
        return found
    return [word for name in known for word in wordings([name.replace("\n", " ")])] if known else []
