"""What a format is: a name, a way to recognise it, a way to read its header, perhaps a way to write it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.core.findings import Finding
from weighttools.core.spec import Source, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from weighttools.core.spec import Array
    from weighttools.io.sink import Sink

HEAD_BYTES = 4096
"""How much of a file's beginning `Format.matches` is shown."""
MOST_BYTES = 2**63 - 1
"""What NumPy, PyTorch and ggml count the bytes of a tensor with: a signed integer of 64 bits."""


class ReadOptions(NamedTuple):
    """How to read what the file itself leaves open.

    Parameters
    ----------
    assume
        The dtype of elements whose type the file does not name (NPZ's bare ``V2``).
    root
        The part of a nested checkpoint to read, by its dotted path; ``"."`` is all of it by full names. None takes
        off the wrappers that are usual.
    """

    assume: str | None = None
    root: str | None = None


class WriteOptions(NamedTuple):
    """How to write.

    Parameters
    ----------
    threads
        Worker threads for decoding and casting; None is one a CPU.
    compression
        How to compress values, for a format that can: ``"gzip"`` for HDF5. None is not at all.
    bitmasks
        Tensors that safetensors shall store as a bitmask and the values that are not zero, and how many values each
        of their blocks keeps; see `weighttools.encodings.bitmask`.
    beside
        Files to put into a target directory, by name; they take the place of those that lie beside the source.
    """

    threads: int | None = None
    compression: str | None = None
    bitmasks: Mapping[str, Any] = MappingProxyType({})
    beside: Mapping[str, bytes] = MappingProxyType({})


class Stored(NamedTuple):
    """What a reference reader finds of one tensor.

    Parameters
    ----------
    label
        The element type, by our name for it or for its quantisation; None where the format has no word for it.
    shape
        The lengths of the axes.
    pieces
        Gives its bytes, as they are stored, in pieces (uint8 of one axis).
    """

    label: str | None
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[Array]]


class ReadBack(NamedTuple):
    """A file as a reference reader sees it.

    Parameters
    ----------
    reader
        The package, with its version.
    tensors
        What looks at each tensor, by its name in the map that was written.
    as_stored
        Gives the tensor whose raw bytes are those that the format stores for a tensor.
    """

    reader: str
    tensors: Mapping[str, Callable[[], Stored]]
    as_stored: Callable[[Tensor], Tensor] = lambda tensor: tensor


class Region(NamedTuple):
    """A run of a file's bytes: where it begins, how long it is, what it is (``"header"``)."""

    offset: int
    length: int
    what: str


class Format(NamedTuple):
    """One file format.

    Parameters
    ----------
    matches
        Whether a file that begins with these bytes (at most `HEAD_BYTES`) is of this format.
    read
        Reads the header only and returns lazy tensors.
    write
        Writes a map front to back; None where the format is only read.
    losses
        What of a map the format cannot hold, each a line; raises where it cannot hold the map at all.
        It is asked before a byte is written.
    check
        Looks for what makes a file of this format dangerous or doubtful to other readers, beyond its tensors.
    encodings
        The quantised encodings it stores as they are.
    read_back
        Opens what was written of a map with the format's reference reader, to compare; None where there is no other
        reader than ours. It raises MissingDependencyError where that one is not installed, or cannot be asked.
    regions
        Tells the parts of a file beside its tensors; None where that is not told apart. Tensors may lie within one.
    title, suffixes
        One line for ``weighttools formats``, and file endings with the dot: of a format that an installed package
        adds. Those of our own stand in the table, which is read without importing them.
    """

    matches: Callable[[bytes], bool]
    read: Callable[[Source, ReadOptions], TensorMap]
    write: Callable[[TensorMap, Sink, WriteOptions], None] | None = None
    losses: Callable[[TensorMap], list[str]] = lambda tensor_map: []
    check: Callable[[Source], Iterable[Finding]] = lambda source: ()
    encodings: frozenset[str] = frozenset()
    read_back: Callable[[Path, TensorMap], AbstractContextManager[ReadBack]] | None = None
    regions: Callable[[Source], Iterable[Region]] | None = None
    title: str = ""
    suffixes: tuple[str, ...] = ()


def refuse_shapes(tensor_map: TensorMap, format_name: str, most_axes: int, most_bytes: float = MOST_BYTES) -> None:
    """Refuse tensors of a shape that the format's readers refuse, before a file is written that none can read.

    Parameters
    ----------
    most_axes
        How many axes they take.
    most_bytes
        How many bytes, if axes of length 0 are counted as 1: what they check for overflow.

    Raises
    ------
    SpecError
        With the first such tensor.
    """
    for name, spec in zip(tensor_map, tensor_map.specs(), strict=True):
        if len(spec.shape) > most_axes:
            fact, most = f"the {len(spec.shape):,} axes of tensor {name!r}", f"at most {most_axes}"
        elif 0 in spec.shape and math.prod(n or 1 for n in spec.shape) * spec.dtype.bits // 8 > most_bytes:
            fact, most = f"the sides of the empty tensor {name!r}", f"a product of at most {most_bytes:,} bytes"
        else:
            continue
        raise SpecError(
            f"{format_name} cannot hold {fact}", expected=most, remedy="leave it out with -x", code="cannot-hold"
        )


def text_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as strings to strings, in sorted order: what is not a string becomes JSON."""
    import json

    return {k: v if isinstance(v, str) else json.dumps(plain(v), sort_keys=True) for k, v in sorted(metadata.items())}


def plain(value: Any) -> Any:
    """Return a metadata value as JSON can hold it: arrays as lists, NaN and Inf as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    return value


def instead(name: str, spec: Spec, other: str | None = None) -> str:
    """Return what to do about a tensor whose dtype a format does not have: only floats can be cast.

    Parameters
    ----------
    other
        A format that has it.

    Examples
    --------
    >>> from weighttools.core.dtypes import DTYPES
    >>> instead("mask", Spec(DTYPES["bool"], (3,)), "NPZ"), instead("w", Spec(DTYPES["float8_e3m4"], (3,)))
    ('write NPZ, or leave it out with -x mask', 'cast with --dtype, or leave it out with -x w')
    """
    choices = ["cast with --dtype"] if spec.dtype.is_float else []
    choices += [f"write {other}"] if other else []
    return ", or ".join([*choices, f"leave it out with -x {printable(name)}"])
