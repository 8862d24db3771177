"""Running finetune: what it prints before, while and after it trains."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from weighttools.cli import output, targets, writing
from weighttools.cli.targets import Target
from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.tensormap import Origin
from weighttools.errors import SourceError, SpecError, printable
from weighttools.io.beside import not_copied
from weighttools.io.home import home_of
from weighttools.io.sink import check_writable
from weighttools.train.checkpoints.companions import adapter_companions, companions, left_out
from weighttools.train.fitting.fit import Result
from weighttools.train.fitting.history import History
from weighttools.train.fitting.resume import FILES, Store
from weighttools.verbs.training.planning import check_checkpoint, plan
from weighttools.verbs.training.settings import Settings
from weighttools.verbs.training.tuning import Log, Prepared, prepare, tune, written

TOKENIZER = "tokenizer.json"
SCHEMA = "weighttools.finetune/1"
KINDS = {"the history": (".csv", ".json"), "the plot": (".png", ".svg", ".pdf")}


def run(
    src: str, dst: str, data: str, as_json: bool, settings: Settings, rest: dict[str, Any], masks: str | None = None
) -> None:
    """Prepare, train and write; `rest` are the options of reading and writing, `masks` the file that they came from."""
    from weighttools.verbs import api

    figures = {"the history": rest.pop("history"), "the plot": rest.pop("plot")}
    figures = {name: path for name, path in figures.items() if path is not None}
    _check_figures(figures, rest["force"])
    others = _others(figures, settings.checkpoint)
    targets.refuse_shared([targets.file("the output", dst), *others])
    if not rest["dry_run"]:
        _try_targets(dst, figures, settings.checkpoint, rest)

    def say(line: str) -> None:
        click.echo(printable(line), err=as_json or dst == "-")

    base = api.open(src, assume=rest.pop("assume"), root=rest.pop("root"))
    prepared = prepare(base, data, settings, say)
    target = {**rest, "beside": {**_beside(prepared), **_tokenizer(settings.columns.tokenizer)}}
    _check_targets(prepared, _goal(prepared, dst, target), others, (data, settings.validation, masks))
    if rest["dry_run"]:
        for line in prepared.model.notes:
            say(line)
        _tell_plan(plan(prepared), src, as_json)
        return
    result = _tuned(prepared, say)
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
    _write_figures(result.history, figures, rest["force"])


def _tuned(prepared: Prepared, say: Log) -> Result:
    try:
        return tune(prepared, say)
    except KeyboardInterrupt:
        _tell_saved(prepared.settings)
        raise


def _tell_saved(settings: Settings) -> None:
    """Say where a training that was interrupted can go on."""
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
    home = home_of(path)
    if home and home.is_whole:
        why = home.why_not_copied(TOKENIZER, MAX_COMPANION_BYTES) if home.lies(TOKENIZER) else ""
        output.notes({"notes": not_copied({TOKENIZER: why}) if why else []})
        data = None if why else home.read(TOKENIZER, MAX_COMPANION_BYTES)
        return {} if data is None else {TOKENIZER: data}
    file = Path(path)
    return {TOKENIZER: file.read_bytes()} if file.is_file() and file.name == TOKENIZER else {}


def _goal(prepared: Prepared, dst: str, settings: Mapping[str, Any]) -> Target:
    """Return what will be written, so that a target that cannot be is known before training begins."""
    from weighttools.train.fitting.saving import tensor_map

    merged = prepared.base if prepared.settings.is_merged else None
    planned = tensor_map(merged or prepared.model)
    record = writing.plan(planned, dst, **{**settings, "dequantize": True})
    return writing.output_target(planned, record, settings["beside"])


def _check_figures(figures: Mapping[str, str], force: bool) -> None:
    """Refuse names that figures are not written to."""
    for name, path in figures.items():
        known = KINDS[name]
        if Path(path).suffix.lower() not in known:
            raise SpecError(f"a {name[4:]} is {', '.join(known[:-1])} or {known[-1]}", subject=path)
        if not Path(path).absolute().parent.is_dir():
            raise SourceError("its directory does not exist", subject=path, remedy="make it first")
        if os.path.lexists(path) and not force:
            raise SourceError("exists already", subject=path, remedy="give --force to replace it, or another name")
    if "the plot" in figures:
        History().plot()


def _try_targets(dst: str, figures: Mapping[str, str], checkpoint: str | None, rest: Mapping[str, Any]) -> None:
    """Refuse what could not be written, which would show only after training."""
    writing.early(dst, rest["force"], rest["format"])
    for path in figures.values():
        check_writable(path, force=True)
    if checkpoint is not None:
        check_checkpoint(checkpoint)


def _others(figures: Mapping[str, str], checkpoint: str | None) -> list[Target]:
    """Return what is written beside the output."""
    found = [targets.file(name, path) for name, path in figures.items()]
    if checkpoint is not None:
        files = frozenset(targets.real(Path(checkpoint) / name) for name in FILES)
        found.append(Target("the checkpoint", checkpoint, files, is_directory=True, is_alone=True))
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
    is_adapter = prepared.base is not None and not prepared.settings.is_merged
    if is_adapter and goal.is_directory and targets.real(_origin(prepared).path) == goal.place:
        fact = "is the directory of the model that the adapter is for"
        raise SpecError(fact, subject=goal.given, expected="one of its own for the adapter")


def _write_figures(history: History, figures: Mapping[str, str], force: bool) -> None:
    for name, path in figures.items():
        if name == "the plot":
            history.plot(path, force=force)
        elif path.lower().endswith(".csv"):
            history.csv(path, force=force)
        else:
            history.json(path, force=force)


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
