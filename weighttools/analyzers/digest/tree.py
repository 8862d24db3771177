"""The tree of digests: of pieces, of tensors, of all.

Pieces are cut at fixed elements and hashed apart, so threads, executors and machines give the same, and a piece that
changed is located. The definition, for other programs, is ``examples/content-hash.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.digest.algorithms import hasher
from weighttools.analyzers.digest.canonical import canonical_bytes
from weighttools.core import engine
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor, confirm
from weighttools.core.tensormap import TensorMap
from weighttools.io.progress import Progress, silent

if TYPE_CHECKING:
    from concurrent.futures import Executor

VERSION = 1
"""Of the definition; it goes into every digest, so that those of two versions never agree by accident."""
PIECE_ELEMENTS = 1 << 20
"""Elements of a piece: every packing and every quantised block divides it."""
_BATCH = 256
"""How many small tensors go into one job."""


class TensorDigest(NamedTuple):
    """The digest of a tensor, and those of its pieces."""

    digest: bytes
    pieces: tuple[bytes, ...]


class _Run(NamedTuple):
    """Whole pieces of the tensor numbered `number`."""

    number: int
    tensor: Tensor
    start: int
    stop: int


class _Job(NamedTuple):
    """Runs to hash in one go, and how; it pickles."""

    runs: tuple[_Run, ...]
    algorithm: str
    is_decoded: bool


def digests(
    tensors: Iterable[Tensor],
    algorithm: str,
    is_decoded: bool = False,
    executor: Executor | None = None,
    window: int = 4,
    progress: Progress = silent,
) -> Iterator[TensorDigest]:
    """Yield the digest of each tensor, in order; each is read once.

    Parameters
    ----------
    tensors
        Any.
    algorithm
        One of `ALGORITHMS`.
    is_decoded
        Whether quantised tensors go by their decoded values, and not by their blocks.
    executor, window
        As for `weighttools.core.engine.run`.
    progress
        Called with the number of bytes, unpacked, just done.

    Raises
    ------
    CorruptFileError
        What was read is not what its archive's CRC-32 tells.
    """
    hasher(algorithm)  # a package that is missing is told before anything is read
    asked = list(tensors)
    jobs = (_Job(runs, algorithm, is_decoded) for runs in _batches(asked))
    done = (part for parts in engine.run(_hashed, jobs, executor, window) for part in parts)
    for number, parts in groupby(done, key=lambda part: part[0]):
        pieces: list[bytes] = []
        for _, found, n_bytes in parts:
            pieces += found
            progress(n_bytes)
        confirm(asked[number])
        yield TensorDigest(tensor_digest(asked[number], pieces, algorithm, is_decoded), tuple(pieces))


def _batches(tensors: list[Tensor]) -> Iterator[tuple[_Run, ...]]:
    batch: list[_Run] = []
    n = 0
    for number, tensor in enumerate(tensors):
        for start, stop in _runs(tensor):
            batch.append(_Run(number, tensor, start, stop))
            n += stop - start
            if n >= PIECE_ELEMENTS or len(batch) >= _BATCH:
                yield tuple(batch)
                batch, n = [], 0
    if batch:
        yield tuple(batch)


def _runs(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Cut a tensor into pieces, or into several at once where its reader reads no less; none are one empty run."""
    if tensor.n_elements <= PIECE_ELEMENTS:
        yield 0, tensor.n_elements
        return
    step = -(-tensor.run_elements // PIECE_ELEMENTS) * PIECE_ELEMENTS
    for start in range(0, tensor.n_elements, step):
        yield start, min(start + step, tensor.n_elements)


def _hashed(job: _Job) -> list[tuple[int, list[bytes], int]]:
    """Return for each run its tensor's number, the digests of its pieces, and its size in bytes."""
    return [(run.number, _pieces(run, job), run.tensor.dtype.nbytes(run.stop - run.start)) for run in job.runs]


def _pieces(run: _Run, job: _Job) -> list[bytes]:
    if run.start == run.stop:
        return []
    begin = hasher(job.algorithm)
    data = canonical_bytes(run.tensor, run.start, run.stop, job.is_decoded)
    size = piece_bytes(run.tensor, job.is_decoded)
    found = []
    for at in range(0, data.size, size):
        state = begin()
        state.update(data[at : at + size].data)
        found.append(state.digest())
    return found


def piece_bytes(tensor: Tensor, is_decoded: bool = False) -> int:
    """Return how many canonical bytes a whole piece has."""
    from weighttools.core.encodings import block_of

    block = None if is_decoded else block_of(tensor.spec.encoding)
    return tensor.dtype.nbytes(PIECE_ELEMENTS) if block is None else PIECE_ELEMENTS // block.elements * block.n_bytes


def tensor_digest(tensor: Tensor, pieces: Iterable[bytes], algorithm: str, is_decoded: bool = False) -> bytes:
    """Return the digest of a tensor: of a line that tells its type and shape, and of its pieces' digests."""
    return joined_digest(kind_of(tensor.spec, is_decoded), tensor.shape, pieces, algorithm)


def kind_of(spec: Spec, is_decoded: bool = False) -> str:
    """Return what a digest calls a tensor's elements: the quantisation, unless it goes by values, or the dtype."""
    return spec.dtype.name if is_decoded else spec.label


def joined_digest(kind: str, shape: Iterable[int], pieces: Iterable[bytes], algorithm: str) -> bytes:
    """Return the digest of a tensor of which no more is known than its kind, its shape and its pieces' digests."""
    state = hasher(algorithm)()
    state.update(f"weighttools tensor {VERSION} {kind} {','.join(map(str, shape))}\n".encode())
    for piece in pieces:
        state.update(piece)
    return state.digest()


def content_digest(named: Mapping[str, bytes], algorithm: str) -> bytes:
    """Return the digest of all: of names, in the order of their UTF-8 bytes, and their tensors' digests.

    Lone surrogates, as names of no UTF-8 have them, stand for the bytes that they were read from.
    """
    state = hasher(algorithm)()
    state.update(f"weighttools content {VERSION}\n".encode())
    for name, digest in sorted((_encoded(name), digest) for name, digest in named.items()):
        state.update(len(name).to_bytes(8, "little"))
        state.update(name)
        state.update(digest)
    return state.digest()


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def named_digests(
    tensor_map: TensorMap, found: Iterable[TensorDigest]
) -> tuple[dict[str, TensorDigest], dict[str, bytes]]:
    """Return the digests by stored name, and those of all names: a tie has that of its tensor."""
    stored = dict(zip(tensor_map, found, strict=True))
    named = {name: one.digest for name, one in stored.items()}
    return stored, named | {alias: named[kept] for alias, kept in tensor_map.aliases.items()}
