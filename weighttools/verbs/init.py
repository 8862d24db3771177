"""The verb ``init``: tensors drawn anew, as before training."""

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
        "method", default="he_normal", shows_default=True, metavar="NAME",
        help="xavier_normal, xavier_uniform, he_normal, he_uniform, lecun_normal, lecun_uniform, orthogonal, normal, "
        "truncated_normal, uniform, constant, zeros.",
    ),
    Option("activation", metavar="NAME", help="What follows the layers: relu, tanh, …; sets the gain."),
    Option(
        "layout", default="torch", choices=("torch", "keras"), shows_default=True,
        help="How kernels lie: (out, in, …) or (…, in, out).",
    ),
    Option("std", float, help="Standard deviation of normal and truncated_normal; bound of uniform."),
    Option("value", float, help="The value of constant."),
    Option("seed", int, 0, "The seed, an integer of 0 or more.", shows_default=True, least=0),
    *SELECTING,
)  # fmt: skip


@takes(*OPTIONS)
def init(
    src: PathLike | TensorMap,
    *,
    method: str = "he_normal",
    activation: str | None = None,
    layout: str = "torch",
    std: float | None = None,
    value: float | None = None,
    seed: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
) -> TensorMap:
    """Draw tensors anew, as before training; the values depend on (`seed`, name), and not on blocks or threads.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    method
        A name of `weighttools.transforms.initializers.INITIALIZERS`: ``"xavier_normal"``, ``"orthogonal"``, …
    activation
        What follows the layers, for the gain of Xavier, He and orthogonal initialisers; by default each one's own.
    layout
        How kernels lie: ``"torch"`` (out, in, …) or ``"keras"`` (…, in, out); fan-in and fan-out depend on it.
    std
        The standard deviation of ``"normal"`` and ``"truncated_normal"``, or the bound of ``"uniform"``.
    value
        The value of ``"constant"``.
    seed
        Recorded in the metadata entry ``weighttools.init``.
    include, exclude, include_all
        Name patterns of tensors to change, and of tensors to leave alone; and whether norms, biases and embeddings
        are changed too. Integers, buffers and quantised tensors never are.

    Returns
    -------
    TensorMap
        With a `report`.

    Raises
    ------
    SpecError
        The method, or what it needs, is not known; a tensor has no fan; the seed is no integer of 0 or more.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.transforms.initializer_choice import draw_anew, initializer
    from weighttools.verbs.editing import edited

    rule = initializer(method, activation=activation, layout=layout, std=std, value=value)
    return edited(src, include, exclude, include_all, lambda names, says: draw_anew(names, method, rule, seed, says))
