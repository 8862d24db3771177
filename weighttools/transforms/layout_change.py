"""A change of layout, planned: what happens to each tensor, to the ties and to the metadata. Transposes are lazy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weighttools.core.permuted import permuted
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.transforms import layout_tables as tables


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one tensor: reshape to `folded`, transpose by `axes`, reshape to `shape`, rename.

    Parameters
    ----------
    src, dst
        Names before and after; `dst` is None for a tensor that the target has no place for.
    rule, why
        What it was taken for, and what says so.
    shape_src, folded, axes, shape
        Shape before, shape that is transposed, the transpose, shape after.
    """

    src: str
    dst: str | None
    rule: str
    why: str
    shape_src: tuple[int, ...]
    folded: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def record(self) -> dict[str, Any]:
        """Return the row of the log."""
        return {
            "src": self.src,
            "dst": self.dst,
            "rule": self.rule,
            "why": self.why,
            "shape_src": list(self.shape_src),
            "shape_dst": list(self.shape) if self.dst is not None else None,
        }

    def forward(self, tensor: Tensor) -> Tensor:
        """Return the tensor as the target lays it out."""
        return permuted(tensor, self.folded, self.axes, self.shape)

    def backward(self, tensor: Tensor) -> Tensor:
        """Undo `forward`."""
        turned = tuple(self.folded[axis] for axis in self.axes)
        back = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return permuted(tensor, turned, back, self.shape_src)


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole map's change from one framework's layout to another's.

    Parameters
    ----------
    source, target
        Frameworks.
    evidence
        What says that the source is the source.
    changes
        One for each tensor, in the map's order.
    aliases
        Ties that hold afterwards: alias to kept, by their new names.
    copies
        Aliases that lie differently from the tensor they are tied to, and become tensors of their own.
    notes
        What the file cannot say and the user must know.
    metadata
        Entries that the new names come with: Keras's lists of layers.
    """

    source: str
    target: str
    evidence: tuple[str, ...]
    changes: tuple[Change, ...]
    aliases: Mapping[str, str]
    copies: tuple[Change, ...]
    notes: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, tensor_map: TensorMap) -> TensorMap:
        """Return the map in the target's layout; no value moves.

        Raises
        ------
        SpecError
            Two tensors would have the same name.
        """
        tensors: dict[str, Tensor] = {}
        for change in (*self.changes, *self.copies):
            if change.dst is None:
                continue
            if change.dst in tensors or change.dst in self.aliases:
                raise SpecError(f"two tensors would be called {change.dst!r}", remedy="leave one out with -x")
            tensors[change.dst] = change.forward(tensor_map[change.src])
        stale = tables.NAMING_METADATA if self.source != self.target or self.metadata else ()
        metadata = {key: value for key, value in tensor_map.metadata.items() if key not in stale} | dict(self.metadata)
        if self.source != self.target or metadata.get("format") in tables.METADATA_FORMATS.values():
            metadata["format"] = tables.METADATA_FORMATS[self.target]
        found = tensor_map.replace(tensors=tensors, metadata=metadata, aliases=dict(self.aliases))
        return found.noted(*self.notes) if self.notes else found

    def log(self) -> list[dict[str, Any]]:
        """Return a row for each tensor: its name, rule and shape before and after."""
        return [change.record() for change in (*self.changes, *self.copies)]
