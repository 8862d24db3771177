"""The verb ``save``: a map is written to a file or a directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import WRITING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.records import Record

DEQUANTIZE = Option(
    "dequantize", bool, False, "Decode quantised tensors to float32; --dtype decodes them anyway."
)  # fmt: skip
MASKS = Option(
    "masks", flags=("--mask-out",), metavar="FILE", is_path=True,
    help="Save the masks too: booleans, true where kept.",
)  # fmt: skip
VERIFY = Option(
    "verify", bool, False,
    help="Read the result back with the format's own library, and compare every bit, before it gets its name.",
)  # fmt: skip
OPTIONS = (*WRITING, DEQUANTIZE, VERIFY, MASKS)


@takes(*OPTIONS)
def save(
    path: PathLike,
    tensor_map: TensorMap | Mapping[str, Any],
    *,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    npz_bf16: str = "keep",
    dry_run: bool = False,
    force: bool = False,
    dequantize: bool = False,
    verify: bool = False,
    masks: PathLike | None = None,
    beside: Mapping[str, bytes] | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Write a map to a file (its suffix, or `format`, says how) or to a directory of shards, whole or not at all.

    Parameters
    ----------
    path
        The target. One with a suffix is a file; one without is a Hugging Face directory; ``"-"`` is standard output.
    tensor_map
        What to write: a map, or names to arrays (or tensors), as `TensorMap.from_arrays` takes them. The checkpoint
        that a map comes from may be replaced by it; a part of that may not, nor one of several checkpoints or an
        adapter that it is put together from.
    format, max_shard_size, single, compression, store, npz_bf16, dry_run, force
        How to write it, and whether; as for `convert`.
    dequantize
        Decode quantised tensors to float32.
    verify
        Before the target gets its name, read back what was written and compare it bit for bit; as for `convert`.
    masks
        Of a map that was just pruned: where to write its masks with it, booleans, true where a weight is kept. Both
        appear, or none.
    beside
        Files to put into a target directory, by name; they take the place of the source's.
    planned
        Called once with the number of bytes that `progress` will be told.
    progress
        Called with the number of bytes just written, or just looked at where `store` needs that first.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record, with `masks` the path of the masks.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, or cannot be written; it is then as it was.
    SpecError
        The format cannot hold the map, or something that is read would be lost.
    """
    from weighttools.core.tensormap import TensorMap
    from weighttools.errors import SpecError
    from weighttools.write.masks import with_masks
    from weighttools.write.plan import plan

    if not isinstance(tensor_map, TensorMap):
        if not isinstance(tensor_map, Mapping):
            fact, remedy = (
                f"{type(tensor_map).__name__} is no TensorMap",
                "TensorMap.from_arrays(...) makes one of arrays",
            )
            raise SpecError(fact, subject="save", expected="save(path, map)", remedy=remedy)
        tensor_map = TensorMap.from_arrays(tensor_map)
    made = plan(
        _decoded(tensor_map) if dequantize else tensor_map, os.fspath(path),
        original=tensor_map, format=format, max_shard_size=max_shard_size, single=single, compression=compression,
        store=store, npz_bf16=npz_bf16, force=force, beside=beside,
        verify=verify,
    )  # fmt: skip
    write = made if masks is None else with_masks(made, os.fspath(masks))
    return write.run(dry_run=dry_run, planned=planned, progress=progress)


def _decoded(tensor_map: TensorMap) -> TensorMap:
    from weighttools.transforms.dequantize import dequantize

    return dequantize()(tensor_map)


def check_targets(
    path: PathLike,
    *,
    format: str | None = None,
    force: bool = False,
    masks: PathLike | None = None,
    reads: Sequence[str] = (),
) -> None:
    """Refuse, before values are read for long, what `save` could not write.

    Parameters
    ----------
    path, format, force, masks
        As for `save`.
    reads
        What is read, that masks may not take the place of.

    Raises
    ------
    SourceError, SpecError
        As of `save`.
    """
    from weighttools.write.early import check_writable
    from weighttools.write.masks import check_masks

    if masks is not None:
        check_masks(os.fspath(masks), os.fspath(path), list(reads), force)
    check_writable(os.fspath(path), force, format)
