"""What a file says of the activations between its layers: Keras's model configuration, or our own entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from weighttools.errors import SpecError

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
            remedy="give --activation, or write the model's function",
        )
    return inner[0] if inner else None


def _dense(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield the activations of Keras's layers that have weights, in order."""
    config = next((found for key in _CONFIGS if (found := _parsed(metadata.get(key)))), {})
    inside = config.get("config")
    layers = inside.get("layers") if isinstance(inside, Mapping) else None
    for layer in layers[:_MOST_LAYERS] if isinstance(layers, list) else ():
        settings = layer.get("config") if isinstance(layer, Mapping) else None
        if isinstance(settings, Mapping) and layer.get("class_name") in ("Dense", "Conv1D", "Conv2D", "Conv3D"):
            name = settings.get("activation")
            yield name if isinstance(name, str) else "linear"


def _parsed(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
