"""The table of formats, and finding out which one a file is: by content first, then by suffix."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from weighttools.core.findings import Finding
from weighttools.core.registry import Entry, Registry
from weighttools.core.spec import Source
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, SpecError
from weighttools.formats.base import HEAD_BYTES, Format, ReadOptions


class Row(NamedTuple):
    """One line of the table of formats: what can be said of a format without importing it.

    Parameters
    ----------
    name
        The word users give it.
    title
        One line for ``weighttools formats``.
    suffixes
        File endings, with the dot.
    module
        Where its ``FORMAT`` is, in this package.
    extra
        The extra that it needs, if any.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    module: str
    extra: str = ""


ROWS: tuple[Row, ...] = (
    Row("safetensors", "safetensors file", (".safetensors",), "safetensors.format"),
    Row("npz", "NumPy archive of arrays", (".npz",), "numpy.npz"),
    Row("npy", "NumPy array, or a stream of them (Equinox)", (".npy", ".eqx"), "numpy.npy"),
    Row(
        "pytorch",
        "PyTorch state dict, checkpoint or TorchScript archive",
        (".pt", ".pth", ".bin", ".ckpt"),
        "torch.format",
    ),
    Row("flax", "Flax msgpack of nested arrays", (".msgpack",), "flax.format"),
    Row("onnx", "ONNX model: its initializers and Constant nodes", (".onnx",), "onnx.format"),
    Row(
        "gguf",
        "GGUF file, quantised or not; the extra decodes the rarer quantisations",
        (".gguf",),
        "gguf.format",
        "gguf",
    ),
    Row("hdf5", "HDF5 file, Keras weights among them", (".h5", ".hdf5"), "hdf5.format"),
    Row("keras", "Keras 3 model archive", (".keras",), "hdf5.keras"),
)
DIRECTORY = Row(
    "huggingface",
    "directory of safetensors files, sharded with an index or not; org/model in the local cache",
    ("/", ".index.json"),
    "huggingface.format",
)

FORMATS = Registry(
    "format",
    "weighttools.formats",
    {row.name: Entry(f"weighttools.formats.{row.module}:FORMAT", row.extra) for row in ROWS},
)


def load(name: str) -> Format:
    """Return the format called `name`.

    Raises
    ------
    SpecError
        There is none; the known names are given.
    PluginError
        An installed package adds it, and it does not work.
    """
    found = FORMATS.load(name)
    if name in FORMATS.table:
        assert isinstance(found, Format)
        return found
    from weighttools.formats.plugins import checked

    return checked(FORMATS.plugin(name), found)


def by_suffix(path: str) -> str | None:
    """Return the name of the format of our own whose suffix `path` has, if any."""
    name = path.lower()
    return next((row.name for row in ROWS if name.endswith(row.suffixes)), None)


def by_any_suffix(path: str) -> str | None:
    """Return the name of the format whose suffix `path` has, if any; installed packages are asked last."""
    found = by_suffix(path)
    if found or "." not in os.path.basename(path):
        return found
    from weighttools.formats import plugins

    return plugins.by_suffix(FORMATS, path)


def known_suffixes(*, written: bool = False) -> list[str]:
    """Return the suffixes of all formats, or of those that are written; those of installed packages last."""
    from weighttools.formats import plugins

    own = [suffix for row in ROWS if not written or load(row.name).write for suffix in row.suffixes]
    return [*own, *(suffix for suffix, _ in plugins.suffixes(FORMATS, written=written))]


def read_file(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Find out a file's format and read its header.

    Raises
    ------
    UnknownFormatError
        Nothing recognises the content; what it looks like is said.
    FormatError
        The format is known, but the content is damaged or unsafe.
    """
    head = source.read(0, min(HEAD_BYTES, source.size))
    named = by_suffix(source.name)
    name = recognise(head, named) or _by_members(source, head)
    if name is None:
        return _read_stranger(source, head, named, options or ReadOptions())
    return _noted(load(name).read(source, options or ReadOptions()), source, name, named)


def _noted(tensor_map: TensorMap, source: Source, name: str, named: str | None) -> TensorMap:
    """Say it where a file's suffix names another format than its content."""
    if named in (None, name):
        return tensor_map
    return tensor_map.noted(f"named {os.path.splitext(source.name)[1]}, but its content is {name}: read as that")


def _read_stranger(source: Source, head: bytes, named: str | None, options: ReadOptions) -> TensorMap:
    """Read a file that no format of our own recognises: by an installed package's, or by what its suffix names."""
    from weighttools.formats import plugins

    found = plugins.recognise(FORMATS, head)
    if found.plugin is not None:
        tensor_map = plugins.read(found.plugin, source, options).noted(*found.failures)
        return _noted(tensor_map, source, found.plugin.name, named)
    return load(_refused(head, source, named, found.failures)).read(source, options)


def _refused(head: bytes, source: Source, named: str | None, failures: list[str]) -> str:
    """Refuse what no format recognises, and say which packages could not be asked; or return what the suffix names."""
    from weighttools.formats.sniff import refuse_stranger

    try:
        return refuse_stranger(head, source, named)
    except FormatError as error:
        error.remedy = "; ".join([*([error.remedy] if error.remedy else []), *failures]) or None
        raise


def refuse_unknown(head: bytes) -> None:
    """Refuse standard input by its first bytes, before the rest of it is taken.

    Raises
    ------
    FormatError
        As of `read_file`, for what no format recognises.
    """
    if recognise(head[:HEAD_BYTES]) is None:
        from weighttools.formats import plugins
        from weighttools.io.source import Bytes

        found = plugins.recognise(FORMATS, head[:HEAD_BYTES])
        if found.plugin is None:
            _refused(head[:HEAD_BYTES], Bytes(head, "-"), None, found.failures)


def recognise(head: bytes, named: str | None = None) -> str | None:
    """Return the name of the format of our own that a file beginning with `head` has.

    The one that its suffix names is asked first.
    """
    order = sorted(FORMATS, key=lambda name: name != named)
    return next((name for name in order if load(name).matches(head)), None)


def _by_members(source: Source, head: bytes) -> str | None:
    """Return the format of a zip archive whose first member tells nothing (a README, a directory)."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    from weighttools.formats.numpy import npz

    return "npz" if npz.matches_file(source) else None


def format_of(source: Source) -> Format | None:
    """Return the format of our own that a file is of, if it is of any.

    Raises
    ------
    FormatError
        It is a damaged archive.
    """
    head = source.read(0, min(HEAD_BYTES, source.size))
    name = recognise(head, by_suffix(source.name)) or _by_members(source, head)
    return None if name is None else load(name)


def check_file(source: Source) -> Iterable[Finding]:
    """Return what a file's format finds dangerous or doubtful in it; of a file of no known format, what a pickle
    or a zip archive of pickles would run.
    """
    named = by_suffix(source.name)
    head = source.read(0, min(HEAD_BYTES, source.size))
    name = recognise(head, named)
    if name is None:
        with contextlib.suppress(FormatError):  # a mangled archive is looked into all the same
            name = _by_members(source, head)
    if name is None:
        from weighttools.formats import plugins

        found = plugins.recognise(FORMATS, head).plugin
        name = found.name if found is not None else named if named != "pytorch" else None
    if name is None:
        from weighttools.formats.pickles.scan import of_source

        return of_source(source, suffix_says=named is not None)
    return load(name).check(source)


def directory_files(place: str) -> list[str]:
    """Return the files that a place means: itself, or those in a directory or beside an index, pickles included."""
    directory = os.path.dirname(place) or "." if place.endswith(".index.json") else place
    if not os.path.isdir(directory):
        return [place]
    from weighttools.formats.pickles.scan import SUFFIXES

    return sorted(
        entry.path
        for entry in os.scandir(directory)
        if (by_suffix(entry.name) or entry.name.casefold().endswith(SUFFIXES)) and entry.is_file()
    )


def writable(path: str, name: str | None = None) -> str:
    """Return the name of the format to write `path` in: `name`, or what the suffix says.

    Raises
    ------
    SpecError
        Neither says a format that is written.
    """
    chosen = name or by_any_suffix(path)
    if chosen is not None and load(chosen).write is not None:
        return chosen
    known = f"one of {', '.join(known_suffixes(written=True))}"
    if chosen is None:
        raise SpecError(
            "the target's suffix names no format",
            subject=path,
            expected=f"{known}, or --to FORMAT",
            code="unknown-suffix",
        )
    raise SpecError(f"{chosen} is read, not written", subject=path, expected=known, code="not-written")
