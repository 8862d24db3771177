"""What each command calls, and what Python users call: the same verbs, returning plain records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.engine import collector_paused
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, SpecError, WeighttoolsError
from weighttools.formats.base import ReadOptions
from weighttools.io.progress import Progress, silent
from weighttools.records import Record, format_records, inspect_record, params_record

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Unpack

    from weighttools.changes import Changes
    from weighttools.core.tensor import Array
    from weighttools.transforms.layout import Layout

PathLike = str | os.PathLike[str]


def open(path: PathLike, *, assume: str | None = None, root: str | None = None) -> TensorMap:
    """Open a checkpoint; only headers are read.

    Parameters
    ----------
    path
        A weight file, a directory with weights, an index file, ``org/model`` in the local Hugging Face cache, or
        ``-`` for standard input.
    assume
        The dtype of elements whose type the file does not name (a bare ``V2`` in an NPZ).
    root
        The part of a nested checkpoint to read, by its dotted path; ``"."`` reads all of it by full names. By
        default the usual wrappers (``state_dict``, ``model``, …) are taken off, and a note says so.

    Raises
    ------
    SourceError
        There is nothing to read there.
    FormatError
        What is there is not known, damaged, or unsafe.

    Examples
    --------
    >>> tensor_map = open("fixtures/safetensors/tiny/model.safetensors")
    >>> tensor_map["fc.weight"].shape
    (3, 4)
    >>> tensor_map["fc.weight"][0, :2]
    array([0., 1.], dtype=float32)
    """
    try:
        return _opened(located(os.fspath(path)), ReadOptions(assume, root))
    except WeighttoolsError:
        raise
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror or error}", subject=os.fspath(error.filename or path)
        ) from None


def _opened(place: str, options: ReadOptions) -> TensorMap:
    from weighttools.formats import read_file
    from weighttools.io.source import open_source

    if place.endswith(".index.json") or os.path.isdir(place):
        from weighttools.formats import huggingface

        return huggingface.read(place, options)
    if place.endswith(".weights.json"):
        from weighttools.formats import keras

        return keras.read_index(place, options)
    return read_file(open_source(place), options)


def located(path: str) -> str:
    """Return where `path` points: itself if it exists, else the snapshot in the Hugging Face cache that it names."""
    if path == "-" or "://" in path or os.path.exists(path):
        return path
    if path.count("/") == 1 and not path.startswith((".", "/")):
        from weighttools.formats import huggingface

        found = huggingface.cached(path)
        if found is not None:
            return str(found)
        raise SourceError(
            "no such file, and no such model in the Hugging Face cache",
            subject=path,
            remedy=f"looked in {huggingface.cache_directory()}",
        )
    return path


def save(
    path: PathLike, tensor_map: TensorMap, *, format: str | None = None, force: bool = False, dequantize: bool = False
) -> Record:
    """Write a map to a file (its suffix, or `format`, says how) or to a directory of shards; as `convert`.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, or cannot be written; it is then as it was.
    SpecError
        The format cannot hold the map.
    """
    return convert(tensor_map, path, format=format, force=force, dequantize=dequantize)


def convert(
    src: PathLike | TensorMap,
    dst: PathLike,
    *,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    npz_bf16: str = "keep",
    assume: str | None = None,
    root: str | None = None,
    layout: str | None = None,
    layout_from: str | None = None,
    layout_rule: Sequence[str] = (),
    verify: bool = False,
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
        Open what was written with another layout, take every tensor back and compare it bit for bit.
    progress
        Called with the number of bytes just written.
    changes
        What to change on the way, as `weighttools.changes.Changes` lists: ``include``, ``exclude``, ``names``,
        ``dequantize``, ``dtype``, ``keep_dtype``, ``saturate``, ``quantize``, ``tied``.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record: what was (or would be) written, planned peak memory, notes. With
        `layout` also `layout` (source, target, evidence), `layout_log` (a row for each tensor: src, dst, rule, why,
        shape_src, shape_dst) and `n_verified`.
    """
    from weighttools import conversion
    from weighttools.changes import recodings, taken

    with collector_paused():
        tensor_map = taken(chosen(src, (), (), ReadOptions(assume, root)), changes)
        changed = tensor_map.pipe(*recodings(changes))
        change = _layout(tensor_map, os.fspath(dst), layout, layout_from, layout_rule, verify)
    record = conversion.write(
        change.apply(changed) if change else changed,
        os.fspath(dst),
        original=change.apply(tensor_map) if change else tensor_map,
        format_name=format,
        max_shard_size=max_shard_size,
        single=single,
        compression=compression,
        dry_run=dry_run,
        force=force,
        npz_bf16=npz_bf16,
        progress=progress,
    )
    return record | _laid_out(change, changed, os.fspath(dst), verify and not dry_run) if change else record


def _layout(
    tensor_map: TensorMap, dst: str, target: str | None, source: str | None, rules: Sequence[str], verify: bool
) -> Layout | None:
    """Plan the change of layout that the options ask for, if any."""
    if target is None:
        if source or rules or verify:
            raise SpecError("--layout-from, --layout-rule and --verify need --layout", expected="the target's layout")
        return None
    if verify and dst == "-":
        raise SpecError("--verify reads what was written", subject=dst, expected="a file or directory as target")
    from weighttools.transforms.layout import layout

    return layout(tensor_map, target, source, rules)


def _laid_out(change: Layout, before: TensorMap, dst: str, verify: bool) -> Record:
    """Return what a record says of a change of layout, proven if asked for."""
    from weighttools.transforms.layout import verify as proven

    where = {"source": change.source, "target": change.target, "evidence": list(change.evidence)}
    n_verified = proven(before, open(dst), change) if verify else 0
    return {"layout": where, "layout_log": change.log(), "n_verified": n_verified}


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
        A ``weighttools.inspect/1`` record. `n_elements` counts every element of every stored tensor once;
        `n_parameters` those of floating tensors that are neither buffers nor optimizer state.

    Examples
    --------
    >>> record = inspect("fixtures/safetensors/tiny/model.safetensors")
    >>> record["n_parameters"], record["n_buffers"]
    (15, 1)
    """
    with collector_paused():
        tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
        return inspect_record(tensor_map, name_of(path), tensors=tensors)


def name_of(path: PathLike | TensorMap) -> str:
    """Return what a record calls a checkpoint."""
    return path.origin.path if isinstance(path, TensorMap) else os.fspath(path)


def chosen(
    path: PathLike | TensorMap, include: Sequence[str], exclude: Sequence[str], options: ReadOptions
) -> TensorMap:
    """Open a checkpoint, if it is not open yet, and keep the tensors that the patterns choose."""
    tensor_map = path if isinstance(path, TensorMap) else open(path, assume=options.assume, root=options.root)
    return tensor_map.select(*include, exclude=exclude)


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
        ``"dtype"``, ``"module"`` (the name without its last part) or ``"depth"`` (its first `depth` parts).
    depth
        How many parts of the name make a group, for ``by="depth"``.
    include, exclude, assume, root
        As for `convert`.

    Returns
    -------
    dict
        A ``weighttools.params/1`` record. Tied tensors count once; packed 4- and 6-bit dtypes count elements.
    """
    with collector_paused():
        return params_record(chosen(path, include, exclude, ReadOptions(assume, root)), name_of(path), by, depth)


def stats(
    path: PathLike | TensorMap,
    *,
    by: str = "tensor",
    depth: int = 1,
    norms: Sequence[str] = (),
    quantiles: Sequence[float] = (),
    hist: int | None = None,
    entropy: bool = False,
    sparsity: bool = False,
    kurtosis: bool = False,
    outliers: bool = False,
    eps: float | None = None,
    where: str | None = None,
    sort: str | None = None,
    top: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    kernel: str = "auto",
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Record:
    """Describe the values of a checkpoint: every figure in one pass over it, in memory that does not grow with it.

    NaN and Inf are counted, and left out of every other figure; -0.0 is a zero; bools are 0 and 1; complex numbers
    go by magnitude.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    by
        ``"tensor"``, ``"module"`` (the name without its last part), ``"dtype"``, or ``"depth"`` (the name's first
        `depth` parts). Figures that belong to one tensor (its patterns, channels and singular values) are null
        for groups and for the total.
    depth
        How many parts of the name make a group, for ``by="depth"``.
    norms
        ``"spectral"`` and ``"nuclear"`` are computed, from all singular values; ``"l1"``, ``"l2"`` and ``"inf"``
        always are.
    quantiles
        Probabilities from 0 to 1; exact, as `numpy.quantile` in float64. Dtypes of more than two bytes take two to
        four passes more.
    hist
        Bins of a histogram from minimum to maximum, exact; dtypes of more than two bytes take one more pass.
    entropy
        Also entropy (bits an element) and the number of distinct values, for dtypes of at most two bytes.
    sparsity
        Also 2:4 and 4:8 compliance along the last axis, and empty rows, columns, channels and 16 x 16 blocks.
    kurtosis, outliers
        Also skewness and excess kurtosis; channels whose largest magnitude stands out.
    eps
        Also count magnitudes up to this.
    where
        Keep the rows that meet a condition, such as ``"sparsity > 0.5 and dtype == bf16"``.
    sort
        A figure to sort the rows by, largest first (texts: first first); null last.
    top
        Keep this many rows.
    include, exclude, assume, root
        As for `convert`.
    threads
        Worker threads; default: one a CPU.
    kernel
        ``"numpy"``, ``"numba"`` (extra ``[fast]``), or ``"auto"``: numba for gigabytes, if it is installed.
    executor
        Any `concurrent.futures.Executor` to compute in, instead of threads.
    progress
        Called with the number of stored bytes just done, in every pass.

    Returns
    -------
    dict
        A ``weighttools.stats/1`` record: ``tensors`` (or ``groups``), and ``total`` over all of them, whether shown or
        not. Its figures are the same to the last bit for any number of threads and any executor.

    Raises
    ------
    SpecError
        An option does not fit.

    Examples
    --------
    >>> record = stats("fixtures/safetensors/tiny/model.safetensors")
    >>> record["total"]["count"]
    16
    """
    from weighttools.analyzers.describe import Request
    from weighttools.analyzers.rows import Means, grouped, rows_of, selection

    request = Request(
        quantiles=tuple(quantiles),
        bins=hist,
        entropy=entropy,
        structure=sparsity,
        kurtosis=kurtosis,
        outliers=outliers,
        near_zero=eps is not None,
        norms=tuple(norms),
    ).checked()
    tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
    groups = grouped(tensor_map, by, depth)
    shown = selection(request, by, where, sort, top)
    rows, total = rows_of(groups, request, Means(eps or 0.0, threads, kernel, executor, progress))
    return {
        "schema": "weighttools.stats/1",
        "path": name_of(path),
        "by": by,
        "n_rows": len(rows),
        "tensors" if by == "tensor" else "groups": shown.of(rows),
        "total": total,
        "aliases": dict(tensor_map.aliases),
        "notes": list(tensor_map.origin.notes),
    }


def get(path: PathLike, name: str, *, assume: str | None = None, root: str | None = None) -> Array:
    """Read one tensor, or a slice of one, and only the byte ranges that it needs.

    Parameters
    ----------
    path, assume, root
        As for `open`.
    name
        A tensor's name, or ``NAME[SLICE]`` with integers, slices and ``...``, as in ``"fc.weight[0, :10]"``.

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
    return pick(open(path, assume=assume, root=root), name).read()


def pick(tensor_map: TensorMap, name: str) -> Tensor:
    """Return the tensor that ``NAME`` or ``NAME[SLICE]`` means; a name that itself ends in brackets comes first."""
    from weighttools.core.slicing import parse_slice

    if name in tensor_map or not name.endswith("]"):
        return tensor_map[name]
    stem, _, inside = name[:-1].rpartition("[")
    return tensor_map[stem].sliced(parse_slice(inside))


def list_formats() -> list[Record]:
    """Return what is read and written, and which extra it needs."""
    return format_records()
