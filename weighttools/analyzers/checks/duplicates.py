"""Tensors of equal bytes, found by hashing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from weighttools.analyzers.checks.constants import is_constant
from weighttools.core.findings import NOTE, Finding
from weighttools.errors import few

if TYPE_CHECKING:
    from weighttools.analyzers.checks.values import SurveyedTensor
    from weighttools.analyzers.run import Block, Record
    from weighttools.core.spec import Spec

_WORTH_ELEMENTS = 64


class Digest(NamedTuple):
    """The hashes (xxh3_128) of a tensor's blocks; where blocks begin depends on nothing but its spec and encoding."""

    blocks: tuple[bytes, ...]

    def merge(self, other: Digest) -> Digest:
        """Return the hashes of both parts."""
        return Digest(self.blocks + other.blocks)

    def finish(self, spec: Spec | None = None) -> Record:
        """Return one hash of all."""
        return {"digest": xxhash.xxh3_128_hexdigest(b"".join(self.blocks))}


def of(block: Block) -> Digest:
    """Hash a block's elements as they are in memory."""
    return Digest((xxhash.xxh3_128_digest(np.ascontiguousarray(block.values).view(np.uint8).data),))


def check(seen: Sequence[SurveyedTensor]) -> Iterator[Finding]:
    """Yield a finding for each set of tensors of one dtype, shape and content; constants and tiny ones do not count."""
    groups: dict[tuple[object, ...], list[SurveyedTensor]] = defaultdict(list)
    for tensor in seen:
        if tensor.spec.n_elements >= _WORTH_ELEMENTS and not is_constant(tensor):
            groups[tensor.spec.dtype, tensor.spec.shape, tensor.digest].append(tensor)
    for first, *copies in groups.values():
        if copies:
            n_bytes = len(copies) * first.spec.nbytes
            names = few([repr(copy.name) for copy in copies], 3)
            message = f"{first.name!r} is stored again as {names}: {n_bytes:,} bytes twice"
            yield Finding(NOTE, "duplicate", message, first.name)
