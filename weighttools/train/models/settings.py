"""config.json's numbers, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from weighttools.errors import SpecError, UnsupportedError
from weighttools.train import ops

ACTIVATIONS: Mapping[str, Callable[..., Any]] = {
    "gelu": ops.gelu,
    "gelu_fast": ops.gelu_tanh,
    "gelu_new": ops.gelu_tanh,
    "gelu_pytorch_tanh": ops.gelu_tanh,
    "relu": ops.relu,
    "silu": ops.silu,
    "swish": ops.silu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
}
"""config.json's names."""

_MOST = 1 << 24
"""No count of a model that is run here comes near."""


class ModelSettings:
    """What config.json says of a model of `kind`; of one with parts, the text part counts.

    Parameters
    ----------
    kind
        Its ``model_type``.
    """

    def __init__(self, kind: str, config: Mapping[str, Any]) -> None:
        text = config.get("text_config")
        self.kind, self.values = kind, {**config, **text} if isinstance(text, Mapping) else dict(config)

    def get(self, *keys: str) -> Any:
        """Return the value of the first of `keys` that is there and not null, else None."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    def count(self, *keys: str, default: int | None = None, least: int = 1, most: int = _MOST) -> int:
        """Return a whole number from `least` to `most`.

        Raises
        ------
        SpecError
            It is missing, or no such number.
        """
        value = self.get(*keys)
        if value is None:
            value = default
        if value is None:
            raise SpecError(f"config.json lacks {keys[0]}", subject=self.kind)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise SpecError(
                f"{keys[0]} is {value!r}", subject=self.kind, expected=f"a whole number from {least} to {most}"
            )
        return value

    def number(self, *keys: str, default: float) -> float:
        """Return a number above 0.

        Raises
        ------
        SpecError
            It is no such number.
        """
        value = self.get(*keys)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
            raise SpecError(f"{keys[0]} is {value!r}", subject=self.kind, expected="a number above 0")
        return float(value)

    def maybe(self, key: str, default: float | None = None) -> float | None:
        """Return a number above 0, or None where the key is null; `default` where it is missing."""
        if key not in self.values:
            return default
        return None if self.values[key] is None else self.number(key, default=0)

    def activation(self, *keys: str, default: str) -> Callable[..., Any]:
        """Return the operation that config.json names.

        Raises
        ------
        UnsupportedError
            There is none of that name.
        """
        name = self.get(*keys) or default
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise UnsupportedError(f"activation {name!r}", subject=self.kind, expected=", ".join(ACTIVATIONS))
        return ACTIVATIONS[name]

    def part(self, key: str) -> Mapping[str, Any]:
        """Return a mapping; an empty one where there is none.

        Raises
        ------
        SpecError
            The value is no mapping.
        """
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise SpecError(f"{key} is {value!r}", subject=self.kind, expected="a mapping")
        return value or {}
