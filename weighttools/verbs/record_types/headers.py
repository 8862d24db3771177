"""Records of what headers tell: inspect, params, estimate and formats."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Sizes(TypedDict):
    """How much there is of something: tensors, their elements (each counted once), and the bytes that hold them."""

    n_tensors: int
    n_elements: int
    stored_bytes: int


class Counts(TypedDict):
    """`n_elements` is every element of every stored tensor, once.

    It is the sum of `n_state` (training state: an optimizer's, a callback's), `n_buffers` (integers, running
    statistics, tables, masks) and `n_parameters` (all else). Ties count once; packed 4- and 6-bit dtypes by element.
    """

    n_parameters: int
    n_buffers: int
    n_state: int
    n_elements: int
    stored_bytes: int


class TensorRow(TypedDict):
    """A tensor, from the header; `offset` and `file` are null for one that lies in no file as one run of bytes."""

    name: str
    dtype: str
    shape: list[int]
    n_elements: int
    stored_bytes: int
    encoding: str
    offset: int | None
    file: str | None


class Bitmasks(TypedDict):
    """Tensors that are stored as bitmasks: the bytes that they take, and would take otherwise (`raw_bytes`)."""

    n_tensors: int
    stored_bytes: int
    raw_bytes: int


class PieceRow(TypedDict):
    """A run of a file's bytes; `what`: tensors, padding, gap, or a part of the format's, such as header."""

    offset: int
    n_bytes: int
    what: str


class OverlapRow(TypedDict):
    """Bytes that belong to two tensors."""

    offset: int
    n_bytes: int
    tensors: list[str]


class ShareRow(TypedDict):
    """How many pieces or tensors (`n`) are something, and the bytes that they take."""

    what: str
    n: int
    n_bytes: int


class FileLayout(TypedDict):
    """One file's bytes.

    `parts` add up to `n_bytes`; `pieces` are the same in the file's order. `dtypes`, `roles` and `modules` (names cut
    to two parts, numbers as one) are of its tensors, each counted whole: bytes that two share count twice. `head` and
    `tail` are its first and last bytes in hexadecimal. Lists of pieces, gaps and overlaps are cut at 1,000; `n_pieces`,
    `n_gaps` and `n_overlaps` count all.
    """

    path: str
    n_bytes: int
    parts: list[ShareRow]
    n_pieces: int
    pieces: list[PieceRow]
    n_gaps: int
    gaps: list[PieceRow]
    n_overlaps: int
    overlaps: list[OverlapRow]
    dtypes: list[ShareRow]
    roles: list[ShareRow]
    modules: list[ShareRow]
    head: str
    tail: str
    tail_offset: int


class LayoutRecord(TypedDict):
    """Where everything lies; the first values of each tensor, null where they are not read, NaN and Inf as words."""

    files: list[FileLayout]
    first_values: dict[str, list[Any] | None]
    notes: list[str]


class InspectRecord(Counts):
    """``weighttools.inspect/1``.

    `kind` is what the checkpoint looks like, `evidence` why. `aliases` maps each further name of a tensor to the one
    that is listed. `values` are small values beside the tensors, `foreign_globals` what a loader of a pickle would
    import or call (name, n_calls, offset). `bitmasks` is there if any tensor is stored as one, `expanded` if texts of
    `metadata` are JSON objects or arrays: these by key. `layout` is there if it is asked for.
    """

    schema: str
    path: str
    format: str
    kind: str
    evidence: list[str]
    metadata: dict[str, Any]
    expanded: NotRequired[dict[str, Any]]
    n_tensors: int
    dtypes: dict[str, Sizes]
    bitmasks: NotRequired[Bitmasks]
    aliases: dict[str, str]
    values: dict[str, Any]
    foreign_globals: list[dict[str, Any]]
    files: list[str]
    notes: list[str]
    tensors: list[TensorRow]
    layout: NotRequired[LayoutRecord]


class GroupRow(TypedDict):
    """A group of tensors; `because`, with ``by="role"``: what says so, and of how many tensors."""

    group: str
    n_tensors: int
    n_parameters: int
    n_buffers: int
    n_state: int
    stored_bytes: int
    because: NotRequired[dict[str, int]]


class ParamsRecord(Counts):
    """``weighttools.params/1``."""

    schema: str
    path: str
    aliases: dict[str, str]
    notes: list[str]
    groups: list[GroupRow]


class LoadRow(TypedDict):
    """Bytes of all tensors with parameters in a dtype, or ``as stored``."""

    dtype: str
    n_bytes: int


class TrainRow(TypedDict):
    """Bytes to train all parameters; `master_bytes` is a float32 copy of weights of 16 bits."""

    optimizer: str
    precision: str
    weights_bytes: int
    gradients_bytes: int
    master_bytes: int
    optimizer_bytes: int
    n_bytes: int


class CacheRecord(TypedDict):
    """Bytes of a cache of keys and values: for a token, and for `batch` sequences of `context` tokens."""

    n_layers: int
    n_kv_heads: int
    head_dim: int
    dtype: str
    context: int
    batch: int
    bytes_per_token: int
    n_bytes: int


class EstimateRecord(TypedDict):
    """``weighttools.estimate/1``; where `kv_cache` is null, `kv_cache_note` says why."""

    schema: str
    path: str
    n_parameters: int
    load: list[LoadRow]
    train: list[TrainRow]
    kv_cache: CacheRecord | None
    kv_cache_note: str | None
    not_included: list[str]
    notes: list[str]


class FormatRow(TypedDict):
    """A format: whether it is read and written, the extra that it needs; the package that adds it, and its failure."""

    format: str
    what: str
    suffixes: list[str]
    reads: bool
    writes: bool
    extra: str
    package: str
    error: str
