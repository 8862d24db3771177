"""The verb ``diff``: what differs between two checkpoints, and what explains it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.grouping import resolve_grouping
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import GROUPING, KERNEL, READING, TAKING, THREADS, showing

if TYPE_CHECKING:
    from weighttools.analyzers.compare.matching import Matching
    from weighttools.analyzers.compare.pair import Pair
    from weighttools.analyzers.compare.rows import TensorChange
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import DiffRecord

OPTIONS = (
    Option(
        "map", default=(), many=True, metavar="OLD=NEW",
        help="What an old name is called now; * stands for any text, which the * of NEW repeats; \\= and \\* are "
        "plain. Repeatable.",
    ),
    Option("rtol", float, 0.0, least=0, help="Differences up to this part of the old value are none."),
    Option("atol", float, 0.0, least=0, help="Differences up to this are none."),
    Option("ignore_dtype", bool, False, "Another dtype alone is no difference."),
    Option("ignore_metadata", bool, False, "Other metadata are no difference."),
    *GROUPING,
    *showing("rel_l2 > 0.1 and dtype == bf16"),
    Option("content", bool, True, "Match by content what names do not; tensors without a partner are read for it."),
    Option("explain", bool, True, "Look for what explains the changes; changed tensors are read again."),
    Option(
        "others", default=(), many=True, metavar="C", flags=("--and",), is_path=True,
        help="Another checkpoint, which B may be a mean of with A: a moving average, a soup. Repeatable.",
    ),
    *TAKING,
    *THREADS,
    *KERNEL,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def diff(
    before: PathLike | TensorMap,
    after: PathLike | TensorMap,
    *,
    map: Sequence[str] = (),
    rtol: float = 0.0,
    atol: float = 0.0,
    ignore_dtype: bool = False,
    ignore_metadata: bool = False,
    by: str = "tensor",
    depth: int | None = None,
    where: str | None = None,
    sort: str | None = None,
    top: int | None = None,
    content: bool = True,
    explain: bool = True,
    others: Sequence[PathLike | TensorMap] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    kernel: str = "auto",
    planned: Progress = silent,
    progress: Progress = silent,
) -> DiffRecord:
    """Compare two checkpoints of any formats: names, shapes, dtypes, every value, and metadata.

    Parameters
    ----------
    before, after
        The old and the new checkpoint: paths as for `open`, or open maps.
    map
        ``OLD=NEW``: what an old name is called now. A ``*`` of OLD stands for any text, which that of NEW repeats;
        a backslash before ``=`` or ``*`` makes it an ordinary character.
    rtol, atol
        A difference within ``atol + rtol * abs(old)`` is none, as `numpy.isclose` has it.
    ignore_dtype
        Values are compared whatever their dtypes; this says that another dtype alone is no difference.
    ignore_metadata
        Other metadata are no difference.
    by, depth
        Rows for each changed tensor, or figures rolled up: see `stats`.
    where, sort, top
        Which rows to give, and in which order, as for `stats`.
    content
        Match by content what names do not: under other names, transposed, rounded to another dtype, joined or split,
        and a GGUF file's tensors with those of Hugging Face's classes. Tensors without a partner are read for it.
    explain
        Say what explains the changes, each with its evidence, and nothing where that is not sure. Changed tensors are
        read again for it, once; with tolerances, only those that are beyond them are looked at.
    others
        Further checkpoints, which the new one may be a weighted mean of with the old one; their tensors are read too.
    include, exclude
        As for `open`, of the names of either checkpoint.
    assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    kernel
        ``"numpy"``, ``"numba"`` (the extra ``[fast]``), or ``"auto"``: numba for gigabytes, where it is installed.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    DiffRecord
        A ``weighttools.diff/1`` record. NaN equals NaN and -0.0 equals 0.0 but for ``n_bits``; a tensor of which bits
        alone differ is listed with ``what`` ``"bits"``, and is a difference unless a tolerance is given. Tensors that
        are stored in the same bytes of the same file are not read.

    Raises
    ------
    TensorNotFoundError
        A pattern, or a name of `map`, is in neither checkpoint.
    SpecError
        An option does not fit.

    Examples
    --------
    >>> record = diff("fixtures/safetensors/tiny/model.safetensors", "fixtures/safetensors/tiny/model.safetensors")
    >>> record["same"], record["n_unchanged"]
    (True, 3)
    """
    from weighttools.analyzers.compare.matching import Rule, match
    from weighttools.analyzers.compare.rows import GROUP_COLUMNS, TENSOR_COLUMNS, groups, plain_rows, together
    from weighttools.analyzers.showing import Showing
    from weighttools.errors import SpecError
    from weighttools.formats.opening import name_of
    from weighttools.verbs.matching import stages

    by, parts = resolve_grouping(by, depth, "tensor")
    shown = Showing.checked(TENSOR_COLUMNS if by == "tensor" else GROUP_COLUMNS, where, sort, top)
    if isinstance(before, str) and before == after == "-":
        raise SpecError("standard input is read once", subject="-", expected="one of both from a file or directory")
    rules = [Rule.parse(text) for text in ([map] if isinstance(map, str) else map)]
    old, new = (open_checkpoint(path, assume=assume, root=root) for path in (before, after))
    old, new = _selected(old, new, include, exclude)
    matching = match(old, new, rules, stages(threads, progress) if content else ())
    changes = _compared(matching, (rtol, atol), _Means(threads, kernel, planned, progress))
    if content:
        changes = _turned(matching, changes)
    rows = [change.row() for change in changes if change.what]
    record: dict[str, Any] = {
        "schema": "weighttools.diff/1",
        "before": name_of(before),
        "after": name_of(after),
        "same": False,
        "n_before": len(old),
        "n_after": len(new),
        "n_unchanged": sum(1 for change in changes if not change.what),
        "n_changed": len(rows),
        **_names(matching, old, new),
        "changed": plain_rows(shown.of(rows) if by == "tensor" else rows),
        "by": by,
        "groups": None if by == "tensor" else plain_rows(shown.of(groups(changes, by, parts))),
        "total": plain_rows([together(changes)])[0],
        "metadata": _metadata(old, new),
        "explanation": [],
    }
    record["notes"] = _notes(old, new, bool(record["metadata"]))
    known = _opened(others, assume, root)
    if explain:
        found, notes = _explained(matching, changes, new, known, _Reading(threads, bool(rtol or atol)))
        record["explanation"] = found
        record["notes"] += notes
    counted = _Counted(bool(rtol or atol), not ignore_dtype, not ignore_metadata and _are_one_format(old, new))
    record["same"] = counted.is_same(record, matching, changes)
    return cast("DiffRecord", record)


def _selected(
    old: TensorMap, new: TensorMap, include: Sequence[str], exclude: Sequence[str]
) -> tuple[TensorMap, TensorMap]:
    """Take the tensors of both whose names match; a pattern need match in one of them only."""
    if not (include or exclude):
        return old, new
    from weighttools.core import patterns

    names = list(dict.fromkeys([*old, *new]))
    kept = set(patterns.matching_names(names, include, exclude))
    return old.keep(name for name in old if name in kept), new.keep(name for name in new if name in kept)


class _Means(NamedTuple):
    """By what means to compare values, and whom to tell."""

    threads: int | None
    kernel: str
    planned: Progress
    progress: Progress


def _compared(matching: Matching, tolerances: tuple[float, float], means: _Means) -> list[TensorChange]:
    from weighttools.analyzers.compare.figures import PairStateOf, compare_pairs
    from weighttools.analyzers.compare.rows import TensorChange
    from weighttools.analyzers.kernels.choice import choose_kernel
    from weighttools.core import engine

    n_bytes = sum(pair.before.spec.nbytes + pair.after.spec.nbytes for pair in matching.pairs)
    means.planned(n_bytes)
    of = PairStateOf(*tolerances, choose_kernel(means.kernel, n_bytes))
    with engine.threads_for(n_bytes, means.threads) as pool:
        figures = compare_pairs(matching.pairs, of, pool, engine.window_for(means.threads), means.progress)
        return [TensorChange(pair, one) for pair, one in zip(matching.pairs, figures, strict=True)]


def _turned(matching: Matching, changes: Sequence[TensorChange]) -> list[TensorChange]:
    """Return the changes, and in `matching` the pairs, with tensors of one name held against their transposes."""
    from weighttools.analyzers.compare.turned import reshaped_transposes, with_transposes

    turned = reshaped_transposes(matching.reshaped)
    found = [*with_transposes(changes), *turned]
    matching.pairs = [change.pair for change in found]
    gone = {change.pair.new for change in turned}
    matching.reshaped = [pair for pair in matching.reshaped if pair.new not in gone]
    return found


class _Reading(NamedTuple):
    """How changed tensors are read again, and whether only those beyond a tolerance are."""

    threads: int | None
    is_tolerant: bool


def _opened(
    others: PathLike | TensorMap | Sequence[PathLike | TensorMap], assume: str | None, root: str | None
) -> dict[str, TensorMap]:
    """Open further checkpoints, by what to call them."""
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import name_of

    several = [others] if isinstance(others, (str, bytes, os.PathLike, TensorMap)) else others
    found: dict[str, TensorMap] = {}
    for n, one in enumerate(several, 1):
        name = name_of(one)
        found[f"{name} ({n})" if name in found else name] = open_checkpoint(one, assume=assume, root=root)
    return found


def _explained(
    matching: Matching,
    changes: Sequence[TensorChange],
    new: TensorMap,
    others: Mapping[str, TensorMap],
    reading: _Reading,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what explains the changes, and what to say of other checkpoints."""
    counted = [c for c in changes if c.figures.n_changed and (c.figures.n_beyond or not reading.is_tolerant)]
    if not (counted or matching.reshaped):
        return [], []
    from weighttools.analyzers.compare.explain import explain
    from weighttools.analyzers.compare.explain.context import ExplanationContext
    from weighttools.core import engine

    n_bytes = sum(c.pair.before.spec.nbytes + c.pair.after.spec.nbytes for c in counted)
    with engine.threads_for(n_bytes, reading.threads) as pool:
        context = ExplanationContext(
            unchanged=[change.pair for change in changes if not change.figures.n_changed],
            reshaped=matching.reshaped,
            names=new,
            others=list(others.values()),
            other_names=list(others),
            executor=pool,
        )
        found = explain([(change.pair, change.figures) for change in counted], context)
    rows = [{**one._asdict(), "tensors": list(one.tensors)} for one in found]
    is_mean = any("weights" in one.evidence for one in found)
    if is_mean or not others:
        return rows, []
    return rows, [f"the changed tensors are no weighted mean of the old ones and those of {' and '.join(others)}"]


def _names(matching: Matching, old: TensorMap, new: TensorMap) -> dict[str, Any]:
    """Return what names, shapes and dtypes tell."""
    both = [*matching.pairs, *matching.reshaped]
    reshaped = [*matching.reshaped, *(pair for pair in matching.pairs if _is_folded(pair, old))]
    return {
        "added": [_row(name, new) for name in matching.added],
        "removed": [_row(name, old) for name in matching.removed],
        "renamed": [{"src": pair.old, "dst": pair.new, "how": pair.how} for pair in both if _is_other(pair)],
        "reshaped": [
            {"src": p.old, "dst": p.new, "before": list(old[p.old].shape), "after": list(p.after.shape)}
            for p in reshaped
        ],
        "recast": [
            {"src": p.old, "dst": p.new, "before": p.before.spec.label, "after": p.after.spec.label}
            for p in both
            if p.before.spec.label != p.after.spec.label
        ],
        "ties": matching.ties,
    }


def _is_folded(pair: Pair, old: TensorMap) -> bool:
    """Whether axes of length 1 came or went under one name: content sees through that, a model that loads it does not.

    Of two names the renaming says that something differs.
    """
    if pair.old != pair.new:
        return False
    before, after = old[pair.old].shape, pair.after.shape
    return before != after and [n for n in before if n != 1] == [n for n in after if n != 1]


def _is_other(pair: Pair) -> bool:
    """Whether a pair's tensors have two names, or lie otherwise."""
    return pair.old != pair.new or pair.how == "transposed"


def _row(name: str, tensor_map: TensorMap) -> dict[str, Any]:
    spec = tensor_map[name].spec
    return {"name": name, "dtype": spec.label, "shape": list(spec.shape), "n_elements": spec.n_elements}


def _metadata(old: TensorMap, new: TensorMap) -> list[dict[str, Any]]:
    from weighttools.analyzers.compare.metadata import patch
    from weighttools.formats.base import plain

    found = patch(old.metadata, new.metadata)
    return [{"op": e.op, "key": e.key, "before": plain(e.before), "after": plain(e.after)} for e in found]


def _are_one_format(old: TensorMap, new: TensorMap) -> bool:
    """Whether metadata of both are the same kind of thing."""
    return old.origin.format == new.origin.format


def _notes(old: TensorMap, new: TensorMap, has_patch: bool) -> list[str]:
    """Return what readers want said, and what does not count."""
    said = list(dict.fromkeys([*old.origin.notes, *new.origin.notes]))
    if has_patch and not _are_one_format(old, new):
        formats = " and ".join(one.origin.format or "a map in memory" for one in (old, new))
        said.append(f"metadata of {formats} are no difference, since the formats keep different ones")
    return said


class _Counted(NamedTuple):
    """Which kinds of differences count."""

    is_tolerant: bool
    dtypes: bool
    metadata: bool

    def is_same(self, record: dict[str, Any], matching: Matching, changes: Sequence[TensorChange]) -> bool:
        """Whether nothing that counts differs; a renaming that was asked for does not, nor a tie that is a copy."""
        if any((matching.added, matching.removed, record["reshaped"], matching.lost, matching.gained)):
            return False
        if any(row["how"] != "map" for row in record["renamed"]) or (self.dtypes and record["recast"]):
            return False
        if self.metadata and record["metadata"]:
            return False
        return not any(change.figures.n_beyond if self.is_tolerant else change.what for change in changes)
