"""Chat templates, in GGUF metadata and beside the weights: what renders them runs what they reach for.

Sources: transformers, ``tokenization_utils_base.py`` and ``utils/hub.py`` (chat_template in tokenizer_config.json, a
text or a list of named ones; chat_template.jinja, chat_template.json, additional_chat_templates/); llama.cpp
(``tokenizer.chat_template``, and ``tokenizer.chat_template.NAME`` for those that ``tokenizer.chat_templates`` names).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from weighttools.analyzers import configuration, jinja
from weighttools.core.budgets import MOST_NAMED, MOST_TEMPLATE_CHARACTERS
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError, few
from weighttools.io.beside import companion, names_in
from weighttools.io.source import LocalFile

KEY = "tokenizer.chat_template"
CONFIGS = ("tokenizer_config.json", "processor_config.json", "chat_template.json", "preprocessor_config.json")
FILE, FOLDER, SUFFIX = "chat_template.jinja", "additional_chat_templates", ".jinja"


class Template(NamedTuple):
    """A template: where it lies, its name (empty for the only one), its text."""

    place: str
    name: str
    text: Any


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what each template reaches for beyond rendering, and each name of one that is a path."""
    try:
        for template in _templates(tensor_map):
            yield from _judged(template)
    except (WeighttoolsError, OSError) as error:
        yield Finding(WARNING, "broken-config", str(error))


def _templates(tensor_map: TensorMap) -> Iterator[Template]:
    for key, value in tensor_map.metadata.items():
        if key == KEY or key.startswith(KEY + "."):
            yield Template("metadata", key[len(KEY) + 1 :], value)
    names = tensor_map.metadata.get("tokenizer.chat_templates")
    if isinstance(names, Iterable) and not isinstance(names, str):
        yield from (Template("metadata", name, "") for name in names if isinstance(name, str))
    for config in CONFIGS:
        found = configuration.read_beside(tensor_map.origin, config) or {}
        yield from _of_config(config, found.get("chat_template"))
    yield from _of_files(tensor_map)


def _of_config(place: str, value: Any) -> Iterator[Template]:
    if isinstance(value, str):
        yield Template(place, "", value)
    rows = value if isinstance(value, list) else []
    for row in rows:
        if isinstance(row, dict):
            yield Template(place, str(row.get("name", "")), row.get("template"))
    if isinstance(value, dict):
        yield from (Template(place, str(name), text) for name, text in value.items())


def _of_files(tensor_map: TensorMap) -> Iterator[Template]:
    home = configuration.home_of(tensor_map.origin)
    if home is None:
        return
    more = [f"{FOLDER}/{name}" for name in names_in(home, FOLDER) if name.endswith(SUFFIX)]
    for name in (FILE, *more):
        found = companion(home, name)
        if found is not None:
            yield Template(name, "", _read(found))


def _read(source: LocalFile) -> str:
    length = min(source.size, 4 * MOST_TEMPLATE_CHARACTERS + 4)
    return source.read(0, length).decode("utf-8", "replace")


def _judged(template: Template) -> Iterator[Finding]:
    place, name, text = template
    called = f"{place}: chat template {name[:80]!r}" if name else f"{place}: the chat template"
    if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        yield Finding(ERROR, "template-name", f"{called} has a path for its name: saving it would write there")
    if not isinstance(text, str):
        return
    if len(text) > MOST_TEMPLATE_CHARACTERS:
        yield Finding(WARNING, "chat-template", f"{called} is {len(text):,} characters long, and is not looked into")
        return
    found = jinja.reaches(text)
    for severity in (ERROR, WARNING):
        facts = [reach.fact for reach in found if reach.is_error == (severity == ERROR)]
        if facts:
            yield Finding(severity, "chat-template", f"{called} {few(facts[:MOST_NAMED])}")
