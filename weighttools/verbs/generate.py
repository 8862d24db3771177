"""The verb ``generate``: what a language model writes after a text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option("max_tokens", int, 50, "At most so many tokens.", flags=("-n", "--max-tokens"), shows_default=True, least=1),
    Option("temperature", float, 0.0, "0 takes the likeliest token always.", shows_default=True, least=0),
    Option(
        "top_p", float, 1.0, "Sample of the tokens that make up so much.", shows_default=True, above=0, most=1,
    ),
    Option("top_k", int, 0, "Sample of so many tokens; 0 is all.", shows_default=True, least=0),
    Option("seed", int, 0, "Determines what is sampled.", shows_default=True, least=0),
    Option("tokenizer", is_path=True, metavar="PATH", help="A tokenizer.json, or the directory it is in."),
    Option("adapter", is_path=True, metavar="DIR", help="A LoRA adapter to add to the weights."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Generated:
    """A text as it is written: iterate over it for its pieces, once, or take ``str`` of it.

    Parameters
    ----------
    pieces
        Pieces of whole characters.
    notes
        What beside the checkpoint is not taken.
    """

    pieces: Iterator[str]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    def __str__(self) -> str:
        return "".join(self.pieces)


@takes(*OPTIONS)
def generate(
    src: PathLike | TensorMap,
    prompt: str,
    *,
    max_tokens: int = 50,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    tokenizer: PathLike | None = None,
    adapter: PathLike | None = None,
) -> Generated:
    """Let a language model go on from a text.

    Parameters
    ----------
    src
        The checkpoint of a decoder: as for `open`, or an open map.
    prompt
        The text to go on from.
    max_tokens
        At most so many tokens; less where one comes that ends a text.
    temperature, top_p, top_k, seed
        As for `train.generate`: 0, the default, takes the likeliest token always.
    tokenizer
        A tokenizer.json or the directory it is in; by default the one beside the checkpoint, or in its GGUF metadata.
    adapter
        A LoRA adapter, as PEFT saves it, whose changes are added to the weights.

    Returns
    -------
    Generated
        Gives the pieces of the text as they are written; ``str`` of it is the text.

    Raises
    ------
    SpecError
        A number is out of range, or options say nothing at temperature 0; the prompt is no text, or too long.
    SourceError
        There is no tokenizer, or no adapter.
    UnsupportedError
        No function is known for the checkpoint, or for its tokenizer.
    """
    from weighttools.errors import SpecError, option
    from weighttools.train.writing import writer

    if temperature == 0 and (top_p != 1 or top_k != 0):
        fact = f"{option('top_p')} and {option('top_k')} say nothing at temperature 0"
        raise SpecError(fact, remedy=f"give {option('temperature')}, such as 0.8")
    paths = [None if path is None else os.fspath(path) for path in (tokenizer, adapter)]
    made = writer(src, *paths)
    pieces = made.write(prompt, max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    return Generated(pieces, tuple(made.notes()))
