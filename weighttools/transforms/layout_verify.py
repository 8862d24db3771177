"""Proof that a change of layout lost nothing: every tensor is taken back and compared bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weighttools.core import plan
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError
from weighttools.transforms.layout_change import Layout

if TYPE_CHECKING:
    from weighttools.core.spec import Array


def verify(before: TensorMap, after: TensorMap, changes: Layout) -> int:
    """Prove that `after` holds `before`: take each tensor back and compare it bit for bit, in blocks.

    Returns
    -------
    int
        The number of tensors compared.

    Raises
    ------
    CorruptFileError
        A tensor is missing or differs.
    """
    n_compared = 0
    for change in (*changes.changes, *changes.copies):
        if change.dst is None:
            continue
        if change.dst not in after:
            raise CorruptFileError(f"verification failed: {change.dst!r} was not written", subject=after.origin.path)
        original, back = before[change.src], change.backward(after[change.dst])
        if original.spec.dtype != back.dtype or not _equal(original, back):
            raise CorruptFileError(
                f"verification failed: {change.dst!r} taken back differs from {change.src!r}", subject=after.origin.path
            )
        n_compared += 1
    return n_compared


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold the same bits."""
    unit = max(one.reader.granularity, other.reader.granularity, one.dtype.pack)
    step = max(one.run_elements, other.run_elements)
    return all(
        _bits(one.reader(start, stop)) == _bits(other.reader(start, stop))
        for start, stop in plan.blocks(one.n_elements, unit, step)
    )


def _bits(block: Array) -> bytes:
    return block.tobytes()
