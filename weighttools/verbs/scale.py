"""The verb ``scale``: weights times a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (Option("by", float, help="The factor.", required=True), *SELECTING)


@takes(*OPTIONS)
def scale(
    src: PathLike | TensorMap,
    *,
    by: float,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
) -> TensorMap:
    """Multiply weights by a number.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    by
        The factor.
    include, exclude, include_all
        Name patterns of tensors to change, and of tensors to leave alone; and whether norms, biases and embeddings
        are changed too. Integers, buffers and quantised tensors never are.

    Returns
    -------
    TensorMap
        With a `report`. Elements are computed in float64 and rounded once; NaN and Inf keep their bits.

    Raises
    ------
    SpecError
        The factor is not finite, or no tensor is left to change.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.transforms import shrink
    from weighttools.verbs.editing import edited

    return edited(src, include, exclude, include_all, lambda names, says: shrink.scale(names, by, says))
