"""What a training would do and take, known before it begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.io.directory import check_writable
from weighttools.train.autograd.tape import value_and_grad
from weighttools.train.fitting.feeding import Subset, column
from weighttools.train.fitting.resume import check_place
from weighttools.train.memory import keep_pages
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import weights
from weighttools.train.tasks.task import Labelled
from weighttools.verbs.training.tuning import Prepared


def check_state(directory: str) -> None:
    """Refuse, before training, a place that no state could be kept in.

    Raises
    ------
    SourceError
        It is no directory, or cannot be written.
    SpecError
        It holds something else.
    """
    check_writable(directory, force=True)
    check_place(Path(directory))


def plan(prepared: Prepared) -> dict[str, Any]:
    """Return what training would do and take, measured by one step that changes nothing.

    Returns
    -------
    dict
        n_samples, n_validation, n_steps, n_trained (parameters), groups and class_weights (lines), bytes of
        weights, gradients and the optimiser's state, and, of a step over the longest batch, its peak_bytes beyond
        those and its seconds.
    """
    params = {name: prepared.model.params[name] for name in prepared.names}
    optimizer, n_bytes = prepared.optimizer(), sum(p.nbytes for p in params.values())
    state = optimizer.init(params)
    peak, seconds = _measured(prepared)
    return {
        "n_samples": len(prepared.data),
        "n_validation": 0 if prepared.validation is None else len(prepared.validation),
        "n_steps": prepared.n_steps,
        "n_parameters": sum(p.size for p in weights(prepared.model.run, prepared.model.params)),
        "n_trained": sum(p.size for p in params.values()),
        "groups": optimizer.describe(params).splitlines(),
        "class_weights": _weights_told(prepared),
        "weights_bytes": sum(p.nbytes for p in prepared.model.params.values()) + _frozen_bytes(prepared),
        "gradient_bytes": n_bytes,
        "state_bytes": _nbytes(state),
        "step_peak_bytes": peak,
        "step_seconds": seconds,
    }


def _frozen_bytes(prepared: Prepared) -> int:
    """Return the bytes of the weights beside which an adapter is trained."""
    return sum(p.nbytes for p in prepared.base.params.values()) if prepared.base is not None else 0


def _nbytes(state: Any) -> int:
    """Return the bytes of all arrays in an optimiser's state."""
    if isinstance(state, np.ndarray):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(_nbytes(part) for part in state.values())
    if isinstance(state, (tuple, list)):
        return sum(_nbytes(part) for part in state)
    names = getattr(type(state), "__dataclass_fields__", {})
    return sum(_nbytes(getattr(state, name)) for name in names)


def _measured(prepared: Prepared) -> tuple[int, float]:
    """Return the peak memory, in bytes, and the seconds of a forward and backward pass over the longest batch."""
    import tracemalloc

    order = np.arange(len(prepared.data))
    lengths = getattr(prepared.source, "lengths", None)
    if lengths is not None:
        inside = prepared.data.indices if isinstance(prepared.data, Subset) else order
        order = np.argsort(-lengths[inside], kind="stable")
    batch = {**prepared.data.batch(order[: prepared.settings.batch_size]), "seed": (0, 0, 0, 0)}
    task = prepared.task
    if isinstance(task, Labelled) and task.is_weighted:
        task = task.prepared(column(prepared.data, "target"))

    def loss(params: Any, given: Any) -> Any:
        return task.loss(prepared.model.run(params, given), given)

    def step() -> float:
        began = time.perf_counter()
        value_and_grad(loss, prepared.model.params, batch, train=prepared.names)
        return time.perf_counter() - began

    pages, threads = keep_pages(), threads_for(weights(prepared.model.run, prepared.model.params))
    with pages, threads, np.errstate(over="ignore", invalid="ignore"):  # as fit has it
        tracemalloc.start()
        try:
            step()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return peak, step()


def _weights_told(prepared: Prepared) -> list[str]:
    labels = column(prepared.data, "target")
    if not isinstance(prepared.task, Labelled) or labels is None:
        return []
    task = prepared.task.prepared(labels)
    return str(task.report(labels, column(prepared.data, "sample_weight"))).splitlines()
