"""What Keras puts into HDF5 files besides arrays: the order of layers and weights, and their names.

Sources: Keras ``src/legacy/saving/legacy_h5_format.py`` (Keras 1 and 2, and ``.h5`` of Keras 3) and
``src/saving/saving_lib.py`` (``.weights.h5`` of Keras 3). A legacy file lists its layers in the attribute
``layer_names``, and each layer's group its weights in ``weight_names``; long lists are split over ``layer_names0``,
``layer_names1``, …. That order is the order of the tensors here; both lists are kept as metadata (``weight_names`` by
group), so that a legacy file can be written again, even by way of a format that has an order of its own. In a Keras 3
file the name of a layer is an attribute of its ``vars`` group; the names are kept as the metadata entry
``keras_names``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError

LAYERS, WEIGHTS, NAMES = "layer_names", "weight_names", "keras_names"
MODEL, OPTIMIZER, TOP = "model_weights", "optimizer_weights", "top_level_model_weights"
ATTRIBUTE_LIMIT = 64_512
"""Bytes that one attribute of a legacy file may take (``HDF5_OBJECT_HEADER_LIMIT``)."""
_DESCRIBING = ("keras_version", "backend")

Json = dict[str, Any]


def join_split(attributes: Mapping[str, Any], name: str) -> list[str] | None:
    """Return a list of names that may be split over numbered attributes; None if there is none."""
    parts = [attributes[name]] if name in attributes else []
    while f"{name}{len(parts)}" in attributes and name not in attributes:
        parts.append(attributes[f"{name}{len(parts)}"])
    texts = [text for part in parts if isinstance(part, list) for text in part]
    return [text for text in texts if isinstance(text, str)] if parts else None


def described(found: Json, subject: str) -> tuple[list[str], Json]:
    """Return the paths of a listing in Keras's order, and its metadata.

    Parameters
    ----------
    found
        The listing of an HDF5 file.
    subject
        The file's name, for messages.

    Raises
    ------
    CorruptFileError
        A weight that a layer names is not in the file.
    """
    paths = [entry["path"] for entry in found["tensors"]]
    metadata = {k: v for k, v in found["attributes"].items() if not k.startswith((LAYERS, WEIGHTS))}
    for root in ("", MODEL):
        attributes = found["groups"].get(root, {}) if root else found["attributes"]
        layers = join_split(attributes, LAYERS)
        if layers is not None:
            metadata |= {k: attributes[k] for k in _DESCRIBING if k in attributes and k not in metadata}
            weights = _weights(found, root, layers)
            order = _legacy_order(found, weights, subject)
            return list(dict.fromkeys([*order, *paths])), {**metadata, LAYERS: layers, WEIGHTS: weights}
    names = _variable_names(found["groups"])
    return paths, {**metadata, NAMES: names} if names else metadata


def _weights(found: Json, root: str, layers: Sequence[str]) -> dict[str, list[str]]:
    """Return the weights of each group that has some: of the layers, of the model itself, of the optimizer."""
    groups = [_joined(root, layer) for layer in layers] + [_joined(root, TOP), OPTIMIZER]
    listed = {group: join_split(found["groups"].get(group, {}), WEIGHTS) for group in groups}
    return {group: weights for group, weights in listed.items() if weights}


def _legacy_order(found: Json, weights: Mapping[str, Sequence[str]], subject: str) -> Iterator[str]:
    """Yield the paths of a legacy file's weights in its order."""
    known = {entry["path"] for entry in found["tensors"]} | {path for path, _ in found["aliases"]}
    left_out = {path for path, _ in found["left_out"]}
    for path in (_joined(group, weight) for group, listed in weights.items() for weight in listed):
        if path in known:
            yield path
        elif path not in left_out and not _is_outside(path, found):
            raise CorruptFileError(f"the weight {path!r} that a layer names is not in the file", subject=subject)


def _is_outside(path: str, found: Json) -> bool:
    """Whether a path lies in another file, or leads there."""
    return any(path == link or path.startswith(f"{link}/") for link, _ in found["outside"])


def _joined(*parts: str) -> str:
    return "/".join(part for path in parts for part in path.split("/") if part)


def _variable_names(groups: Mapping[str, Json]) -> dict[str, str]:
    """Return the path of each Keras 3 layer to its name."""
    named = {path: attributes.get("name") for path, attributes in groups.items()}
    return {path[: -len("/vars")]: name for path, name in named.items() if isinstance(name, str)}


# -- writing ----------------------------------------------------------------------------------------------------------


def layers_of(tensor_map: TensorMap) -> list[str] | None:
    """Return the layers of a map that came from a legacy file, perhaps by way of a format of text metadata."""
    layers = _value(tensor_map, LAYERS)
    return layers if isinstance(layers, list) and all(isinstance(name, str) and name for name in layers) else None


def groups_of(tensor_map: TensorMap) -> set[str]:
    """Return the paths of a legacy file's layers; none of a map that came from elsewhere."""
    root = MODEL if any(name.startswith(f"{MODEL}/") for name in tensor_map) else ""
    groups = [_joined(root, layer) for layer in layers_of(tensor_map) or ()]
    return {group for group in groups if group}


def names_of(tensor_map: TensorMap) -> dict[str, str] | None:
    """Return the layer names of a map that came from a Keras 3 file."""
    names = _value(tensor_map, NAMES)
    return names if isinstance(names, dict) and all(isinstance(name, str) for name in names.values()) else None


def _value(tensor_map: TensorMap, key: str) -> Any:
    value = tensor_map.metadata.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def attributes(tensor_map: TensorMap) -> dict[str, Json]:
    """Return the attributes that make a file one that Keras loads: group path to attribute names and values."""
    layers, names = layers_of(tensor_map), names_of(tensor_map)
    if layers is not None:
        return _legacy_attributes(tensor_map, layers)
    return {_joined(path, "vars"): {"name": name} for path, name in (names or {}).items()}


def _legacy_attributes(tensor_map: TensorMap, layers: list[str]) -> dict[str, Json]:
    root = MODEL if any(name.startswith(f"{MODEL}/") for name in tensor_map) else ""
    groups = [_joined(root, layer) for layer in layers]
    extra = [_joined(root, TOP), OPTIMIZER]
    weights = _known_weights(tensor_map, [*groups, *extra])
    for name in [*tensor_map, *sorted(tensor_map.aliases)]:
        group = _owner(name, weights)
        if group is not None and name[len(group) + 1 :] not in weights[group]:
            weights[group].append(name[len(group) + 1 :])
    found: dict[str, Json] = {
        group: split(WEIGHTS, listed) for group, listed in weights.items() if listed or group not in extra
    }
    about = {key: tensor_map.metadata[key] for key in _DESCRIBING if isinstance(tensor_map.metadata.get(key), str)}
    return {root: {**split(LAYERS, layers), **(about if root else {})}, **found}


def _known_weights(tensor_map: TensorMap, groups: Iterable[str]) -> dict[str, list[str]]:
    """Return the groups' weights in the order that the metadata gives, those that are still in the map."""
    order = _value(tensor_map, WEIGHTS)
    found: dict[str, list[str]] = {}
    for group in groups:
        listed = order.get(group) if isinstance(order, dict) else None
        texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
        found[group] = [text for text in texts if f"{group}/{text}" in tensor_map]
    return found


def _owner(name: str, groups: Mapping[str, Any]) -> str | None:
    """The innermost of the groups that a path lies in."""
    at = name.rfind("/")
    while at > 0:
        if name[:at] in groups:
            return name[:at]
        at = name.rfind("/", 0, at)
    return None


def split(name: str, texts: Sequence[str]) -> dict[str, list[bytes]]:
    """Return a list of names as one attribute, or, if it is too long for that, as several, as Keras splits them."""
    raw = [text.encode("utf-8") for text in texts]
    widest = max(map(len, raw), default=1)
    most = max(1, ATTRIBUTE_LIMIT // max(1, widest))
    if len(raw) <= most:
        return {name: raw}
    return {f"{name}{i}": raw[at : at + most] for i, at in enumerate(range(0, len(raw), most))}
