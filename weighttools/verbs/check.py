"""What is wrong with a checkpoint, or would be run or believed by what loads it: the verb `check`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from weighttools.core.engine import collector_paused
from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.patterns import listed
from weighttools.core.spec import Source
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, SourceError, UnsupportedError, few
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, located, open
from weighttools.io.ahead import planned_reading
from weighttools.io.progress import Progress, silent
from weighttools.verbs.records import Record


def check(
    path: PathLike,
    *,
    headers: bool = False,
    base: PathLike | None = None,
    against: PathLike | None = None,
    fix_index: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Look for what is dangerous, damaged or doubtful in a checkpoint; nothing of it is run.

    Parameters
    ----------
    path
        As for `open`. A file that cannot be opened is a finding, not an error.
    headers
        Read headers only, no values.
    base
        The base that the adapter at `path` is for: its factors must fit.
    against
        Another checkpoint: find the renaming that makes the names line up with its.
    fix_index
        First write model.safetensors.index.json anew from the shards, atomically.
    include, exclude
        The tensors whose values are looked at; as for `convert`.
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
    dict
        A ``weighttools.check/1`` record: its findings, each with severity (``"error"``, ``"warning"`` or ``"note"``),
        code (see `codes`), tensor, message and remedy; with `against` also how names line up, with `fix_index` what
        was written.

    Raises
    ------
    SourceError
        There is nothing to read there.
    """
    from weighttools.core.codes import remedied
    from weighttools.formats import members_check, read_file, refuse_unknown
    from weighttools.io.source import open_source

    record: Record = {"schema": "weighttools.check/1", "path": os.fspath(path)}
    place = located(os.fspath(path))
    if fix_index:
        record["fixed"] = _fixed(place)
    piped = open_source(place, refuse_unknown) if place == "-" else None  # once: standard input is not read twice
    found = list(_of_files(place, piped))
    try:
        with collector_paused():
            options = ReadOptions(assume, root)
            tensor_map = read_file(piped, options) if piped else open(path, assume=assume, root=root)
            found += _of_map(tensor_map, base, assume)
        if not headers:
            selected = tensor_map.select(*listed(include), exclude=exclude)
            try:
                with planned_reading(list(selected.values()), planned, progress) as told:
                    found += _of_values(selected, threads, told)
            finally:
                found = members_check.joined(found, _files(place, piped), selected)
        if against is not None:
            record["against"], more = _against(tensor_map, against)
            found += more
    except (FormatError, UnsupportedError, SourceError) as error:
        if not piped and not os.path.exists(place):
            raise
        if not any(finding.severity == ERROR for finding in found):
            found.append(Finding(ERROR, "unreadable", str(error)))
    return {**record, "findings": [remedied(finding).record() for finding in found]}


def _files(place: str, piped: Source | None) -> list[Source]:
    """Return the files of a checkpoint; standard input has been read already."""
    from weighttools.formats import directory_files
    from weighttools.io.source import open_source

    return [piped] if piped else [open_source(file) for file in directory_files(place)]


def _of_files(place: str, piped: Source | None) -> Iterator[Finding]:
    """Yield what can be found without opening the checkpoint as a whole."""
    from weighttools.formats import check_file
    from weighttools.formats.huggingface import index_check
    from weighttools.io.beside import links_out

    try:
        files = _files(place, piped)
        for file in files:
            yield from (_in_file(finding, file, len(files) > 1) for finding in check_file(file))
        names = [] if piped else [file.name for file in files]
        for told in links_out(os.path.dirname(names[0]), names) if names and names != [place] else ():
            yield Finding(NOTE, "linked-weights", told)
        for index in index_check.indexes(place):
            yield from index_check.check(index)
    except (FormatError, UnsupportedError) as error:
        yield Finding(ERROR, "unreadable", str(error))


def _in_file(finding: Finding, file: Source, is_one_of_many: bool) -> Finding:
    """Say which of several files a finding is of."""
    name = os.path.basename(file.name)
    if not is_one_of_many or name in finding.message:
        return finding
    return replace(finding, message=f"{name}: {finding.message}")


def _left_out(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what a reader leaves out of the file, as its notes say."""
    for note in tensor_map.origin.notes:
        if note.startswith("left out: "):
            outside = re.search(r"external|virtual", note)
            yield Finding(WARNING if outside else NOTE, "left-out", note)


def _of_map(tensor_map: TensorMap, base: PathLike | None, assume: str | None) -> Iterator[Finding]:
    from weighttools.analyzers.checks import findings
    from weighttools.analyzers.configuration import home_of
    from weighttools.io.beside import not_taken

    home = home_of(tensor_map.origin)
    yield from (Finding(NOTE, "linked-file", told) for told in (not_taken(home) if home is not None else ()))
    yield from findings(tensor_map)
    yield from _left_out(tensor_map)
    if base is not None:
        from weighttools.analyzers.checks.adapter import check as fits

        yield from fits(tensor_map, open(base, assume=assume))


def _of_values(tensor_map: TensorMap, threads: int | None, progress: Progress) -> Iterator[Finding]:
    from weighttools.analyzers.checks import value_findings

    yield from value_findings(tensor_map, threads, progress)


def _against(tensor_map: TensorMap, other: PathLike) -> tuple[Record, list[Finding]]:
    from weighttools.analyzers.alignment import align

    found = align(tensor_map, open(other))
    record = {"path": os.fspath(other), **found.record()}
    if not (found.rules or found.left or found.right or found.shapes):
        return record, []
    from weighttools.transforms.renaming import command_for

    wanted = {name: found.renamed.get(name, name) for name in [*tensor_map, *tensor_map.aliases]}
    command = command_for(tensor_map.origin.path, wanted, [rule.text() for rule in found.rules])
    if command:
        record["command"] = command
    rules = "; ".join(f"{rule.src!r} -> {rule.dst!r} ({rule.n_names:,} names)" for rule in found.rules)
    told = (
        f"{found.n_same:,} names line up, {len(found.renamed):,} after renaming, {len(found.left):,} are only here,"
        f" {len(found.right):,} only there, {len(found.shapes):,} have other shapes"
    )
    lists = {"only here": found.left, "only there": found.right, "of other shapes": list(found.shapes)}
    told += "".join(f"; {what}: {few(names, 3)}" for what, names in lists.items() if names)
    return record, [Finding(WARNING, "names-differ", told, remedy=command or (f"rename {rules}" if rules else None))]


def _fixed(place: str) -> list[Record]:
    """Write the index of a directory of shards anew; one that has none gets that of model.safetensors."""
    from weighttools.formats.huggingface import index_check

    found = index_check.indexes(place) or [Path(place) / "model.safetensors.index.json"]
    given = not os.path.isdir(place)
    return [{"index": str(index), "n_tensors": index_check.fix(index, follow=given)} for index in found]


def codes() -> list[Record]:
    """Return every code that a finding may have, with severities, meaning and remedy."""
    from weighttools.core.codes import CODES

    return [{"code": code, **row._asdict()} for code, row in CODES.items()]
