"""The verb ``merge_adapter``: a LoRA adapter's changes added to the weights of its base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from weighttools.core.options import Option, takes

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = (
    Option("names", choices=("hf",), help="Take the base's GGUF names and layout for Hugging Face's."),
    Option("dequantize", bool, False, "Decode the base's quantised tensors to float32."),
)


@takes(*OPTIONS)
def merge_adapter(
    base: PathLike | TensorMap, adapter: PathLike, *, names: str | None = None, dequantize: bool = False
) -> TensorMap:
    """Add a LoRA adapter's changes to the weights of its base: ``W + alpha / r * B A``.

    Parameters
    ----------
    base
        As for `open`, or an open map; its names may have another prefix than the adapter's.
    adapter
        A directory that peft, or `train.save_lora`, has saved.
    names
        ``"hf"`` takes the base's GGUF names and layout for Hugging Face's.
    dequantize
        Decode the base's quantised tensors to float32.

    Returns
    -------
    TensorMap
        With a `report`. Sums are float64, rounded once to the base's dtypes; only the factors are read now. Into a
        directory `save` writes a config.json with it that tells of the classes that the adapter's own names; with
        `names` what the GGUF file's metadata stand for.

    Raises
    ------
    SpecError
        The adapter does not fit the base, a factor holds NaN or Inf, or a weight to change is quantised.
    """
    from weighttools.transforms.changes import recoded, taken
    from weighttools.verbs.open import open as open_checkpoint
    from weighttools.write.adapters import merge_lora

    origin = open_checkpoint(base)
    merged = merge_lora(recoded(taken(origin, names=names), dequantize), adapter)
    files, lacking = _companions(origin, adapter, names)
    others = (*merged.origin.others, os.fspath(adapter))
    return merged.replace(origin=merged.origin._replace(beside=files, lacking=tuple(lacking), others=others))


def _companions(base: TensorMap, adapter: PathLike, names: str | None) -> tuple[Mapping[str, bytes], list[str]]:
    """Return the files that go into a directory with the merged weights, and what is lacking of them."""
    if names is None:
        return _configuration(base, adapter), []
    from weighttools.families.gguf.companions import gguf_files

    return gguf_files(base)


def _configuration(base: TensorMap, adapter: PathLike) -> dict[str, bytes]:
    """Return the config.json of a base, told of the classes that an adapter's own names.

    Empty where one of both has none: then the base's, if any, is copied.
    """
    import json

    from weighttools.analyzers.configuration import read_beside
    from weighttools.write.adapters import beside, open_adapter

    config = read_beside(base.origin, "config.json") or {}
    told = beside(open_adapter(adapter), config) if config else config
    return {"config.json": (json.dumps(told, indent=2) + "\n").encode()} if told != config else {}
