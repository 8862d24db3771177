"""The one pass over the values that all checks of values share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from weighttools.analyzers import extremes, moments, zeros
from weighttools.analyzers.checks import dead_rows, duplicates, outlier_exponents
from weighttools.analyzers.extremes import Extremes
from weighttools.analyzers.moments import Moments
from weighttools.analyzers.run import FoldTask, Statistic, fold_tasks
from weighttools.analyzers.zeros import Zeros
from weighttools.core import engine
from weighttools.core.findings import ERROR, Finding
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.families.kernels import Layouts
from weighttools.families.of_maps import roles
from weighttools.families.role_types import Told
from weighttools.io.progress import Progress, silent


class SurveyedTensor(NamedTuple):
    """What the pass has seen of one tensor.

    Parameters
    ----------
    name, spec
        The tensor's.
    told
        What it is to the model.
    moments, extremes, zeros
        As for ``stats``.
    dead
        What is zero of its outputs and of its inputs.
    outliers
        Values that stand far above all others.
    digest
        What its bytes hash to.
    """

    name: str
    spec: Spec
    told: Told
    moments: Moments
    extremes: Extremes
    zeros: Zeros
    dead: Mapping[str, dead_rows.Dead]
    outliers: outlier_exponents.Outliers
    digest: duplicates.Digest

    @property
    def is_parameter(self) -> bool:
        """Whether it is a floating tensor that is neither buffer nor training state."""
        return self.told.is_parameter

    def place(self, flat: int) -> str:
        """Return the index of an element, as ``[3, 0]``."""
        return str(extremes.index(flat, self.spec.shape))


_STATISTICS: tuple[Statistic, ...] = (
    moments.of,
    extremes.of,
    zeros.of,
    dead_rows.of,
    outlier_exponents.of,
    duplicates.of,
)


_Named = tuple[str, Tensor, Told]


def survey(
    tensor_map: TensorMap, threads: int | None = None, progress: Progress = silent
) -> tuple[list[SurveyedTensor], list[Finding]]:
    """Read every value once; return what was seen of each tensor, and a finding for each that cannot be read."""
    tensors = [(name, tensor_map[name], told) for name, told in zip(tensor_map, roles(tensor_map), strict=True)]
    layouts = Layouts.of(tensor_map)
    with engine.threads(threads) as pool:
        try:
            states = fold_tasks(_tasks(tensors, layouts), None, pool, progress=progress)
            return list(_seen(tensors, states)), []
        except WeighttoolsError:
            return _one_by_one(tensors, layouts)


def _tasks(tensors: Sequence[_Named], layouts: Layouts) -> Iterator[FoldTask]:
    return (FoldTask(tensor, _STATISTICS, layouts.axes(name, tensor.shape)) for name, tensor, _ in tensors)


def _seen(tensors: Sequence[_Named], states: Iterator[list[Any]]) -> Iterator[SurveyedTensor]:
    for (name, tensor, told), found in zip(tensors, states, strict=True):
        moved, ends, empty, lines, outliers, digest = found
        yield SurveyedTensor(name, tensor.spec, told, moved, ends, empty, lines.finish(tensor.spec), outliers, digest)


def _one_by_one(tensors: Sequence[_Named], layouts: Layouts) -> tuple[list[SurveyedTensor], list[Finding]]:
    """Read what can be read, where some tensor cannot be."""
    seen: list[SurveyedTensor] = []
    unread: list[Finding] = []
    for name, tensor, told in tensors:
        try:
            seen += _seen([(name, tensor, told)], fold_tasks(_tasks([(name, tensor, told)], layouts)))
        except WeighttoolsError as error:
            unread.append(Finding(ERROR, "unreadable", f"{name!r} cannot be read: {error}", name))
    return seen, unread
