"""What a write will do, and doing it: `plan` looks at headers and at the target alone, and the Plan writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.encodings import bitmask_bytes
from weighttools.core.memory import keep_pages
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.formats import load
from weighttools.formats.base import WriteOptions
from weighttools.formats.huggingface import format as huggingface
from weighttools.io.home import home_of
from weighttools.io.progress import Progress, silent
from weighttools.io.source import path_of_url
from weighttools.transforms.cast import native_floats
from weighttools.write import destination
from weighttools.write.destination import Destination, choose_destination
from weighttools.write.peak import planned_peak
from weighttools.write.protection import Target, real, refuse_loss
from weighttools.write.writing import execute, names_of_companions

if TYPE_CHECKING:
    from weighttools.write.verify import Verification

Record = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """A write that can be done: `record` says what it will do, `execute` does it, once.

    Parameters
    ----------
    tensor_map
        What is written.
    original
        The map before conversions, with which the record compares dtypes.
    destination
        Where it goes.
    compression, store, force, beside, verify, further
        As of `plan`.
    replaced
        Files of a target directory that are not there, or not the same, once the new ones are.
    bitmasks
        What bitmasks would keep, once it is counted.
    """

    tensor_map: TensorMap
    original: TensorMap
    destination: Destination
    compression: str | None = None
    store: str | None = None
    force: bool = False
    beside: Mapping[str, bytes] = field(default_factory=dict)
    verify: bool = False
    further: Callable[[TensorMap], object] | None = None
    replaced: list[str] = field(default_factory=list)
    bitmasks: Mapping[str, Any] | None = None

    @property
    def n_bytes(self) -> int:
        """How many bytes `execute` tells its progress: each value once, and for `store` and `verify` once more."""
        return self._n_value_bytes() * (1 + bool(self.store) + self.verify)

    @property
    def record(self) -> Record:
        """The ``weighttools.convert/1`` record of what would be written."""
        return self._record(_known(self.tensor_map), self._proof(silent), written=False)

    def target(self, name: str = "the output") -> Target:
        """Return every file that is made or removed, to be held against other targets.

        Parameters
        ----------
        name
            What to call it in a message.
        """
        to = self.destination
        if to.path == "-":
            return Target(name, to.path, frozenset())
        if not to.is_directory:
            return Target(name, to.path, frozenset({real(to.path)}))
        names = {*to.files, *self.beside, *self.replaced, *names_of_companions(self.tensor_map)}
        return Target(name, to.path, frozenset(real(Path(to.path) / one) for one in names), is_directory=True)

    def run(self, *, dry_run: bool = False, planned: Progress = silent, progress: Progress = silent) -> Record:
        """Execute the plan or, in a `dry_run`, only find out what would come of it; return the record.

        Parameters
        ----------
        planned
            Called once with the number of bytes that `progress` will be told.
        progress
            Called with the number of bytes just written, or just looked at where `store` counts them first.
        """
        planned(self._n_value_bytes() * bool(self.store) if dry_run else self.n_bytes)
        if not dry_run:
            return self.execute(progress)
        self._count(progress)
        return self.record

    def execute(self, progress: Progress = silent, last: Callable[[], object] = lambda: None) -> Record:
        """Write, whole or not at all, and return the record.

        Parameters
        ----------
        progress
            As of `run`.
        last
            Called when all is written and nothing has its name yet; if it fails, nothing gets it.

        Raises
        ------
        SourceError
            The target exists and `force` is not given, or cannot be written; it is then as it was.
        """
        self._count(progress)
        changed, reports = _watched(self.tensor_map)
        proof = self._proof(progress)
        options = WriteOptions(None, self.compression, self.bitmasks or {}, self.beside)
        with keep_pages():
            execute(changed, self.destination, options, self.force, progress, last, proof)
        return self._record(reports(), proof, written=True)

    def _n_value_bytes(self) -> int:
        return sum(tensor.spec.encoded_bytes for tensor in self.tensor_map.values())

    def _count(self, progress: Progress) -> None:
        """Count what bitmasks would keep, if they are asked for and it is not known yet; it reads all values."""
        if self.store is None or self.bitmasks is not None:
            return
        from weighttools.encodings.bitmask import counted

        self.bitmasks = counted(self.tensor_map, progress=progress)
        self.destination.notes.append(
            f"{len(self.bitmasks):,} tensors are stored as bitmasks, which weighttools reads and no other tool; "
            "weighttools convert makes plain tensors of them"
            if self.bitmasks
            else "no tensor takes less room as a bitmask: all are stored as ever"
        )

    def _proof(self, progress: Progress) -> Verification | None:
        """Return what reads back what was written, if that is asked for."""
        if not self.verify:
            return None
        from weighttools.write.verify import Verification

        return Verification(self.tensor_map, self.destination, self.bitmasks or {}, progress, self.further)

    def _stored_sizes(self) -> dict[str, int]:
        """Return how many bytes each tensor takes."""
        sizes = {name: tensor.spec.encoded_bytes for name, tensor in self.tensor_map.items()}
        for name, counts in (self.bitmasks or {}).items():
            spec = self.tensor_map[name].spec
            sizes[name] = bitmask_bytes(spec.n_elements, int(counts.sum()), spec.dtype.bits)
        return sizes

    def _record(self, reports: list[Mapping[str, Any]], proof: Verification | None, *, written: bool) -> Record:
        record = {**self._written(written), "replaced": self.replaced, **(proof.record() if proof else {})}
        if not reports:
            return record
        from weighttools.transforms.tally import emptied

        return record | {"transforms": reports, "notes": [*record["notes"], *emptied(reports[-1])]}

    def _written(self, written: bool) -> Record:
        to, sizes = self.destination, self._stored_sizes()
        pairs = [(self.tensor_map[name].spec, self.original[name].spec) for name in self.tensor_map]
        planning = max((report.get("planning_bytes", 0) for report in self.tensor_map.origin.reports), default=0)
        return {
            "schema": "weighttools.convert/1",
            "src": self.tensor_map.origin.path,
            "dst": to.path,
            "format": huggingface.NAME if to.is_directory else to.format,
            "written": written,
            "n_tensors": len(self.tensor_map),
            "n_cast": sum(now.dtype != then.dtype for now, then in pairs),
            "n_dequantized": sum(then.is_quantized and not now.is_quantized for now, then in pairs),
            "n_quantized": sum(now.is_quantized and not then.is_quantized for now, then in pairs),
            "stored_bytes": sum(sizes.values()),
            "planned_peak_bytes": max(planned_peak(self.tensor_map.values()), planning),
            "files": [_file_record(sizes, file, names) for file, names in to.files.items()],
            "notes": list(to.notes),
        }


def plan(
    tensor_map: TensorMap,
    dst: str,
    *,
    original: TensorMap | None = None,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    npz_bf16: str = "keep",
    force: bool = False,
    beside: Mapping[str, bytes] | None = None,
    verify: bool = False,
    further: Callable[[TensorMap], object] | None = None,
) -> Plan:
    """Choose how a map is written, and refuse what cannot be, or would lose what is read; no value is read.

    Parameters
    ----------
    tensor_map
        What to write.
    dst
        A file, a directory or ``"-"``.
    original
        The map before conversions; by default itself.
    format, max_shard_size, single, compression, store, npz_bf16, force
        As `weighttools.verbs.options.WRITING` says.
    beside
        Files to put into a target directory, by name; they take the place of the source's. By default the map's own.
    verify
        Before the target gets its name, compare what the format's reference reader reads back.
    further
        Then called with the map of what was written; if it fails, the target stays as it was.

    Raises
    ------
    SpecError
        The format cannot hold the map, options contradict each other, or something that is read would be lost.
    """
    if single and max_shard_size is not None:
        raise SpecError(f"{option('single')} and {option('max_shard_size')} exclude each other")
    if verify and dst == "-":
        fact = f"{option('verify')} reads what was written"
        raise SpecError(fact, subject=dst, expected="a file or directory as target")
    compression = None if compression == "none" else compression
    beside = tensor_map.origin.beside if beside is None else beside
    to = choose_destination(tensor_map, _path(dst), format, max_shard_size, single)
    _refuse_nesting(tensor_map, to)
    if to.is_directory and "tokenizer.json" in beside:
        tensor_map = _without_tokenizer(tensor_map)
    if npz_bf16 == "float32" and to.format in ("npz", "npy"):
        original, tensor_map = original or tensor_map, native_floats(tensor_map)
    destination.check(tensor_map, to, compression, store)
    to.notes += destination.notes(tensor_map, to, max_shard_size, beside)
    to.notes += [*tensor_map.origin.notes, *load(to.format).losses(tensor_map)]
    to.notes += tensor_map.origin.lacking if to.is_directory else ()
    _refuse_part(tensor_map, to)
    lost = _replaced(tensor_map, to, beside)
    made = Plan(tensor_map, original or tensor_map, to, compression, store, force, beside, verify, further, lost)
    refuse_loss(made.target(), tensor_map)
    return made


def _path(dst: str) -> str:
    return path_of_url(dst) if dst.startswith("file://") else dst


def _without_tokenizer(tensor_map: TensorMap) -> TensorMap:
    """Leave out of the metadata the tokenizer of a GGUF file that is written as files of its own."""
    rest = {key: value for key, value in tensor_map.metadata.items() if not key.startswith("tokenizer.")}
    return tensor_map.replace(metadata=rest)


def _refuse_part(tensor_map: TensorMap, to: Destination) -> None:
    """Refuse to put a shard in the place of the model that it is a part of, whose other shards would be lost."""
    if not to.is_directory:
        return
    home, whole = home_of(tensor_map.origin), f"{huggingface.stem_of(to.files)}.safetensors"
    parts = [Path(to.path) / name for name in to.replaced - {whole}]
    if home and not home.is_whole and any(home.is_same(part) for part in parts):
        raise SpecError(
            "is a part of the model that would be replaced",
            subject=tensor_map.origin.path,
            remedy="name another directory, or give the whole one",
        )


def _refuse_nesting(tensor_map: TensorMap, to: Destination) -> None:
    """Refuse to write a directory inside the one that is read: it would be copied with it at the next run."""
    home = home_of(tensor_map.origin) if to.is_directory else None
    if home and home.is_whole and home.is_around(to.path):
        raise SpecError(
            f"lies inside what is read, {tensor_map.origin.path}",
            subject=to.path,
            expected="a directory of its own",
            remedy="name one beside it",
        )


def _replaced(tensor_map: TensorMap, to: Destination, beside: Mapping[str, bytes]) -> list[str]:
    """Return the files of a target directory that are not there, or not the same, once the new ones are."""
    target, home = Path(to.path), home_of(tensor_map.origin)
    if not to.is_directory or not target.is_dir():
        return []
    copied = [] if home is None or home.is_same(target) else names_of_companions(tensor_map)
    files = {*beside, *(name for name in copied if home and not home.why_not_copied(name, MAX_COMPANION_BYTES))}
    return sorted({*to.replaced, *(name for name in files if os.path.lexists(target / name))})


def _known(tensor_map: TensorMap) -> list[Mapping[str, Any]]:
    """Return what was done to the values, as it is known without reading any."""
    if not tensor_map.origin.reports:
        return []
    from weighttools.transforms.counted_report import known

    return [known(report) for report in tensor_map.origin.reports]


def _watched(tensor_map: TensorMap) -> tuple[TensorMap, Callable[[], list[Mapping[str, Any]]]]:
    """Return the map, counting what changed tensors hold if there are any, and the reports that then can be given."""
    if not tensor_map.origin.reports:
        return tensor_map, list
    from weighttools.transforms.tally import reports, watched

    changed, tally = watched(tensor_map)
    return changed, lambda: reports(tensor_map, tally)


def _file_record(sizes: Mapping[str, int], file: str, names: list[str]) -> Record:
    return {"name": file, "n_tensors": len(names), "stored_bytes": sum(map(sizes.__getitem__, names))}
