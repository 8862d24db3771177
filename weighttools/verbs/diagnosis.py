"""What a checkpoint takes, and what its values tell: the verbs behind three commands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.analyzers.counts import by_dtype
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, WeighttoolsError
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, chosen, name_of
from weighttools.io.ahead import planned_reading
from weighttools.io.progress import Progress, silent
from weighttools.verbs.records import Record, packed_notes

if TYPE_CHECKING:
    from weighttools.analyzers.estimate import CacheShape


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
    from weighttools.analyzers.alike import families
    from weighttools.analyzers.configuration import not_taken
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
        "notes": [*tensor_map.origin.notes, *not_taken(tensor_map.origin), *packed_notes(tensor_map, found)],
    }


def _cache_shape(tensor_map: TensorMap) -> CacheShape | str:
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
        Tensors at a time; default: one a CPU, where BLAS can be held to one thread (OpenBLAS, Accelerate).
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

    from weighttools.analyzers import spectrum as spectra
    from weighttools.core import blas

    request = spectra.SpectrumRequest(tuple(ranks), exact_limit, values)
    tensor_map = chosen(path, include, exclude, ReadOptions(assume, root))
    names = spectra.matrix_names(list(tensor_map), tensor_map.specs())
    tensors = [tensor_map[name] for name in names]
    rows: list[Record] = []
    with planned_reading(tensors, planned, progress) as told:
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
    with engine.threads(threads) as pool, planned_reading(tensors, planned, progress) as told:
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
