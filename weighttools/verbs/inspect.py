"""The verb ``inspect``: what a checkpoint is and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.core.options import Option, takes
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import OPENING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import InspectRecord

OPTIONS = (
    *OPENING,
    Option(
        "layout", bool, False,
        help="Show where everything lies: the byte map of each file, shares by dtype, role and module, first values, "
        "head and tail in hexadecimal.",
    ),
    Option(
        "sort", choices=("name", "size", "offset", "file"),
        help="Order of the tensors, by default the file's; implies --flat.",
    ),
)  # fmt: skip


@takes(*OPTIONS)
def inspect(
    path: PathLike | TensorMap,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    layout: bool = False,
    sort: str | None = None,
    tensors: bool = True,
) -> InspectRecord:
    """Say what a checkpoint is and what is in it, from its headers alone.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    include, exclude, assume, root
        As for `open`.
    layout
        Whether to add ``layout``: where headers, tensors, padding, gaps and overlaps lie in each file, how many bytes
        each dtype, role and module takes, the first values of each tensor, and the file's first and last bytes. Of
        values, no more is read than these few.
    sort
        Order of the list of tensors: by ``"name"`` (numbers by their value), ``"size"`` (largest first), ``"offset"``
        in the file, or ``"file"``, which is the default: as the file has them.
    tensors
        Whether to list every tensor, and every element of arrays in the metadata.

    Returns
    -------
    InspectRecord
        A ``weighttools.inspect/1`` record. `n_elements` counts every element of every stored tensor once: `n_state`
        those of training state (an optimizer's, a callback's), `n_buffers` those of buffers, `n_parameters` the
        others.

    Examples
    --------
    >>> record = inspect("fixtures/safetensors/tiny/model.safetensors")
    >>> record["n_parameters"], record["n_buffers"]
    (15, 1)
    """
    from weighttools.core.engine import collector_paused
    from weighttools.formats.opening import name_of
    from weighttools.verbs.records import inspect_record

    with collector_paused():
        tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
        record = inspect_record(tensor_map, name_of(path), tensors=tensors)
        if sort not in (None, "file"):
            record["tensors"].sort(key=_SORTS[sort or ""])
        if layout:
            from weighttools.verbs.layout import layout_record

            record["layout"] = layout_record(tensor_map)
        return record


def _natural(row: Any) -> list[Any]:
    """A sort key under which layers.2 comes before layers.10."""
    import re

    parts = re.split(r"([0-9]{1,18})", row["name"])  # numbers are the odd ones
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]


_SORTS: dict[str, Callable[[Any], Any]] = {
    "name": _natural,
    "size": lambda row: -row["stored_bytes"],
    "offset": lambda row: (row["file"] or "", row["offset"] or 0),
}
