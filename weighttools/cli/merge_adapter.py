"""``weighttools merge-adapter``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from weighttools.cli import options, output, targets


@click.command(name="merge-adapter")
@click.argument("base", type=click.Path())
@click.argument("adapter", type=click.Path())
@click.option("--names", type=click.Choice(["hf"]), help="Take the base's GGUF names and layout for Hugging Face's.")
@click.option("--dequantize", is_flag=True, help="Decode the base's quantised tensors to float32.")
@options.output
@options.reading
def merge_adapter(
    base: str,
    adapter: str,
    dst: str,
    names: str | None,
    dequantize: bool,
    as_json: bool,
    assume: str | None,
    root: str | None,
    **settings: Any,
) -> None:
    """Add a LoRA adapter's changes to the weights of its base, so that any program can load the result.

    ADAPTER is a directory with adapter_model.safetensors and adapter_config.json. W + alpha / r * B A is computed in
    float64 and rounded once to the base's dtype; what the adapter does not change is copied.
    Factors that hold NaN or Inf are refused; a result that overflows the dtype is written, and a note counts its
    elements. A classifier's classes come from the adapter's config.json. With --names hf a directory also gets the
    config.json and the tokenizer.json that the GGUF file's metadata stand for.

    \b
    Examples:
      weighttools merge-adapter checkpoint/ adapter/ -o merged/
      weighttools merge-adapter model.safetensors adapter/ -o merged.safetensors --dry-run
      weighttools merge-adapter model.Q4_K.gguf adapter/ -o merged/ --names hf --dequantize
    """  # fmt: skip
    from weighttools.cli import writing
    from weighttools.families.gguf.companions import gguf_files
    from weighttools.transforms.changes import recodings, taken
    from weighttools.verbs import api, edits

    if dst != "-":
        targets.refuse_read([targets.file("the output", dst)], [adapter])
    opened = api.open(base, assume=assume, root=root)
    plain = taken(opened, {"names": names}).pipe(*recodings({"dequantize": dequantize}))
    merged = edits.merge_adapter(plain, adapter)
    files, lacking = gguf_files(opened) if names else (edits.adapter_configuration(opened, adapter), [])
    writing.edited(merged, dst, "changed", as_json, beside=files, **settings)
    if Path(dst).is_dir() and not (Path(dst) / "tokenizer.json").exists():
        for fact in lacking:
            output.note(fact)
