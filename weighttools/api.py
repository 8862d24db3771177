"""What each command calls, and what Python users call: the same verbs, returning plain records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weighttools.analyzers import counts
from weighttools.core.engine import collector_paused
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, SpecError
from weighttools.formats.base import ReadOptions
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.core.tensor import Array

PathLike = str | os.PathLike[str]
Record = dict[str, Any]


def open(path: PathLike, *, assume: str | None = None) -> TensorMap:
    """Open a checkpoint; only headers are read.

    Parameters
    ----------
    path
        A weight file, a directory with weights, an index file, ``org/model`` in the local Hugging Face cache, or
        ``-`` for standard input.
    assume
        The dtype of elements whose type the file does not name (a bare ``V2`` in an NPZ).

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
    from weighttools.formats import read_file
    from weighttools.io.source import open_source

    options = ReadOptions(assume)
    place = _located(os.fspath(path))
    if place.endswith(".index.json") or os.path.isdir(place):
        from weighttools.formats import huggingface

        return huggingface.read(place, options)
    return read_file(open_source(place), options)


def _located(path: str) -> str:
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


def save(path: PathLike, tensor_map: TensorMap, *, format: str | None = None, force: bool = False) -> Record:
    """Write a map to a file (its suffix, or `format`, says how) or to a directory of shards; as `convert`.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, or cannot be written; it is then as it was.
    SpecError
        The format cannot hold the map.
    """
    from weighttools.conversion import write

    return write(tensor_map, os.fspath(path), format_name=format, force=force)


def convert(
    src: PathLike,
    dst: PathLike,
    *,
    dtype: str | None = None,
    keep_dtype: Sequence[str] = (),
    saturate: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    dry_run: bool = False,
    force: bool = False,
    assume: str | None = None,
    progress: Progress = silent,
) -> Record:
    """Convert a checkpoint to another format, dtype or sharding, in memory that does not grow with it.

    Parameters
    ----------
    src, dst
        Source and target. A target with a suffix is a file; one without is a Hugging Face directory.
    dtype
        Cast floating tensors to this dtype.
    keep_dtype
        Name patterns of tensors that are not cast.
    saturate
        Clip to the target dtype's range instead of giving Inf or NaN.
    include, exclude
        Name patterns of tensors to take, and to leave out.
    format
        The target's format, if its suffix does not say it.
    max_shard_size
        Largest shard of a directory, in bytes or as ``"5GB"``; default 5 GB.
    single
        Write a directory's weights as one file.
    dry_run
        Plan only: write nothing.
    force
        Replace an existing target.
    assume
        As for `open`.
    progress
        Called with the number of bytes just written.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record: what was (or would be) written, planned peak memory, notes.
    """
    from weighttools import conversion
    from weighttools.core.dtypes import dtype as dtype_named
    from weighttools.transforms.cast import cast

    if keep_dtype and not dtype:
        raise SpecError("--keep-dtype needs --dtype", expected="a dtype to cast the other tensors to")
    with collector_paused():
        tensor_map = _chosen(src, include, exclude, assume)
        changed = cast(dtype_named(dtype), keep_dtype, saturate)(tensor_map) if dtype else tensor_map
    return conversion.write(
        changed,
        os.fspath(dst),
        original=tensor_map,
        format_name=format,
        max_shard_size=max_shard_size,
        single=single,
        dry_run=dry_run,
        force=force,
        progress=progress,
    )


def inspect(
    path: PathLike | TensorMap,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    tensors: bool = True,
) -> Record:
    """Say what a checkpoint is and what is in it, from its headers alone.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    include, exclude, assume
        As for `convert`.
    tensors
        Whether to list every tensor.

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
    from weighttools.analyzers.families import families
    from weighttools.analyzers.kind import kind

    with collector_paused():
        tensor_map = _chosen(path, include, exclude, assume)
        found = families(tensor_map)
        groups = counts.by_dtype(found)
        total = counts.total(groups)
        kind_name, evidence = kind(found, tensor_map.origin)
        return {
            "schema": "weighttools.inspect/1",
            "path": tensor_map.origin.path if isinstance(path, TensorMap) else os.fspath(path),
            "format": tensor_map.origin.format,
            "kind": kind_name,
            "evidence": evidence,
            "metadata": dict(tensor_map.metadata),
            "n_tensors": len(tensor_map),
            "n_parameters": total.n_parameters,
            "n_buffers": total.n_buffers,
            "n_elements": total.n_elements,
            "stored_bytes": total.stored_bytes,
            "dtypes": {name: _dtype_record(count) for name, count in groups.items()},
            "aliases": dict(tensor_map.aliases),
            "files": list(tensor_map.origin.files),
            "notes": list(tensor_map.origin.notes),
            "tensors": [_tensor_record(name, tensor) for name, tensor in tensor_map.items()] if tensors else [],
        }


def _chosen(
    path: PathLike | TensorMap, include: Sequence[str], exclude: Sequence[str], assume: str | None
) -> TensorMap:
    tensor_map = path if isinstance(path, TensorMap) else open(path, assume=assume)
    return tensor_map.select(*include, exclude=exclude)


def _dtype_record(count: counts.Count) -> Record:
    return {"n_tensors": count.n_tensors, "n_elements": count.n_elements, "stored_bytes": count.stored_bytes}


def _tensor_record(name: str, tensor: Tensor) -> Record:
    spec, stored = tensor.spec, tensor.stored
    return {
        "name": name,
        "dtype": spec.dtype.name,
        "shape": list(spec.shape),
        "n_elements": spec.n_elements,
        "stored_bytes": tensor.stored_bytes,
        "encoding": spec.encoding,
        "offset": stored.offset if stored else None,
        "file": stored.source.name if stored else None,
    }


def params(
    path: PathLike | TensorMap,
    *,
    by: str = "dtype",
    depth: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
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
    include, exclude, assume
        As for `convert`.

    Returns
    -------
    dict
        A ``weighttools.params/1`` record. Tied tensors count once; packed 4- and 6-bit dtypes count elements.
    """
    if by not in ("dtype", "module", "depth") or depth < 1:
        raise SpecError(f"cannot count by {by!r} at depth {depth}", expected="dtype, module, or depth from 1")
    with collector_paused():
        tensor_map = _chosen(path, include, exclude, assume)
        groups = _groups(tensor_map, by, depth)
    total = counts.total(groups)
    return {
        "schema": "weighttools.params/1",
        "path": tensor_map.origin.path if isinstance(path, TensorMap) else os.fspath(path),
        "n_parameters": total.n_parameters,
        "n_buffers": total.n_buffers,
        "n_elements": total.n_elements,
        "stored_bytes": total.stored_bytes,
        "aliases": dict(tensor_map.aliases),
        "notes": list(tensor_map.origin.notes),
        "groups": [_group_record(name, count) for name, count in groups.items()],
    }


def _groups(tensor_map: TensorMap, by: str, depth: int) -> dict[str, counts.Count]:
    if by == "dtype":
        from weighttools.analyzers.families import families

        return counts.by_dtype(families(tensor_map))
    return counts.by_name(tensor_map, counts.module if by == "module" else counts.first_parts(depth))


def _group_record(name: str, count: counts.Count) -> Record:
    return {
        "group": name,
        "n_tensors": count.n_tensors,
        "n_parameters": count.n_parameters,
        "n_buffers": count.n_buffers,
        "stored_bytes": count.stored_bytes,
    }


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
    threads: int | None = None,
    kernel: str = "auto",
    executor: Executor | None = None,
    dry_run: bool = False,
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
    include, exclude, assume
        As for `convert`.
    threads
        Worker threads; default: one a CPU.
    kernel
        ``"numpy"``, ``"numba"`` (extra ``[fast]``), or ``"auto"``: numba for gigabytes, if it is installed.
    executor
        Any `concurrent.futures.Executor` to compute in, instead of threads.
    dry_run
        Plan only: check the options, and give ``read_bytes``, the most that would be read.
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
    from weighttools.analyzers.describe import Request, planned_bytes
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
    tensor_map = _chosen(path, include, exclude, assume)
    means = Means(0.0 if eps is None else eps, threads, kernel, executor, progress)
    groups = grouped(tensor_map, by, depth)
    shown = selection(request, by, where, sort, top)
    head = {
        "schema": "weighttools.stats/1",
        "path": tensor_map.origin.path if isinstance(path, TensorMap) else os.fspath(path),
        "by": by,
        "read_bytes": planned_bytes([labelled.group for labelled in groups], request),
    }
    if dry_run:
        return head
    rows, total = rows_of(groups, request, means)
    return {
        **head,
        "n_rows": len(rows),
        "tensors" if by == "tensor" else "groups": shown.of(rows),
        "total": total,
        "aliases": dict(tensor_map.aliases),
        "notes": list(tensor_map.origin.notes),
    }


def get(path: PathLike, name: str, *, assume: str | None = None) -> Array:
    """Read one tensor, or a slice of one, and only the byte ranges that it needs.

    Parameters
    ----------
    path
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
    return pick(open(path, assume=assume), name).read()


def pick(tensor_map: TensorMap, name: str) -> Tensor:
    """Return the tensor that ``NAME`` or ``NAME[SLICE]`` means; a name that itself ends in brackets comes first."""
    from weighttools.core.slicing import parse_slice

    if name in tensor_map or not name.endswith("]"):
        return tensor_map[name]
    stem, _, inside = name[:-1].rpartition("[")
    return tensor_map[stem].sliced(parse_slice(inside))


def list_formats() -> list[Record]:
    """Return what is read and written, and which extra it needs."""
    from weighttools.formats import FORMATS, ROWS, load

    rows = [
        {
            "format": row.name,
            "what": row.title,
            "suffixes": list(row.suffixes),
            "reads": True,
            "writes": load(row.name).write is not None,
            "extra": row.extra,
        }
        for row in ROWS
    ]
    index = {
        "format": "huggingface",
        "what": "directory of safetensors files, sharded with an index or not; org/model in the local cache",
        "suffixes": ["/", ".index.json"],
        "reads": True,
        "writes": True,
        "extra": "",
    }
    plugins = [
        {"format": name, "what": "plug-in", "suffixes": [], "reads": True, "writes": False, "extra": ""}
        for name in FORMATS.plugins()
    ]
    return [*rows[:1], index, *rows[1:], *plugins]
