"""From a family's row to its function of arrays: the options that config.json gives, and the tensors that it uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from weighttools.errors import UnsupportedError
from weighttools.families import models
from weighttools.families.model_family import ConfigEntry, DecoderStyle, ModelFamily, ModelFunction
from weighttools.families.shapes import always
from weighttools.train.models.bert import bert
from weighttools.train.models.gpt2 import gpt2_hidden
from weighttools.train.models.kin import decoder_options
from weighttools.train.models.llama import decoder
from weighttools.train.models.settings import ModelSettings

Options = dict[str, Any]
Names = tuple[list[str], list[str]]
"""Names that are needed, and names that are used where they are."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {"bert": bert, "gpt2": gpt2_hidden, "llama": decoder}
"""``function(params, ids, mask=None, **options)``: hidden states. By `ModelFunction.name`."""

FAMILIES: Mapping[str, ModelFamily] = {
    kind: family for kind, family in sorted(models.FAMILIES.items()) if family.function is not None
}
"""The families that have a function here, by config.json's ``model_type``."""


def function_of(family: ModelFamily) -> ModelFunction:
    """Return what a family's row says of its function: of one of `FAMILIES`."""
    assert family.function is not None
    return family.function


def options_of(family: ModelFamily, settings: ModelSettings) -> Options:
    """Return the options of a family's function that config.json gives.

    Raises
    ------
    SpecError
        A number is missing, or none that a model could have.
    UnsupportedError
        config.json asks for what the function does not do.
    """
    function = function_of(family)
    for key, allowed in function.only.items():
        value = settings.get(key)
        if value is not None and value not in allowed:
            raise UnsupportedError(f"{key} is {value!r}", subject=settings.kind, expected=f"{allowed[0]!r}")
    if isinstance(function.how, DecoderStyle):
        return decoder_options(function.how, settings)
    options: Options = {}
    for name, entry in function.entries.items():
        options[name] = _read(entry, settings, options)
    return options if function.how is None else {**options, "names": function.how}


def _read(entry: ConfigEntry, settings: ModelSettings, options: Options) -> Any:
    if entry.kind == "activation":
        return settings.activation(*entry.keys)
    if entry.kind == "number":
        return settings.number(*entry.keys)
    most = options[entry.most] if isinstance(entry.most, str) else entry.most
    return settings.count(*entry.keys, least=entry.least, most=most)


def names_of(family: ModelFamily, options: Options) -> Names:
    """Return the names, without prefix, that a family's function uses: those that every model of it has are needed.

    What config.json decides upon, such as biases, is used where the file has it.
    """
    counts = (range(options.get("groups") or options["layers"]), range(options.get("inner", 1)))
    function = function_of(family)
    needed: list[str] = []
    used: list[str] = []
    for row, expected in family.tensors.body.items():
        if row.startswith(function.skips):
            continue
        places = itertools.product(*counts[: row.count("{}")])
        names = [row.format(*place) for place in places]
        (needed if expected.when is always and row not in function.spares else used).extend(names)
    return needed, used
