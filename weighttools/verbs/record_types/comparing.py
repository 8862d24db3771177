"""Records of what checkpoints hold, held against others: diff and hash."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class NamedSpec(TypedDict):
    """A tensor of one checkpoint only."""

    name: str
    dtype: str
    shape: list[int]
    n_elements: int


class Renamed(TypedDict):
    """Tensors that belong together under two names: `how` is map, tie, renamed, transposed, cast, joined, split, …"""

    src: str
    dst: str
    how: str


class Reshaped(TypedDict):
    """One tensor of two shapes."""

    src: str
    dst: str
    before: list[int]
    after: list[int]


class Recast(TypedDict):
    """One tensor of two dtypes or encodings."""

    src: str
    dst: str
    before: str
    after: str


class ChangedRow(TypedDict):
    """How a tensor changed, over the elements that are finite on both sides but for the counts.

    `what` is values, or bits where no value differs but -0.0 or a NaN has other bits. `n_bits` is null where dtypes
    differ; `share` is `n_changed` an element; `n_beyond` are outside the tolerances; `n_zeroed` are zero and were not.
    `max_abs` is the greatest difference, first at the index `max_at`; `l2` is the norm of the difference, `rel_l2` that
    by `l2_before`. Where an element became NaN or infinite, or ceased to be so, these are infinite (null, and sorted
    first), `max_at` is the first such, and `cosine` is null.
    """

    name: str
    src: str
    what: str
    dtype: str
    shape: list[int]
    n_elements: int
    n_bits: int | None
    n_changed: int
    share: float | None
    n_beyond: int
    n_not_finite: int
    n_zeroed: int
    max_abs: float | None
    max_at: list[int] | None
    l2: float | None
    rel_l2: float | None
    cosine: float | None
    l2_before: float | None
    l2_after: float | None


class ChangedTotal(TypedDict):
    """The same of several pairs together; `l2` and `rel_l2` are over the tensors that changed."""

    n_tensors: int
    n_tensors_changed: int
    n_elements: int
    n_changed: int
    share: float | None
    n_not_finite: int
    max_abs: float | None
    l2: float | None
    rel_l2: float | None


class ChangedGroup(ChangedTotal):
    """Those of a module, a dtype or the beginning of a name."""

    group: str


class MetadataEntry(TypedDict):
    """A line of the patch of metadata: `op` is +, - or ~; parts of a nested key are joined by dots."""

    op: str
    key: str
    before: Any
    after: Any


class ExplanationRow(TypedDict):
    """What explains a change: `code` names the kind, `evidence` has the figures that it rests on.

    `weighttools.analyzers.compare.explain.CODES` says what each code means; each has keys of its own in `evidence`.
    """

    code: str
    text: str
    tensors: list[str]
    evidence: dict[str, Any]


class Ties(TypedDict):
    """Ties of one checkpoint only: alias to the name that is stored."""

    added: dict[str, str]
    removed: dict[str, str]


class DiffRecord(TypedDict):
    """``weighttools.diff/1``; `groups` is null but for rows rolled up, where `changed` has all tensors."""

    schema: str
    before: str
    after: str
    same: bool
    n_before: int
    n_after: int
    n_unchanged: int
    n_changed: int
    added: list[NamedSpec]
    removed: list[NamedSpec]
    renamed: list[Renamed]
    reshaped: list[Reshaped]
    recast: list[Recast]
    ties: Ties
    changed: list[ChangedRow]
    by: str
    groups: list[ChangedGroup] | None
    total: ChangedTotal
    metadata: list[MetadataEntry]
    explanation: list[ExplanationRow]
    notes: list[str]


class TensorHash(TypedDict):
    """The digest of a tensor."""

    name: str
    dtype: str
    shape: list[int]
    hash: str


class FileHash(TypedDict):
    """Digests of a file's bytes; `autov3` is null but for safetensors."""

    path: str
    size: int
    sha256: str
    autov2: str
    autov3: str | None


class HashRecord(TypedDict):
    """``weighttools.hash/1``; `content` is of names, dtypes, shapes and bits, and `files` is there if asked for."""

    schema: str
    path: str
    algorithm: str
    version: int
    content: str
    n_tensors: int
    decoded: bool
    tensors: list[TensorHash]
    aliases: dict[str, str]
    files: NotRequired[list[FileHash]]
    notes: list[str]


class ProblemRow(TypedDict):
    """What is not as it should be: `what` is missing, extra, changed or unverified, `kind` file or tensor."""

    what: str
    kind: str
    name: str
    detail: str | None


class VerifyRecord(TypedDict):
    """``weighttools.verify/1``; `against` is manifest, oms or cache."""

    schema: str
    path: str
    checkpoint: str
    against: str
    same: bool
    n_files: int
    n_tensors: int
    problems: list[ProblemRow]
    notes: list[str]


class TracedCheckpoint(TypedDict):
    """A checkpoint of the series: its step is what its name or trainer_state.json says, or else its place."""

    path: str
    step: int


class FirstNotFinite(TypedDict):
    """At which step an element first is NaN or infinite, in which tensor (the first such), and its flat position."""

    tensor: str
    step: int
    at: int


class TraceFigures(TypedDict):
    """Figures over a series; lists have an entry for each checkpoint, null where there is none."""

    n_tensors: int
    n_elements: int
    norm: list[float | None]
    update: list[float | None]
    cosine: list[float | None]
    sparsity: list[float | None]
    n_not_finite: list[int]
    norm_last: float | None
    update_last: float | None
    cosine_mean: float | None
    sparsity_last: float | None
    unchanged_since: int | None
    first_not_finite: FirstNotFinite | None


class TraceRow(TraceFigures):
    """Those of a tensor (`name`) or a group (`group`)."""

    name: NotRequired[str]
    group: NotRequired[str]


class TraceRecord(TypedDict):
    """``weighttools.trace/1``."""

    schema: str
    checkpoints: list[TracedCheckpoint]
    by: str
    rows: list[TraceRow]
    total: TraceFigures
    notes: list[str]


class GitSetupRecord(TypedDict):
    """``weighttools.git-setup/1``: `scope` is local or global; `changed` is false where there was nothing to remove."""

    schema: str
    scope: str
    attributes: str
    patterns: list[str]
    removed: bool
    changed: bool
    notes: list[str]
