"""From a checkpoint's config.json and names to the function that runs it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from weighttools.errors import SpecError, UnsupportedError, few
from weighttools.train.models.architecture import Architecture
from weighttools.train.models.bert import first_pool
from weighttools.train.models.decoding import soft_cap
from weighttools.train.models.families import FAMILIES, ModelFamily, Options
from weighttools.train.models.scope import Scope
from weighttools.train.models.settings import ModelSettings
from weighttools.train.ops import linear

HEAD = "lm_head.weight"


def from_config(config: Mapping[str, Any], names: Iterable[str]) -> Architecture:
    """Return the function of a checkpoint: ``run(params, ids, mask=None)``, and its parts.

    Parameters
    ----------
    config
        config.json, read.
    names
        The tensors' names.

    Raises
    ------
    UnsupportedError
        The family is unknown, or config.json asks for what the function does not do.
    SpecError
        A number is missing, or the family's first tensor.
    """
    known = list(names)
    kind = kind_of(config, known)
    if kind is None or kind not in FAMILIES:
        raise unknown(f"no function for model_type {kind!r}", known, ", ".join(FAMILIES))
    family, settings = FAMILIES[kind], ModelSettings(kind, config)
    family.refuse(settings)
    options = family.options(settings)
    prefix = next((n.removesuffix(family.anchor) for n in known if n.endswith(family.anchor)), None)
    if prefix is None:
        raise SpecError(f"no tensor ends in {family.anchor}", subject=kind)
    return _assembled(family, settings, options, prefix, known)


def kind_of(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return what config.json calls the model; of old files that do not say, what their names begin with."""
    if config.get("model_type") is not None or not config:
        said = config.get("model_type")
        return None if said is None else str(said)
    begin = {name.partition(".")[0] for name in names}
    if "n_head" in config:
        return "gpt2"
    if "encoder" in begin and config.get("type_vocab_size") == 2:  # RoBERTa has 1
        return "bert"
    return next((kind for kind in _OLD if kind in begin), None)


_OLD = ("albert", "bert", "distilbert", "electra", "roberta")
"""Families of encoders whose classes with heads put the family's name before every tensor."""


def unknown(fact: str, names: list[str], expected: str | None = None) -> UnsupportedError:
    """Return the error for a file that no function here fits: the names, and how to write a function of them."""
    first = next((n for n in names if n.endswith(("weight", "kernel"))), names[0] if names else "fc.weight")
    example = f"`def model(p, x): return train.ops.linear(x, p[{first!r}])`"
    return UnsupportedError(
        fact, expected=expected, remedy=f"write one over the file's names: {few(names, 3)}; as in {example}"
    )


def _assembled(family: ModelFamily, s: ModelSettings, options: Options, prefix: str, known: list[str]) -> Architecture:
    required, optional = ([prefix + name for name in part] for part in family.tensors(options, s))
    output = pooler = None
    if family.kind == "decoder":
        head = next((n for n in known if n == HEAD or n.endswith(f".{HEAD}")), HEAD)
        cap = s.maybe("final_logit_softcapping", family.final_cap)
        output = functools.partial(logits, head=head, table=prefix + family.anchor, cap=cap)
        optional.append(head)
    elif options["names"].pooler and f"{prefix}{options['names'].pooler}.weight" in set(known):
        pooler = functools.partial(first_pool, name=prefix + options["names"].pooler)
    return Architecture(
        family=s.kind,
        kind=family.kind,
        prefix=prefix,
        size=s.count(family.size, "hidden_size"),
        n_layers=options["layers"],
        body=functools.partial(family.body, **options, prefix=prefix),
        output=output,
        pooler=pooler,
        required=tuple(required),
        optional=tuple(optional),
    )


def logits(p: Mapping[str, Any], x: Any, *, head: str, table: str, cap: float | None = None) -> Any:
    """Return the scores of the next token (\\*positions, vocabulary), by `head`, or by `table` where there is none."""
    w = p.get(head)
    return soft_cap(linear(x, Scope(p)[table] if w is None else w), cap)
