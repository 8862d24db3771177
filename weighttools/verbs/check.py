"""The verb ``check``: what is wrong with a checkpoint, or would be run or believed by what loads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import READING, TAKING, THREADS

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import CheckRecord, CodeRow, FindingRow

OPTIONS = (
    Option("headers", bool, False, "Read headers only: skip the checks of values."),
    Option("base", is_path=True, metavar="PATH", help="The base of this adapter: its factors must fit."),
    Option(
        "against", is_path=True, metavar="OTHER",
        help="Find the renaming that makes the names those of another checkpoint.",
    ),
    Option("fix_index", bool, False, "First write model.safetensors.index.json anew from the shards."),
    *TAKING,
    *THREADS,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def check(
    path: PathLike | TensorMap,
    *,
    headers: bool = False,
    base: PathLike | TensorMap | None = None,
    against: PathLike | TensorMap | None = None,
    fix_index: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> CheckRecord:
    """Look for what is dangerous, damaged or doubtful in a checkpoint; nothing of it is run.

    Parameters
    ----------
    path
        As for `open`. A file that cannot be opened is a finding, not an error. Or an open map: its values and metadata
        are looked at as they are in it, and the file that it was opened from, if there is one, as it lies there.
    headers
        Read headers only, no values.
    base
        The base that the adapter at `path` is for: its factors must fit.
    against
        Another checkpoint: find the renaming that makes the names line up with its.
    fix_index
        First write model.safetensors.index.json anew from the shards, atomically.
    include, exclude
        The tensors whose values are looked at; as for `open`.
    assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    CheckRecord
        A ``weighttools.check/1`` record: its findings, each with severity (``"error"``, ``"warning"`` or ``"note"``),
        code (see `codes`), tensor, message and remedy; with `against` also how names line up, with `fix_index` what
        was written.

    Raises
    ------
    SourceError
        There is nothing to read there.
    """
    from weighttools.core.codes import remedied
    from weighttools.core.engine import collector_paused
    from weighttools.core.findings import ERROR, Finding
    from weighttools.core.patterns import listed
    from weighttools.errors import FormatError, SourceError, UnsupportedError
    from weighttools.formats import members_check
    from weighttools.formats.base import ReadOptions
    from weighttools.formats.opening import name_of
    from weighttools.io.ahead import planned_reading
    from weighttools.verbs.checking import against_other, of_files, of_map, of_values, subject_of, write_indexes

    subject = subject_of(path, ReadOptions(assume, root))
    record: CheckRecord = {"schema": "weighttools.check/1", "path": name_of(path), "findings": []}
    if fix_index:
        record["fixed"] = write_indexes(subject)
    found = list(of_files(subject))
    try:
        with collector_paused():
            tensor_map = subject.opened()
            found += of_map(tensor_map, base, assume)
        if not headers:
            selected = tensor_map.select(*listed(include), exclude=exclude)
            try:
                with planned_reading(list(selected.values()), planned, progress) as told:
                    found += of_values(selected, threads, told)
            finally:
                found = members_check.joined(found, subject.files(), selected)
        if against is not None:
            record["against"], more = against_other(tensor_map, against)
            found += more
    except (FormatError, UnsupportedError, SourceError) as error:
        if not subject.is_there:
            raise
        if not any(finding.severity == ERROR for finding in found):
            found.append(Finding(ERROR, "unreadable", str(error)))
    record["findings"] = [cast("FindingRow", remedied(finding).record()) for finding in found]
    return record


def codes() -> list[CodeRow]:
    """Return every code that a finding may have, with severities, meaning and remedy."""
    from weighttools.core.codes import CODES

    return [cast("CodeRow", {"code": code, **row._asdict()}) for code, row in CODES.items()]
