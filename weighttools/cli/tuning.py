"""Running finetune: what it prints before, while and after it trains."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from weighttools.cli import output, writing
from weighttools.errors import SourceError, SpecError, printable
from weighttools.train.checkpoints.companions import adapter_companions, companions, left_out
from weighttools.train.commands.planning import plan
from weighttools.train.commands.settings import Settings
from weighttools.train.commands.tuning import Prepared, prepare, tune, written
from weighttools.train.fitting.history import History

TOKENIZER = "tokenizer.json"
SCHEMA = "weighttools.finetune/1"
HISTORIES, PLOTS = (".csv", ".json"), (".png", ".svg", ".pdf")


def run(
    src: str, dst: str, data: str, as_json: bool, settings: Settings, rest: dict[str, Any], masks: str | None = None
) -> None:
    """Prepare, train and write; `rest` are the options of reading and writing, `masks` the file that they came from."""
    from weighttools import api

    history, plot = rest.pop("history"), rest.pop("plot")
    inputs = (src, data, settings.validation, settings.columns.tokenizer, masks)
    _check_outputs(history, plot, dst, [path for path in inputs if isinstance(path, str)], rest["force"])

    def say(line: str) -> None:
        click.echo(printable(line), err=as_json or dst == "-")

    base = api.open(src, assume=rest.pop("assume"), root=rest.pop("root"))
    prepared = prepare(base, data, settings, say)
    target = {**rest, "beside": {**_beside(prepared), **_tokenizer(settings.columns.tokenizer)}}
    api.convert(_planned(prepared), dst, **{**target, "dry_run": True, "dequantize": True})
    _refuse_existing(dst, rest["force"])
    if rest["dry_run"]:
        for line in prepared.model.notes:
            say(line)
        _tell_plan(plan(prepared), src, as_json)
        return
    try:
        result = tune(prepared, say)
    except KeyboardInterrupt:
        _tell_saved(settings)
        raise
    record = writing.write(written(prepared, result), dst, "finetune", **target, dequantize=True)
    record = {
        **record, "schema": SCHEMA, "task": prepared.task.name, "n_samples": len(prepared.data),
        "n_steps": prepared.n_steps, "n_trained": sum(prepared.model.params[n].size for n in prepared.names),
        "classes": list(getattr(prepared.source, "names", ())), "stopped": result.stopped,
        "metrics": output.as_json(result.metrics), "epochs": [output.as_json(epoch) for epoch in result.history.epochs],
    }  # fmt: skip
    if as_json:
        output.emit_json([record])
    elif dst != "-":
        writing.report(record)
        _tell_files(dst, record, target["beside"])
    _tell_notes(prepared, record, target["beside"])
    _tell_divergence(result.history.steps.get("loss", []))
    _write_history(result.history, history, plot)


def _tell_saved(settings: Settings) -> None:
    """Say where a training that was interrupted can go on."""
    from weighttools.train.fitting.resume import Store

    if settings.checkpoint is None:
        output.note("interrupted: nothing is kept without --checkpoint")
        return
    store = Store(Path(settings.checkpoint), {})
    more = "; the same command with --resume goes on from there" if store.is_there else ""
    output.note(f"interrupted: {store.saved()}{more}")


def _tell_divergence(losses: Sequence[float]) -> None:
    """Say that training made the model worse, by far; what was asked for is written all the same."""
    if losses and losses[-1] > _DIVERGED * losses[0] > 0:
        output.note(f"the loss rose from {losses[0]:.4g} to {losses[-1]:.4g}: training diverged; give a lower --lr")


_DIVERGED = 100


def _beside(prepared: Prepared) -> dict[str, bytes]:
    """Return what to write beside the weights: of an adapter, its configuration too."""
    pad_id, base = getattr(prepared.source, "pad_id", None), prepared.base
    if base is None or prepared.settings.is_merged:
        return companions(base or prepared.model, pad_id)
    return adapter_companions(prepared.model, base, prepared.task.name, pad_id)


def _tell_notes(prepared: Prepared, record: Mapping[str, Any], beside: Mapping[str, bytes]) -> None:
    """Say what writing brought: its notes, weights that a merge took beyond their dtype, files that are missing."""
    infinite = [line for done in record.get("transforms", ())[-1:] for line in writing.not_finite(done)]
    is_directory = record["format"] == "huggingface"
    missing = left_out(prepared.base or prepared.model, beside) if is_directory else []
    output.notes({"notes": [*record["notes"], *infinite, *missing]})


def _tokenizer(path: str | None) -> dict[str, bytes]:
    """Return the tokenizer that was named, so that the tuned model has it beside it."""
    if path is None:
        return {}
    file = Path(path) / TOKENIZER if Path(path).is_dir() else Path(path)
    return {TOKENIZER: file.read_bytes()} if file.is_file() and file.name == TOKENIZER else {}


def _planned(prepared: Prepared) -> Any:
    """Return a map as it will be written, so that a target that cannot be is known before training begins."""
    from weighttools.train.fitting.saving import tensor_map

    return tensor_map(prepared.model)


def _check_outputs(history: str | None, plot: str | None, dst: str, inputs: Sequence[str], force: bool) -> None:
    """Refuse what could only fail after training, and what would be lost."""
    for path, what, known in ((history, "a history", HISTORIES), (plot, "a plot", PLOTS)):
        if path is None:
            continue
        if Path(path).suffix.lower() not in known:
            raise SpecError(f"{what} is {', '.join(known[:-1])} or {known[-1]}", subject=path)
        if not Path(path).absolute().parent.is_dir():
            raise SourceError("its directory does not exist", subject=path, remedy="make it first")
        _refuse_taken(path, dst, inputs)
        if Path(path).is_dir() or (os.path.lexists(path) and not force):
            raise SourceError("exists already", subject=path, remedy="give --force to replace it, or another name")
    if plot is not None:
        History().plot()


def _refuse_taken(path: str, dst: str, inputs: Sequence[str]) -> None:
    """Refuse to write figures to what is read, to a file of a directory that is read, or to the output."""
    real = Path(os.path.realpath(path))
    if dst != "-" and real == Path(os.path.realpath(dst)):
        raise SpecError("is the output too", subject=path, expected="a file of its own", remedy="give another name")
    for given in map(Path, inputs):
        is_inside = real.exists() and Path(os.path.realpath(given)) in real.parents
        if is_inside or (given.exists() and real.exists() and given.samefile(real)):
            raise SpecError("is read too", subject=path, expected="a file of its own", remedy="give another name")


def _refuse_existing(dst: str, force: bool) -> None:
    path = Path(dst)
    if dst != "-" and not path.absolute().parent.is_dir():
        raise SourceError("its directory does not exist", subject=dst, remedy="make it first")
    if dst != "-" and not force and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise SourceError("exists already", subject=dst, remedy="give --force to replace it")


def _write_history(history: History, file: str | None, plot: str | None) -> None:
    if file is not None:
        history.csv(file) if file.lower().endswith(".csv") else history.json(file)
    if plot is not None:
        history.plot(plot)


def _tell_files(dst: str, record: dict[str, Any], beside: dict[str, bytes]) -> None:
    if beside and record["format"] != "huggingface":
        output.note(f"{dst} is weights alone: name a directory to get config.json and the tokenizer beside them")


def _tell_plan(found: dict[str, Any], src: str, as_json: bool) -> None:
    if as_json:
        output.emit_json([{"schema": SCHEMA, "src": src, "written": False, **found}])
        return
    shares = f"{found['n_trained']:,} of {found['n_parameters']:,} parameters"
    output.echo(
        f"would train {shares} for {output.counted(found['n_steps'], 'update')} on {found['n_samples']:,} samples"
    )
    for line in (*found["groups"], *found["class_weights"]):
        output.echo(printable(f"  {line}"))
    parts = [(name, found[f"{key}_bytes"]) for name, key in _PARTS]
    total = sum(n for _, n in parts)
    output.echo(f"memory: about {output.size(total)}: " + ", ".join(f"{n} {output.short_size(b)}" for n, b in parts))
    output.echo(
        f"time: about {found['step_seconds'] * found['n_steps']:.3g} s "
        f"({found['step_seconds']:.2g} s for a step over the longest batch, measured)"
    )


_PARTS = (("weights", "weights"), ("state of the optimizer", "state"), ("a step over the longest batch", "step_peak"))
