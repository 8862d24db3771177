"""What a walk over an ONNX model keeps: a tensor's header, a graph to come, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from weighttools.core.tensor import Tensor
from weighttools.formats.left_out import LeftOut
from weighttools.io.protobuf import Field


@dataclass(slots=True)
class Proto:
    """A TensorProto as its header tells it.

    Parameters
    ----------
    name, dims, data_type, external
        As in the schema; `external` holds the entries of external_data, None where the data lies in the model.
    data
        Name of a data field to the parts that it comes in: one if packed, one an element if not.
    at
        Where the message begins.
    """

    at: int
    name: str = ""
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    data: dict[str, list[Field]] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    is_external: bool = False


@dataclass(slots=True)
class GraphContents:
    """What the walk has found so far: tensors by name, metadata, and what is to be said."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph, or a function's body, to be walked; `prefix` is put before names that are taken, `names` are its own."""

    start: int
    stop: int
    prefix: str
    depth: int
    is_function: bool = False
    names: set[str] = field(default_factory=set)
