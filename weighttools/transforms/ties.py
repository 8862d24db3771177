"""What becomes of tied tensors: second names of one stored tensor."""

from __future__ import annotations

from collections.abc import Mapping

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option


def alias(tensor_map: TensorMap) -> TensorMap:
    """Keep ties as they are; the target's format says what it cannot hold."""
    return tensor_map


def copy(tensor_map: TensorMap) -> TensorMap:
    """Give each alias a tensor of its own, with the same values."""
    copies = {name: tensor_map[kept] for name, kept in tensor_map.aliases.items()}
    return tensor_map.replace(tensors={**dict(tensor_map.items()), **copies}, aliases={})


def error(tensor_map: TensorMap) -> TensorMap:
    """Refuse tied tensors.

    Raises
    ------
    SpecError
        There are some.
    """
    if tensor_map.aliases:
        name, kept = next(iter(tensor_map.aliases.items()))
        n = len(tensor_map.aliases)
        fact = f"{n:,} tied tensors, first {name!r} = {kept!r}"
        raise SpecError(
            fact,
            expected="none",
            remedy="keep them with {0} alias, or write them out with {0} copy".format(option("tied")),
        )
    return tensor_map


TIED: Mapping[str, Transform] = {"alias": alias, "copy": copy, "error": error}
