"""The verb ``decay``: weights shrink as steps of weight decay would shrink them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option("rate", float, 0.0, "L2: each step multiplies by 1 - lr x rate.", least=0),
    Option("l1", float, 0.0, "L1: each step moves lr x l1 towards zero, at most to it.", least=0),
    Option("lr", float, 1.0, "The learning rate.", shows_default=True, above=0),
    Option("steps", int, 1, "How many steps at once.", shows_default=True, least=1),
    *SELECTING,
)


@takes(*OPTIONS)
def decay(
    src: PathLike | TensorMap,
    *,
    rate: float = 0.0,
    l1: float = 0.0,
    lr: float = 1.0,
    steps: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
) -> TensorMap:
    """Shrink weights as `steps` of decoupled weight decay would.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    rate
        L2: each step multiplies by ``1 - lr rate``.
    l1
        L1: each step then moves ``lr l1`` towards zero (the proximal step); with `rate` that is the elastic net.
    lr, steps
        The learning rate and the number of steps.
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

    return edited(
        src, include, exclude, include_all, lambda names, says: shrink.decay(names, rate, l1, lr, steps, says)
    )
