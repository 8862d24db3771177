"""From a tensor map to the rows of a statistics record: groups, the pass over them, the rows that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weighttools.analyzers import counts
from weighttools.analyzers.asking import Engine, Group, Request, Totals
from weighttools.analyzers.describe import COUNTED, columns, describe
from weighttools.analyzers.kernels.choice import choose_kernel
from weighttools.analyzers.run import FoldOptions
from weighttools.analyzers.showing import Showing
from weighttools.core import engine
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.families.axes import TORCH, Axes
from weighttools.families.of_maps import asides
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Means:
    """By what means to compute: what counts as near zero, threads, kernel, executor, and whom to tell."""

    eps: float = 0.0
    threads: int | None = None
    kernel: str = "auto"
    executor: Executor | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        if not self.eps >= 0:
            raise SpecError(f"eps {self.eps}", expected="a magnitude, 0 or more", code="out-of-range")
        if self.threads is not None and self.threads < 1:
            raise SpecError(f"{self.threads} threads", expected="1 or more", code="out-of-range")


@dataclass(frozen=True, slots=True)
class LabelledGroup:
    """Tensors that are described together, and what their row begins with."""

    label: Record
    tensors: list[Tensor] = field(default_factory=list)
    spec: Spec | None = None
    axes: Axes = TORCH
    n_parameters: int = 0
    """How many of the tensors, the first ones, are parameters."""

    @property
    def group(self) -> Group:
        """What `describe` takes."""
        return Group(self.tensors, self.spec, self.n_parameters, self.axes)


def grouped(tensor_map: TensorMap, by: str, depth: int, with_axes: bool = False) -> list[LabelledGroup]:
    """Group tensors by ``"tensor"``, ``"dtype"``, ``"module"`` or ``"depth"``, in order of first appearance.

    With `with_axes` it is found out where the outputs and inputs of each tensor lie.

    Raises
    ------
    SpecError
        There is no such grouping.
    """
    key = counts.grouping(by, depth)
    told = asides(tensor_map)
    if by == "tensor":
        axes = _axes(tensor_map) if with_axes else {}
        pairs = zip(tensor_map.items(), told, strict=True)
        return [
            LabelledGroup(_label(name, t.spec), [t], t.spec, axes.get(name, TORCH), int(aside is None))
            for (name, t), aside in pairs
        ]
    groups: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for (name, tensor), aside in zip(tensor_map.items(), told, strict=True):
        parameters, others = groups.setdefault(key(name, tensor.spec), ([], []))
        (parameters if aside is None else others).append(tensor)
    return [
        LabelledGroup({"group": name, "n_tensors": len(one) + len(other)}, [*one, *other], n_parameters=len(one))
        for name, (one, other) in groups.items()
    ]


def _axes(tensor_map: TensorMap) -> dict[str, Axes]:
    from weighttools.families.kernels import Layouts

    layouts = Layouts.of(tensor_map)
    specs = zip(tensor_map, tensor_map.specs(), strict=True)
    return {name: layouts.axes(name, spec.shape) for name, spec in specs if len(spec.shape) > 1}


def _label(name: str, spec: Spec) -> Record:
    return {"name": name, "dtype": spec.dtype.name, "shape": list(spec.shape)}


def selection(request: Request, by: str, where: str | None, sort: str | None, top: int | None) -> Showing:
    """Return which rows to show; told before a value is read.

    Raises
    ------
    SpecError
        The condition or the sort key names no figure of the request, or `top` is below 0.
    """
    names = [*(("name", "dtype", "shape") if by == "tensor" else ("group", "n_tensors")), *columns(request, by)]
    return Showing.checked(names, where, sort, top)


def rows_of(groups: list[LabelledGroup], request: Request, means: Means) -> tuple[list[Record], Totals]:
    """Return the rows of all groups, and the totals over them, with the number of tensors of each."""
    n_bytes = sum(tensor.spec.nbytes for labelled in groups for tensor in labelled.tensors)
    with _executor(means, n_bytes) as pool:
        recipe = _recipe(choose_kernel(means.kernel, n_bytes), means.eps, request)
        how = Engine(recipe, pool, engine.window_for(means.threads), means.progress, means.threads)
        rows, totals = describe([labelled.group for labelled in groups], request, how)
    n_tensors, n_parameters = sum(len(one.tensors) for one in groups), sum(one.n_parameters for one in groups)
    labelled_rows = [{**labelled.label, **row} for labelled, row in zip(groups, rows, strict=True)]
    everything = totals.everything
    parameters = totals.parameters or (everything if n_parameters else None)
    others = totals.others or ({key: everything[key] for key in COUNTED} if n_parameters < n_tensors else None)
    return labelled_rows, Totals(
        {"n_tensors": n_tensors, **everything},
        parameters and {"n_tensors": n_parameters, **parameters},
        others and {"n_tensors": n_tensors - n_parameters, **others},
    )


COMPILED_BLOCK_ELEMENTS = 1 << 20
"""Elements that compiled code takes at a time: with fewer, threads wait for the interpreter more than they compute."""


def _recipe(kernel: str, eps: float, request: Request) -> FoldOptions:
    """Return how to compute; what keeps more of a block than its sums keeps to small ones."""
    if kernel == "numba" and request.is_plain:
        return FoldOptions(kernel, eps, COMPILED_BLOCK_ELEMENTS)
    return FoldOptions(kernel, eps)


@contextmanager
def _executor(means: Means, n_bytes: int) -> Iterator[Executor | None]:
    if means.executor is not None:
        yield means.executor
        return
    with engine.threads_for(n_bytes, means.threads) as pool:
        yield pool
