"""The verb ``stats``: describing the values of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.grouping import resolve_grouping
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import GROUPING, KERNEL, READING, TAKING, THREADS, showing

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.analyzers.base import Analyzer
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import StatsRecord

OPTIONS = (
    *GROUPING,
    Option(
        "norms", flags=("--norm",), default=("l2",), by_commas=True, metavar="NAME,...", shows_default=True,
        choices=("l1", "l2", "inf", "spectral", "nuclear"),
        help="Norms to show: l1, l2, inf; spectral and nuclear decompose every matrix.",
    ),
    Option(
        "quantiles", float, (), "Exact quantiles, e.g. 0.01,0.5,0.99.",
        least=0, most=1, by_commas=True, metavar="P,...",
    ),
    Option(
        "hist", int, least=1, most=10_000, alone=20, metavar="[BINS]",
        help="Histogram from min to max; drawn in the table, counted in JSON. [default bins: 20]",
    ),
    Option("sparsity", bool, False, "2:4 and 4:8 compliance; empty rows, columns, channels, blocks."),
    Option("eps", float, least=0, help="Count magnitudes up to this as near zero."),
    Option("entropy", bool, False, "Bits of information an element; distinct values (up to 16 bits)."),
    Option("kurtosis", bool, False, "Skewness and excess kurtosis."),
    Option("outliers", bool, False, "Channels whose largest magnitude is far above the median channel's."),
    Option(
        "analyzers", default=(), by_commas=True, metavar="NAME,...",
        help="Further figures by name: those that an installed package adds, or our own.",
    ),
    *showing("sparsity > 0.5 and dtype == bf16"),
    *TAKING,
    *THREADS,
    *KERNEL,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def stats(
    path: PathLike | TensorMap,
    *,
    by: str = "tensor",
    depth: int | None = None,
    norms: Sequence[str] = ("l2",),
    quantiles: Sequence[float] = (),
    hist: int | None = None,
    entropy: bool = False,
    sparsity: bool = False,
    kurtosis: bool = False,
    outliers: bool = False,
    analyzers: Sequence[str] = (),
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
    dry_run: bool = False,
    planned: Progress = silent,
    progress: Progress = silent,
) -> StatsRecord:
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
        How many parts of the name make a group; implies ``by="depth"``, where 1 is the default.
    norms
        ``"spectral"`` and ``"nuclear"`` are computed, from all singular values and to 1e-9 of themselves; ``"l1"``,
        ``"l2"`` and ``"inf"`` always are.
    quantiles
        Probabilities from 0 to 1; exact, as `numpy.quantile` in float64. Dtypes of more than two bytes take one more
        pass (of eight bytes: three), and more than four quantiles may take some more.
    hist
        Bins of a histogram from minimum to maximum, exact; dtypes of more than two bytes take one more pass, the same
        as for quantiles.
    entropy
        Also entropy (bits an element) and the number of distinct values, for dtypes of at most two bytes.
    sparsity
        Also 2:4 and 4:8 compliance along the last axis, and empty rows, columns, channels and 16 x 16 blocks.
    kurtosis, outliers
        Also skewness and excess kurtosis; channels whose largest magnitude stands out.
    analyzers
        Also the figures of these analyzers: those of an installed package, or our own (`sparsity` and the two before
        this are some) by name.
    eps
        Also count magnitudes up to this.
    where
        Keep the rows that meet a condition, such as ``"sparsity > 0.5 and dtype == bf16"``.
    sort
        A figure to sort the rows by, largest first (texts: first first); null last.
    top
        Keep this many rows.
    include, exclude, assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    kernel
        ``"numpy"``, ``"numba"`` (extra ``[fast]``), or ``"auto"``: numba for gigabytes, if it is installed.
    executor
        Any `concurrent.futures.Executor` to compute in, instead of threads.
    dry_run
        Plan only: check the options, and give ``read_bytes``, the most that would be read.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of stored bytes just done, in every pass.

    Returns
    -------
    StatsRecord
        A ``weighttools.stats/1`` record (with `dry_run` a `StatsPlan`): ``tensors`` (or ``groups``), and over all of
        them, whether shown or not:
        ``total``, the same figures over ``parameters`` alone (null if there are none), and of the ``others`` (buffers,
        integers, training state; null if there are none) what can be counted. Its figures are the same to the last bit
        for any number of threads and any executor.

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
    from weighttools.formats.opening import name_of
    from weighttools.io.ahead import reading_ahead

    by, parts = resolve_grouping(by, depth, "tensor")
    tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
    n_bytes = 0 if dry_run else sum(spec.nbytes for spec in tensor_map.specs())
    with reading_ahead(tensor_map.values(), n_bytes, progress) as told:  # begun while NumPy is loaded
        from weighttools.analyzers.asking import Request
        from weighttools.analyzers.describe import planned_bytes
        from weighttools.analyzers.rows import Means, grouped, rows_of, selection

        asked = _analyzers({"sparsity": sparsity, "kurtosis": kurtosis, "outliers": outliers}, analyzers)
        request = Request(
            quantiles=tuple(quantiles),
            bins=hist,
            entropy=entropy,
            analyzers=asked,
            near_zero=eps is not None,
            norms=tuple(norms),
        ).checked()
        means = Means(0.0 if eps is None else eps, threads, kernel, executor, told)
        groups = grouped(tensor_map, by, parts, with_axes=any(analyzer.by_axes for analyzer in asked.values()))
        shown = selection(request, by, where, sort, top)
        n_planned = planned_bytes([labelled.group for labelled in groups], request)
        head = {"schema": "weighttools.stats/1", "path": name_of(path), "by": by, "read_bytes": n_planned}
        if dry_run:
            return cast("StatsRecord", head)
        planned(n_planned)
        rows, totals = rows_of(groups, request, means)
    found = {
        **head,
        "n_rows": len(rows),
        "tensors" if by == "tensor" else "groups": shown.of(rows),
        "total": totals.everything,
        "parameters": totals.parameters,
        "others": totals.others,
        "aliases": dict(tensor_map.aliases),
        "notes": list(tensor_map.origin.notes),
    }
    return cast("StatsRecord", found)


def _analyzers(flags: Mapping[str, bool], names: Sequence[str]) -> dict[str, Analyzer]:
    """Return the analyzers that have an option of their own and it is given, and those asked for by name."""
    from weighttools.analyzers.choosing import chosen
    from weighttools.core.patterns import listed

    return chosen([*(name for name, is_given in flags.items() if is_given), *listed(names)])
