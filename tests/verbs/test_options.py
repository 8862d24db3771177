"""An option is declared once: Python's signature, the command and the checks of ranges say the same."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import click
import pytest

import weighttools as wt
from weighttools import verbs
from weighttools.cli.main import main
from weighttools.core.options import Option, takes
from weighttools.errors import SpecError, option, spelled


def declared() -> dict[str, Callable[..., Any]]:
    """The functions that declare their options, by name."""
    modules = [
        importlib.import_module(f"weighttools.verbs.{found.name}") for found in pkgutil.iter_modules(verbs.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and hasattr(value, "options") and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", declared())
def test_a_signature_has_what_is_declared(name: str) -> None:
    function = declared()[name]
    parameters = inspect.signature(function).parameters
    for one in function.__dict__["options"]:
        assert parameters[one.name].kind is inspect.Parameter.KEYWORD_ONLY, one.name
        default = inspect.Parameter.empty if one.required else one.default
        assert parameters[one.name].default == default, one.name
        assert one.name in (function.__doc__ or ""), f"{one.name} is not explained"
    assert not [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD], "signatures are explicit"


WITHOUT = {"open", "save", "predict"}
"""Verbs without a command of their own: commands that read or write take what these do; only Python predicts so far."""


@pytest.mark.parametrize("name", sorted(declared().keys() - WITHOUT))
def test_a_command_has_what_its_verb_declares(name: str) -> None:
    command = main.get_command(click.Context(main), name.replace("_", "-"))
    if command is None:
        pytest.fail(f"no command is called {name}")
    given = {p.name: p for p in command.params if isinstance(p, click.Option)}
    for one in declared()[name].__dict__["options"]:
        assert given[one.name].help == one.help and tuple(given[one.name].opts) == one.spellings, one.name


def test_an_unknown_keyword_names_near_ones() -> None:
    map_ = wt.TensorMap.from_arrays({})
    with pytest.raises(TypeError, match="decay.. has no parameter 'stepz'; did you mean steps"):
        wt.decay(map_, stepz=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("one", "good", "bad"),
    [
        (Option("a", float, least=0, most=1), [0, 1, 0.5], [-0.1, 1.1, float("nan"), "x", True]),
        (Option("a", float, above=0), [1e-9, 3], [0, -1]),
        (Option("a", int, least=1), [1, 2**40], [0, 1.5, "2"]),
        (Option("a", choices=("x", "y")), ["x", None], ["z", 3]),
    ],
)
def test_a_range_is_checked(one: Option, good: list[Any], bad: list[Any]) -> None:
    call = takes(one)(lambda *, a=None: a)
    assert [call(a=value) for value in good] == good
    for value in bad:
        with pytest.raises(SpecError) as caught:
            call(a=value)
        assert repr(value) in caught.value.fact and caught.value.expected


def test_an_option_is_spelled_as_its_caller_does() -> None:
    assert option("max_shard_size") == "max_shard_size"
    with spelled(lambda name: f"--{name}"):
        assert option("x") == "--x"
    assert option("x") == "x"


def test_a_library_error_names_the_parameter_and_the_command_the_option(tiny, tmp_path, inside) -> None:
    with pytest.raises(SpecError, match="^steps 0 is out of range"):
        wt.decay(tiny, steps=0)
    told = inside("decay", tiny, "-o", tmp_path / "x.safetensors", "--steps", "0")
    assert (told.code, "--steps 0 is out of range; expected a whole number, 1 or more" in told.err) == (2, True)


def test_what_save_takes_its_commands_do() -> None:
    known = {option.name: option for one in declared().values() for option in one.__dict__["options"]}
    commands = [main.get_command(click.Context(main), name) for name in ("convert", "prune")]
    given = {param.name: param for command in commands if command for param in command.params}
    for one in declared()["save"].__dict__["options"]:
        assert known[one.name] == one and tuple(given[one.name].opts) == one.spellings, one.name


@pytest.mark.parametrize(
    ("verb", "given", "near"),
    [
        (wt.convert, {"dtyp": "bfloat16"}, "dtype"),
        (wt.save, {"max_shard_sise": 3}, "max_shard_size"),
        (wt.prune, {"sparcity": 0.5}, "sparsity"),
        (wt.clip, {"values": 0.5}, "value"),
        (wt.scale, {"buy": 0.5}, "by"),
        (wt.noise, {"sdt": 0.5}, "std"),
        (wt.init, {"include_al": True}, "include_all"),
        (wt.average, {"wights": [1]}, "weights"),
        (wt.merge_adapter, {"dequantise": True}, "dequantize"),
    ],
)
def test_a_misspelt_keyword_changes_nothing_silently(verb, given, near, tiny, tmp_path) -> None:
    with pytest.raises(TypeError, match=f"no parameter {next(iter(given))!r}; did you mean {near}"):
        verb(tiny, tmp_path / "x.safetensors", **given)
    assert not (tmp_path / "x.safetensors").exists()


def test_help_shows_every_parameter() -> None:
    assert {"dtype", "keep_dtype", "tied", "quantize", "max_shard_size"} <= set(
        inspect.signature(wt.convert).parameters
    )
    assert {"max_shard_size", "single", "compression", "npz_bf16", "dry_run"} <= set(
        inspect.signature(wt.save).parameters
    )
