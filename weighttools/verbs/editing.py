"""What verbs that change values share: which tensors they change, the transform that follows, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.formats.opening import PathLike
from weighttools.transforms.selection import select_plain
from weighttools.verbs.open import open as open_checkpoint
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
    tensor_map = open_checkpoint(src)
    chosen = select_plain(tensor_map, include, exclude, include_all)
    return transform(chosen.names, chosen.record())(tensor_map)


def reading_bytes(
    src: PathLike | TensorMap,
    *,
    passes: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
) -> int:
    """Return how many bytes `prune` or `clip` look at before anything is written.

    Parameters
    ----------
    passes
        What for: ``"magnitude"`` or ``"random"`` (up to four passes), or ``"norm"`` (one).
    include, exclude, include_all
        As for `edited`.
    """
    from weighttools.transforms.prune import reading_bytes as of

    tensor_map = open_checkpoint(src)
    tensors = [tensor_map[name] for name in select_plain(tensor_map, include, exclude, include_all).names]
    return sum(t.spec.nbytes for t in tensors) if passes == "norm" else of(tensors, passes == "random")
