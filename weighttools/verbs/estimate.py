"""The verb ``estimate``: what memory a checkpoint takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import OPENING

if TYPE_CHECKING:
    from weighttools.analyzers.estimate import CacheShape
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import EstimateRecord

OPTIONS = (
    Option("context", int, 4096, "Tokens in the cache.", least=1, shows_default=True),
    Option("batch", int, 1, "Sequences at a time.", least=1, shows_default=True),
    Option("cache_dtype", default="bfloat16", metavar="DTYPE", shows_default=True, help="The dtype of the cache."),
    *OPENING,
)


@takes(*OPTIONS)
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
) -> EstimateRecord:
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
        As for `open`.

    Returns
    -------
    EstimateRecord
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
    from weighttools.analyzers.counts import by_dtype
    from weighttools.core.dtypes import dtype
    from weighttools.formats.opening import name_of
    from weighttools.verbs.records import packed_notes

    cached = dtype(cache_dtype)
    tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
    found = families(tensor_map)
    shape = _cache_shape(tensor_map)
    known = not isinstance(shape, str)
    record = {
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
    return cast("EstimateRecord", record)


def _cache_shape(tensor_map: TensorMap) -> CacheShape | str:
    from weighttools.analyzers import configuration
    from weighttools.analyzers.estimate import cache_shape, gguf_cache_shape
    from weighttools.errors import WeighttoolsError

    if tensor_map.origin.format == "gguf":
        return gguf_cache_shape(tensor_map.metadata)
    try:
        config = configuration.read_beside(tensor_map.origin, "config.json")
    except WeighttoolsError as error:
        return str(error)
    return "there is no config.json" if config is None else cache_shape(config)
