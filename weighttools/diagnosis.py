"""What is wrong with a checkpoint, what it takes, and what its values tell: the verbs behind four commands."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from weighttools.analyzers.counts import by_dtype
from weighttools.core.engine import collector_paused
from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.patterns import listed
from weighttools.core.tensor import Source, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, SourceError, SpecError, UnsupportedError, WeighttoolsError
from weighttools.formats.base import ReadOptions
from weighttools.io.ahead import reading_ahead
from weighttools.io.progress import Progress, silent
from weighttools.opening import PathLike, chosen, located, name_of, open
from weighttools.records import Record, packed_notes

if TYPE_CHECKING:
    from weighttools.analyzers.estimate import Cache


def check(
    path: PathLike,
    *,
    headers: bool = False,
    base: PathLike | None = None,
    against: PathLike | None = None,
    fix_index: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Look for what is dangerous, damaged or doubtful in a checkpoint; nothing of it is run.

    Parameters
    ----------
    path
        As for `open`. A file that cannot be opened is a finding, not an error.
    headers
        Read headers only, no values.
    base
        The base that the adapter at `path` is for: its factors must fit.
    against
        Another checkpoint: find the renaming that makes the names line up with its.
    fix_index
        First write model.safetensors.index.json anew from the shards, atomically.
    include, exclude
        The tensors whose values are looked at; as for `convert`.
    assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    dict
        A ``weighttools.check/1`` record: its findings, each with severity (``"error"``, ``"warning"`` or ``"note"``),
        code (see `codes`), tensor, message and remedy; with `against` also how names line up, with `fix_index` what
        was written.

    Raises
    ------
    SourceError
        There is nothing to read there.
    """
    from weighttools.core.codes import remedied
    from weighttools.formats import members_check, read_file, refuse_unknown
    from weighttools.io.source import open_source

    record: Record = {"schema": "weighttools.check/1", "path": os.fspath(path)}
    place = located(os.fspath(path))
    if fix_index:
        record["fixed"] = _fixed(place)
    piped = open_source(place, refuse_unknown) if place == "-" else None  # once: standard input is not read twice
    found = list(_of_files(place, piped))
    try:
        with collector_paused():
            options = ReadOptions(assume, root)
            tensor_map = read_file(piped, options) if piped else open(path, assume=assume, root=root)
            found += _of_map(tensor_map, base, assume)
        if not headers:
            selected = tensor_map.select(*listed(include), exclude=exclude)
            try:
                with _ahead(list(selected.values()), planned, progress) as told:
                    found += _of_values(selected, threads, told)
            finally:
                found = members_check.joined(found, _files(place, piped), selected)
        if against is not None:
            record["against"], more = _against(tensor_map, against)
            found += more
    except (FormatError, UnsupportedError, SourceError) as error:
        if not piped and not os.path.exists(place):
            raise
        if not any(finding.severity == ERROR for finding in found):
            found.append(Finding(ERROR, "unreadable", str(error)))
    return {**record, "findings": [remedied(finding).record() for finding in found]}


@contextmanager
def _ahead(tensors: Sequence[Tensor], planned: Progress, progress: Progress) -> Iterator[Progress]:
    """Tell how much is going to be read, and read ahead of it."""
    n_bytes = sum(tensor.spec.nbytes for tensor in tensors)
    planned(n_bytes)
    with reading_ahead(tensors, n_bytes, progress) as told:
        yield told


def _files(place: str, piped: Source | None) -> list[Source]:
    """Return the files of a checkpoint; standard input has been read already."""
    from weighttools.formats import directory_files
    from weighttools.io.source import open_source

    return [piped] if piped else [open_source(file) for file in directory_files(place)]


def _of_files(place: str, piped: Source | None) -> Iterator[Finding]:
    """Yield what can be found without opening the checkpoint as a whole."""
    from weighttools.formats import check_file, index_check
    from weighttools.io.beside import links_out

    try:
        files = _files(place, piped)
        for file in files:
            yield from check_file(file)
        names = [] if piped else [file.name for file in files]
        for told in links_out(os.path.dirname(names[0]), names) if names and names != [place] else ():
            yield Finding(NOTE, "linked-weights", told)
        for index in index_check.indexes(place):
            yield from index_check.check(index)
    except (FormatError, UnsupportedError) as error:
        yield Finding(ERROR, "unreadable", str(error))


def _of_map(tensor_map: TensorMap, base: PathLike | None, assume: str | None) -> Iterator[Finding]:
    from weighttools.analyzers.checks import findings

    yield from findings(tensor_map)
    if base is not None:
        from weighttools.analyzers.checks.adapter import check as fits

        yield from fits(tensor_map, open(base, assume=assume))


def _of_values(tensor_map: TensorMap, threads: int | None, progress: Progress) -> Iterator[Finding]:
    from weighttools.analyzers.checks import value_findings

    yield from value_findings(tensor_map, threads, progress)


def _against(tensor_map: TensorMap, other: PathLike) -> tuple[Record, list[Finding]]:
    from weighttools.analyzers.alignment import align

    found = align(tensor_map, open(other))
    record = {"path": os.fspath(other), **found.record()}
    if not (found.rules or found.left or found.right or found.shapes):
        return record, []
    from weighttools.transforms.renaming import command_for

    wanted = {name: found.renamed.get(name, name) for name in [*tensor_map, *tensor_map.aliases]}
    command = command_for(tensor_map.origin.path, wanted, [rule.text() for rule in found.rules])
    if command:
        record["command"] = command
    rules = "; ".join(f"{rule.src!r} -> {rule.dst!r} ({rule.n_names:,} names)" for rule in found.rules)
    told = (
        f"{found.n_same:,} names line up, {len(found.renamed):,} after renaming, {len(found.left):,} are only here,"
        f" {len(found.right):,} only there, {len(found.shapes):,} have other shapes"
    )
    return record, [Finding(WARNING, "names-differ", told, remedy=command or (f"rename {rules}" if rules else None))]


def _fixed(place: str) -> list[Record]:
    """Write the index of a directory of shards anew; one that has none gets that of model.safetensors."""
    from weighttools.formats import index_check

    found = index_check.indexes(place) or [Path(place) / "model.safetensors.index.json"]
    given = not os.path.isdir(place)
    return [{"index": str(index), "n_tensors": index_check.fix(index, follow=given)} for index in found]


def codes() -> list[Record]:
    """Return every code that a finding may have, with severities, meaning and remedy."""
    from weighttools.core.codes import CODES

    return [{"code": code, **row._asdict()} for code, row in CODES.items()]


def estimate(
    path: PathLike | TensorMap,
    *,
    context: int = 4096,
    batch: int = 1,
    cache_dtype: str = "bfloat16",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
) -> Record:
    """Say what memory a checkpoint takes: to load, to train, and for the cache of keys and values; headers only.

    Parameters
    ----------
    path
        As for `open`, or an open map. config.json beside it (or GGUF's metadata) tells the shape of the cache.
    context, batch
        Tokens that are cached, and sequences at a time.
    cache_dtype
        The dtype of the cache.
    include, exclude, assume, root
        As for `convert`.

    Returns
    -------
    dict
        A ``weighttools.estimate/1`` record: ``load`` (rows of dtype and n_bytes), ``train`` (rows of optimizer,
        precision and the bytes of each part), ``kv_cache`` (null, with ``kv_cache_note``, where it is not known), and
        ``not_included``: activations above all.

    Examples
    --------
    >>> estimate("fixtures/safetensors/tiny/model.safetensors")["load"][0]
    {'dtype': 'as stored', 'n_bytes': 68}
    """
    from weighttools.analyzers import estimate as figures
    from weighttools.analyzers.families import families
    from weighttools.core.dtypes import dtype

    if context < 1 or batch < 1:
        raise SpecError(f"context {context}, batch {batch}", expected="1 or more")
    cached = dtype(cache_dtype)
    tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
    found = families(tensor_map)
    shape = _cache_shape(tensor_map)
    known = not isinstance(shape, str)
    return {
        "schema": "weighttools.estimate/1",
        "path": name_of(path),
        "n_parameters": sum(count.n_parameters for count in by_dtype(found).values()),
        "load": figures.loading(found),
        "train": figures.training(found),
        "kv_cache": None if isinstance(shape, str) else figures.cache(shape, cached, context, batch),
        "kv_cache_note": None if known else shape,
        "not_included": list(figures.NOT_INCLUDED),
        "notes": [*tensor_map.origin.notes, *packed_notes(tensor_map, found)],
    }


def _cache_shape(tensor_map: TensorMap) -> Cache | str:
    from weighttools.analyzers import configuration
    from weighttools.analyzers.estimate import cache_shape, gguf_cache_shape

    if tensor_map.origin.format == "gguf":
        return gguf_cache_shape(tensor_map.metadata)
    try:
        config = configuration.read_beside(tensor_map.origin, "config.json")
    except WeighttoolsError as error:
        return str(error)
    return "there is no config.json" if config is None else cache_shape(config)


def spectrum(
    path: PathLike | TensorMap,
    *,
    ranks: Sequence[int] = (1, 8, 16, 32, 64),
    exact_limit: int = 4096,
    values: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Describe the singular values of every matrix, and of kernels as matrices of their first axis by all others.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    ranks
        Give the part of the squared Frobenius norm that the first so many singular values hold.
    exact_limit
        Matrices whose smaller side is larger are decomposed by a randomized method: the largest 256 singular values,
        with a bound on the error of the first.
    values
        List the singular values.
    include, exclude, assume, root
        As for `convert`.
    threads
        Tensors at a time; default: one a CPU, if threadpoolctl (extra ``[spectrum]``) can hold BLAS to one thread.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes of each tensor just done.

    Returns
    -------
    dict
        A ``weighttools.spectrum/1`` record; what its figures mean says `weighttools.analyzers.spectrum.figures`.
    """
    from functools import partial

    from weighttools.analyzers import blas
    from weighttools.analyzers import spectrum as spectra

    request = spectra.Request(tuple(ranks), exact_limit, values)
    tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
    names = spectra.chosen(list(tensor_map), tensor_map.specs())
    tensors = [tensor_map[name] for name in names]
    rows: list[Record] = []
    with _ahead(tensors, planned, progress) as told:
        done = blas.over(partial(spectra.analyse, request=request), tensors, threads)
        for name, tensor, figures in zip(names, tensors, done, strict=True):
            rows.append({"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), **figures})
            told(tensor.spec.nbytes)
    return {
        "schema": "weighttools.spectrum/1",
        "path": name_of(path),
        "n_left_out": len(tensor_map) - len(names),
        "tensors": rows,
        "notes": list(tensor_map.origin.notes),
    }


def init_check(
    path: PathLike | TensorMap,
    *,
    activation: str = "relu",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Hold each layer's values against what initialisers give: which layers look untouched by training.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    activation
        ``"linear"``, ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``: what follows a layer, for its gain.
    include, exclude, assume, root
        As for `convert`.
    threads
        Worker threads; default: one a CPU.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    dict
        A ``weighttools.init-check/1`` record. ``layers``: fan_in, fan_out, expected_std of Xavier and He, the measured
        std, skewness and excess kurtosis, the law that fits best and its Kolmogorov-Smirnov distance ks, whether the
        layer looks untouched (null where nothing can be said), if so by which scheme (null: another scale), else why
        not; gain, the factor that the mean square of a signal gets, and signal: vanishing below 0.1, exploding above
        10. ``mean_gain`` is the geometric mean of the gains.
    """
    from weighttools.analyzers import initialization as initial
    from weighttools.analyzers.run import fold
    from weighttools.core import engine

    if activation not in initial.GAINS:
        raise SpecError(f"unknown activation {activation!r}", expected="one of " + ", ".join(initial.GAINS))
    tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
    names = initial.layers(tensor_map)
    tensors = [tensor_map[name] for name in names]
    with engine.threads(threads) as pool, _ahead(tensors, planned, progress) as told:
        states = fold(tensors, (initial.of,), None, pool, progress=told)
        rows = [
            initial.describe(name, tensor_map[name].spec, sums, activation)
            for name, [sums] in zip(names, states, strict=True)
        ]
    gains = [math.log(row["gain"]) for row in rows if row["gain"]]
    return {
        "schema": "weighttools.init-check/1",
        "path": name_of(path),
        "activation": activation,
        "n_layers": len(rows),
        "n_untouched": sum(row["untouched"] is True for row in rows),
        "mean_gain": math.exp(math.fsum(gains) / len(gains)) if gains else None,
        "layers": rows,
        "notes": list(tensor_map.origin.notes),
    }
