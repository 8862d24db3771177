"""Which numbered variables of Keras's quantised layers are scales: their files give numbers where ``.h5`` gives names.

A layer's variables come in the order of Keras's ``variable_serialization_spec``, and which of them are there is told by
their dtypes and shapes: the kernel (or the embeddings) is of 8-bit integers, a bias is of as many floats as there are
scales. Where those do not fit, config.json in a ``.keras`` archive may say that the layer is quantised; else nothing is
guessed.

Source: Keras ``src/layers/core/dense.py``, ``einsum_dense.py``, ``embedding.py``, ``reversible_embedding.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weighttools.core.spec import Spec
from weighttools.core.tensormap import TensorMap

_NUMBERED = re.compile(r"(?P<layer>.*/vars)/(?P<number>[0-9]{1,2})")
_KINDS = {
    "IF": "ks", "IFF": "kbs", "IFIF": "kszg", "IFFIF": "kbszg", "FIFIF": "bkszg", "FIFIFF": "bkszag", "IFIFF": "kszag",
    "IFIFIFI": "kszgrsz",
}  # fmt: skip
"""8-bit integers (I) and floats (F) of a layer, in order, to what they are: kernel, bias, scale, zero point, index of
groups, activations' scale, a second kernel (of embeddings that are turned round)."""
_NAMES = {"s": "the scale", "g": "the index of groups", "a": "the scale of activations"}
_FLOAT8 = ("inputs", "kernel", "gradients")
_SCALES = 2 * len(_FLOAT8)
_MODES = frozenset({"int8", "int4", "float8", "gptq", "awq"})
_DEEPEST = 64


class Numbered(NamedTuple):
    """What is known of the variables of quantised layers.

    Parameters
    ----------
    scales
        Variables that are no parameters, and what each is.
    unknown
        Layers that hold 8-bit integers and floats of which nothing tells what they are.
    """

    scales: dict[str, str]
    unknown: list[str]


def numbered_scales(tensor_map: TensorMap) -> Numbered:
    """Tell scales among the numbered variables of quantised layers of a Keras file."""
    found = Numbered({}, [])
    modes: dict[str, bool] | None = None
    for layer, variables in _layers(tensor_map).items():
        specs = [spec for _, spec in variables]
        said = _floats8(specs)
        if said is None and any(map(_is_packed, specs)):
            modes = _quantized_layers(tensor_map) if modes is None else modes
            said = _integers(specs, modes.get(layer.removesuffix("/vars"), False))
            if said is None and any(spec.dtype.is_float for spec in specs):
                found.unknown.append(layer)
        for (name, _), what in zip(variables, said or (), strict=False):
            if what:
                found.scales[name] = what
    return found


def _layers(tensor_map: TensorMap) -> dict[str, list[tuple[str, Spec]]]:
    """Return each layer's variables, in order; only of layers whose numbers begin at 0 and leave none out."""
    found: dict[str, dict[int, tuple[str, Spec]]] = {}
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        if match := _NUMBERED.fullmatch(name):
            found.setdefault(match["layer"], {})[int(match["number"])] = (name, spec)
    whole = {layer: numbers for layer, numbers in found.items() if max(numbers) == len(numbers) - 1}
    return {layer: [numbers[i] for i in range(len(numbers))] for layer, numbers in whole.items()}


def _is_packed(spec: Spec) -> bool:
    return spec.dtype.name in ("int8", "uint8") and len(spec.shape) > 1


def _floats8(specs: Sequence[Spec]) -> list[str] | None:
    """Return what variables of a float8 layer are: its last six are three scales, each with what it has seen."""
    n_own = len(specs) - _SCALES
    if n_own not in (1, 2) or not all(spec.dtype.is_float for spec in specs) or len(specs[0].shape) < 2:
        return None
    shapes = [spec.shape for spec in specs[n_own:]]
    if len(set(shapes[1::2])) != 1 or len(shapes[1]) != 1 or any(shapes[::2]):
        return None
    pairs = (f"of float8's {of}" for of in _FLOAT8)
    return [""] * n_own + [f"{what} {of}" for of in pairs for what in ("the scale", "the history")]


def _integers(specs: Sequence[Spec], is_quantized: bool) -> list[str] | None:
    """Return what variables of a layer with 8-bit integers are, "" for its own; None where that is not known."""
    text = "".join("I" if s.dtype.name in ("int8", "uint8") else "F" if s.dtype.is_float else "?" for s in specs)
    roles = _KINDS.get(text)
    if roles is None:
        return None
    shapes = {role: spec.shape for role, spec in zip(reversed(roles), reversed(specs), strict=True)}
    return [_NAMES.get(role, "") for role in roles] if is_quantized or _fits(shapes) else None


def _fits(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a scale goes with a kernel, two of whose elements may share a byte, and a bias with both."""
    kernel, scale = shapes["k"], shapes["s"]
    shared = {n for n in scale if n in kernel or -(-n // 2) in kernel}
    bias = shapes.get("b", ())
    return len(kernel) > 1 and bool(shared) and (set(bias) <= shared or math.prod(bias) in shared)


# -- config.json ------------------------------------------------------------------------------------------------------


def _quantized_layers(tensor_map: TensorMap) -> dict[str, bool]:
    """Return the path of each layer of which config.json in the archive speaks to whether it says it is quantised."""
    names, config = tensor_map.metadata.get("keras_names"), tensor_map.metadata.get("config.json")
    if not isinstance(names, Mapping) or not isinstance(config, str):
        return {}
    try:
        entries = list(_entries(json.loads(config), 0))
    except (ValueError, RecursionError):
        return {}
    said: dict[str, set[bool]] = {}
    for name, is_quantized in entries:
        said.setdefault(name, set()).add(is_quantized)
    return {path: said.get(name) == {True} for path, name in names.items()}


def _entries(node: Any, depth: int) -> Iterator[tuple[str, bool]]:
    """Yield the name of each layer of a configuration, and whether its dtype policy is of a quantisation."""
    if depth > _DEEPEST:
        return
    if isinstance(node, dict):
        settings = node.get("config")
        if isinstance(settings, dict) and isinstance(settings.get("name"), str):
            yield settings["name"], _mode(settings.get("dtype")) in _MODES
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        yield from _entries(part, depth + 1)


def _mode(policy: Any) -> str:
    """Return the mode of a dtype policy: ``int4`` of ``int4/128``; "" of one that is no quantisation's."""
    settings = policy.get("config") if isinstance(policy, dict) else None
    mode = settings.get("mode") if isinstance(settings, dict) else None
    return mode.partition("/")[0] if isinstance(mode, str) else ""
