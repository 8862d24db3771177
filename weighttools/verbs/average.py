"""The verb ``average``: the mean of checkpoints of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option(
        "weights", None, metavar="W,W,…",
        help="A weight for each checkpoint; divided by their sum. [default: equal]",
    ),
    Option(
        "ema", float, least=0, most=1,
        help="Instead: an exponential moving average with this decay, oldest first.",
    ),
    Option(
        "missing", default="error", choices=("error", "keep", "drop"), shows_default=True,
        help="A tensor that not all have: refuse, average over those that have it, or leave it out.",
    ),
    *SELECTING[:2],
)  # fmt: skip


@takes(*OPTIONS)
def average(
    srcs: Sequence[PathLike | TensorMap],
    *,
    weights: Sequence[float] | None = None,
    ema: float | None = None,
    missing: str = "error",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> TensorMap:
    """Average checkpoints element by element.

    Parameters
    ----------
    srcs
        Two or more of one model, as for `open`, or open maps; metadata and dtypes are the first's. Names that all of
        them tie stay tied; others are averaged each by itself.
    weights
        One each, divided by their sum; default equal.
    ema
        Instead: the exponential moving average over the series, oldest first, with this decay (0 to 1).
    missing
        What becomes of a tensor that not all have: ``"error"``, ``"keep"`` (the mean over those that have it) or
        ``"drop"``.
    include, exclude
        Name patterns of tensors to average. Others are copied from the first, and so are integers, buffers, masks,
        vectors of spectral norm, scales and training state; the report says so. Running statistics are averaged.

    Returns
    -------
    TensorMap
        With a `report`. Sums are float64, rounded once.

    Raises
    ------
    SpecError
        The checkpoints do not fit each other, or the weights them.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.errors import SpecError, option
    from weighttools.transforms import average as averaging
    from weighttools.verbs.open import open as open_checkpoint

    if weights is not None and ema is not None:
        raise SpecError(f"{option('weights')} and {option('ema')} exclude each other")
    maps = [open_checkpoint(src) for src in srcs]
    if not maps:
        raise SpecError("there is nothing to average", expected="two checkpoints or more")
    shares = [1.0] * len(maps) if weights is None else weights
    if ema is not None:
        shares = averaging.ema_weights(ema, len(maps))
    return averaging.average(maps, shares, include, exclude, missing, {"ema": ema})
