"""The tokenizer of a model in Hugging Face's layout, as GGUF's metadata has it.

Source: llama.cpp, ``convert_hf_to_gguf.py`` and ``gguf-py/gguf/vocab.py``, for what is written and of which types;
``src/llama-vocab.cpp`` for what it is taken for. What llama.cpp would cut otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighttools.core.budgets import MAX_PIECE
from weighttools.errors import CorruptFileError, UnsupportedError, brief, few
from weighttools.families.gguf.pretokenizers import DIGITS, GPT2, name_of
from weighttools.families.gguf.tokenizer_json import (
    BYTE,
    BYTE_LEVEL,
    CONTROL,
    KEY,
    NORMAL,
    SENTENCEPIECE,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    WORDPIECE,
)
from weighttools.formats.gguf.numbers import Float32, Int32

Json = Mapping[str, Any]
_ADDED_SCORE = -1000.0
"""What the converter gives to tokens that are never the outcome of a merge."""
_BYTES = {f"<0x{i:02X}>" for i in range(256)}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary, by number.

    Parameters
    ----------
    texts
        Each token as tokenizer.json spells it; None where it has none of that number.
    added
        Numbers of the tokens that are taken whole, and whether they are special.
    """

    texts: list[str | None]
    added: dict[int, bool]

    def id_of(self, text: Any) -> int | None:
        """Return a token's number, if there is one."""
        return self.texts.index(text) if isinstance(text, str) and text in self.texts else None


def tokenizer_metadata(
    data: Json, n_rows: int, subject: object, unknown: Any = None
) -> tuple[dict[str, Any], Vocabulary]:
    """Return ``tokenizer.ggml.*`` of a tokenizer.json, but for its special tokens, and the vocabulary.

    Parameters
    ----------
    data
        The tokenizer.json.
    n_rows
        Rows of the embedding: llama.cpp wants as many tokens.
    subject
        What messages name.
    unknown
        The token for what is no other, where the tokenizer does not say itself.

    Raises
    ------
    UnsupportedError
        It is of a kind that GGUF has no name for.
    CorruptFileError
        Its parts contradict each other, or the embedding.
    """
    model = data.get("model")
    if not isinstance(model, dict):
        raise CorruptFileError("has no model", subject=subject, expected="a tokenizer.json")
    kind, found = _kind(data, model, subject)
    tokens = _tokens(data, model, n_rows, subject)
    if kind == BYTE_LEVEL:
        return {**found, **_byte_level(model, tokens, subject)}, tokens
    made = (
        _wordpiece(tokens)
        if kind == WORDPIECE
        else _sentencepiece(model, tokens, subject, model.get("unk_token") or unknown)
    )
    return {**found, **made}, tokens


def _unsupported(fact: str, subject: object, expected: str) -> UnsupportedError:
    remedy = "move tokenizer.json away to write the tensors without a tokenizer"
    return UnsupportedError(fact, subject=subject, expected=expected, remedy=remedy)


def _kind(data: Json, model: Json, subject: object) -> tuple[str, dict[str, Any]]:
    """Return the kind of tokenizer, and the metadata that say how it cuts texts."""
    name = model.get("type") or ("BPE" if "merges" in model else None)
    steps = [*steps_of(data.get("normalizer"))], [*steps_of(data.get("pre_tokenizer"))]
    if name == "WordPiece":
        return WORDPIECE, {f"{KEY}model": WORDPIECE, f"{KEY}pre": "default", **_lowercase(steps[0], subject)}
    if name != "BPE":
        raise _unsupported(f"is a tokenizer of the kind {brief(repr(name), 60)}", subject, "BPE or WordPiece")
    if any(step.get("type") == "ByteLevel" for step in steps[1]):
        return BYTE_LEVEL, {f"{KEY}model": BYTE_LEVEL, f"{KEY}pre": _cut(model, *steps, subject)}
    begun = _is_begun(*steps, subject)
    return SENTENCEPIECE, {f"{KEY}model": SENTENCEPIECE, f"{KEY}pre": "default", f"{KEY}add_space_prefix": begun}


def steps_of(part: Any) -> Iterator[Json]:
    """Yield the steps of a part of a tokenizer.json, sequences taken apart."""
    left = [part]
    while left:
        step = left.pop()
        inner = [step.get(key) for key in ("normalizers", "pretokenizers", "processors")] if _is_step(step) else []
        inside = next((steps for steps in inner if isinstance(steps, list)), None)
        if inside is not None:
            left += inside[::-1]
        elif _is_step(step):
            yield step


def _is_step(step: Any) -> bool:
    return isinstance(step, dict)


def _cut(model: Json, normalizers: Sequence[Json], cuts: Sequence[Json], subject: object) -> str:
    """Return GGUF's name of the way in which texts are cut.

    Raises
    ------
    UnsupportedError
        It has none.
    """
    other = [str(step.get("type")) for step in normalizers if step.get("type") != "NFC"]
    splits: list[str] = []
    for step in cuts:
        pattern = _pattern(step)
        if pattern is None:
            other.append(str(step.get("type")))
        splits += [pattern] if pattern else []
    name = None if other else name_of(tuple(splits), bool(model.get("ignore_merges")), bool(normalizers))
    if name is None:
        what = (
            f"steps {few([brief(kind, 60) for kind in other[:6]])}"
            if other
            else f"the expressions {str(splits)[:300]} (ignore_merges: "
        )
        what += "" if other else f"{bool(model.get('ignore_merges'))})"
        raise _unsupported(f"texts are cut by {what}", subject, "a way to cut that llama.cpp has a name for")
    return name


def _pattern(step: Json) -> str | None:
    """Return the expression that a step cuts by, empty for none; None if it does anything else."""
    kind, pattern = step.get("type"), step.get("pattern")
    if kind == "ByteLevel":
        return None if step.get("add_prefix_space") else GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits":
        return DIGITS if step.get("individual_digits") else None
    alone = str(step.get("behavior")).lower() == "isolated" and not step.get("invert")
    if kind == "Split" and alone and isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
        return DIGITS if pattern["Regex"] == r"\p{N}" else str(pattern["Regex"])
    return None


def _is_begun(normalizers: Sequence[Json], cuts: Sequence[Json], subject: object) -> bool:
    """Return whether SentencePiece's texts begin with a space.

    Raises
    ------
    UnsupportedError
        Texts are changed in any other way.
    """
    begun, odd = False, []
    for step in (*normalizers, *cuts):
        kind = step.get("type")
        if kind == "Prepend" and step.get("prepend") == SPACE:
            begun = True
        elif kind == "Metaspace" and not step.get("split"):
            begun = step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True)
        elif not (kind == "Replace" and step.get("content") == SPACE) and not _is_idle(step):
            odd.append(str(kind))
    if odd:
        raise _unsupported(
            f"texts go through {few([brief(kind, 60) for kind in odd[:6]])}",
            subject,
            "spaces made visible, and nothing else",
        )
    return bool(begun)


def differences(data: Json) -> list[str]:
    """Return the texts, a line each, that llama.cpp cuts otherwise for want of metadata that could say it."""
    steps = [*steps_of(data.get("normalizer")), *steps_of(data.get("pre_tokenizer"))]
    found = []
    if any(step.get("type") == "NFC" for step in steps):
        found.append("llama.cpp does not compose accents (NFC), as the tokenizer does: such texts become other tokens")
    if any(step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in steps):
        found.append("llama.cpp puts one more space before texts that begin with one, and behind special tokens")
    return found


def _is_idle(step: Json) -> bool:
    """Return whether a step does nothing, once spaces are marks: Gemma cuts at spaces that are no longer there."""
    return step.get("type") == "Split" and step.get("pattern") == {"String": " "}


def _lowercase(normalizers: Sequence[Json], subject: object) -> dict[str, Any]:
    found = [step for step in normalizers if step.get("type") == "BertNormalizer"]
    if len(found) != 1 or len(normalizers) != 1:
        raise _unsupported("texts do not go through BERT's normalizer alone", subject, "BertNormalizer")
    lower = bool(found[0].get("lowercase", True))
    if found[0].get("strip_accents") not in (None, lower):
        raise _unsupported("accents are kept where case is not, or the reverse", subject, "both, or neither")
    return {} if lower else {f"{KEY}normalizer.lowercase": False}


def _tokens(data: Json, model: Json, n_rows: int, subject: object) -> Vocabulary:
    """Return the vocabulary, as long as the embedding.

    Raises
    ------
    CorruptFileError
        A token has no row there.
    """
    said = data.get("added_tokens")
    entries = said if isinstance(said, list) else []
    added = {e["content"]: e for e in entries if isinstance(e, dict) and isinstance(e.get("content"), str)}
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or len(added) != len(entries):
        raise CorruptFileError("its tokens are no list of texts with numbers", subject=subject)
    texts: list[str | None] = [None] * n_rows
    for text, at in [*vocabulary.items(), *((text, entry.get("id")) for text, entry in added.items())]:
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < n_rows:
            fact = f"the token {text[:60]!r} has the number {at}"
            raise CorruptFileError(fact, subject=subject, expected=f"below {n_rows:,}, the rows of the embedding")
        texts[at] = text
    return Vocabulary(texts, {entry["id"]: _is_control(text, entry) for text, entry in added.items()})


def _is_control(text: str, entry: Json) -> bool:
    return bool(entry.get("special")) or (text[:2] in ("<|", "<｜") and text[-2:] in ("|>", "｜>"))


def _filled(tokens: Vocabulary) -> Iterator[tuple[str, int]]:
    """Yield each token and its type; numbers without a token get one that no text is."""
    for at, text in enumerate(tokens.texts):
        if text is None or (text == f"[PAD{at}]" and at not in tokens.added):
            yield f"[PAD{at}]", UNUSED
        elif at in tokens.added:
            yield text, CONTROL if tokens.added[at] else USER_DEFINED
        else:
            yield text, NORMAL


def _listed(pairs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {f"{KEY}tokens": [text for text, _ in pairs], f"{KEY}token_type": [Int32(kind) for _, kind in pairs]}


def _byte_level(model: Json, tokens: Vocabulary, subject: object) -> dict[str, Any]:
    merges = [" ".join(part.replace(" ", "\u0120") for part in pair) for pair in merges_of(model, subject)]
    return {**_listed([*_filled(tokens)]), f"{KEY}merges": merges}


def merges_of(model: Json, subject: object) -> list[tuple[str, str]]:
    """Return the pairs that are merged, of either of the two ways in which they are spelled.

    Raises
    ------
    CorruptFileError
        They are none of both.
    """
    said = model.get("merges")
    found: list[Any] = [m.split(" ") if isinstance(m, str) else m for m in said] if isinstance(said, list) else [said]
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in found):
        raise CorruptFileError("its merges are no pairs of texts", subject=subject)
    return [(left, right) for left, right in found]


def _sentencepiece(model: Json, tokens: Vocabulary, subject: object, unknown: Any) -> dict[str, Any]:
    ranks = _ranks(merges_of(model, subject), tokens, str(unknown), subject)
    pairs, scores = [], []
    for at, (text, kind) in enumerate(_filled(tokens)):
        if kind == USER_DEFINED:
            text = text.replace(SPACE, " ")
        elif text == unknown and kind in (NORMAL, CONTROL):
            kind = UNKNOWN
        elif kind == NORMAL and text in _BYTES:
            kind = BYTE
        pairs.append((text, kind))
        scores.append(Float32(-ranks.get(text, len(ranks) + at) if kind == NORMAL else _score(kind)))
    return {**_listed(pairs), f"{KEY}scores": scores}


def _score(kind: int) -> float:
    return 0.0 if kind in (BYTE, UNKNOWN) else _ADDED_SCORE


def _ranks(merges: Sequence[tuple[str, str]], tokens: Vocabulary, unknown: Any, subject: object) -> dict[str, int]:
    """Return the order in which tokens are made of others: what llama.cpp goes by, where a tokenizer.json has pairs.

    Raises
    ------
    UnsupportedError
        The pairs are no order of tokens, or some that make a token are left out: llama.cpp would cut otherwise.
    """
    ranks: dict[str, int] = {}
    last = ""
    for left, right in merges:
        text = left + right
        if text != last and text in ranks:
            raise _unsupported(f"{text[:60]!r} is merged early from one pair and late from another", subject,
                               "pairs in the order of the tokens they make")  # fmt: skip
        ranks.setdefault(text, len(ranks))
        last = text
    lacking = _left_out(merges, tokens, unknown)
    if lacking is not None:
        raise _unsupported(f"{lacking[0][:60]!r} and {lacking[1][:60]!r} are not merged", subject,
                           "all pairs that make a token, as SentencePiece has them")  # fmt: skip
    return ranks


def _left_out(merges: Sequence[tuple[str, str]], tokens: Vocabulary, unknown: Any) -> tuple[str, str] | None:
    """Return a pair of tokens that make a token, and are no merge."""
    aside = _BYTES | {unknown}
    known = {t for at, t in enumerate(tokens.texts) if t is not None and at not in tokens.added and t not in aside}
    given = set(merges)
    for text in known:
        for i in range(1, min(len(text), MAX_PIECE)):
            if text[:i] in known and text[i:] in known and (text[:i], text[i:]) not in given:
                return text[:i], text[i:]
    return None


def _wordpiece(tokens: Vocabulary) -> dict[str, Any]:
    return _listed([(_marked(text) if kind != UNUSED else text, kind) for text, kind in _filled(tokens)])


def _marked(text: str) -> str:
    """Return a piece as GGUF has it: what begins a word is marked, what continues one is not."""
    if text.startswith("##"):
        return text[2:]
    return text if text.startswith("[") and text.endswith("]") else SPACE + text
