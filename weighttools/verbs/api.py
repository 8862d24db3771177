"""What each command calls, and what Python users call: the same verbs, returning plain records."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from weighttools.core.engine import collector_paused
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, chosen, name_of, open
from weighttools.io.progress import Progress, silent
from weighttools.verbs.records import Record, format_records, inspect_record, params_record
from weighttools.verbs.stats import stats

if TYPE_CHECKING:
    from typing import Unpack

    from weighttools.core.spec import Array
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
    from weighttools.families.gguf.companions import gguf_files

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


def inspect(
    path: PathLike | TensorMap,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    tensors: bool = True,
) -> Record:
    """Say what a checkpoint is and what is in it, from its headers alone.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    include, exclude, assume, root
        As for `convert`.
    tensors
        Whether to list every tensor, and every element of arrays in the metadata.

    Returns
    -------
    dict
        A ``weighttools.inspect/1`` record. `n_elements` counts every element of every stored tensor once: `n_state`
        those of training state (an optimizer's, a callback's), `n_buffers` those of buffers, `n_parameters` the
        others.

    Examples
    --------
    >>> record = inspect("fixtures/safetensors/tiny/model.safetensors")
    >>> record["n_parameters"], record["n_buffers"]
    (15, 1)
    """
    with collector_paused():
        tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
        return inspect_record(tensor_map, name_of(path), tensors=tensors)


def params(
    path: PathLike | TensorMap,
    *,
    by: str = "dtype",
    depth: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
) -> Record:
    """Count parameters and buffers, exactly, in groups.

    Parameters
    ----------
    path
        As for `open`.
    by
        ``"dtype"``, ``"module"`` (the name without its last part), ``"depth"`` (its first `depth` parts) or ``"role"``
        (weight, norm, bias, …; each group then says in `because` what tells so, and of how many tensors).
    depth
        How many parts of the name make a group, for ``by="depth"``.
    include, exclude, assume, root
        As for `convert`.

    Returns
    -------
    dict
        A ``weighttools.params/1`` record: `n_parameters`, `n_buffers` and `n_state` (an optimizer's, a callback's)
        add up to `n_elements`. Tied tensors count once; packed 4- and 6-bit dtypes count elements.
    """
    with collector_paused():
        return params_record(chosen(path, include, exclude, ReadOptions(assume, root)), name_of(path), by, depth)


def get(path: PathLike, name: str, *, assume: str | None = None, root: str | None = None) -> Array:
    """Read one tensor, or a slice of one, and only the byte ranges that it needs.

    Parameters
    ----------
    path, assume, root
        As for `open`.
    name
        A tensor's name, or ``NAME[SLICE]`` with integers, slices and ``...``, as in ``"fc.weight[0, :10]"``; or that
        of a small value beside the tensors, such as ``"epoch"``, which then is an array without axes.

    Raises
    ------
    TensorNotFoundError
        There is no such tensor; near names are given.
    SpecError
        The slice does not fit the tensor.

    Examples
    --------
    >>> get("fixtures/safetensors/tiny/model.safetensors", "fc.weight[-1, 1:3]")
    array([ 9., 10.], dtype=float32)
    """
    tensor_map = open(path, assume=assume, root=root)
    if is_value(tensor_map, name):
        import numpy as np

        return np.asarray(tensor_map.origin.values[name])
    return pick(tensor_map, name).read()


def is_value(tensor_map: TensorMap, name: str) -> bool:
    """Whether a name is that of a small value beside the tensors, such as an epoch, and of no tensor."""
    return name not in tensor_map and name in tensor_map.origin.values


def pick(tensor_map: TensorMap, name: str) -> Tensor:
    """Return the tensor that ``NAME`` or ``NAME[SLICE]`` means; a name that itself ends in brackets comes first."""
    from weighttools.core.slicing import parse_slice

    if name in tensor_map or not name.endswith("]"):
        return _named(tensor_map, name)
    stem, _, inside = name[:-1].rpartition("[")
    return _named(tensor_map, stem).sliced(parse_slice(inside))


def _named(tensor_map: TensorMap, name: str) -> Tensor:
    """Return a tensor; where there is none of that name, near names are those of small values too."""
    if name in tensor_map:
        return tensor_map[name]
    from weighttools.core.patterns import not_found

    raise not_found(name, [*tensor_map, *tensor_map.origin.values])


def list_formats() -> list[Record]:
    """Return what is read and written, and which extra it needs."""
    return format_records()


__all__ = [
    "convert",
    "get",
    "inspect",
    "list_formats",
    "open",
    "params",
    "pick",
    "save",
    "stats",
]
