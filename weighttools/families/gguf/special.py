"""Special tokens and chat templates of a model in Hugging Face's layout, as GGUF's metadata has them.

Source: llama.cpp, ``gguf-py/gguf/vocab.py``, ``SpecialVocab``: which file is believed before which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weighttools.core.budgets import JSON_BYTES, MAX_TOKENS
from weighttools.errors import CorruptFileError, UnsupportedError, brief
from weighttools.families.gguf.tokenizer_files import SETTINGS, SPECIAL, TEMPLATE, TOKENIZER
from weighttools.families.gguf.tokenizer_json import KEY, WORDPIECE
from weighttools.families.gguf.tokens import Vocabulary, differences, steps_of, tokenizer_metadata
from weighttools.formats.gguf.numbers import UInt32
from weighttools.io.beside import MORE_TEMPLATES
from weighttools.io.home import Home
from weighttools.io.text import read_json

_TEMPLATE_FILE = "chat_template.jinja"
_INSTEAD = {"bos_token": "cls_token", "eos_token": "sep_token"}
"""What begins and ends the texts of models without tokens of that name, as BERT."""
Json = Mapping[str, Any]


def carried_tokenizer(home: Home, config: Json, n_rows: int) -> tuple[dict[str, Any], list[str]]:
    """Return ``tokenizer.*`` of the tokenizer beside a model, and which texts llama.cpp cuts otherwise.

    Both are empty where there is none.

    Parameters
    ----------
    home
        What the model lies in.
    config
        Its config.json.
    n_rows
        Rows of the embedding.

    Raises
    ------
    UnsupportedError
        It is a tokenizer that llama.cpp would take for another.
    CorruptFileError
        Its files contradict each other, or the embedding.
    """
    path, file = home.path_of(TOKENIZER), home.open(TOKENIZER)
    if file is None:
        return {}, []
    if n_rows > MAX_TOKENS:
        raise CorruptFileError(f"the embedding has {n_rows:,} rows", subject=path, expected=f"at most {MAX_TOKENS:,}")
    data = read_json(file)
    settings = home.read_json(SETTINGS) or {}
    found, tokens = tokenizer_metadata(data, n_rows, path, _text(settings.get("unk_token")))
    kind = found[f"{KEY}model"]
    if kind == WORDPIECE:
        found[f"{KEY}token_type_count"] = UInt32(_whole(config.get("type_vocab_size"), 1))
    found |= _special(settings, config, tokens, path)
    if kind != WORDPIECE:
        found |= _edges(data, settings, found, tokens, path)
    return found | _templates(home, settings), differences(data)


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else default


def _special(settings: Json, config: Json, tokens: Vocabulary, subject: object) -> dict[str, Any]:
    """Return the numbers of special tokens: by their text, else as config.json says."""
    found = {}
    for theirs, ours in SPECIAL.items():
        text = _text(settings.get(theirs)) or _text(settings.get(_INSTEAD.get(theirs, "")))
        at = tokens.id_of(text)
        said = config.get(f"{theirs}_id")
        first = said[0] if isinstance(said, list) and said else said
        number = first if isinstance(first, int) and not isinstance(first, bool) else -1
        if number >= len(tokens.texts):
            fact = f"config.json's {theirs}_id is {brief(str(number), 60)}"
            raise CorruptFileError(fact, subject=subject, expected=f"below {len(tokens.texts):,}, the tokens")
        at = number if at is None else at
        if at < 0:
            continue
        found[f"{KEY}{ours}_token_id"] = UInt32(at)
    return found


def _text(entry: Any) -> Any:
    return entry.get("content") if isinstance(entry, dict) else entry


def _edges(data: Json, settings: Json, found: Json, tokens: Vocabulary, subject: object) -> dict[str, bool]:
    """Return whether texts begin and end with a special token: as the tokenizer does it, unless its settings say.

    Raises
    ------
    UnsupportedError
        It is another token than the one that is named for it, and llama.cpp can put no other.
    """
    template = next((s for s in steps_of(data.get("post_processor")) if s.get("type") == "TemplateProcessing"), {})
    single = template.get("single")
    added = {}
    for end, place in (("bos", 0), ("eos", -1)):
        text = _special_text(single[place]) if isinstance(single, list) and len(single) > 1 else None
        own, said = found.get(f"{KEY}{end}_token_id"), settings.get(f"add_{end}_token")
        if isinstance(said, bool):
            added[end] = said and own is not None
        elif text is not None and tokens.id_of(text) != own:
            verb = "begin" if end == "bos" else "end"
            fact = f"texts {verb} with {text[:60]!r}, which is not the {end}_token"
            raise UnsupportedError(fact, subject=subject, remedy=f"name it in {SETTINGS}")
        else:
            added[end] = text is not None
    return {f"{KEY}add_{end}_token": value for end, value in added.items()}


def _special_text(step: Any) -> str | None:
    """Return the token that a step of a template puts in, if it puts in one."""
    special = step.get("SpecialToken") if isinstance(step, dict) else None
    text = special.get("id") if isinstance(special, dict) else None
    return text if isinstance(text, str) else None


def _templates(home: Home, settings: Json) -> dict[str, Any]:
    """Return the chat template, and those beside it by their names."""
    said = settings.get("chat_template")
    alone = _text_of(home, _TEMPLATE_FILE) if said is None else None
    if alone is not None:
        said = [{"name": "default", "template": alone}, *_named_files(home)]
    if isinstance(said, str):
        return {TEMPLATE: said}
    entries = said if isinstance(said, list) else []
    named = {
        entry["name"]: entry["template"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str)
    }
    plain = {TEMPLATE: named.pop("default")} if "default" in named else {}
    names = {f"{TEMPLATE}s": list(named)} if named else {}
    return {**plain, **names, **{f"{TEMPLATE}.{name}": text for name, text in named.items()}}


def _named_files(home: Home) -> list[dict[str, str]]:
    names = [name for name in home.names(MORE_TEMPLATES) if name.endswith(".jinja")]
    texts = [(name.removesuffix(".jinja"), _text_of(home, f"{MORE_TEMPLATES}/{name}")) for name in names]
    return [{"name": name, "template": text} for name, text in texts if text is not None]


def _text_of(home: Home, name: str) -> str | None:
    data = home.read(name, JSON_BYTES)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        raise CorruptFileError("is not UTF-8", subject=home.path_of(name)) from None
