"""What each command calls, and what Python users call: the same verbs, returning plain records."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from weighttools.core.engine import collector_paused
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, chosen
from weighttools.io.progress import Progress, silent
from weighttools.verbs.formats import list_formats
from weighttools.verbs.get import get, is_value, pick
from weighttools.verbs.inspect import inspect
from weighttools.verbs.open import open
from weighttools.verbs.params import params
from weighttools.verbs.records import Record
from weighttools.verbs.stats import stats

if TYPE_CHECKING:
    from typing import Unpack

    from weighttools.transforms.changes import Changes
    from weighttools.transforms.layout_change import Layout


def save(
    path: PathLike,
    tensor_map: TensorMap,
    *,
    format: str | None = None,
    force: bool = False,
    dequantize: bool = False,
    store: str | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Record:
    """Write a map to a file (its suffix, or `format`, says how) or to a directory of shards; as `convert`.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, or cannot be written; it is then as it was.
    SpecError
        The format cannot hold the map.
    """
    if not isinstance(tensor_map, TensorMap):
        fact, remedy = f"{type(tensor_map).__name__} is no TensorMap", "TensorMap.from_arrays(...) makes one of arrays"
        raise SpecError(fact, subject="save", expected="save(path, map)", remedy=remedy)
    return convert(tensor_map, path, format=format, force=force, dequantize=dequantize, store=store, beside=beside)


def convert(
    src: PathLike | TensorMap,
    dst: PathLike,
    *,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    npz_bf16: str = "keep",
    assume: str | None = None,
    root: str | None = None,
    layout: str | None = None,
    layout_from: str | None = None,
    layout_rule: Sequence[str] = (),
    verify: bool = False,
    beside: Mapping[str, bytes] | None = None,
    progress: Progress = silent,
    **changes: Unpack[Changes],
) -> Record:
    """Convert a checkpoint to another format, dtype, sharding or layout, in memory that does not grow with it.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    dst
        The target. One with a suffix is a file; one without is a Hugging Face directory.
    format
        The target's format, if its suffix does not say it.
    max_shard_size
        Largest shard of a directory, in bytes or as ``"5GB"``; default 5 GB.
    single
        Write a directory's weights as one file.
    compression
        Compress the values, where the format can: ``"gzip"`` for HDF5.
    store
        ``"bitmask"`` stores tensors with many zeros as a bit for each element and the other values, in safetensors;
        see `weighttools.encodings.bitmask`. The values are read twice.
    dry_run
        Plan only: write nothing.
    force
        Replace an existing target.
    npz_bf16
        How NPZ and NPY hold floats that NumPy does not know: ``"keep"`` their bits, ``"float32"`` widens them exactly.
    assume, root
        As for `open`.
    layout, layout_from
        Rename and transpose tensors as this framework lays them out: ``"torch"``, ``"keras"``, ``"flax"`` or
        ``"mlx"``; from the layout of `layout_from`, or of the framework that the names and shapes speak for.
    layout_rule
        ``PATTERN=RULE``: what tensors are where the names do not tell; see `transforms.layout.layout`.
    verify
        Before the target gets its name, read what was written back with the format's reference reader (safetensors,
        NumPy, h5py, gguf, PyTorch), where it is installed, else with our own, and compare each tensor bit for bit with
        what was to be written; with `layout` also take every tensor back to the source's. If that fails, the target
        stays as it was.
    beside
        Files to put into a target directory, by name; they take the place of the source's. By default, with ``names``
        ``"hf"`` from a GGUF file, config.json and the tokenizer's files that its metadata stand for.
    progress
        Called with the number of bytes just written, or just looked at where `store` needs that first.
    changes
        What to change on the way, as `weighttools.transforms.changes.Changes` lists: ``include``, ``exclude``,
        ``names``, ``rename``, ``dequantize``, ``dtype``, ``keep_dtype``, ``saturate``, ``quantize``, ``tied``.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record: what was (or would be) written, planned peak memory, notes. With
        `layout` also `layout` (source, target, evidence), `layout_log` (a row for each tensor: src, dst, rule, why,
        shape_src, shape_dst) and `n_verified`. With `verify` also `n_verified`, how many tensors were compared, and
        `verified_with`, a row for each reader: reader, n_tensors, and why it was our own, if it was.

    Raises
    ------
    CorruptFileError
        What `verify` read back is not what was to be written.
    """
    from weighttools.transforms.changes import recodings, taken
    from weighttools.write import writing as conversion

    with collector_paused():
        opened = chosen(src, (), (), ReadOptions(assume, root))
        lacking: list[str] = []
        if beside is None:
            beside, lacking = gguf_companions(opened, os.fspath(dst), changes.get("names"), format)
        tensor_map = taken(opened, changes)
        tensor_map = tensor_map.noted(*lacking) if lacking else tensor_map
        changed = tensor_map.pipe(*recodings(changes, _is_for_llama_cpp(tensor_map, os.fspath(dst), format)))
        change = _layout(tensor_map, os.fspath(dst), layout, layout_from, layout_rule)
    record = conversion.write(
        change.apply(changed) if change else changed,
        os.fspath(dst),
        original=change.apply(tensor_map) if change else tensor_map,
        format_name=format,
        max_shard_size=max_shard_size,
        single=single,
        compression=compression,
        store=store,
        beside=beside,
        dry_run=dry_run,
        force=force,
        npz_bf16=npz_bf16,
        progress=progress,
        verify=verify,
        further=_taken_back(change, changed) if change else None,
    )
    return record | _laid_out(change, record) if change else record


def _is_for_llama_cpp(tensor_map: TensorMap, dst: str, format: str | None) -> bool:
    """Whether a model of GGUF's own names and settings becomes a GGUF file again."""
    to_gguf = (format or "").lower() == "gguf" or (format is None and dst.lower().endswith(".gguf"))
    return to_gguf and "general.architecture" in tensor_map.metadata


def gguf_companions(
    opened: TensorMap, dst: str, names: str | None, format: str | None = None
) -> tuple[dict[str, bytes], list[str]]:
    """Return the files that go into a directory with the tensors of a GGUF file, and what is lacking of them."""
    from weighttools.write.plan import means_directory

    if names != "hf" or not means_directory(dst, format):
        return {}, []
    from weighttools.train.checkpoints.companions import gguf_files

    return gguf_files(opened)


def _layout(
    tensor_map: TensorMap, dst: str, target: str | None, source: str | None, rules: Sequence[str]
) -> Layout | None:
    """Plan the change of layout that the options ask for, if any."""
    if target is None:
        if source or rules:
            raise SpecError("--layout-from and --layout-rule need --layout", expected="the target's layout")
        return None
    from weighttools.transforms.layout import layout
    from weighttools.transforms.layout_keras import structure_for

    return layout(tensor_map, target, source, rules, structure_for(dst) if target == "keras" else None)


def _laid_out(change: Layout, record: Record) -> Record:
    """Return what a record says of a change of layout."""
    where = {"source": change.source, "target": change.target, "evidence": list(change.evidence)}
    return {"layout": where, "layout_log": change.log(), "n_verified": record.get("n_verified", 0)}


def _taken_back(change: Layout, before: TensorMap) -> Callable[[TensorMap], int]:
    """Return what proves of a map of what was written that a change of layout lost nothing."""
    from weighttools.transforms.layout_verify import verify

    return lambda after: verify(before, after, change)


__all__ = [
    "convert",
    "get",
    "inspect",
    "is_value",
    "list_formats",
    "open",
    "params",
    "pick",
    "save",
    "stats",
]
