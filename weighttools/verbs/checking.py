"""What `check` looks at, one after another: the files, the map that they make, its values, and another checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from weighttools.core.findings import ERROR, NOTE, WARNING, Finding
from weighttools.core.spec import Source
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, SpecError, UnsupportedError, few, option
from weighttools.formats import check_file, directory_files, read_file, refuse_unknown
from weighttools.formats.base import ReadOptions
from weighttools.formats.opening import PathLike, chosen, located, name_of, open
from weighttools.io.home import home_of
from weighttools.io.progress import Progress
from weighttools.io.source import open_source
from weighttools.verbs.record_types import AgainstRecord, FixedIndex


class CheckSubject(NamedTuple):
    """What is checked: the place that it lies at (empty: nowhere), standard input, an open map."""

    place: str
    options: ReadOptions
    piped: Source | None = None
    tensor_map: TensorMap | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is something that was opened, or could be."""
        return self.piped is not None or self.tensor_map is not None or os.path.exists(self.place)

    def files(self) -> list[Source]:
        """Return the files of the checkpoint; standard input has been read already."""
        if self.piped or not self.place:
            return [self.piped] if self.piped else []
        return [open_source(file) for file in directory_files(self.place)]

    def opened(self) -> TensorMap:
        """Return the map."""
        if self.tensor_map is not None:
            return self.tensor_map
        return read_file(self.piped, self.options) if self.piped else open(self.place, **self.options._asdict())


def subject_of(path: PathLike | TensorMap, options: ReadOptions) -> CheckSubject:
    """Find out what is to be checked, and where it lies."""
    if isinstance(path, TensorMap):
        home = home_of(path.origin)
        place = path.origin.path if home and home.is_there else ""
        return CheckSubject(place, options, tensor_map=chosen(path, (), (), options))
    place = located(os.fspath(path))
    piped = open_source(place, refuse_unknown) if place == "-" else None  # once: it is not read twice
    return CheckSubject(place, options, piped)


def of_files(subject: CheckSubject) -> Iterator[Finding]:
    """Yield what can be found without opening the checkpoint as a whole."""
    from weighttools.formats.huggingface import index_check
    from weighttools.io.beside import links_out

    try:
        files = subject.files()
        for file in files:
            yield from (_in_file(finding, file, len(files) > 1) for finding in check_file(file))
        names = [] if subject.piped else [file.name for file in files]
        for told in links_out(os.path.dirname(names[0]), names) if names and names != [subject.place] else ():
            yield Finding(NOTE, "linked-weights", told)
        for index in index_check.indexes(subject.place) if subject.place else ():
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


def of_map(tensor_map: TensorMap, base: PathLike | TensorMap | None, assume: str | None) -> Iterator[Finding]:
    """Yield what headers, metadata and the files beside them tell."""
    from weighttools.analyzers.checks import findings

    home = home_of(tensor_map.origin)
    yield from (Finding(NOTE, "linked-file", told) for told in (home.not_taken() if home else ()))
    yield from findings(tensor_map)
    yield from _left_out(tensor_map)
    if base is not None:
        from weighttools.analyzers.checks.adapter import check as fits

        yield from fits(tensor_map, base if isinstance(base, TensorMap) else open(base, assume=assume))


def of_values(tensor_map: TensorMap, threads: int | None, progress: Progress) -> Iterator[Finding]:
    """Yield what the values tell."""
    from weighttools.analyzers.checks import value_findings

    yield from value_findings(tensor_map, threads, progress)


def against_other(tensor_map: TensorMap, other: PathLike | TensorMap) -> tuple[AgainstRecord, list[Finding]]:
    """Return how the names line up with another checkpoint's, and what to find in that."""
    from weighttools.analyzers.alignment import align

    found = align(tensor_map, chosen(other, (), (), ReadOptions()))
    record = cast(AgainstRecord, {"path": name_of(other), **found.record()})
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


def write_indexes(subject: CheckSubject) -> list[FixedIndex]:
    """Write the index of a directory of shards anew; one that has none gets that of model.safetensors."""
    from weighttools.formats.huggingface import index_check

    place = subject.place
    if not place:
        fact = f"{option('fix_index')} writes beside shards, and these weights lie in no file"
        raise SpecError(fact, expected="the path of a directory of shards", code="options-exclude")
    found = index_check.indexes(place) or [Path(place) / "model.safetensors.index.json"]
    given = not os.path.isdir(place)
    return [{"index": str(index), "n_tensors": index_check.fix(index, follow=given)} for index in found]
