"""Chat templates, in GGUF metadata and beside the weights: what renders them runs what they reach for.

Sources: transformers, ``tokenization_utils_base.py`` and ``utils/hub.py`` (chat_template in tokenizer_config.json, a
text or a list of named ones; chat_template.jinja, chat_template.json, additional_chat_templates/); llama.cpp
(``tokenizer.chat_template``, and ``tokenizer.chat_template.NAME`` for those that ``tokenizer.chat_templates`` names).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.analyzers import configuration, jinja
from weighttools.core.budgets import CONFIG_BYTES, MOST_NAMED, MOST_TEMPLATE_CHARACTERS
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError, few
from weighttools.io.home import home_of

if TYPE_CHECKING:
    from weighttools.core.spec import Source

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
    for template in _of_metadata(tensor_map):
        yield from _judged(template)
    for place, path in _files(tensor_map):
        try:
            for template in _of_file(place, path):
                yield from _judged(template)
        except _NotLookedInto as error:
            yield Finding(ERROR, "chat-template", f"{place}: {error}, and is not looked into")
        except (WeighttoolsError, OSError) as error:
            yield Finding(WARNING, "broken-config", str(error))
            continue
        if place in CONFIGS:
            yield from _broken(tensor_map, place)


class _NotLookedInto(Exception):
    """Loaders may take what this file holds, but it is not looked into."""


class _Pairs(list[tuple[str, Any]]):
    """The entries of a JSON object, of a key that stands twice both: loaders differ in which of them they take."""

    def values_of(self, key: str) -> list[Any]:
        return [value for name, value in self if name == key]


def _of_metadata(tensor_map: TensorMap) -> Iterator[Template]:
    for key, value in tensor_map.metadata.items():
        if key == KEY or key.startswith(KEY + "."):
            yield Template("metadata", key[len(KEY) + 1 :], value)
    names = tensor_map.metadata.get("tokenizer.chat_templates")
    if isinstance(names, Iterable) and not isinstance(names, str):
        yield from (Template("metadata", name, "") for name in names if isinstance(name, str))


def _files(tensor_map: TensorMap) -> Iterator[tuple[str, Source]]:
    """Yield each file beside the weights that may hold templates: what it is called there, and the file."""
    home = home_of(tensor_map.origin)
    if home is None:
        return
    more = [f"{FOLDER}/{name}" for name in home.names(FOLDER) if name.endswith(SUFFIX)]
    for name in (*CONFIGS, FILE, *more):
        found = home.open(name)
        if found is not None:
            yield name, found


def _broken(tensor_map: TensorMap, place: str) -> Iterator[Finding]:
    try:
        configuration.read_beside(tensor_map.origin, place)
    except (WeighttoolsError, OSError) as error:
        yield Finding(WARNING, "broken-config", str(error))


def _of_file(place: str, source: Source) -> Iterator[Template]:
    most = CONFIG_BYTES if place in CONFIGS else 4 * MOST_TEMPLATE_CHARACTERS
    if source.size > most:
        raise _NotLookedInto(f"it is {source.size:,} bytes long")
    data = source.read(0, source.size)
    if place in CONFIGS:
        yield from _of_config(place, data)
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _NotLookedInto("it is not UTF-8") from None
    if "\0" in text:  # UTF-16 of plain letters is UTF-8 with zeros
        raise _NotLookedInto("it is not plain text")
    yield Template(place, "", text)


def _of_config(place: str, data: bytes) -> Iterator[Template]:
    try:
        config = json.loads(data, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return  # no loader reads it either; that it is broken is told
    for value in config.values_of("chat_template") if isinstance(config, _Pairs) else ():
        if isinstance(value, str):
            yield Template(place, "", value)
        elif isinstance(value, _Pairs):
            yield from (Template(place, str(name), text) for name, text in value)
        elif isinstance(value, list):
            for row in value:
                yield from _of_row(place, row)


def _of_row(place: str, row: Any) -> Iterator[Template]:
    if isinstance(row, _Pairs):
        names = [str(name) for name in row.values_of("name")] or [""]
        yield from (Template(place, names[0], text) for text in row.values_of("template"))
        yield from (Template(place, name, "") for name in names[1:])


def _judged(template: Template) -> Iterator[Finding]:
    place, name, text = template
    called = f"{place}: chat template {name[:80]!r}" if name else f"{place}: the chat template"
    if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        yield Finding(ERROR, "template-name", f"{called} has a path for its name: saving it would write there")
    if not isinstance(text, str):
        return
    if len(text) > MOST_TEMPLATE_CHARACTERS:
        yield Finding(ERROR, "chat-template", f"{called} is {len(text):,} characters long, and is not looked into")
        return
    found = jinja.reaches(text)
    for severity in (ERROR, WARNING):
        facts = [reach.fact for reach in found if reach.is_error == (severity == ERROR)]
        if facts:
            yield Finding(severity, "chat-template", f"{called} {few(facts[:MOST_NAMED])}")
