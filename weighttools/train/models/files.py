"""From a checkpoint, of whatever format, to its function and its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, UnsafeFileError
from weighttools.families.packed import refuse
from weighttools.formats.opening import PathLike, open
from weighttools.io.beside import LEAVES
from weighttools.io.home import home_of
from weighttools.train.autograd.gradients import Array
from weighttools.train.models.architecture import Architecture
from weighttools.train.models.config import from_config, kind_of
from weighttools.train.models.gguf import from_gguf, is_gguf
from weighttools.train.models.keras_config import activation_of, geometry_of
from weighttools.train.models.shapes import from_shapes
from weighttools.transforms.dequantize import dequantize


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that can be run.

    Parameters
    ----------
    architecture
        Its function.
    params
        The arrays that the function uses, by Hugging Face's names, in one floating dtype.
    config
        What config.json, or GGUF's metadata, says; empty without either.
    origin
        The map that the arrays were read from, as it was opened.
    """

    architecture: Architecture
    params: dict[str, Array] = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    origin: TensorMap = field(repr=False)


def load(base: PathLike | TensorMap, dtype: Any = np.float32, change: Transform | None = None) -> Checkpoint:
    """Open a checkpoint and read what its function needs; quantised tensors are decoded.

    Parameters
    ----------
    base
        A path, a directory, or an open map.
    dtype
        What to compute in.
    change
        Done to the map first, once it has Hugging Face's names and no quantised tensors: to merge an adapter, say.

    Raises
    ------
    UnsupportedError
        No function is known for it.
    SpecError
        A tensor that the function needs is missing, or weights are packed.
    """
    origin = base if isinstance(base, TensorMap) else open(base)
    tensor_map, config = described(origin)
    if change is not None:
        tensor_map = change(dequantize()(tensor_map))
    architecture = of(tensor_map, config)
    used = architecture.checked([*tensor_map, *tensor_map.aliases]).used
    kept = {name: tensor_map.aliases.get(name, name) for name in used}
    read = {name: floats(tensor_map, name, dtype) for name in dict.fromkeys(kept.values())}
    return Checkpoint(architecture, {name: read[stored] for name, stored in kept.items()}, config, origin)


def described(tensor_map: TensorMap) -> tuple[TensorMap, Mapping[str, Any]]:
    """Return a map with Hugging Face's names, and its config.json: the one beside it, or what GGUF's metadata says.

    The configuration is empty where there is none, as for a plain stack of layers.

    Raises
    ------
    SpecError
        Weights are packed.
    UnsafeFileError
        config.json is a link that leaves the weights' directory: without it the function would be another, or none.
    """
    if is_gguf(tensor_map):
        return from_gguf(tensor_map)
    refuse(tensor_map)
    home = home_of(tensor_map.origin)
    if home is None:
        return tensor_map, {}
    if home.is_elsewhere("config.json"):
        file = home.path_of("config.json")
        raise UnsafeFileError(f"is {LEAVES}", subject=file, expected="a file in it", remedy="copy it there")
    return tensor_map, home.read_json("config.json") or {}


def of(
    tensor_map: TensorMap, config: Mapping[str, Any], activation: str | None = None, **geometry: Any
) -> Architecture:
    """Return a map's function: by its configuration, or by its shapes where that names no model.

    `activation` stands between a plain stack's layers, `geometry` is its ``padding``, ``stride``, ``pool`` and
    ``flatten``; by default they are what the file says, else what `from_shapes` takes.

    Raises
    ------
    SpecError
        They are given for a model that its configuration describes.
    """
    names = [*tensor_map, *tensor_map.aliases]
    given = {name: value for name, value in {"activation": activation, **geometry}.items() if value is not None}
    if (kind := kind_of(config, names)) is not None:
        if given:
            raise SpecError(f"{next(iter(given))} is said, and config.json says all of a {kind}", remedy="leave it out")
        return from_config(config, names)
    specs = dict(zip(tensor_map, tensor_map.specs(), strict=True))
    if tensor_map.aliases:  # which have lost their place in the file's order
        specs = dict(sorted((specs | {alias: specs[kept] for alias, kept in tensor_map.aliases.items()}).items()))
    found = {**geometry_of(tensor_map.metadata), **given}
    return from_shapes(specs, **{"activation": activation or activation_of(tensor_map.metadata), **found})


def floats(tensor_map: TensorMap, name: str, dtype: Any = np.float32) -> Array:
    """Return a tensor's values in `dtype`, in an array of their own.

    Raises
    ------
    SpecError
        It holds integers, or 8-bit floats, whose scales are elsewhere.
    """
    tensor = tensor_map[name]
    if not tensor.dtype.is_float or (tensor.dtype.bits < 16 and not tensor.spec.is_quantized):
        expected = "floats of 16 bits or more, or GGUF's quantisations"
        raise SpecError(f"is stored as {tensor.dtype}", subject=name, expected=expected)
    with np.errstate(over="ignore"):
        return np.require(tensor.read().astype(dtype, copy=False), dtype, ["C", "W", "O"])
