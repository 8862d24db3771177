"""The verb ``params``: parameters and buffers, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.verbs.grouping import resolve_grouping
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import DEPTH, OPENING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import ParamsRecord

OPTIONS = (
    Option(
        "by", default="dtype", choices=("dtype", "module", "depth", "role"), shows_default=True, help="Group by.",
    ),
    DEPTH,
    *OPENING,
)  # fmt: skip


@takes(*OPTIONS)
def params(
    path: PathLike | TensorMap,
    *,
    by: str = "dtype",
    depth: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
) -> ParamsRecord:
    """Count parameters and buffers, exactly, in groups.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    by
        ``"dtype"``, ``"module"`` (the name without its last part), ``"depth"`` (its first `depth` parts) or ``"role"``
        (weight, norm, bias, …; each group then says in `because` what tells so, and of how many tensors).
    depth
        How many parts of the name make a group; implies ``by="depth"``, where 1 is the default.
    include, exclude, assume, root
        As for `open`.

    Returns
    -------
    ParamsRecord
        A ``weighttools.params/1`` record: `n_parameters`, `n_buffers` and `n_state` (an optimizer's, a callback's)
        add up to `n_elements`. Tied tensors count once; packed 4- and 6-bit dtypes count elements.
    """
    from weighttools.core.engine import collector_paused
    from weighttools.formats.opening import name_of
    from weighttools.verbs.records import params_record

    by, parts = resolve_grouping(by, depth, "dtype")
    with collector_paused():
        return params_record(
            open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root), name_of(path), by, parts
        )
