"""config.json against the tensors: their shapes, the number of layers, and what is missing or read by nobody.

What a family's tensors are stands in `weighttools.families.tables`. A length that the configuration does not tell is
not looked at. What a file lacks is told of a whole model that is stored as plain floats only: quantised modules have
other tensors, ONNX files other names, and a shard is no model.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from weighttools.analyzers import configuration
from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.families import tables
from weighttools.families.shapes import Config, Expected, Family, number

_WHOLE = ("safetensors", "huggingface", "pytorch")
_SHARD = re.compile(r"-\d{1,9}-of-\d{1,9}\.\w+$")
_OLD = {"gamma": "weight", "beta": "bias"}
"""What early files call a norm's weight and bias, which transformers renames."""
_DEPTH = 12
"""No family's names have as many parts as this behind a prefix."""
_PARTS = (1, 2, 3)
"""How many parts a packed or reparametrised weight has behind its module's name: ``parametrizations.weight.g``."""
_LEAST = 3
"""Fewer names of a family's, none of them its table of words, are no model."""
_MOST_LAYERS = 1_000_000


class FamilyTensor(NamedTuple):
    """A tensor of a family.

    Parameters
    ----------
    name
        As the file has it.
    row
        As the family has it.
    numbers
        Those in the name, of its layers.
    shape
        None where it is stored as anything but floats: packed, perhaps.
    """

    name: str
    row: str
    numbers: tuple[int, ...]
    shape: tuple[int, ...] | None


class FamilyTensors(NamedTuple):
    """A file's tensors as a family's: by row, and the prefix before the body's names.

    `others` are the modules that hold tensors which no row knows: the parts of a packed or reparametrised weight.
    """

    prefix: str
    body: Mapping[str, list[FamilyTensor]]
    heads: Mapping[str, list[FamilyTensor]]
    others: frozenset[str]


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what config.json says otherwise than the tensors do, a finding for all layers' tensors of a kind."""
    try:
        config = configuration.read_beside(tensor_map.origin, "config.json")
    except WeighttoolsError as error:
        yield Finding(WARNING, "broken-config", str(error))
        return
    kind = config.get("model_type") if config else None
    if not config or not isinstance(kind, str) or kind not in tables.FAMILIES:
        return
    family, text = tables.family(kind), config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    model = recognize(tensor_map, family)
    if model is None:
        return
    yield from _heads(family, config)
    yield from _shapes(model, family, config)
    if not _SHARD.search(tensor_map.origin.path) or tensor_map.origin.format == "huggingface":
        yield from _layers(model, family, config)
        if tensor_map.origin.format in _WHOLE and not config.get("quantization_config"):
            yield from _presence(model, family, config)
            yield from _tied(tensor_map, model, family, config)


def recognize(tensor_map: TensorMap, family: Family) -> FamilyTensors | None:
    """Return a file's tensors as a family's; None where it has none of them, as under another framework's names."""
    specs = dict(zip(tensor_map, tensor_map.specs(), strict=True))
    specs |= {alias: specs[kept] for alias, kept in tensor_map.aliases.items() if kept in specs}
    found, by_prefix, others = [], Counter[str](), set()
    for name, spec in specs.items():
        parts = name.rsplit(".", _DEPTH)
        one = _seen(parts, family, spec.shape if spec.dtype.is_float else None)
        if one is None:
            others |= {name.rsplit(".", k)[0] for k in _PARTS}
        else:
            found.append(one)
            by_prefix[one[0]] += one[1].row in family.body
    prefix = _prefix(by_prefix, {p for p, seen in found if seen.row == family.anchor})
    if prefix is None:
        return None
    body, heads = defaultdict(list), defaultdict(list)
    for at, seen in found:
        if seen.row in family.body and at == prefix:
            body[seen.row].append(seen)
        elif seen.row in family.heads and prefix.startswith(at):
            heads[seen.row].append(seen)
    return FamilyTensors(prefix, body, heads, frozenset(others))


def _seen(parts: list[str], family: Family, shape: tuple[int, ...] | None) -> tuple[str, FamilyTensor] | None:
    """Return a name's prefix and what it is to a family; the longest end that is a row's counts."""
    is_number = [part.isascii() and part.isdigit() and len(part) < 8 for part in parts]
    words = ["{}" if digits else part for part, digits in zip(parts, is_number, strict=True)]
    words[-1] = _OLD.get(words[-1], words[-1])
    for k in range(len(parts)):
        row = ".".join(words[k:])
        if row in family.body or row in family.heads:
            numbers = tuple(int(part) for part, digits in zip(parts[k:], is_number[k:], strict=True) if digits)
            prefix = "".join(f"{part}." for part in parts[:k])
            return prefix, FamilyTensor(".".join(parts), row, numbers, shape)
    return None


def _prefix(counts: Counter[str], anchored: set[str]) -> str | None:
    """Return the prefix that most of a family's names have, of those with its first tensor if there are any."""
    known = {prefix: n for prefix, n in counts.items() if prefix in anchored} or {
        prefix: n for prefix, n in counts.items() if n >= _LEAST
    }
    return max(known, key=lambda prefix: known[prefix], default=None)


def _heads(family: Family, config: Config) -> Iterator[Finding]:
    size, heads = (number(config, key) for key in family.whole_heads or ("", ""))
    if size and heads and size % heads:
        told = " and ".join(f"{key} {config[key]}" for key in family.whole_heads or ())
        yield Finding(ERROR, "config-shape", f"config.json says {told}: heads of no whole length")


def _shapes(model: FamilyTensors, family: Family, config: Config) -> Iterator[Finding]:
    for row, seen in (*model.body.items(), *model.heads.items()):
        expected = (family.body if row in family.body else family.heads)[row]
        lengths = [length(config) for length in expected.lengths]
        groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for one in seen:
            if one.shape is not None and not _fits(one.shape, lengths):
                groups[one.shape].append(one.name)
        told = " x ".join("?" if length is None else str(length) for length in lengths)
        for shape, names in groups.items():
            text = " x ".join(map(str, shape)) or "scalar"
            yield Finding(ERROR, "config-shape", f"{_named(names, text)}; config.json says {told}", names[0])


def _fits(shape: tuple[int, ...], lengths: list[int | None]) -> bool:
    return len(shape) == len(lengths) and all(
        theirs is None or ours == theirs for ours, theirs in zip(shape, lengths, strict=True)
    )


def _named(names: list[str], what: str) -> str:
    """Return how many are what, by the first one's name."""
    return f"{names[0]!r} is {what}" if len(names) == 1 else f"{names[0]!r} and {len(names) - 1:,} like it are {what}"


def _layers(model: FamilyTensors, family: Family, config: Config) -> Iterator[Finding]:
    for place, (key, _) in enumerate(family.counts):
        claimed = family.n_layers(place, config)
        found = {seen.numbers[place] for group in model.body.values() for seen in group if len(seen.numbers) > place}
        wanted = set(range(min(claimed, _MOST_LAYERS))) if claimed else found
        if found and found != wanted:
            absent = sorted(wanted - found)
            more = f"; layer {absent[0]} is missing" if absent else ""
            message = f"there are {len(found):,} layers; config.json says {key} {claimed:,}{more}"
            yield Finding(ERROR, "config-layers", message)


def _presence(model: FamilyTensors, family: Family, config: Config) -> Iterator[Finding]:
    """Yield what is missing, and what is there although the configuration says that it is not."""
    layers = sorted({seen.numbers for group in model.body.values() for seen in group if seen.numbers})
    for row, expected in family.body.items():
        is_there = expected.when(config)
        there = {seen.numbers: seen.name for seen in model.body.get(row, ())}
        if is_there is False and there:
            message = f"{_named(list(there.values()), 'there')}; {_said(expected, config)}: nothing reads it"
            yield Finding(WARNING, "config-tensors", message, next(iter(there.values())))
        elif is_there:
            wanted = {numbers: model.prefix + row.format(*numbers) for numbers in (layers if "{}" in row else [()])}
            yield from _missing(wanted.items() - there.items(), model, there, expected, config)


def _missing(
    wanted: Iterable[tuple[tuple[int, ...], str]], model: FamilyTensors, there: Mapping[tuple[int, ...], str],
    expected: Expected, config: Config,
) -> Iterator[Finding]:  # fmt: skip
    """Yield a finding for tensors of a row that are not there; a weight in another form has others in its place."""
    names = [
        name
        for numbers, name in sorted(wanted)
        if numbers not in there and (name.endswith(".bias") or name.rpartition(".")[0] not in model.others)
    ]
    if names:
        yield Finding(ERROR, "config-tensors", f"{_named(names, 'missing')}; {_said(expected, config)}", names[0])


def _said(expected: Expected, config: Config) -> str:
    """Return what of the configuration says whether a tensor is there."""
    if not expected.reason:
        return f"a {config.get('model_type')} has it"
    if expected.reason not in config:
        return f"config.json's {expected.reason} decides"
    return f"config.json says {expected.reason} {str(config[expected.reason]).lower()}"


def _tied(tensor_map: TensorMap, model: FamilyTensors, family: Family, config: Config) -> Iterator[Finding]:
    """Yield a finding for an output layer that is missing, or stored although it is the embedding."""
    for row, expected in family.heads.items():
        stored = [seen.name for seen in model.heads.get(row, ()) if seen.name not in tensor_map.aliases]
        if expected.reason != "tie_word_embeddings" or not row.endswith(".weight"):
            continue
        if expected.when(config) and row not in model.heads and model.prefix:
            message = f"{row!r} is missing; config.json says tie_word_embeddings false"
            yield Finding(ERROR, "config-tensors", message, row)
        elif config.get("tie_word_embeddings") and stored and not set(stored) & set(tensor_map.aliases.values()):
            message = f"{stored[0]!r} is stored beside the embeddings; config.json says tie_word_embeddings true"
            yield Finding(NOTE, "config-tensors", message, stored[0])
