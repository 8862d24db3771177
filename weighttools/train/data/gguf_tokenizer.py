"""The tokenizer that a GGUF file carries in its metadata, built again with the package ``tokenizers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from weighttools.errors import CorruptFileError, MissingDependencyError, UnsupportedError, install
from weighttools.train.data.panics import told

KEY = "tokenizer.ggml."
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
SENTENCEPIECE, SPACE = "llama", "\u2581"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3, _QWEN2 = _CASED % r"\p{N}{1,3}", _CASED % r"\p{N}"
_DIGITS = r"\p{N}"

SPLITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "jais", "mpt", "olmo", "phi-2", "roberta-bpe"), (_GPT2,)),
    **dict.fromkeys(("codeshell", "command-r", "refact", "smollm", "starcoder"), (_DIGITS, _GPT2)),
    **dict.fromkeys(("llama-bpe", "llama-v3", "llama3"), (_LLAMA3,)),
    **dict.fromkeys(("deepseek-r1-qwen", "qwen2"), (_QWEN2,)),
}
"""How a text is cut before pairs are merged, one expression after another, by ``tokenizer.ggml.pre``.

Source: llama.cpp, ``src/llama-vocab.cpp``.
"""
_COMPOSED = {"deepseek-r1-qwen", "qwen2"}
"""Texts are put into Unicode's form NFC first."""


def has_tokenizer(metadata: Mapping[str, Any]) -> bool:
    """Return whether a file carries a tokenizer."""
    return f"{KEY}tokens" in metadata


def gguf_tokenizer(metadata: Mapping[str, Any], subject: str = "the GGUF file") -> Any:
    """Return a ``tokenizers.Tokenizer`` made of GGUF's metadata.

    Raises
    ------
    UnsupportedError
        It is neither SentencePiece's BPE nor a byte-level BPE whose way to cut texts is known.
    CorruptFileError
        Tokens and merges make no tokenizer.
    MissingDependencyError
        The package ``tokenizers`` is not installed.
    """
    model, cut = metadata.get(f"{KEY}model"), metadata.get(f"{KEY}pre")
    if cut is None and metadata.get("general.architecture") == "gpt2":
        cut = "gpt-2"
    if model != SENTENCEPIECE and (model != "gpt2" or cut not in SPLITS):
        raise UnsupportedError(
            f"its tokenizer is {model!r}, cut by {cut!r}",
            subject=subject,
            expected=f"{SENTENCEPIECE!r}, or 'gpt2' cut by one of {', '.join(SPLITS)}",
            remedy="put the model's tokenizer.json beside the file",
        )
    try:
        with told("its tokens and merges make no tokenizer", CorruptFileError, subject):
            return sentencepiece(metadata) if model == SENTENCEPIECE else _built(metadata, str(cut))
    except ImportError:
        raise MissingDependencyError("text needs the package tokenizers", remedy=install("text")) from None


def _built(metadata: Mapping[str, Any], cut: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens = [str(token) for token in metadata[f"{KEY}tokens"]]
    merges = [(left, right) for left, _, right in (str(m).partition(" ") for m in metadata[f"{KEY}merges"])]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut in SPLITS and SPLITS[cut] == (_LLAMA3,)))
    if cut in _COMPOSED:
        found.normalizer = normalizers.NFC()
    found.pre_tokenizer = pre_tokenizers.Sequence(_cuts(cut))
    found.decoder = decoders.ByteLevel()
    _add_special(found, tokens, list(metadata.get(f"{KEY}token_type", ())))
    _begin(found, tokens, metadata, SPLITS[cut] == (_LLAMA3,))
    return found


def sentencepiece(metadata: Mapping[str, Any]) -> Any:
    """Return the tokenizer of Llama 2, Mistral and Gemma: pairs are merged by their score, the rest become bytes.

    A text begins with a space, and so does what follows a control token, unless the file says otherwise, as in
    llama.cpp.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = [str(token) for token in metadata[f"{KEY}tokens"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    kinds, at = list(metadata[f"{KEY}token_type"]), metadata.get(f"{KEY}unknown_token_id", 0)
    merges = merges_by_score(tokens, list(metadata[f"{KEY}scores"]), kinds)
    unknown = tokens[at] if isinstance(at, int) and 0 <= at < len(tokens) else None
    found = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    is_begun = bool(metadata.get(f"{KEY}add_space_prefix", True))
    replaced: list[Any] = [normalizers.Replace(" ", SPACE)]
    found.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *replaced] if is_begun else replaced)
    pieces: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    found.decoder = decoders.Sequence([*pieces, decoders.Strip(" ", 1, 0)] if is_begun else pieces)
    _add_special(found, tokens, kinds)
    _begin(found, tokens, metadata, default=True)
    return found


def merges_by_score(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that make another, the one with the highest score first."""
    known = {token: i for i, token in enumerate(tokens) if kinds[i] == _NORMAL}
    found = [
        (-scores[at], known[token[:i]], known[token[i:]])
        for token, at in known.items()
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
    ]
    return [(tokens[left], tokens[right]) for _, left, right in sorted(found)]


def _cuts(cut: str) -> list[Any]:
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[cut]]
    return [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _add_special(found: Any, tokens: list[str], kinds: list[int]) -> None:
    from tokenizers import AddedToken

    for kind, add in ((_CONTROL, found.add_special_tokens), (_USER_DEFINED, found.add_tokens)):
        chosen = [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=False) if k == kind]
        add(chosen)


def _begin(found: Any, tokens: list[str], metadata: Mapping[str, Any], default: bool) -> None:
    """Let texts begin with the file's first token, where it says so."""
    from tokenizers import processors

    at = metadata.get(f"{KEY}bos_token_id")
    if not metadata.get(f"{KEY}add_bos_token", default) or not isinstance(at, int) or not 0 <= at < len(tokens):
        return
    found.post_processor = processors.TemplateProcessing(
        single=[tokens[at], "$A"], pair=[tokens[at], "$A", "$B:1"], special_tokens=[(tokens[at], int(at))]
    )
