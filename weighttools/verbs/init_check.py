"""The verb ``init-check``: which layers look untouched by training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import OPENING, THREADS

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import InitCheckRecord

OPTIONS = (
    Option(
        "activation", default="relu", choices=("linear", "relu", "gelu", "silu", "tanh"), shows_default=True,
        help="What follows a layer, for its gain.",
    ),
    *OPENING,
    *THREADS,
)  # fmt: skip


@takes(*OPTIONS)
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
) -> InitCheckRecord:
    """Hold each layer's values against what initialisers give: which layers look untouched by training.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    activation
        ``"linear"``, ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``: what follows a layer, for its gain.
    include, exclude, assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    InitCheckRecord
        A ``weighttools.init-check/1`` record. ``layers``: fan_in, fan_out, expected_std of Xavier and He, the measured
        std, skewness and excess kurtosis, the law that fits best and its Kolmogorov-Smirnov distance ks, whether the
        layer looks untouched (null where nothing can be said), if so by which scheme (null: another scale), else why
        not; gain, the factor that the mean square of a signal gets, and signal: vanishing below 0.1, exploding above
        10. ``mean_gain`` is the geometric mean of the gains.
    """
    from weighttools.analyzers import initialization as initial
    from weighttools.analyzers.run import fold
    from weighttools.core import engine
    from weighttools.formats.opening import name_of
    from weighttools.io.ahead import planned_reading

    tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
    names = initial.layers(tensor_map)
    tensors = [tensor_map[name] for name in names]
    with engine.threads(threads) as pool, planned_reading(tensors, planned, progress) as told:
        states = fold(tensors, (initial.of,), None, pool, progress=told)
        rows = [
            initial.describe(name, tensor_map[name].spec, sums, activation)
            for name, [sums] in zip(names, states, strict=True)
        ]
    gains = [math.log(row["gain"]) for row in rows if row["gain"]]
    found = {
        "schema": "weighttools.init-check/1",
        "path": name_of(path),
        "activation": activation,
        "n_layers": len(rows),
        "n_untouched": sum(row["untouched"] is True for row in rows),
        "mean_gain": math.exp(math.fsum(gains) / len(gains)) if gains else None,
        "layers": rows,
        "notes": list(tensor_map.origin.notes),
    }
    return cast("InitCheckRecord", found)
