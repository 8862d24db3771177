"""Where a write goes: the target's format and shards, what it cannot hold, and what should be known."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weighttools.core.encodings import BITMASK
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.formats import by_any_suffix, known_suffixes, load, writable
from weighttools.formats.huggingface import format as huggingface
from weighttools.io.home import Home, home_of

_MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
"""What says of a directory's weights what model they are."""
MAX_SHARD_SIZE = "5GB"
"""The default of huggingface_hub and transformers."""
_ADAPTER = "adapter_config.json"
"""Beside an adapter, which needs no config.json: transformers would look for a whole model there."""
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(slots=True)
class Destination:
    """A target: its format, and which tensors go into which of its files.

    Parameters
    ----------
    format
        The format's name.
    path
        As the user gave it.
    files
        File name to the tensors in it; of a single file the one name is the target's.
    is_directory
        Whether the target is a directory of shards.
    notes
        What will be lost or should be known.
    replaced
        Files in a target directory that the new ones take the place of, by name.
    """

    format: str
    path: str
    files: dict[str, list[str]]
    is_directory: bool
    notes: list[str] = field(default_factory=list)
    replaced: frozenset[str] = frozenset()


def parse_size(text: int | str) -> int:
    """Return a size in bytes; GB is 10**9 and GiB is 2**30.

    Raises
    ------
    SpecError
        It is no positive size.

    Examples
    --------
    >>> parse_size("5GB"), parse_size("1.5 GiB")
    (5000000000, 1610612736)
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", str(text).strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise SpecError(f"{text!r} is no size", expected="a number and a unit, as in 5GB or 500MiB")
    return int(float(match[1]) * unit)


def choose_destination(
    tensor_map: TensorMap, dst: str, format_name: str | None, max_shard_size: int | str | None, single: bool
) -> Destination:
    """Return the target's format and which tensors go into which of its files.

    Raises
    ------
    SpecError
        The options contradict the target, or its suffix names no format that is written.
    """
    if means_directory(dst, format_name):
        if format_name not in (None, huggingface.NAME, "safetensors"):
            raise SpecError(f"a directory is not written as {format_name}", subject=dst, remedy="name a file")
        limit = None if single else parse_size(max_shard_size or MAX_SHARD_SIZE)
        files = huggingface.shard_plan(tensor_map, limit, _stem_of(tensor_map))
        found = Destination("safetensors", dst, files, is_directory=True)
        found.replaced = superseded(found)
        return found
    if max_shard_size is not None:
        raise SpecError(
            f"{option('max_shard_size')} writes several files",
            subject=dst,
            expected="a directory as target",
            remedy="leave the suffix off",
        )
    chosen = format_name or ("safetensors" if dst == "-" else writable(dst))
    return Destination(writable(dst, chosen), dst, {dst: list(tensor_map)}, is_directory=False)


def superseded(target: Destination) -> frozenset[str]:
    """Return the names of the files in a target directory that the new ones take the place of, as it is now."""
    return huggingface.superseded(Path(target.path), target.files) if target.is_directory else frozenset()


def check(tensor_map: TensorMap, target: Destination, compression: str | None, store: str | None) -> None:
    """Refuse what a destination cannot hold, and options that it does not take.

    Raises
    ------
    SpecError
        With what it does hold.
    """
    _refuse_encodings(tensor_map, target.format)
    _check_compression(target, compression)
    _check_store(target, store)


def notes(
    tensor_map: TensorMap, target: Destination, max_shard_size: int | str | None, beside: Mapping[str, bytes]
) -> list[str]:
    """Return what should be known of a map at its destination."""
    return [
        *_shard_notes(tensor_map, target, max_shard_size, beside),
        *_tie_notes(tensor_map, target),
        *_structure_notes(tensor_map, target),
        *_names_notes(tensor_map, target),
        *_file_notes(target, beside),
    ]


def _file_notes(target: Destination, beside: Mapping[str, bytes]) -> list[str]:
    """Say that files which belong to the weights have no place where these are written as a file alone."""
    if target.is_directory or not beside:
        return []
    return [f"{', '.join(sorted(beside))} that belong to these weights are not written: name a directory to get them"]


def _refuse_encodings(tensor_map: TensorMap, format_name: str) -> None:
    """Refuse quantised tensors that the format has no encoding for: decoding them is a choice to be asked for."""
    held = load(format_name).encodings
    lost = [
        name for name in tensor_map if tensor_map[name].spec.is_quantized and tensor_map[name].spec.encoding not in held
    ]
    if lost:
        fact = f"{len(lost):,} tensors are quantised, first {lost[0]!r} as {tensor_map[lost[0]].spec.encoding}"
        raise SpecError(
            fact,
            subject=tensor_map.origin.path or None,
            expected=f"encodings that {format_name} holds",
            remedy=f"give {option('dequantize')}, or {option('dtype')} with a floating dtype",
        )


def means_directory(dst: str, format_name: str | None = None) -> bool:
    """Return whether a target is a directory of shards: asked for, there already, or a name without a file's suffix.

    A dot does not make a suffix (``Qwen2.5-0.5B``, ``v1.0``): a file's names a format.

    Raises
    ------
    SpecError
        What follows the last dot is nearly a format's suffix, or another kind of file's.
    """
    if dst == "-" or (format_name and format_name != huggingface.NAME and not dst.endswith(os.sep)):
        return False
    if format_name == huggingface.NAME or dst.endswith(("/", os.sep)) or os.path.isdir(dst):
        return True
    if by_any_suffix(dst):
        return False
    _refuse_mistaken(dst)
    return True


def _refuse_mistaken(dst: str) -> None:
    """Refuse a name that looks like a file's, of a format misspelled or of another kind."""
    import difflib

    suffix = os.path.splitext(dst)[1].lower()
    known = [known[1:] for known in known_suffixes()]
    near = difflib.get_close_matches(suffix[1:], known, n=1, cutoff=_NEAR)
    if near or suffix in _OTHER_FILES:
        meant = f"did you mean .{near[0]}? " if near else ""
        raise SpecError(
            f"{suffix} names no format of weights",
            subject=dst,
            expected="a suffix that `weighttools formats` lists",
            remedy=f"{meant}for a directory end the name with /, for another name give {option('format')}",
        )


_NEAR = 0.75
"""How alike suffixes are that are taken for one misspelled: a letter too many, too few or in the wrong place."""
_OTHER_FILES = frozenset(
    {".csv", ".doc", ".docx", ".gz", ".html", ".json", ".jsonl", ".log", ".mat", ".md", ".mlmodel", ".parquet", ".pb"}
    | {".pdf", ".pickle", ".pkl", ".png", ".py", ".svg", ".tar", ".tflite", ".tsv", ".txt", ".weights", ".xz", ".yaml"}
    | {".yml", ".zip", ".zst"}
)
"""Suffixes of files of other kinds, which nobody gives a directory."""


def _stem_of(tensor_map: TensorMap) -> str:
    """Keep the stem of the source's own weight files (``adapter_model``, ``diffusion_pytorch_model``)."""
    names = [Path(file).name for file in tensor_map.origin.files]
    return next((stem for stem in huggingface.STEMS[:3] if names and names[0].startswith(stem)), "model")


def _shard_notes(
    tensor_map: TensorMap, target: Destination, max_shard_size: int | str | None, beside: Mapping[str, bytes]
) -> list[str]:
    """Say what a directory of shards may surprise with."""
    if not target.is_directory:
        return []
    limit = parse_size(max_shard_size or MAX_SHARD_SIZE)
    large = [name for name, spec in zip(tensor_map, tensor_map.specs(), strict=True) if spec.nbytes > limit]
    notes = [f"{len(large):,} tensors are larger than a shard may be, and get one each: {large[0]}"] if large else []
    home = home_of(tensor_map.origin)
    here = [name for name in ("config.json", _ADAPTER) if _comes_along(name, home, beside) or _lies_in(target, name)]
    hint = f"; {option('names')} hf makes it of the GGUF file's metadata" if tensor_map.origin.format == "gguf" else ""
    if not here:
        found = home and not home.is_whole and home.has("config.json")
        notes.append(
            "config.json beside the source is not copied, for it may be another model's: give the directory"
            if found
            else "there is no config.json beside the source: transformers needs one in the directory" + hint
        )
    stale = [name for name in _MODEL_FILES if not _comes_along(name, home, beside) and _lies_in(target, name)]
    if stale and not (home and home.is_whole):
        notes.append(f"{', '.join(stale)} in the directory stay as they are, of the model that was there")
    return notes


def _comes_along(name: str, home: Home | None, beside: Mapping[str, bytes]) -> bool:
    """Return whether a file comes into the target with the weights."""
    return name in beside or (home is not None and home.is_whole and home.has(name))


def _lies_in(target: Destination, name: str) -> bool:
    return os.path.isfile(os.path.join(target.path, name))


def _names_notes(tensor_map: TensorMap, target: Destination) -> list[str]:
    """Say that a GGUF file of a model with another library's names is not one that llama.cpp reads."""
    home = home_of(tensor_map.origin)
    is_theirs = tensor_map.origin.format == "gguf" or "token_embd.weight" in tensor_map
    if target.format != "gguf" or is_theirs or home is None or not home.has("config.json"):
        return []
    return [f"names, settings and tokenizer are not translated: {option('names')} gguf writes what llama.cpp runs"]


def _tie_notes(tensor_map: TensorMap, target: Destination) -> list[str]:
    """Say that ties of another format's file are recorded in a way that not every loader of this one knows."""
    if (
        not tensor_map.aliases
        or target.format not in ("npz", "safetensors")
        or target.format == tensor_map.origin.format
    ):
        return []
    n = len(tensor_map.aliases)
    names = "tied name is recorded as a tie" if n == 1 else "tied names are recorded as ties"
    remedy = f"{option('tied')} copy writes {'it' if n == 1 else 'them'} out"
    return [f"{n:,} {names} ({next(iter(tensor_map.aliases))}); {remedy}"]


def _structure_notes(tensor_map: TensorMap, target: Destination) -> list[str]:
    """Say that a file's name promises Keras another structure than the tensors have."""
    if target.format != "hdf5":
        return []
    from weighttools.transforms.layout_keras import structure_for, structure_of

    asked, own = structure_for(target.path), structure_of(tensor_map)
    if own is None or asked is None or own == asked:
        return []
    fitting = ".h5" if asked == "weights" else ".weights.h5"
    return [
        f"Keras does not load it under this name: the tensors keep the structure of a {fitting} file; "
        f"{option('layout')} keras gives it the other one, where that can be known"
    ]


def _check_compression(target: Destination, compression: str | None) -> None:
    """Refuse a compression that the target's format does not have."""
    known = {} if target.is_directory else {"hdf5": ("gzip",)}
    if compression is not None and compression not in known.get(target.format, ()):
        raise SpecError(
            f"{target.format} is not written with the compression {compression!r}",
            subject=target.path,
            expected=f"{option('compression')} gzip for an HDF5 file, and none for others",
        )


def _check_store(target: Destination, store: str | None) -> None:
    """Refuse a way of storing tensors that the target's format does not have."""
    if store is not None and (store != BITMASK or target.format != "safetensors"):
        raise SpecError(
            f"{target.format} is not stored as {store!r}",
            subject=target.path,
            expected=f"{option('store')} {BITMASK} for safetensors, and none for others",
        )
