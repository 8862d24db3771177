"""``weighttools convert``."""

from __future__ import annotations

from typing import Any

import click

from weighttools.cli import options, output
from weighttools.errors import printable
from weighttools.verbs.convert import OPTIONS


@click.command()
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@options.declared(*OPTIONS)
@options.as_json
def convert(src: str, dst: str, as_json: bool, **settings: Any) -> None:
    """Convert a checkpoint to another format, dtype, sharding or layout.

    DST with a format's suffix is a file (.safetensors, .npz, .npy, .pt, .h5, .gguf); any other name of no known kind
    of file, dots or not, is a Hugging Face directory; - is standard output. Names, shapes, metadata, ties and every
    bit of every value are kept unless you ask otherwise; what the target cannot hold is said before a byte is
    written. An existing target is left as it was until the new one is complete. With --names hf a directory also gets
    the config.json and the tokenizer's files that the GGUF file's metadata stand for; with --names gguf a file also
    gets the settings of config.json and the tokenizer of tokenizer.json, so that llama.cpp runs it.

    \b
    Examples:
      weighttools convert model.safetensors model.npz
      weighttools convert checkpoint/ half/ --dtype bfloat16 --keep-dtype '*norm*'
      weighttools convert checkpoint/ model.safetensors
      weighttools convert model.safetensors sharded/ --max-shard-size 2GB
      weighttools convert model.safetensors bare.safetensors --rename 'module.='
      weighttools convert model.Q4_K_M.gguf model/ --dequantize --names hf
      weighttools convert checkpoint/ model.gguf --names gguf --dtype float16
      weighttools convert pytorch_model.bin model.safetensors --verify
      weighttools convert flax_model.msgpack model.safetensors --layout torch --verify
    """
    from weighttools.cli import writing
    from weighttools.verbs import convert as verb

    with writing.bar("convert", settings["dry_run"]) as (planned, moved):
        record = verb.convert(src, dst, **settings, planned=planned, progress=moved)
    if as_json:
        output.emit_json([record])
    elif dst != "-" or settings["dry_run"]:
        _report_layout(record)
        _report_verified(record)
        writing.report(record)
    output.notes(record)


def _report_layout(record: dict[str, Any]) -> None:
    """Print what became of each tensor, and what the source was taken for."""
    if "layout" not in record:
        return
    for row in record["layout_log"]:
        shapes = f"{output.shape(row['shape_src'])} -> {output.shape(row['shape_dst'] or [])}"
        fate = f"{row['dst']}  {shapes}" if row["dst"] is not None else "left out"
        output.echo(printable(f"  {row['src']} -> {fate}  [{row['rule']}: {row['why']}]"))
    where = record["layout"]
    output.echo(printable(f"layout {where['source']} -> {where['target']} ({'; '.join(where['evidence'])})"))


def _report_verified(record: dict[str, Any]) -> None:
    """Print who compared how many tensors, and where nobody but this program could."""
    for row in record.get("verified_with", ()):
        tensors = output.counted(row["n_tensors"], "tensor")
        reader = f"{row['reader']} itself ({row['why']})" if row["why"] else row["reader"]
        output.echo(printable(f"verified: {tensors}, read back by {reader}, bit for bit what was to be written"))
    if "layout" in record and record["n_verified"]:
        output.echo(f"verified: {record['n_verified']:,} tensors taken back are the source's, bit for bit")
