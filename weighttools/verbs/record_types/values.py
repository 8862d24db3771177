"""Records of what values tell: stats, spectrum and init-check."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Histogram(TypedDict):
    """Counts of a histogram, between edges of which there is one more."""

    edges: list[float]
    counts: list[int]


class Figures(TypedDict):
    """Figures of values. Null where there is no value, or where they belong to one tensor and this is a group.

    `count` is of finite values, which all others are of; `std` is the population's; `l1`, `l2`, `linf` and `rms` are
    norms; `sparsity` is `n_zero` a value. The optional ones are there if asked for: `n_near_zero` by `eps`;
    `nm_2_4` to `n_empty_blocks` by `sparsity`; `skewness` (Fisher's) and `kurtosis` (excess) by `kurtosis`; outliers'
    by `outliers` (the largest magnitude of a row or channel by the median one's); `entropy` (bits) and `n_distinct` by
    `entropy`; `spectral` and `nuclear` by `norms`. Analyzers of installed packages add figures by their own names.
    """

    count: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    l1: float | None
    l2: float | None
    linf: float | None
    rms: float | None
    n_zero: int
    sparsity: float | None
    n_nan: int
    n_inf: int
    n_subnormal: int
    n_near_zero: NotRequired[int]
    nm_2_4: NotRequired[float | None]
    nm_4_8: NotRequired[float | None]
    n_empty_rows: NotRequired[int | None]
    n_empty_columns: NotRequired[int | None]
    n_empty_channels: NotRequired[int | None]
    n_empty_blocks: NotRequired[int | None]
    skewness: NotRequired[float | None]
    kurtosis: NotRequired[float | None]
    outlier_rows: NotRequired[float | None]
    n_outlier_rows: NotRequired[int | None]
    outlier_channels: NotRequired[float | None]
    n_outlier_channels: NotRequired[int | None]
    entropy: NotRequired[float | None]
    n_distinct: NotRequired[int | None]
    quantiles: NotRequired[dict[str, float | None]]
    hist: NotRequired[Histogram | None]
    spectral: NotRequired[float | None]
    nuclear: NotRequired[float | None]


class StatsRow(Figures):
    """Figures of a tensor (`name`, `dtype`, `shape`, and the index of the first NaN and Inf), or of a group."""

    name: NotRequired[str]
    dtype: NotRequired[str]
    shape: NotRequired[list[int]]
    first_nan: NotRequired[list[int] | None]
    first_inf: NotRequired[list[int] | None]
    group: NotRequired[str]
    n_tensors: NotRequired[int]


class StatsTotal(Figures):
    """Figures over several tensors."""

    n_tensors: int


class StatsOthers(TypedDict):
    """What is counted of buffers, integers and training state."""

    n_tensors: int
    count: int
    n_zero: int
    n_nan: int
    n_inf: int


class StatsPlan(TypedDict):
    """What `stats` would do: `read_bytes` is the most that would be read, over all passes."""

    schema: str
    path: str
    by: str
    read_bytes: int


class StatsRecord(StatsPlan):
    """``weighttools.stats/1``.

    `tensors` with ``by="tensor"``, else `groups`; `n_rows` of them there are, whether shown or not. `total` is over
    all of them, `parameters` over the parameters alone, `others` what is counted of the others; null if there are none.
    With ``dry_run`` there is a `StatsPlan` only.
    """

    n_rows: int
    tensors: NotRequired[list[StatsRow]]
    groups: NotRequired[list[StatsRow]]
    total: StatsTotal
    parameters: StatsTotal | None
    others: StatsOthers | None
    aliases: dict[str, str]
    notes: list[str]


class SpectrumRow(TypedDict):
    """Singular values of a matrix of `n_rows` by `n_columns`; what the figures mean says `analyzers.spectrum`.

    All are null, and `skipped` says why, where there are none. `energy` is by rank, `rank_for_energy` by part;
    `singular_values` is there if asked for.
    """

    name: str
    dtype: str
    shape: list[int]
    n_rows: int
    n_columns: int
    spectral_norm: float | None
    error: float | None
    frobenius_norm: float | None
    nuclear_norm: float | None
    stable_rank: float | None
    effective_rank: float | None
    rank: int | None
    condition_number: float | None
    alpha: float | None
    alpha_ks: float | None
    alpha_xmin: float | None
    alpha_n_tail: int | None
    alpha_std_error: float | None
    alpha_n_fitted: int | None
    mp_edge: float | None
    n_above_mp_edge: int | None
    energy: dict[str, float | None]
    rank_for_energy: dict[str, int | None]
    singular_values: NotRequired[list[float]]
    method: str | None
    skipped: str | None


class SpectrumRecord(TypedDict):
    """``weighttools.spectrum/1``; `n_left_out` tensors are no matrices."""

    schema: str
    path: str
    n_left_out: int
    tensors: list[SpectrumRow]
    notes: list[str]


class LayerRow(TypedDict):
    """A layer's values held against what initialisers give.

    `law` fits best, at the Kolmogorov-Smirnov distance `ks`; `scheme` gives it (null: another scale); `untouched` is
    null where nothing can be said, and `why` says why not. `gain` is the factor of a signal's mean square.
    """

    name: str
    shape: list[int]
    fan_in: int
    fan_out: int
    expected_std: dict[str, float]
    gain: float | None
    signal: str
    std: float | None
    law: str | None
    ks: float | None
    skewness: float | None
    kurtosis: float | None
    scheme: str | None
    untouched: bool | None
    why: str | None


class InitCheckRecord(TypedDict):
    """``weighttools.init-check/1``; `mean_gain` is the geometric mean of the layers' gains."""

    schema: str
    path: str
    activation: str
    n_layers: int
    n_untouched: int
    mean_gain: float | None
    layers: list[LayerRow]
    notes: list[str]
