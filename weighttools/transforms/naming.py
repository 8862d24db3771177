"""Transforms asked for by name: ``NAME``, or ``NAME:ARGUMENT,KEY=VALUE,...`` as the command line writes them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from weighttools.core.registry import told
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, WeighttoolsError
from weighttools.transforms import TRANSFORMS


def transform(name: str, *arguments: Any, **options: Any) -> Transform:
    """Return the transform called `name`: one of our own, or of an installed package.

    Parameters
    ----------
    name
        ``"cast"``, ``"dequantize"``, ``"quantize"``, or what a package adds.
    arguments, options
        What it takes.

    Raises
    ------
    SpecError
        None has that name, or it does not take such arguments.
    PluginError
        An installed package adds it, and it does not work.

    Examples
    --------
    >>> import weighttools as wt
    >>> tensor_map = wt.open("fixtures/safetensors/tiny/model.safetensors")
    >>> tensor_map.pipe(transform("cast", "bfloat16"))["fc.weight"].dtype.name
    'bfloat16'
    """
    make = TRANSFORMS.load(name)
    if not callable(make):
        raise TRANSFORMS.plugin(name).broken(f"is of type {type(make).__name__}", "a function that returns a transform")
    _refuse_arguments(name, make, arguments, options)
    made = _ran(name, lambda: make(*arguments, **options))
    if not callable(made):
        raise TRANSFORMS.plugin(name).broken(f"makes a {type(made).__name__}", "a function TensorMap -> TensorMap")
    return made if name in TRANSFORMS.table else lambda tensor_map: _changed(name, made, tensor_map)


def _refuse_arguments(name: str, make: Callable[..., Any], arguments: Iterable[Any], options: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of a builtin: the call itself will tell
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        takes = ", ".join(str(one.replace(annotation=one.empty)) for one in signature.parameters.values())
        raise SpecError(f"the transform {name!r} has {error}", expected=f"{name}({takes})") from None


def _changed(name: str, made: Callable[[TensorMap], Any], tensor_map: TensorMap) -> TensorMap:
    found = _ran(name, lambda: made(tensor_map))
    if isinstance(found, TensorMap):
        return found
    raise TRANSFORMS.plugin(name).broken(f"returns a {type(found).__name__}", "a TensorMap")


def _ran(name: str, call: Callable[[], Any]) -> Any:
    """Call what may be a package's; what it does not raise on purpose is blamed on the package."""
    try:
        return call()
    except (WeighttoolsError, OSError, MemoryError):
        raise
    except Exception as error:
        if name in TRANSFORMS.table:
            raise
        raise TRANSFORMS.plugin(name).broken(f"failed ({told(error)})") from error


def parsed(text: str) -> Transform:
    """Return the transform that ``NAME``, or ``NAME:ARGUMENT,KEY=VALUE,...`` means.

    What reads as a number, ``true`` or ``false`` in JSON is one; everything else is text.

    Examples
    --------
    >>> parsed("cast:bfloat16,saturate=true")  # doctest: +ELLIPSIS
    <function ...>
    """
    name, _, given = text.partition(":")
    arguments: list[Any] = []
    options: dict[str, Any] = {}
    for part in given.split(",") if given else ():
        found = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", part, re.DOTALL)
        if found:
            options[found[1]] = _value(found[2])
        elif options:
            raise SpecError(f"--apply {text!r} has {part!r} after a KEY=VALUE", expected="NAME:ARGUMENT,KEY=VALUE,...")
        else:
            arguments.append(_value(part))
    return transform(name, *arguments, **options)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int, float)) else text
