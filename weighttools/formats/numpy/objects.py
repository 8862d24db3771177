"""NumPy's arrays of Python objects: a pickle, whose arrays are read as data by the rules for what torch saves."""

from __future__ import annotations

from weighttools.core.spec import Source
from weighttools.core.tensormap import TensorMap
from weighttools.formats.pickles.arrays import array_of
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.stream import Stream
from weighttools.formats.torch.legacy import LegacyShelf
from weighttools.formats.torch.state import tensor_map


def read_objects(source: Source, offset: int, root: str | None) -> TensorMap:
    """Read the arrays that an NPY file of objects holds; the pickle begins at `offset`, and is read as data."""
    machine = Machine(Stream(source, offset))
    held = array_of(machine.load(), source.name)
    value = held[0] if isinstance(held, list) and len(held) == 1 else held
    note = "holds Python objects: its pickle is read as data, nothing of it is made"
    found = tensor_map(value, machine, LegacyShelf(source.name, {}), root, [note], unwrap=False)
    return found.replace(metadata={}, origin=found.origin._replace(format="npy"))
