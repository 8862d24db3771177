"""Tensors with many zeros, stored as a bit for each element and the values that are not zero.

The bytes are, all numbers little-endian, for n elements of w bytes in blocks of 65,536 (the last one
may be shorter):

1. an index: for each block, as unsigned integer of 64 bits, how many values the blocks before it keep;
2. block after block: its mask, bit i % 8 of byte i // 8 set where element i of the block is kept (bits beyond the
   last element are 0), and right behind it the kept values, w bytes each, in order.

An element is kept unless all its bits are 0. So -0.0, NaN with any payload and subnormals are kept, and what is read
back is what was stored, bit for bit. Elements narrower than a byte are never stored so. They are read in a few lines:

>>> def expanded(data, dtype, n):  # of one tensor: its bytes, as numpy.uint8
...     import numpy as np
...     out, at = np.zeros(n, dtype), -(-n // 65536) * 8
...     for start in range(0, n, 65536):
...         part = out[start : start + 65536]
...         kept = np.flatnonzero(np.unpackbits(data[at : at + 8192], count=part.size, bitorder="little"))
...         at += -(-part.size // 8)
...         part[kept] = data[at : at + kept.size * out.itemsize].view(dtype)
...         at += kept.size * out.itemsize
...     return out

Because of the index, a run of elements is read with two reads, of a few words of the index and of the blocks that hold
it; memory is that of the run. Writing takes two passes over the values, one to count and one to write, since a
header that comes first states every length; memory is that of a few blocks, and 8 bytes for each 65,536
elements of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from weighttools.core import plan
from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.encodings import BITMASK_BLOCK, bitmask_bytes
from weighttools.core.engine import run, threads
from weighttools.core.spec import Span, Spec
from weighttools.core.tensor import BLOCK_ELEMENTS, Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SourceError
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from weighttools.core.spec import Array
    from weighttools.io.sink import Sink

_MASK_BYTES = BITMASK_BLOCK // 8

Counts = Mapping[str, "Array"]
"""Tensors to store so, and of each how many values its blocks keep (int64)."""


@dataclass(frozen=True, slots=True)
class Masked:
    """Elements stored as a bitmask and the values that are not zero.

    Parameters
    ----------
    span
        Where index and blocks lie.
    dtype
        The element type, of whole bytes.
    n_elements, n_kept
        How many elements there are, and how many of them are stored.
    """

    span: Span
    dtype: DType
    n_elements: int
    n_kept: int

    @property
    def granularity(self) -> int:
        return 1

    def __call__(self, start: int, stop: int) -> Array:
        import numpy as np

        width = self.dtype.bits // 8
        first, last = start // BITMASK_BLOCK, -(-stop // BITMASK_BLOCK)
        begin, end = first * BITMASK_BLOCK, max(start, min(self.n_elements, last * BITMASK_BLOCK))
        out = np.zeros(end - begin, f"u{width}")
        if start < stop:
            self._fill(out, first, *self._kept(first, last))
        return out[start - begin : stop - begin].view(self.dtype.numpy)

    def _kept(self, first: int, last: int) -> tuple[int, list[int]]:
        """Return how many values are kept before block `first`, and in each block from there to `last`; checked."""
        n_blocks = -(-self.n_elements // BITMASK_BLOCK)
        data = self.span.source.read(self.span.offset + 8 * first, 8 * (min(last + 1, n_blocks) - first))
        starts = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        starts += [self.n_kept] if last == n_blocks else []
        kept = [after - before for before, after in pairwise(starts)]
        if (first == 0 and starts[0]) or starts[-1] > self.n_kept or not all(0 <= n <= BITMASK_BLOCK for n in kept):
            raise self._corrupt("its index of kept values does not ascend", 8 * first, f"0 to {self.n_kept:,}")
        return starts[0], kept

    def _fill(self, out: Array, first: int, n_before: int, n_kept: list[int]) -> None:
        """Read the blocks from `first` on and put their values where they belong."""
        import numpy as np

        width = out.itemsize
        offset = bitmask_bytes(self.n_elements, n_before, 8 * width) - -(-self.n_elements // 8) + first * _MASK_BYTES
        data = np.empty(-(-out.size // 8) + sum(n_kept) * width, np.uint8)
        self.span.source.readinto(self.span.offset + offset, data.data)
        at = 0
        for i, n in enumerate(n_kept):
            part = out[i * BITMASK_BLOCK : (i + 1) * BITMASK_BLOCK]
            mask, at = data[at : at + -(-part.size // 8)], at + -(-part.size // 8)
            kept = np.flatnonzero(np.unpackbits(mask, bitorder="little").view(bool))
            if kept.size != n or (n and kept[-1] >= part.size):
                fact = f"the mask of block {first + i:,} does not keep {n:,} of {part.size:,} values"
                raise self._corrupt(fact, offset + at - mask.size, "what the index says")
            part[kept] = data[at : at + n * width].view(f"<u{width}")
            at += n * width

    def _corrupt(self, fact: str, offset: int, expected: str) -> CorruptFileError:
        return CorruptFileError(
            fact, subject=self.span.source.name, offset=self.span.offset + offset, expected=expected
        )


def counted(tensor_map: TensorMap, n_threads: int | None = None, progress: Progress = silent) -> dict[str, Array]:
    """Choose the tensors that take less room as bitmask and values, by reading them all.

    `progress` is called with the number of bytes just looked at, tensor by tensor.

    Returns
    -------
    dict
        As `Counts`.
    """
    import numpy as np

    found = {}
    with threads(n_threads) as pool:
        for name, tensor in tensor_map.items():
            if tensor.dtype.bits < 8 or tensor.dtype.bits > 64 or tensor.spec.is_quantized:
                continue
            counts = np.fromiter(map(np.count_nonzero, _blocks(tensor, pool)), np.int64)
            progress(tensor.spec.nbytes)
            if as_bytes(tensor.spec, counts).nbytes < tensor.spec.nbytes:
                found[name] = counts
    return found


def as_bytes(spec: Spec, counts: Array) -> Spec:
    """Return what a tensor is as bitmask and values: bytes."""
    return Spec(DTYPES["uint8"], (bitmask_bytes(spec.n_elements, int(counts.sum()), spec.dtype.bits),))


def write_blocks(tensor: Tensor, counts: Array, sink: Sink, n_threads: int | None = None) -> None:
    """Append a tensor as index and blocks.

    Raises
    ------
    SourceError
        The values are not those that were counted.
    """
    import numpy as np

    sink.write((np.cumsum(counts) - counts).astype("<u8"))
    with threads(n_threads) as pool:
        for block, n_kept in zip(_blocks(tensor, pool), counts.tolist(), strict=True):
            mask = block != 0
            kept = np.flatnonzero(mask)  # of booleans: several times faster than of numbers
            if kept.size != n_kept:
                raise SourceError("the values changed while they were read", remedy="run it again")
            sink.write(np.packbits(mask, bitorder="little"))
            sink.write(block[kept].astype(f"<u{block.itemsize}", copy=False))


def _blocks(tensor: Tensor, pool: Executor | None) -> Iterator[Array]:
    """Yield a tensor's bits in the blocks of the format, whatever blocks its reader has; threads read ahead."""
    import numpy as np

    rest = np.empty(0, f"u{tensor.dtype.bits // 8}")
    for bits in run(_bits, _jobs(tensor), pool):
        joined = np.concatenate([rest, bits]) if rest.size else bits
        n_whole = joined.size // BITMASK_BLOCK * BITMASK_BLOCK
        yield from (joined[at : at + BITMASK_BLOCK] for at in range(0, n_whole, BITMASK_BLOCK))
        rest = joined[n_whole:]
    if rest.size:
        yield rest


def _jobs(tensor: Tensor) -> Iterable[tuple[Tensor, int, int]]:
    size = max(BLOCK_ELEMENTS, tensor.run_elements)
    for start, stop in plan.blocks(tensor.n_elements, tensor.reader.granularity, size):
        yield tensor, start, stop


def _bits(job: tuple[Tensor, int, int]) -> Array:
    tensor, start, stop = job
    found: Array = tensor.reader(start, stop).view(f"u{tensor.dtype.bits // 8}")
    return found
