"""The roles of all tensors of a map, and the words of their names: asked once for names that are alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from weighttools.core.tensormap import TensorMap
from weighttools.families.role_types import Beside, Role, Told
from weighttools.families.roles import aside, needs_neighbours

_VARIABLE = re.compile(r"(?<=/vars/)([0-9])$")


def variable_letter(number: int) -> str:
    """Return the letter that stands for a Keras variable's number, 0 to 9, in a family's words."""
    return "abcdefghij"[number]


def asides(tensor_map: TensorMap) -> list[Told | None]:
    """Return what each tensor of a map is that is no parameter, in order; None for each parameter.

    Asked once for tensors of the same words and spec, unless the words need neighbours.
    """
    told: dict[tuple[str, int], Told | None] = {}
    is_open: dict[str, bool] = {}
    beside: Beside = tensor_map
    found = []
    for name, words, spec in zip(tensor_map, wordings(tensor_map), tensor_map.specs(), strict=True):
        if words not in is_open:
            is_open[words] = needs_neighbours(words)
        key = (words, id(spec))
        if is_open[words] or key not in told:
            told[key] = aside(name, spec, beside)
        found.append(told[key])
    if any("/vars/" in words for words in is_open):
        found = _with_numbered_scales(tensor_map, found)
    return found


def _with_numbered_scales(tensor_map: TensorMap, found: list[Told | None]) -> list[Told | None]:
    """Return what is told, and of Keras's quantised layers what only all of a layer's variables tell."""
    from weighttools.families.keras_quantized import numbered_scales

    scales = numbered_scales(tensor_map).scales
    return [
        Told(Role.SCALE, f"{scales[name]}, by its number, of a quantised layer of Keras") if name in scales else told
        for name, told in zip(tensor_map, found, strict=True)
    ]


def roles(tensor_map: TensorMap) -> list[Told]:
    """Return what each tensor of a map is, in order.

    Asked once for tensors of one spec whose names are alike but for what their digits are, unless they need neighbours.
    """
    from weighttools.families.parameters import parameter

    known: dict[tuple[str, int], Told] = {}
    is_open: dict[str, bool] = {}
    found = []
    alike = _at_once(list(tensor_map), lambda text: text.translate(_ALIKE))
    for name, kind, spec, told in zip(tensor_map, alike, tensor_map.specs(), asides(tensor_map), strict=True):
        if kind not in is_open:
            is_open[kind] = needs_neighbours(name)
        key = (kind, id(spec))
        if told is not None:
            found.append(told)
        elif is_open[kind] or key not in known:
            known[key] = parameter(name, spec.shape, tensor_map)
            found.append(known[key])
        else:
            found.append(known[key])
    return found


_ALIKE = bytes.maketrans(b"0123456789", b"0000000000")


def wordings(names: Iterable[str]) -> list[str]:
    """Return names without their digits; all at once, for a hundred thousand of them.

    The number of a Keras variable says what it is (``vars/2`` of a batch normalisation is its moving mean), so that
    stays, as a letter.
    """
    known = list(names)
    if "/vars/" in "\n".join(known):
        known = [_VARIABLE.sub(lambda found: variable_letter(int(found[1])), name) for name in known]
    return _at_once(known, lambda text: text.translate(None, b"0123456789"))


def _at_once(names: list[str], change: Callable[[bytes], bytes]) -> list[str]:
    """Change all names in one text; one by one, and without line feeds, where a name holds some."""
    text = "\n".join(names)
    found = change(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass").split("\n")
    if len(found) == len(names):
        return found
    return [_at_once([name.replace("\n", " ")], change)[0] for name in names]
