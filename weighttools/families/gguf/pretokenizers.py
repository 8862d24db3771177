"""How byte-level tokenizers cut a text before pairs are merged, by GGUF's ``tokenizer.ggml.pre``.

Source: llama.cpp, ``src/llama-vocab.cpp``, for the names and what they stand for; the tokenizer.json of a model of
each kind for how the expressions are spelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the step ``ByteLevel`` of a tokenizer.json cuts by, unless it is told not to."""
DIGITS = r"\p{N}"
"""What the step ``Digits`` cuts by, where it takes digits one by one."""

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = r"%s|[^\r\n\p{L}\p{N}]?\p{L}+|%s|" + _REST
_LLAMA3, _QWEN2 = _CASED % (_SHORT, r"\p{N}{1,3}"), _CASED % (_SHORT, r"\p{N}")
_QWEN35 = _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN, _GPT4O = _WORDS % ("", "", r"\p{N}"), _WORDS % (f"{_SHORT}?", f"{_SHORT}?", r"\p{N}{1,3}")


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut.

    Parameters
    ----------
    splits
        Regular expressions, one after another; what each finds stands alone.
    ignores_merges
        A piece that is a token is that token, whatever the merges say.
    begins
        Texts begin with the file's first token unless it says otherwise.
    is_composed
        Texts are put into Unicode's form NFC first, as the models' own tokenizer.json does.
    """

    splits: tuple[str, ...]
    ignores_merges: bool = False
    begins: bool = False
    is_composed: bool = False


_LLAMA_BPE = Cut((_LLAMA3,), ignores_merges=True, begins=True)

CUTS: Mapping[str, Cut] = {
    **dict.fromkeys(("gpt-2", "jais", "mpt", "olmo", "phi-2", "roberta-bpe"), Cut((GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "codeshell", "command-r", "refact"), Cut((DIGITS, GPT2))),
    **dict.fromkeys(("llama-bpe", "llama-v3", "llama3"), _LLAMA_BPE),
    **dict.fromkeys(("smaug-bpe", "dbrx"), Cut((_LLAMA3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Cut((_QWEN2,), is_composed=True)),
    "stablelm2": Cut((_QWEN2,)),
    "qwen35": Cut((_QWEN35,), is_composed=True),
    "tekken": Cut((_TEKKEN,), ignores_merges=True, begins=True),
    "gpt-4o": Cut((_GPT4O,)),
}
"""Of names that stand for the same, the first is what `name_of` gives."""


def name_of(splits: tuple[str, ...], ignores_merges: bool, is_composed: bool) -> str | None:
    """Return GGUF's name of a way to cut; None where it has none.

    A name for composed texts serves others where there is no name for these: llama.cpp composes none. Merges that are
    ignored where that is not asked for make a difference only for tokens that no merges lead to.
    """
    fits = [
        ((cut.ignores_merges != ignores_merges, cut.is_composed != is_composed), name)
        for name, cut in CUTS.items()
        if cut.splits == splits and cut.ignores_merges >= ignores_merges
    ]
    return min(fits, key=lambda fit: fit[0])[1] if fits else None
