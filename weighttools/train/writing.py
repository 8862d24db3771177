"""From a checkpoint and a prompt to text, piece by piece."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.formats.opening import PathLike, located
from weighttools.formats.opening import open as open_checkpoint
from weighttools.io.home import home_of
from weighttools.train.checkpoints.loading import Loaded
from weighttools.train.data.tokens import CONFIG, Tokens, context_of, left_elsewhere, token_ids, tokens
from weighttools.train.generation import Sampling, arrays_of, function_of, stream
from weighttools.train.memory import keep_pages
from weighttools.train.models import Checkpoint, load
from weighttools.train.parallel import threads_for
from weighttools.write.adapters import CONFIG as ADAPTER
from weighttools.write.adapters import WEIGHTS, merge_lora


@dataclass(frozen=True, slots=True)
class Writer:
    """A language model and its tokenizer.

    Parameters
    ----------
    checkpoint
        The model.
    tokenizer
        A ``tokenizers.Tokenizer``.
    stops
        Tokens that end a text.
    """

    checkpoint: Checkpoint
    tokenizer: Any = field(repr=False)
    stops: frozenset[int] = frozenset()

    def write(
        self,
        prompt: str,
        max_tokens: int = 50,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield what the model writes after `prompt`, in pieces that are whole characters.

        Parameters
        ----------
        max_tokens
            At most so many tokens; less where one of `stops` comes, which is not part of the text.
        temperature, top_p, top_k, seed
            As for `generate`.

        Raises
        ------
        SpecError
            A number is out of range, the prompt is no text, longer than the model takes, or empty where the tokenizer
            begins texts with nothing.
        """
        ids = self._ids(prompt, max_tokens)
        sampling = Sampling(temperature, top_p, top_k)
        run, params = self.checkpoint.architecture, self.checkpoint.params
        new: list[int] = []
        told = ""
        with threads_for(arrays_of(params)), keep_pages():
            for token in stream(run, params, ids, max_tokens, sampling=sampling, seed=seed, stop=self.stops):
                new.append(int(token[0]))
                text = self._text(ids, new)
                if len(text) > len(told) and not text.endswith("\ufffd"):
                    yield text[len(told) :]
                    told = text
        yield self._text(ids, new)[len(told) :]

    def notes(self) -> list[str]:
        """Return the line that says what beside the checkpoint is not taken, for it is a link to elsewhere."""
        return left_elsewhere(self.checkpoint.origin)

    def _ids(self, prompt: str, max_tokens: int) -> list[int]:
        """Return the prompt's tokens, which have room in the model with those that are to follow."""
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            fact = f"the prompt is not UTF-8: character {error.start + 1:,}"
            raise SpecError(fact, remedy="give it as UTF-8") from None
        ids: list[int] = Tokens(self.tokenizer).ids([prompt], special=True)[0].tolist()
        if not ids:
            raise SpecError("the prompt has no tokens", expected="some text")
        most = context_of(self.checkpoint.config)
        if most is not None and len(ids) + max_tokens > most:
            fact = f"a prompt of {len(ids):,} tokens, and {max_tokens:,} to follow; the model takes {most:,}"
            raise SpecError(fact, remedy=f"shorten the prompt, or ask for fewer tokens ({option('max_tokens')})")
        return ids

    def _text(self, ids: list[int], new: list[int]) -> str:
        """Return the text of the new tokens. The prompt's last goes before: some spell a space by what precedes."""
        kept = new[:-1] if new and new[-1] in self.stops else new
        decode = Tokens(self.tokenizer).decode
        return decode([*ids[-1:], *kept])[len(decode(ids[-1:])) :]


def writer(base: PathLike | TensorMap, tokenizer: PathLike | None = None, adapter: PathLike | None = None) -> Writer:
    """Load a language model and its tokenizer.

    Parameters
    ----------
    base
        The checkpoint.
    tokenizer
        A tokenizer.json or the directory it is in; by default the one beside the checkpoint, or in its GGUF metadata.
    adapter
        A LoRA adapter, as PEFT saves it, whose changes are added to the weights.

    Raises
    ------
    SourceError
        There is no tokenizer, or no adapter.
    UnsupportedError
        No function is known for the checkpoint, or for its tokenizer.
    """
    _refuse_adapter(base)
    change = None if adapter is None else functools.partial(merge_lora, adapter=adapter)
    with np.errstate(over="ignore", invalid="ignore"):  # an adapter's sums; the scores will tell
        checkpoint = load(base, change=change)
    known = tokens(checkpoint.origin if tokenizer is None else tokenizer)
    return Writer(checkpoint, known.tokenizer, frozenset(_stops(checkpoint)))


def _refuse_adapter(base: PathLike | TensorMap) -> None:
    """Say that a directory is an adapter, where it holds nothing else."""
    home = None if isinstance(base, TensorMap) else home_of(located(os.fspath(base)))
    if home is None or not home.is_whole or not home.has(ADAPTER) or home.has("model.safetensors"):
        return
    if any(home.has(name) for name in WEIGHTS):
        remedy = f"give the base that it changes, and {option('adapter')} {base}"
        raise SpecError("is a LoRA adapter, and no model", subject=base, remedy=remedy)


def write(
    model: Loaded,
    prompt: str,
    max_tokens: int = 50,
    *,
    tokenizer: PathLike | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
) -> str:
    """Return what a model of `train.model`, trained or not, with an adapter or without, writes after `prompt`.

    Parameters
    ----------
    max_tokens, temperature, top_p, top_k, seed
        As for `Writer.write`.
    tokenizer
        As for `writer`.

    Raises
    ------
    UnsupportedError
        It is no language model, or has a head of another task.
    """
    run, params = function_of(model)
    origin = TensorMap({}) if model.origin is None else model.origin
    base = getattr(model.run, "config", {}).get("base_model_name_or_path")
    if base and not origin.origin.path:  # an adapter is saved by itself, and says where its base is
        origin = open_checkpoint(base)
    checkpoint = Checkpoint(run, dict(params), model.config, origin)
    known = tokens(origin if tokenizer is None else tokenizer)
    made = Writer(checkpoint, known.tokenizer, frozenset(_stops(checkpoint)))
    return "".join(made.write(prompt, max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed))


def _stops(checkpoint: Checkpoint) -> Iterator[int]:
    """Yield the tokens that end a text, as the configurations have them."""
    origin, name = checkpoint.origin.origin, "generation_config.json"
    yield from token_ids(checkpoint.config, "eos_token_id", origin.path or CONFIG)
    if (home := home_of(origin)) is not None:
        yield from token_ids(home.read_json(name) or {}, "eos_token_id", home.path_of(name))
