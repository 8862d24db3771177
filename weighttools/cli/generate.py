"""``weighttools generate``."""

from __future__ import annotations

import sys
from typing import Any

import click

from weighttools.cli import output
from weighttools.errors import SourceError


@click.command()
@click.argument("path", type=click.Path())
@click.option("-p", "--prompt", required=True, metavar="TEXT", help="The text to go on from; - reads standard input.")
@click.option("-n", "--max-tokens", type=int, default=50, show_default=True, help="At most so many tokens.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token always.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Sample of the tokens that make up so much.")
@click.option("--top-k", type=int, default=0, show_default=True, help="Sample of so many tokens; 0 is all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Determines what is sampled.")
@click.option("--tokenizer", type=click.Path(), metavar="PATH", help="A tokenizer.json, or the directory it is in.")
@click.option("--adapter", type=click.Path(), metavar="DIR", help="A LoRA adapter to add to the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print the text as JSON once it is whole.")
def generate(
    path: str, prompt: str, max_tokens: int, tokenizer: str | None, adapter: str | None, as_json: bool, **how: Any
) -> None:
    """Let a language model go on from a text, and print what it writes as it writes it.

    Reads Llama's kin (SmolLM, Mistral, Qwen, Gemma, Phi-3) and GPT-2, from directories and from GGUF files, and
    computes in float32 with NumPy. Needs the extra [text].

    \b
    Examples:
      weighttools generate SmolLM2-135M-Instruct.Q4_1.gguf --prompt 'The capital of France is'
      weighttools generate path/to/checkpoint --adapter path/to/adapter --prompt 'Dear Sir or Madam,'
      weighttools generate path/to/checkpoint -p 'Once upon a time' -n 200 --temperature 0.8 --top-p 0.95 --seed 3
      weighttools generate SmolLM2-135M-Instruct.Q4_1.gguf --prompt 'Log of the' --adapter adapter/
    """
    from weighttools.train.writing import writer

    if max_tokens < 1:
        raise click.BadParameter("1 at least", param_hint="--max-tokens")
    if how["temperature"] == 0 and (how["top_p"] != 1 or how["top_k"] != 0):
        raise click.UsageError("--top-p and --top-k say nothing at temperature 0: give --temperature, such as 0.8")
    text = _from_stdin() if prompt == "-" else prompt
    made = writer(path, tokenizer, adapter)
    output.notes({"notes": made.notes()})
    pieces = made.write(text, max_tokens, **how)
    if as_json:
        record = {"schema": "weighttools.generate/1", "path": path, "prompt": text, "text": "".join(pieces)}
        output.emit_json([record | how])
        return
    for piece in pieces:
        output.piece(piece)
    output.echo()


def _from_stdin() -> str:
    if sys.stdin is None:
        raise SourceError("is closed", subject="standard input")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        fact = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise SourceError(fact, subject="standard input", remedy="give the prompt as UTF-8") from None
