"""``weighttools generate``."""

from __future__ import annotations

import sys
from typing import Any

import click

from weighttools.cli import options, output
from weighttools.errors import SourceError
from weighttools.verbs.generate import OPTIONS


@click.command()
@click.argument("path", type=click.Path())
@click.option("-p", "--prompt", required=True, metavar="TEXT", help="The text to go on from; - reads standard input.")
@options.declared(*OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print the text as JSON once it is whole.")
def generate(path: str, prompt: str, as_json: bool, **how: Any) -> None:
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
    from weighttools.verbs import generate as verb

    text = _from_stdin() if prompt == "-" else prompt
    made = verb.generate(path, text, **how)
    output.notes({"notes": made.notes})
    if as_json:
        sampled = {name: how[name] for name in ("temperature", "top_p", "top_k", "seed")}
        record = {"schema": "weighttools.generate/1", "path": path, "prompt": text, "text": str(made)}
        output.emit_json([record | sampled])
        return
    for piece in made:
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
