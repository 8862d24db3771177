"""Texts that are longer than a model's table of positions: refused by name, before its embedding would."""

from __future__ import annotations

from typing import Any

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.train.data.language import Sequences
from weighttools.train.data.texts import Texts

_TABLES = ("embeddings.position_embeddings.weight", "wpe.weight")
"""Learnt positions, a row each. Rotary positions have no table, and so no end."""


def n_positions(architecture: Any, origin: TensorMap) -> int | None:
    """Return how many tokens a model's table of positions is for; None where it has none.

    RoBERTa's first positions, up to that of its padding, are nobody's.
    """
    name = next((n for n in architecture.required if n.endswith(_TABLES) and n in origin), None)
    if name is None:
        return None
    padding = getattr(architecture.body, "keywords", {}).get("padding")
    return int(origin[name].shape[0]) - (0 if padding is None else int(padding) + 1)


def check_option(architecture: Any, origin: TensorMap, max_length: int | None) -> None:
    """Raise SpecError where texts would be cut at more tokens than the model has positions for."""
    most = n_positions(architecture, origin)
    if max_length is not None and most is not None and max_length > most:
        has = f"the model has positions for {most:,} tokens (max_position_embeddings)"
        raise SpecError(f"{option('max_length')} {max_length:,}; {has}", expected=f"{most:,} or less")


def check_texts(architecture: Any, origin: TensorMap, *data: Any) -> None:
    """Raise SpecError where a text has more tokens than the model has positions for: nobody told where to cut."""
    most = n_positions(architecture, origin)
    lengths = [int(max(part.lengths)) for part in data if isinstance(part, (Texts, Sequences)) and len(part)]
    if most is not None and max(lengths, default=0) > most:
        raise SpecError(
            f"a text of {max(lengths):,} tokens; the model has positions for {most:,} (max_position_embeddings)",
            remedy=f"{option('max_length')} {most} cuts texts",
        )
