"""Opening a checkpoint, wherever it lies: the first step of every verb."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from weighttools.core.patterns import listed
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, SpecError, WeighttoolsError, option
from weighttools.formats.base import ReadOptions

PathLike = str | os.PathLike[str]


def open(path: PathLike, *, assume: str | None = None, root: str | None = None) -> TensorMap:
    """Open a checkpoint; only headers are read.

    Parameters
    ----------
    path
        A weight file, a directory with weights, an index file, ``org/model`` in the local Hugging Face cache, a
        ``file://`` URL of one of these, or ``-`` for standard input.
    assume
        The dtype of elements whose type the file does not name (a bare ``V2`` in an NPZ).
    root
        The part of a nested checkpoint to read, by its dotted path; ``"."`` reads all of it by full names. By
        default the usual wrappers (``state_dict``, ``model``, …) are taken off, and a note says so.

    Raises
    ------
    SourceError
        There is nothing to read there.
    FormatError
        What is there is not known, damaged, or unsafe.

    Examples
    --------
    >>> tensor_map = open("fixtures/safetensors/tiny/model.safetensors")
    >>> tensor_map["fc.weight"].shape
    (3, 4)
    >>> tensor_map["fc.weight"][0, :2]
    array([0., 1.], dtype=float32)
    """
    try:
        return _opened(located(os.fspath(path)), ReadOptions(assume, root))
    except WeighttoolsError:
        raise
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror or error}",
            subject=os.fspath(error.filename or path),
            code="cannot-be-read",
        ) from None


def _opened(place: str, options: ReadOptions) -> TensorMap:
    from weighttools.formats import read_file, refuse_unknown
    from weighttools.io.source import open_source

    if place.endswith(".index.json") or os.path.isdir(place):
        from weighttools.formats.huggingface import format as huggingface

        return huggingface.read(place, options)
    if place.endswith(".weights.json"):
        from weighttools.formats.hdf5 import keras

        return keras.read_index(place, options)
    return read_file(open_source(place, refuse_unknown), options)


def located(path: str) -> str:
    """Return where `path` points: itself if it exists, else the snapshot in the Hugging Face cache that it names."""
    if path.startswith("file://"):
        from weighttools.io.source import path_of_url

        return path_of_url(path)
    if path == "-" or "://" in path or os.path.exists(path):
        return path
    if path.count("/") == 1 and not path.startswith((".", "/")):
        from weighttools.formats.huggingface import format as huggingface

        found = huggingface.cached(path)
        if found is not None:
            return str(found)
        raise SourceError(
            "no such file, and no such model in the Hugging Face cache",
            subject=path,
            remedy=f"looked in {huggingface.cache_directory()}",
            code="no-such-file",
        )
    return path


def name_of(path: PathLike | TensorMap) -> str:
    """Return the path that an open map came from, or the path itself."""
    return path.origin.path if isinstance(path, TensorMap) else os.fspath(path)


def chosen(
    path: PathLike | TensorMap, include: Sequence[str], exclude: Sequence[str], options: ReadOptions
) -> TensorMap:
    """Open what is not open yet, and take the tensors that the patterns choose.

    Raises
    ------
    SpecError
        The map is open already, and the options say how to open it; or arrays are given, which are no map.
    """
    if isinstance(path, Mapping) and not isinstance(path, TensorMap):
        fact = f"a {type(path).__name__} is no checkpoint"
        raise SpecError(
            fact, expected="a path, or a TensorMap", remedy="TensorMap.from_arrays(...) makes one of arrays"
        )
    given = [option(name) for name, value in options._asdict().items() if value is not None]
    if isinstance(path, TensorMap) and given:
        fact = f"{given[0]} says how to open a checkpoint, and this one is open"
        raise SpecError(fact, subject=path.origin.path, expected="a path", code="options-exclude")
    tensor_map = path if isinstance(path, TensorMap) else open(path, assume=options.assume, root=options.root)
    return tensor_map.select(*listed(include), exclude=exclude)
