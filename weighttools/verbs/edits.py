"""The verbs that change values. Each takes a checkpoint and returns a lazy map with a report; `save` writes it.

>>> import numpy as np, weighttools as wt
>>> from functools import partial
>>> before = wt.TensorMap.from_arrays({"fc.weight": np.arange(8, dtype=np.float32).reshape(2, 4)})
>>> after = before.pipe(partial(wt.prune, sparsity=0.5), partial(wt.scale, by=2.0))
>>> after["fc.weight"].read().tolist()
[[0.0, 0.0, 0.0, 0.0], [8.0, 10.0, 12.0, 14.0]]
>>> [(report["transform"], report["n_changed"]) for report in after.origin.reports]
[('prune', 1), ('scale', 1)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError
from weighttools.formats.opening import PathLike
from weighttools.formats.opening import open as open_checkpoint
from weighttools.io.progress import Progress, silent
from weighttools.verbs.records import Record

if TYPE_CHECKING:
    from typing import Unpack

Source = PathLike | TensorMap


class Which(TypedDict, total=False):
    """Which tensors to change.

    Attributes
    ----------
    include, exclude
        Name patterns of tensors to change, and of tensors to leave alone; the others are kept as they are.
    include_all
        Change norms, biases and embeddings too. Integers, buffers, optimizer state and quantised tensors never are.
    """

    include: Sequence[str]
    exclude: Sequence[str]
    include_all: bool


def _edited(src: Source, which: Which, transform: Callable[[tuple[str, ...], Record], Transform]) -> TensorMap:
    """Choose tensors, and apply the transform that their names and the selection's record give."""
    from weighttools.transforms.selection import select_plain

    tensor_map = _opened(src)
    chosen = select_plain(tensor_map, **which)
    return transform(chosen.names, chosen.record())(tensor_map)


def _opened(src: Source) -> TensorMap:
    return src if isinstance(src, TensorMap) else open_checkpoint(src)


def prune(
    src: Source,
    *,
    sparsity: float | None = None,
    threshold: float | None = None,
    nm: str | None = None,
    structure: str | None = None,
    random: bool = False,
    scope: str = "global",
    norm: str = "2",
    n_heads: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
    **which: Unpack[Which],
) -> TensorMap:
    """Set weights to 0: the smallest, random ones, N of every M, or whole rows, columns, channels, heads.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    sparsity
        The share to drop, 0 to 1: of elements, met exactly, or of the units of a `structure`. Zeros go first; equal
        magnitudes go in the order of tensors and positions. NaN and Inf are never dropped.
    threshold
        Instead: drop weights whose magnitude is less.
    nm
        Instead: ``"2:4"`` keeps the two largest of every four along each row.
    structure
        Drop whole ``"rows"`` (outputs), ``"columns"`` (inputs; of torch's convolutions the last axis), ``"channels"``
        (inputs of convolutions) or attention ``"heads"``, those of the smallest `norm` (``"1"``, ``"2"``, ``"inf"``).
    random
        Drop random weights, by (`seed`, name, position).
    scope
        Meet the target over all tensors (``"global"``), in each (``"tensor"``) or in each layer (``"group"``).
    n_heads
        How many heads each attention has; by default as config.json beside the weights says.
    progress
        Called with the number of bytes just looked at, where values are read to plan; see `reading_bytes`.
    which
        ``include``, ``exclude``, ``include_all``; see `Which`.

    Returns
    -------
    TensorMap
        With a `report`: by, scopes, n_pruned, names, what was left alone. Only a target by magnitude or norm reads
        values now; zeros are set when values are read. For `nm` and `threshold`, asking the report for its n_pruned
        reads the tensors once, and the record of a write counts while it writes.

    Raises
    ------
    SpecError
        The options contradict each other, are out of range, or do not fit the tensors.
    TensorNotFoundError
        A pattern matches nothing.
    """
    from weighttools.transforms import prune as single
    from weighttools.transforms import prune_structured as patterned

    kinds = {"--nm": nm is not None, "--structure": structure is not None, "--random": random}
    _one_of(kinds, sparsity, threshold, scope, n_heads)
    told = ""
    if structure == "heads" and n_heads is None:
        from weighttools.analyzers.configuration import heads_beside

        src = _opened(src)
        n_heads = heads_beside(src.origin)
        told = f"heads: {n_heads}, as config.json beside the weights says"

    def transform(names: tuple[str, ...], says: Record) -> Transform:
        if nm is not None:
            return patterned.n_of_m(names, nm, says)
        if structure is not None and sparsity is not None:
            return patterned.structured(names, structure, sparsity, norm, n_heads, says, progress)
        if random and sparsity is not None:
            return single.draw(names, sparsity, scope, seed, says, progress)
        return single.magnitude(names, sparsity, threshold, scope, says, progress)

    pruned = _edited(src, which, transform)
    return pruned.noted(told) if told else pruned


def reading_bytes(src: Source, *, passes: str, **which: Unpack[Which]) -> int:
    """Return how many bytes `prune` or `clip` look at before anything is written.

    Parameters
    ----------
    passes
        What for: ``"magnitude"`` or ``"random"`` (up to four passes), or ``"norm"`` (one).
    """
    from weighttools.transforms.prune import reading_bytes as of
    from weighttools.transforms.selection import select_plain

    tensor_map = _opened(src)
    tensors = [tensor_map[name] for name in select_plain(tensor_map, **which).names]
    return sum(t.spec.nbytes for t in tensors) if passes == "norm" else of(tensors, passes == "random")


def _one_of(
    kinds: dict[str, bool], sparsity: float | None, threshold: float | None, scope: str, n_heads: int | None
) -> None:
    """Refuse options that contradict each other."""
    given = [option for option, there in kinds.items() if there]
    if len(given) > 1:
        raise SpecError(f"{' and '.join(given)} exclude each other")
    if given == ["--nm"] and (sparsity, threshold) != (None, None):
        raise SpecError("--nm sets the sparsity by itself", remedy="leave --sparsity and --threshold out")
    if given and given != ["--nm"] and (sparsity is None or threshold is not None):
        raise SpecError(f"{given[0]} needs --sparsity, and takes no --threshold")
    if given not in ([], ["--random"]) and scope != "global":
        raise SpecError(f"{given[0]} works tensor by tensor", remedy="leave --scope out")
    if n_heads is not None and given != ["--structure"]:
        raise SpecError("--n-heads goes with --structure heads", remedy="give that, or leave --n-heads out")


def scale(src: Source, *, by: float, **which: Unpack[Which]) -> TensorMap:
    """Multiply weights by a number; as `decay` otherwise."""
    from weighttools.transforms import shrink

    return _edited(src, which, lambda names, says: shrink.scale(names, by, says))


def clip(
    src: Source,
    *,
    value: float | None = None,
    norm: float | None = None,
    progress: Progress = silent,
    **which: Unpack[Which],
) -> TensorMap:
    """Clip each weight to ``-value`` to `value`, or scale each tensor whose L2 norm exceeds `norm` down to it.

    With `norm` the values are read now, and `progress` is called with the number of bytes just looked at.
    """
    from weighttools.transforms import shrink

    return _edited(src, which, lambda names, says: shrink.clip(names, value, norm, says, progress))


def noise(src: Source, *, std: float, seed: int = 0, **which: Unpack[Which]) -> TensorMap:
    """Add normal noise of standard deviation `std`, by (`seed`, name, position)."""
    from weighttools.transforms import shrink

    return _edited(src, which, lambda names, says: shrink.noise(names, std, seed, says))


def init(
    src: Source,
    *,
    method: str = "he_normal",
    activation: str | None = None,
    layout: str = "torch",
    std: float | None = None,
    value: float | None = None,
    seed: int = 0,
    **which: Unpack[Which],
) -> TensorMap:
    """Draw tensors anew, as before training; the values depend on (`seed`, name), and not on blocks or threads.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    method
        A name of `train.INITIALIZERS`: ``"xavier_normal"``, ``"he_uniform"``, ``"orthogonal"``, ``"zeros"``, …
    activation
        What follows the layers, for the gain of Xavier, He and orthogonal initialisers; by default each one's own.
    layout
        How kernels lie: ``"torch"`` (out, in, …) or ``"keras"`` (…, in, out); fan-in and fan-out depend on it.
    std
        The standard deviation of ``"normal"`` and ``"truncated_normal"``, or the bound of ``"uniform"``.
    value
        The value of ``"constant"``.
    seed
        Recorded in the metadata entry ``weighttools.init``.
    which
        `include`, `exclude` and `include_all`, as for `prune`.

    Raises
    ------
    SpecError
        The method, or what it needs, is not known; a tensor has no fan; the seed is no integer of 0 or more.
    """
    from weighttools.transforms.editing import whole
    from weighttools.transforms.initializer_choice import initializer
    from weighttools.transforms.initializers import initialized
    from weighttools.transforms.selection import select_plain

    rule = initializer(method, activation=activation, layout=layout, std=std, value=value)
    tensor_map = _opened(src)
    chosen = select_plain(tensor_map, **which)
    names, seed = set(chosen.names), whole("--seed", seed)
    drawn = initialized(tensor_map, lambda name, spec: rule if name in names else None, seed=seed)
    report = {"transform": "init", "method": method, "seed": seed, **chosen.record(), "names": list(chosen.names)}
    said = {**drawn.metadata, "weighttools.init": f"{method}, seed {seed}, {len(names)} tensors"}
    origin = drawn.origin._replace(reports=(*drawn.origin.reports, report))
    return drawn.replace(metadata=said, origin=origin)


def average(
    srcs: Sequence[Source],
    *,
    weights: Sequence[float] | None = None,
    ema: float | None = None,
    missing: str = "error",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> TensorMap:
    """Average checkpoints element by element.

    Parameters
    ----------
    srcs
        Two or more of one model, as for `open`, or open maps; metadata and dtypes are the first's. Names that all of
        them tie stay tied; others are averaged each by itself.
    weights
        One each, divided by their sum; default equal.
    ema
        Instead: the exponential moving average over the series, oldest first, with this decay (0 to 1).
    missing
        What becomes of a tensor that not all have: ``"error"``, ``"keep"`` (the mean over those that have it) or
        ``"drop"``.
    include, exclude
        Name patterns of tensors to average. Others are copied from the first, and so are integers, buffers, masks,
        vectors of spectral norm, scales and training state; the report says so. Running statistics are averaged.

    Raises
    ------
    SpecError
        The checkpoints do not fit each other, or the weights them.
    """
    from weighttools.transforms import average as averaging
    from weighttools.transforms.editing import finite

    if weights is not None and ema is not None:
        raise SpecError("--weights and --ema exclude each other")
    maps = [_opened(src) for src in srcs]
    if not maps:
        raise SpecError("there is nothing to average", expected="two checkpoints or more")
    shares = weights or [1.0] * len(maps)
    if ema is not None:
        shares = averaging.ema_weights(finite("--ema", ema, 0, 1), len(maps))
    return averaging.average(maps, shares, include, exclude, missing, {"ema": ema})


def merge_adapter(base: Source, adapter: PathLike) -> TensorMap:
    """Add a LoRA adapter's changes to the weights of its base: ``W + alpha / r * B A``.

    Parameters
    ----------
    base
        As for `open`, or an open map; its names may have another prefix than the adapter's.
    adapter
        A directory that peft, or `train.save_lora`, has saved.

    Returns
    -------
    TensorMap
        With a `report`. Sums are float64, rounded once to the base's dtypes; only the factors are read now.

    Raises
    ------
    SpecError
        The adapter does not fit the base, a factor holds NaN or Inf, or a weight to change is quantised.
    """
    from weighttools.write.adapters import merge_lora

    return merge_lora(_opened(base), adapter)


def adapter_configuration(base: TensorMap, adapter: PathLike) -> dict[str, bytes]:
    """Return the config.json of a base, told of the classes that an adapter's own names, to write beside them merged.

    Empty where one of both has none: then the base's, if any, is copied.
    """
    import json

    from weighttools.analyzers.configuration import read_beside
    from weighttools.write.adapters import beside, open_adapter

    config = read_beside(base.origin, "config.json") or {}
    told = beside(open_adapter(adapter), config) if config else config
    return {"config.json": (json.dumps(told, indent=2) + "\n").encode()} if told != config else {}


def masks(pruned: TensorMap) -> TensorMap:
    """Return the masks of a map that was just pruned: booleans, true where a weight is kept; lazy too."""
    from weighttools.transforms.prune import masks as of

    return of(pruned)


def sizes(tensor_map: TensorMap, zeros: Mapping[str, int] | None = None) -> Record:
    """Say what sparsity saves: nothing by itself, something compressed, more as a bitmask and what is not 0.

    Parameters
    ----------
    tensor_map
        A pruned map, say.
    zeros
        How many elements of which tensors are 0, if that is known: the record of a write counts them.

    Returns
    -------
    dict
        `raw_bytes`; `gzip_bytes`, as a sample of `gzip_sample_bytes` compresses; `bitmask_bytes` (of the tensors of
        `zeros` a bit for each element and the values that are not 0, all else raw; None without `zeros`).
    """
    from weighttools.transforms.sizes import sizes as of

    return of(tensor_map, zeros)
