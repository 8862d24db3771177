"""The verb ``trace``: how weights moved over the checkpoints of one run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.grouping import resolve_grouping
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import GROUPING, READING, TAKING, THREADS, showing

if TYPE_CHECKING:
    from weighttools.analyzers.trace import TraceState
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import TraceRecord

OPTIONS = (
    *GROUPING,
    Option("include_all", bool, False, "Buffers, integers and training state too."),
    *showing("update_last > 0.01"),
    *TAKING,
    *THREADS,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def trace(
    paths: PathLike | TensorMap | Sequence[PathLike | TensorMap],
    *,
    by: str = "tensor",
    depth: int | None = None,
    include_all: bool = False,
    where: str | None = None,
    sort: str | None = None,
    top: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> TraceRecord:
    """Trace weights over the checkpoints of one run: norms, updates, directions, zeros, the first NaN.

    Parameters
    ----------
    paths
        A directory with numbered checkpoints (``checkpoint-500``, ``checkpoint-1000``), or checkpoints in their order:
        paths as for `open`, or open maps.
    by, depth
        Rows for each tensor, or for groups: see `stats`.
    include_all
        Buffers, integers and training state too; by default parameters only.
    where, sort, top
        Which rows to give, and in which order, as for `stats`.
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
    TraceRecord
        A ``weighttools.trace/1`` record: ``checkpoints``, with their steps; ``rows`` and the ``total``, whose lists
        have an entry for each checkpoint (see `weighttools.analyzers.trace`). Each checkpoint is read once, in memory
        of two blocks for each thread.

    Raises
    ------
    SpecError
        There are fewer than two checkpoints, or an option does not fit.
    TensorNotFoundError
        A pattern matches nothing, or no tensor is in all checkpoints.
    """
    from weighttools.analyzers.counts import grouping
    from weighttools.analyzers.showing import Showing
    from weighttools.analyzers.trace import COLUMNS, figures_of

    by, parts = resolve_grouping(by, depth, "tensor")
    shown = Showing.checked((_label(by), *COLUMNS), where, sort, top)
    several, beside = _listed(paths)
    run, unordered = _opened(several, include, exclude, assume, root)
    names, notes = _shared(run, include_all)
    notes = [*beside, *unordered, *notes]
    states = dict(zip(names, _states(run, names, threads, planned, progress), strict=True))
    steps = [one.step for one in run]
    key = grouping(by, parts)
    groups: dict[str, dict[str, TraceState]] = {}
    for name, state in states.items():
        groups.setdefault(key(name, run[-1].tensors[name].spec), {})[name] = state
    rows = [{_label(by): group, **figures_of(members, steps)} for group, members in groups.items()]
    record: dict[str, Any] = {
        "schema": "weighttools.trace/1",
        "checkpoints": [{"path": one.path, "step": one.step} for one in run],
        "by": by,
        "rows": shown.of(rows),
        "total": figures_of(states, steps),
        "notes": [*dict.fromkeys(note for one in run for note in one.tensors.origin.notes), *notes],
    }
    return cast("TraceRecord", record)


class _Checkpoint(NamedTuple):
    path: str
    step: int
    tensors: TensorMap


def _label(by: str) -> str:
    return "name" if by == "tensor" else "group"


def _listed(
    paths: PathLike | TensorMap | Sequence[PathLike | TensorMap],
) -> tuple[list[PathLike | TensorMap], list[str]]:
    """Return the checkpoints in order, and what else was there; one directory stands for the longest series in it."""
    from weighttools.core.tensormap import TensorMap as Map
    from weighttools.errors import SpecError, few
    from weighttools.io.series import series_in

    several = [paths] if isinstance(paths, (str, os.PathLike, Map)) else list(paths)
    notes: list[str] = []
    if len(several) == 1 and not isinstance(several[0], Map) and os.path.isdir(several[0]):
        series = series_in(os.fspath(several[0]), _may_be_checkpoint)
        several = [one.path for one in series.paths]
        notes = [f"other numbered checkpoints are left out: {few(series.others)}"] if series.others else []
    if len(several) < 2:
        fact = f"{len(several)} checkpoint is no series" if several else "there are no checkpoints"
        expected = "two checkpoints or more, or a directory with numbered ones (checkpoint-100, checkpoint-200)"
        raise SpecError(fact, expected=expected, code="too-few-checkpoints")
    return several, notes


def _may_be_checkpoint(path: str) -> bool:
    """Whether a file has a suffix of weights, or a directory holds such a file."""
    from weighttools.formats import known_suffixes

    suffixes = (*known_suffixes(), ".metadata")
    names = os.listdir(path) if os.path.isdir(path) else [os.path.basename(path)]
    return any(name.endswith(suffixes) for name in names)


def _opened(
    several: Sequence[PathLike | TensorMap], include: Sequence[str], exclude: Sequence[str], assume: str | None,
    root: str | None,
) -> tuple[list[_Checkpoint], list[str]]:  # fmt: skip
    """Return the checkpoints with their steps, and whether those were told."""
    from weighttools.formats.opening import name_of
    from weighttools.io.series import numbered

    found = []
    for path in several:
        tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
        name = name_of(path)
        step = _told_step(tensor_map)
        found.append(_Checkpoint(name, numbered(name).number if step is None else step, tensor_map))
    if all(a.step < b.step for a, b in pairwise(found)):
        return found, []
    notes = ["their numbers do not rise: checkpoints are counted in the order given"]
    has_numbers = any(one.step >= 0 for one in found)
    return [one._replace(step=i) for i, one in enumerate(found)], notes if has_numbers else []


def _told_step(tensor_map: TensorMap) -> int | None:
    """Return the step that transformers' trainer wrote beside the weights."""
    from weighttools.errors import WeighttoolsError
    from weighttools.io.home import home_of

    home = home_of(tensor_map.origin)
    if home is None or not home.is_whole:
        return None
    try:
        step = (home.read_json("trainer_state.json") or {}).get("global_step")
    except WeighttoolsError:
        return None
    return step if type(step) is int else None


def _shared(run: Sequence[_Checkpoint], include_all: bool) -> tuple[list[str], list[str]]:
    """Return the names of tensors that all checkpoints have in one shape, and what is left out."""
    from weighttools.errors import TensorNotFoundError, few
    from weighttools.families.of_maps import asides

    last = run[-1].tensors
    asked = [name for name, aside in zip(last, asides(last), strict=True) if include_all or aside is None]
    names = [
        name
        for name in asked
        if all(name in one.tensors and one.tensors[name].shape == last[name].shape for one in run)
    ]
    known, kept = set(asked), set(names)
    lost = [name for name in asked if name not in kept]
    lost += sorted({name for one in run for name in one.tensors if name not in last and name not in known})
    if not names:
        raise TensorNotFoundError(
            "no parameter is in all checkpoints in one shape", remedy=f"tensors: {few(lost)}", code="nothing-left"
        )
    notes = [f"left out, for not every checkpoint has them in one shape: {few(lost)}"] if lost else []
    others = len(last) - len(asked)
    return names, [*notes, *([f"{others:,} tensors that are no parameters are left out"] if others else [])]


def _states(
    run: Sequence[_Checkpoint], names: Sequence[str], threads: int | None, planned: Progress, progress: Progress
) -> Iterator[TraceState]:
    from weighttools.analyzers.trace import trace_tensors
    from weighttools.core import engine

    series = [[one.tensors[name] for one in run] for name in names]
    n_bytes = sum(tensor.spec.nbytes for tensors in series for tensor in tensors)
    planned(n_bytes)
    with engine.threads_for(n_bytes, threads) as pool:
        yield from trace_tensors(series, pool, engine.window_for(threads), progress)
