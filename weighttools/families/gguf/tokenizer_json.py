"""The tokenizer.json that a GGUF file's metadata stand for, made without any package.

Source: the GGUF specification, section "GGML"; llama.cpp, ``src/llama-vocab.cpp``, for what the metadata mean; the
package ``tokenizers`` for how its file is spelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from weighttools.core.budgets import MAX_PIECE
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.families.gguf.pretokenizers import CUTS, Cut

KEY = "tokenizer.ggml."
BYTE_LEVEL, SENTENCEPIECE, WORDPIECE = "gpt2", "llama", "bert"
"""Values of ``tokenizer.ggml.model``."""
SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Values of ``tokenizer.ggml.token_type``."""
Json = dict[str, Any]


def has_tokenizer(metadata: Mapping[str, Any]) -> bool:
    """Return whether a file carries a tokenizer."""
    return f"{KEY}tokens" in metadata


def tokenizer_json(metadata: Mapping[str, Any], subject: str = "the GGUF file") -> Json:
    """Return a tokenizer.json made of GGUF's metadata.

    Raises
    ------
    UnsupportedError
        It is neither SentencePiece's BPE, nor WordPiece, nor a byte-level BPE whose way to cut texts is known.
    CorruptFileError
        Tokens and merges make no tokenizer.
    """
    build = _builder(metadata, subject)
    try:
        parts = build(metadata)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        line = f"its tokens and merges make no tokenizer: {str(error)[:200]}"
        raise CorruptFileError(line, subject=subject) from None
    return {"version": "1.0", "truncation": None, "padding": None, **parts}


def _builder(metadata: Mapping[str, Any], subject: str) -> Callable[[Mapping[str, Any]], Json]:
    model, cut = metadata.get(f"{KEY}model"), _cut_name(metadata)
    if isinstance(model, str) and model in _BUILDERS and (model != BYTE_LEVEL or cut in CUTS):
        return _BUILDERS[model]
    raise UnsupportedError(
        f"its tokenizer is {model!r}, cut by {cut!r}",
        subject=subject,
        expected=f"{SENTENCEPIECE!r}, {WORDPIECE!r}, or {BYTE_LEVEL!r} cut by one of {', '.join(CUTS)}",
        remedy="put the model's tokenizer.json beside the file",
    )


def _cut_name(metadata: Mapping[str, Any]) -> Any:
    found = metadata.get(f"{KEY}pre")
    cut = found if found is None else str(found)
    return "gpt-2" if cut is None and metadata.get("general.architecture") == "gpt2" else cut


def _byte_level(metadata: Mapping[str, Any]) -> Json:
    cut: Cut = CUTS[_cut_name(metadata)]
    tokens = _tokens(metadata)
    merges = [(left, right) for left, _, right in (str(m).partition(" ") for m in metadata[f"{KEY}merges"])]
    return {
        "added_tokens": _added(tokens, metadata),
        "normalizer": {"type": "NFC"} if cut.is_composed else None,
        "pre_tokenizer": _sequence("pretokenizers", [*map(_split, cut.splits), _level(False)]),
        "post_processor": _template(tokens, metadata, cut.begins),
        "decoder": _level(True),
        "model": _bpe(tokens, merges, ignore_merges=cut.ignores_merges),
    }


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _level(use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _sequence(key: str, steps: list[Json]) -> Json:
    return {"type": "Sequence", key: steps}


def _sentencepiece(metadata: Mapping[str, Any]) -> Json:
    """Return the tokenizer of Llama 2, Mistral and Gemma: pairs are merged by their score, the rest become bytes.

    A text begins with a space, and so does what follows a control token, unless the file says otherwise, as in
    llama.cpp.
    """
    tokens, kinds = _tokens(metadata), list(metadata[f"{KEY}token_type"])
    at = metadata.get(f"{KEY}unknown_token_id", 0)
    merges = merges_by_score(tokens, list(metadata[f"{KEY}scores"]), kinds)
    is_begun = bool(metadata.get(f"{KEY}add_space_prefix", True))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    pieces: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if is_begun:
        pieces.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = tokens[at] if _is_place(at, tokens) else None
    return {
        "added_tokens": _added(tokens, metadata),
        "normalizer": _sequence("normalizers", [{"type": "Prepend", "prepend": SPACE}] * is_begun + [replaced]),
        "pre_tokenizer": None,
        "post_processor": _template(tokens, metadata, begins=True),
        "decoder": _sequence("decoders", pieces),
        "model": _bpe(tokens, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True),
    }


def merges_by_score(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that make another, the one with the highest score first.

    Raises
    ------
    ValueError
        A token is longer than any piece of a word is.
    """
    known = {token: i for i, token in enumerate(tokens) if kinds[i] == NORMAL}
    if max(map(len, known), default=0) > MAX_PIECE:
        raise ValueError(f"a token of {max(map(len, known)):,} characters, where {MAX_PIECE} are the most")
    found = [
        (-scores[at], known[token[:i]], known[token[i:]])
        for token, at in known.items()
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
    ]
    return [(tokens[left], tokens[right]) for _, left, right in sorted(found)]


def _wordpiece(metadata: Mapping[str, Any]) -> Json:
    """Return BERT's tokenizer: GGUF marks what begins a word, where a vocab.txt marks what continues one."""
    tokens = [_plain_piece(token) for token in _tokens(metadata)]
    at = metadata.get(f"{KEY}unknown_token_id", 100)
    unknown = tokens[at] if _is_place(at, tokens) else "[UNK]"
    is_lower = bool(metadata.get(f"{KEY}normalizer.lowercase", True))
    return {
        "added_tokens": _added(tokens, metadata),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": is_lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template(tokens, metadata, begins=True, ends=True),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": _vocabulary(tokens)},
    }  # fmt: skip


def _plain_piece(token: str) -> str:
    if token.startswith(SPACE):
        return token[1:]
    return token if token.startswith("[") and token.endswith("]") else f"##{token}"


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    said = metadata[f"{KEY}tokens"]
    tokens = [str(token) for token in said] if isinstance(said, Sequence) and not isinstance(said, str) else []
    if not tokens:
        raise ValueError("no tokens")
    for token in tokens:
        token.encode()  # lone surrogates, of bytes that are no UTF-8, are an error here
    return tokens


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def _bpe(tokens: Sequence[str], merges: Sequence[tuple[str, str]], **more: Any) -> Json:
    vocabulary = _vocabulary(tokens)
    lacking = next((pair for pair in merges if not {*pair, "".join(pair)} <= vocabulary.keys()), None)
    if lacking is not None:
        raise ValueError(f"the merge {' '.join(lacking)[:80]!r} is of no tokens")
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}  # fmt: skip
    return {"type": "BPE", **plain, **more, "vocab": vocabulary, "merges": [list(pair) for pair in merges]}


def _added(tokens: Sequence[str], metadata: Mapping[str, Any]) -> list[Json]:
    """Return the tokens that are taken whole where they stand in a text."""
    kinds = metadata.get(f"{KEY}token_type", ())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": token, **flags, "special": kind != USER_DEFINED}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) and token
    ]


def _template(tokens: Sequence[str], metadata: Mapping[str, Any], begins: bool, ends: bool = False) -> Json | None:
    """Let texts begin and end with the tokens that the file says."""
    first = _edge(tokens, metadata, ("bos", "cls"), "bos", begins)
    last = _edge(tokens, metadata, ("seperator", "eos") if ends else ("eos",), "eos", ends)
    if first is None and last is None:
        return None
    used = {tokens[at]: at for at in (first, last) if at is not None}

    def sequence(name: str, type_id: int, is_first: bool) -> list[Json]:
        begun = first if is_first or not ends else None  # BERT's second text has no [CLS] of its own
        edges = [[{"SpecialToken": {"id": tokens[at], "type_id": type_id}}] if at is not None else []
                 for at in (begun, last)]  # fmt: skip
        return [*edges[0], {"Sequence": {"id": name, "type_id": type_id}}, *edges[1]]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0, True),
        "pair": [*sequence("A", 0, True), *sequence("B", 1, False)],
        "special_tokens": {token: {"id": token, "ids": [at], "tokens": [token]} for token, at in used.items()},
    }


def _edge(
    tokens: Sequence[str], metadata: Mapping[str, Any], which: tuple[str, ...], added: str, default: bool
) -> int | None:
    """Return the number of the token at one end of a text; None where none is put there."""
    if not metadata.get(f"{KEY}add_{added}_token", default):
        return None
    ids = (metadata.get(f"{KEY}{name}_token_id") for name in which)
    return next((int(at) for at in ids if _is_place(at, tokens)), None)


def _is_place(at: Any, tokens: Sequence[str]) -> TypeGuard[int]:
    return isinstance(at, int) and not isinstance(at, bool) and 0 <= at < len(tokens)


_BUILDERS: Mapping[Any, Callable[[Mapping[str, Any]], Json]] = {
    BYTE_LEVEL: _byte_level,
    SENTENCEPIECE: _sentencepiece,
    WORDPIECE: _wordpiece,
}
