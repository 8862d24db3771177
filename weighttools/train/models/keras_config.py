"""What a file says of what stands between its layers: Keras's model configuration, or our own entry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weighttools.errors import SpecError, UnsupportedError, option

ACTIVATION = "weighttools.activation"
"""The metadata entry of a model that was trained here."""
_CONFIGS = ("model_config", "config.json")
_MOST_LAYERS = 10_000


def activation_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the name of the activation between a plain stack's layers; None where the file does not say.

    Raises
    ------
    SpecError
        The layers have different ones.

    Examples
    --------
    >>> dense = [{"class_name": "Dense", "config": {"activation": name}} for name in ("tanh", "softmax")]
    >>> activation_of({"model_config": json.dumps({"config": {"layers": dense}})})
    'tanh'
    """
    if isinstance(own := metadata.get(ACTIVATION), str):
        return own
    inner = list(_dense(metadata))[:-1]  # the last one's makes probabilities of scores
    if len(set(inner)) > 1:
        raise SpecError(
            f"the layers have different activations: {', '.join(dict.fromkeys(inner))}",
            expected="one for all of a plain stack",
            remedy=f"give {option('activation')}, or write the model's function",
        )
    return inner[0] if inner else None


def geometry_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Keras's model configuration says of a convolutional net, as `from_shapes` takes it; else nothing.

    Raises
    ------
    UnsupportedError
        A layer does what no plain stack does.
    """
    layers = list(_layers(metadata))
    convolutions = [settings for name, settings in layers if name in _CONVOLUTIONS]
    if not convolutions:
        return {}
    for name, settings in layers:
        _check_layer(name, settings)
    padding = {str(settings.get("padding", "valid")) for settings in convolutions}
    if len(padding) > 1:
        raise _not_plain(f"convolutions of padding {' and '.join(sorted(padding))}")
    return {
        "padding": padding.pop(),
        "stride": tuple(_same(settings.get("strides", 1)) for settings in convolutions),
        "pool": _pool([name for name, _ in layers if name in _CONVOLUTIONS or "Pooling" in name]),
        "flatten": not any(name.startswith("GlobalAverage") for name, _ in layers),
    }


_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")
_POOLINGS = tuple(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalAverage") for n in (1, 2, 3))
_KNOWN = (*_CONVOLUTIONS, *_POOLINGS, "Dense", "Dropout", "Flatten", "InputLayer")


def _check_layer(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse a layer that is none of a plain stack's, or has options that those have not."""
    wanted = {"dilation_rate": 1, "groups": 1} if name in _CONVOLUTIONS else {}
    if name in _POOLINGS and not name.startswith("Global"):
        wanted = {"pool_size": 2, "strides": 2}
        if settings.get("padding", "valid") != "valid":
            raise _not_plain(f"{name} of padding {settings['padding']}")
    odd = next((key for key, value in wanted.items() if _same(settings.get(key) or value) != value), None)
    if odd or name not in _KNOWN:
        raise _not_plain(f"{name} of {odd} {settings[odd]}" if odd else name)


def _same(value: Any) -> int:
    """Return the number that all axes have; 0 where they differ."""
    numbers = {*value} if isinstance(value, list | tuple) else {value}
    one = numbers.pop() if len(numbers) == 1 else 0
    return one if isinstance(one, int) else 0


def _pool(names: Sequence[str]) -> str:
    """Return `stack.Geometry`'s word for where pooling stands among the convolutions."""
    runs = "".join("c" if name in _CONVOLUTIONS else "" if name.startswith("Global") else name[0] for name in names)
    for kind, prefix in (("M", ""), ("A", "mean-")):
        if re.fullmatch(f"(c{kind})+", runs):
            return f"{prefix}each"
        if re.fullmatch(f"c+{kind}", runs):
            return f"{prefix}last"
    if "M" in runs or "A" in runs:
        raise _not_plain("pooling after some of the convolutions")
    return "none"


def _not_plain(fact: str) -> UnsupportedError:
    return UnsupportedError(f"the net has {fact}", expected="a plain stack", remedy="write the model's function")


def _dense(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the activations of Keras's layers that have weights, in order."""
    for name, settings in _layers(metadata):
        if name in ("Dense", *_CONVOLUTIONS):
            activation = settings.get("activation")
            yield activation if isinstance(activation, str) else "linear"


def _layers(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the kinds of Keras's layers and what is set of them, in order."""
    config = next((found for key in _CONFIGS if (found := _parsed(metadata.get(key)))), {})
    inside = config.get("config")
    layers = inside.get("layers") if isinstance(inside, Mapping) else None
    for layer in layers[:_MOST_LAYERS] if isinstance(layers, list) else ():
        settings = layer.get("config") if isinstance(layer, Mapping) else None
        if isinstance(settings, Mapping):
            yield str(layer.get("class_name")), settings


def _parsed(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
