"""What verbs that change values share: which tensors they change, and the transform that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.formats.opening import PathLike
from weighttools.formats.opening import open as open_checkpoint
from weighttools.transforms.selection import select_plain
from weighttools.verbs.records import Record


def edited(
    src: PathLike | TensorMap,
    include: Sequence[str],
    exclude: Sequence[str],
    include_all: bool,
    transform: Callable[[tuple[str, ...], Record], Transform],
) -> TensorMap:
    """Choose tensors, and apply the transform that their names and the selection's record give.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    include, exclude, include_all
        As for `weighttools.transforms.selection.select`.
    transform
        Makes the transform of the names to change and of what the report says of them.
    """
    tensor_map = src if isinstance(src, TensorMap) else open_checkpoint(src)
    chosen = select_plain(tensor_map, include, exclude, include_all)
    return transform(chosen.names, chosen.record())(tensor_map)
