"""The verb ``prune``: the weights that matter least become 0; and what that saves.

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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import SELECTING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap, Transform
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.records import Record

HOW = (
    Option(
        "sparsity", float, least=0, most=1,
        help="The share to drop, 0 to 1: of elements, or of a structure's units.",
    ),
    Option("threshold", float, least=0, help="Instead: drop weights whose magnitude is less."),
    Option(
        "scope", default="global", choices=("global", "tensor", "group"), shows_default=True,
        help="Meet the target over all tensors, in each, or in each layer.",
    ),
    Option("nm", metavar="N:M", help="Keep the N largest of every M weights along each row, as 2:4."),
    Option(
        "structure", choices=("rows", "columns", "channels", "heads"),
        help="Drop whole rows (a layer's outputs), columns (its inputs), channels (inputs of convolutions) or heads.",
    ),
    Option(
        "norm", default="2", choices=("1", "2", "inf"), shows_default=True,
        help="The norm by which a structure's units are compared.",
    ),
    Option("n_heads", int, least=1, help="How many heads each attention has; by default as config.json says."),
    Option("random", bool, False, "Drop random weights: by seed, name and position."),
    Option("seed", int, 0, "The seed of --random.", shows_default=True, least=0),
)  # fmt: skip
"""What is dropped of the tensors that are changed."""
OPTIONS = (*HOW, *SELECTING)


@takes(*OPTIONS)
def prune(
    src: PathLike | TensorMap,
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
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_all: bool = False,
    progress: Progress = silent,
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
        (inputs of convolutions) or attention ``"heads"``, those of the smallest `norm`.
    norm
        By which a structure's units are compared: ``"1"``, ``"2"`` or ``"inf"``.
    random, seed
        Drop random weights, by (`seed`, name, position).
    scope
        Meet the target over all tensors (``"global"``), in each (``"tensor"``) or in each layer (``"group"``).
    n_heads
        How many heads each attention has; by default as config.json beside the weights says.
    include, exclude, include_all
        Name patterns of tensors to change, and of tensors to leave alone; and whether norms, biases and embeddings
        are changed too. Integers, buffers and quantised tensors never are.
    progress
        Called with the number of bytes just looked at, where values are read to plan; see
        `weighttools.verbs.editing.reading_bytes`.

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
    from weighttools.verbs.editing import edited
    from weighttools.verbs.open import open as open_checkpoint

    _refuse_contradictions(
        {"nm": nm, "structure": structure, "random": random or None}, sparsity, threshold, scope, n_heads
    )
    told = ""
    if structure == "heads" and n_heads is None:
        from weighttools.analyzers.configuration import heads_beside

        src = open_checkpoint(src)
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

    pruned = edited(src, include, exclude, include_all, transform)
    return pruned.noted(told) if told else pruned


def _refuse_contradictions(
    kinds: Mapping[str, object], sparsity: float | None, threshold: float | None, scope: str, n_heads: int | None
) -> None:
    """Refuse options that contradict each other."""
    from weighttools.errors import SpecError, option

    given = [kind for kind, value in kinds.items() if value is not None]
    kind = option(given[0]) if given else ""
    if len(given) > 1:
        raise SpecError(f"{' and '.join(map(option, given))} exclude each other")
    if given == ["nm"] and (sparsity, threshold) != (None, None):
        remedy = f"leave {option('sparsity')} and {option('threshold')} out"
        raise SpecError(f"{kind} sets the sparsity by itself", remedy=remedy)
    if given and given != ["nm"] and (sparsity is None or threshold is not None):
        raise SpecError(f"{kind} needs {option('sparsity')}, and takes no {option('threshold')}")
    if given not in ([], ["random"]) and scope != "global":
        raise SpecError(f"{kind} works tensor by tensor", remedy=f"leave {option('scope')} out")
    if n_heads is not None and given != ["structure"]:
        remedy = f"give that, or leave {option('n_heads')} out"
        raise SpecError(f"{option('n_heads')} goes with {option('structure')} heads", remedy=remedy)


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
