"""What a training writes: held against what it reads and against itself before training, and written after it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.tensormap import Origin
from weighttools.errors import SourceError, SpecError, option
from weighttools.io import sink
from weighttools.io.beside import not_copied
from weighttools.io.home import home_of
from weighttools.train.checkpoints.companions import adapter_companions, companions, left_out
from weighttools.train.fitting.history import History
from weighttools.train.fitting.resume import FILES
from weighttools.train.fitting.saving import tensor_map
from weighttools.transforms.dequantize import dequantize
from weighttools.verbs.training.planning import check_state
from weighttools.verbs.training.tuning import Prepared
from weighttools.write import protection as targets
from weighttools.write.early import check_writable
from weighttools.write.plan import plan
from weighttools.write.protection import Target

TOKENIZER = "tokenizer.json"
KINDS = {"the history": (".csv", ".json"), "the plot": (".png", ".svg", ".pdf")}


def check_early(dst: str, figures: Mapping[str, str], state: str | None, writing: Mapping[str, Any]) -> None:
    """Refuse, before anything is read, what could not be written, which would show only after training.

    Parameters
    ----------
    dst
        The target.
    figures
        Paths of the history and the plot, by the keys of `KINDS`.
    state
        The directory of the training's state.
    writing
        Options of writing.
    """
    _check_figures(figures, writing["force"])
    targets.refuse_shared([targets.file("the output", dst), *_others(figures, state)])
    if not writing["dry_run"]:
        _try_targets(dst, figures, state, writing)


def check_all(
    prepared: Prepared, dst: str, figures: Mapping[str, str], writing: Mapping[str, Any], data: Sequence[Any]
) -> None:
    """Refuse, before training, targets by which something would be lost: of what is read, or of one another."""
    _check_targets(prepared, _goal(prepared, dst, writing), _others(figures, prepared.settings.state), data)


def _goal(prepared: Prepared, dst: str, writing: Mapping[str, Any]) -> Target:
    """Return what will be written, so that a target that cannot be is known before training begins."""
    merged = prepared.base if prepared.settings.merge else None
    how = {name: value for name, value in writing.items() if name != "dry_run"}
    return plan(dequantize()(tensor_map(merged or prepared.model)), dst, **how).target()


def beside(prepared: Prepared) -> tuple[dict[str, bytes], list[str]]:
    """Return what to write beside the weights, of an adapter its configuration too; and what is not copied."""
    pad_id, base = getattr(prepared.source, "pad_id", None), prepared.base
    if base is None or prepared.settings.merge:
        files = companions(base or prepared.model, pad_id)
    else:
        files = adapter_companions(prepared.model, base, prepared.task.name, pad_id)
    own, notes = _tokenizer(prepared.settings.columns.tokenizer)
    return {**files, **own}, notes


def _tokenizer(path: str | None) -> tuple[dict[str, bytes], list[str]]:
    """Return the tokenizer that was named, so that the tuned model has it beside it."""
    if path is None:
        return {}, []
    home, file = home_of(path), Path(path)
    if home and home.is_whole:
        why = home.why_not_copied(TOKENIZER, MAX_COMPANION_BYTES) if home.lies(TOKENIZER) else ""
        data = None if why else home.read(TOKENIZER, MAX_COMPANION_BYTES)
        return ({} if data is None else {TOKENIZER: data}), not_copied({TOKENIZER: why} if why else {})
    return ({TOKENIZER: file.read_bytes()} if file.is_file() and file.name == TOKENIZER else {}), []


def notes_of(prepared: Prepared, record: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield what to say of a write: files that are missing, or have no place beside a file of weights."""
    if record["format"] == "huggingface":
        yield from left_out(prepared.base or prepared.model, files)
    elif files and record["dst"] != "-":
        yield f"{record['dst']} is weights alone: name a directory to get config.json and the tokenizer beside them"


def divergence(losses: Sequence[float]) -> list[str]:
    """Say that training made the model worse, by far; what was asked for is written all the same."""
    if not losses or not losses[-1] > _DIVERGED * losses[0] > 0:
        return []
    lower = option("lr")
    return [f"the loss rose from {losses[0]:.4g} to {losses[-1]:.4g}: training diverged; give a lower {lower}"]


_DIVERGED = 100


def _check_figures(figures: Mapping[str, str], force: bool) -> None:
    """Refuse names that figures are not written to."""
    for name, path in figures.items():
        known = KINDS[name]
        if Path(path).suffix.lower() not in known:
            raise SpecError(f"a {name[4:]} is {', '.join(known[:-1])} or {known[-1]}", subject=path)
        if not Path(path).absolute().parent.is_dir():
            raise SourceError("its directory does not exist", subject=path, remedy="make it first")
        if os.path.lexists(path) and not force:
            raise SourceError(
                "exists already", subject=path, remedy=f"give {option('force')} to replace it, or another name"
            )
    if "the plot" in figures:
        History().plot()


def _try_targets(dst: str, figures: Mapping[str, str], state: str | None, rest: Mapping[str, Any]) -> None:
    """Refuse what could not be written, which would show only after training."""
    check_writable(dst, rest["force"], rest["format"])
    for path in figures.values():
        sink.check_writable(path, force=True)
    if state is not None:
        check_state(state)


def _others(figures: Mapping[str, str], state: str | None) -> list[Target]:
    """Return what is written beside the output."""
    found = [targets.file(name, path) for name, path in figures.items()]
    if state is not None:
        files = frozenset(targets.real(Path(state) / name) for name in FILES)
        found.append(Target("the state", state, files, is_directory=True, is_alone=True))
    return found


def _check_targets(prepared: Prepared, goal: Target, others: Sequence[Target], data: Sequence[Any]) -> None:
    """Refuse targets by which something would be lost: of what is read, or of one another."""
    targets.refuse_shared([goal, *others])
    _refuse_loss(prepared, [goal, *others], [path for path in data if isinstance(path, str)])
    _refuse_home(prepared, goal)


def _refuse_loss(prepared: Prepared, every: Sequence[Target], data: Sequence[str]) -> None:
    """Refuse targets that would take the place of what is read, but for the weights that are tuned.

    What lies beside a directory's weights (config.json, the tokenizer) is carried over, and may be replaced by itself.
    """
    origin = _origin(prepared)
    model = [path for path in (origin.path, prepared.settings.columns.tokenizer) if path]
    targets.refuse_read(every, data, origin.files)
    targets.refuse_read([target for target in every if not target.is_directory], model, origin.files)


def _origin(prepared: Prepared) -> Origin:
    """Return where the checkpoint that is tuned came from."""
    opened = (prepared.base or prepared.model).origin
    return Origin() if opened is None else opened.origin


def _refuse_home(prepared: Prepared, goal: Target) -> None:
    """Refuse to write an adapter, and a config.json with it, into the directory of the model that it is for."""
    is_adapter = prepared.base is not None and not prepared.settings.merge
    if is_adapter and goal.is_directory and targets.real(_origin(prepared).path) == goal.place:
        fact = "is the directory of the model that the adapter is for"
        raise SpecError(fact, subject=goal.given, expected="one of its own for the adapter")


def write_figures(history: History, figures: Mapping[str, str], force: bool) -> None:
    """Write the history and draw the plot, where they were asked for."""
    for name, path in figures.items():
        if name == "the plot":
            history.plot(path, force=force)
        elif path.lower().endswith(".csv"):
            history.csv(path, force=force)
        else:
            history.json(path, force=force)
