"""The verb ``clip``: weights within a range, or tensors within a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option("value", float, help="Clip each weight to -VALUE … VALUE.", least=0),
    Option("norm", float, help="Scale each tensor whose L2 norm is larger down to NORM.", least=0),
    *SELECTING,
)


@takes(*OPTIONS)
def clip(
    src: PathLike | TensorMap,
    *,
    value: float | None = None,
    norm: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
    progress: Progress = silent,
) -> TensorMap:
    """Clip weights by value, or tensors by norm.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    value
        Clip each weight to ``-value`` to `value`.
    norm
        Instead: scale each tensor whose L2 norm is larger down to it. The values are read now.
    include, exclude, include_all
        Name patterns of tensors to change, and of tensors to leave alone; and whether norms, biases and embeddings
        are changed too. Integers, buffers and quantised tensors never are.
    progress
        Called with the number of bytes just looked at; see `weighttools.verbs.editing.reading_bytes`.

    Returns
    -------
    TensorMap
        With a `report`. Elements are computed in float64 and rounded once; NaN and Inf keep their bits.

    Raises
    ------
    SpecError
        Not one of `value` and `norm` is given, it is out of range, or no tensor is left to change.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.transforms import shrink
    from weighttools.verbs.editing import edited

    return edited(
        src, include, exclude, include_all, lambda names, says: shrink.clip(names, value, norm, says, progress)
    )
