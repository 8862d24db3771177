"""The verb ``noise``: weights with normal noise added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option("std", float, help="The standard deviation.", least=0, required=True),
    Option("seed", int, 0, "The seed, an integer of 0 or more.", shows_default=True, least=0),
    *SELECTING,
)


@takes(*OPTIONS)
def noise(
    src: PathLike | TensorMap,
    *,
    std: float,
    seed: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
) -> TensorMap:
    """Add normal noise to weights, by (`seed`, name, position): blocks and threads do not matter.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    std
        The standard deviation.
    seed
        An integer of 0 or more.
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
        A number is out of range, or no tensor is left to change.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.transforms import shrink
    from weighttools.verbs.editing import edited

    return edited(src, include, exclude, include_all, lambda names, says: shrink.noise(names, std, seed, says))
