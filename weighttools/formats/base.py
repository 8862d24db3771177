"""What a format is: a name, a way to recognise it, a way to read its header, perhaps a way to write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weighttools.core.tensor import Source
from weighttools.core.tensormap import TensorMap

if TYPE_CHECKING:
    from weighttools.io.sink import Sink

HEAD_BYTES = 4096
"""How much of a file's beginning `Format.matches` is shown."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read what the file itself leaves open.

    Parameters
    ----------
    assume
        The dtype of elements whose type the file does not name (NPZ's bare ``V2``).
    """

    assume: str | None = None


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write.

    Parameters
    ----------
    threads
        Worker threads for decoding and casting; None is one a CPU.
    compression
        How to compress values, for a format that can: ``"gzip"`` for HDF5. None is not at all.
    """

    threads: int | None = None
    compression: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
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
    """

    matches: Callable[[bytes], bool]
    read: Callable[[Source, ReadOptions], TensorMap]
    write: Callable[[TensorMap, Sink, WriteOptions], None] | None = None
    losses: Callable[[TensorMap], list[str]] = field(default=lambda tensor_map: [])


def text_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as strings to strings, in sorted order: what is not a string becomes JSON."""
    import json

    return {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in sorted(metadata.items())}
