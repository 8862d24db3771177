"""Random numbers by place: determined by seed, tensor name and position alone, so that any run can be drawn alone.

A tensor is cut into segments of 65,536 elements, each with a Philox generator of its own (key: a digest of seed, name
and use; counter: the segment). The result depends neither on the size of the blocks, nor on threads, nor on what other
tensors there are; to reach a run, no more than the segments that hold it are drawn. What is drawn for one use (initial
weights, noise, pruning) is independent of what is drawn for another.

NumPy keeps the bits of Philox; how they become normal numbers it may change between its minor versions.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from weighttools.core.spec import Array

SEGMENT = 1 << 16
"""Elements that share a generator."""


class SegmentPart(NamedTuple):
    """Elements `first` to `last` of a segment, which are those from `at` on of a run."""

    segment: int
    first: int
    last: int
    at: int


def parts(start: int, stop: int) -> Iterator[SegmentPart]:
    """Yield the parts of segments that make up elements `start` to `stop`.

    >>> list(parts(65530, 65540))
    [SegmentPart(segment=0, first=65530, last=65536, at=0), SegmentPart(segment=1, first=0, last=4, at=6)]
    """
    for segment in range(start // SEGMENT, -(-stop // SEGMENT)):
        base = segment * SEGMENT
        first, last = max(start, base), min(stop, base + SEGMENT)
        yield SegmentPart(segment, first - base, last - base, first - start)


@dataclass(frozen=True, slots=True)
class Numbers:
    """The random numbers that belong to a seed, a tensor's name and a use (at most 16 ASCII letters)."""

    seed: int
    name: str
    use: str = ""

    def generator(self, segment: int) -> np.random.Generator:
        """Return a segment's generator, at its beginning."""
        text, person = f"{self.seed}\0{self.name}".encode("utf-8", "surrogatepass"), self.use.encode("ascii")
        digest = hashlib.blake2b(text, digest_size=16, person=person).digest()
        key = np.frombuffer(digest, "<u8").astype(np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, segment, 0]))

    def words(self, start: int, stop: int) -> Array:
        """Return 32 random bits (uint32) for each element from `start` to `stop`."""
        return self._filled(start, stop, np.dtype(np.uint32), _words)

    def normals(self, start: int, stop: int) -> Array:
        """Return a standard normal number (float64) for each element from `start` to `stop`."""
        return self._filled(start, stop, np.dtype(np.float64), np.random.Generator.standard_normal)

    def _filled(self, start: int, stop: int, dtype: np.dtype[Any], make: Callable[..., Array]) -> Array:
        out = np.empty(stop - start, dtype)
        for part in parts(start, stop):
            drawn = make(self.generator(part.segment), part.last)  # the first n are the same whatever follows
            out[part.at : part.at + part.last - part.first] = drawn[part.first :]
        return out


def _words(rng: np.random.Generator, n: int) -> Array:
    raw: Array = rng.bit_generator.random_raw(-(-n // 2)).astype("<u8", copy=False)
    return raw.view("<u4")[:n]
