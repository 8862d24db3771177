"""The verb ``verify``: a checkpoint held against its manifest, or a Hugging Face cache against itself."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from weighttools.core.options import takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import THREADS

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from weighttools.analyzers.digest.manifest import Manifest
    from weighttools.analyzers.digest.tree import TensorDigest
    from weighttools.analyzers.digest.verification import Problem
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.io.home import Home
    from weighttools.io.source import LocalFile
    from weighttools.verbs.record_types import VerifyRecord

OPTIONS = THREADS


@takes(*OPTIONS)
def verify(
    path: PathLike,
    checkpoint: PathLike | None = None,
    *,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> VerifyRecord:
    """Verify a checkpoint against a manifest, or a Hugging Face cache against the names of its blobs; no network.

    Parameters
    ----------
    path
        A manifest as ``hash --manifest`` writes it (our own, or a statement of OpenSSF model signing, of which no
        signature is checked); or a model in a Hugging Face cache: its directory, a snapshot of it, or ``org/model``.
    checkpoint
        What to hold against the manifest, as for `open`; by default what lies beside it. Where it has none of the
        manifest's weight files (it was converted, or cut into other shards), its content is held against it, and they
        are not.
    threads
        Worker threads; default: one a CPU.
    planned
        Called with the number of bytes that are going to be read: of files, and then of tensors, if files differ.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    VerifyRecord
        A ``weighttools.verify/1`` record: each missing, extra or changed file and tensor is a row of ``problems``, and
        each weight file of a cache that nothing tells the digest of. Of other such files a note says so.

    Raises
    ------
    CorruptFileError
        The manifest is none, or damaged.
    UnsafeFileError
        The manifest names files outside its directory.
    SourceError
        There is nothing to verify, or nothing of a cache can be.
    """
    from weighttools.analyzers.digest.hub_cache import snapshots
    from weighttools.formats.opening import located

    asked = os.fspath(path)
    reading = _Reading(threads, planned, progress)
    if checkpoint is None and (found := snapshots(Path(os.path.abspath(located(asked))))):
        return cast("VerifyRecord", _cache_record(asked, found, reading))
    manifest = _read(asked)
    place = located(os.fspath(checkpoint)) if checkpoint is not None else _beside(asked, manifest)
    record = _against(manifest, place, asked, reading)
    return cast("VerifyRecord", {"schema": "weighttools.verify/1", "path": asked, **record})


class _Reading(NamedTuple):
    """How to read, and whom to tell."""

    threads: int | None
    planned: Progress
    progress: Progress

    def pool(self, n_bytes: int) -> AbstractContextManager[Executor | None]:
        """Say how many bytes are going to be read, and give what to read them in."""
        from weighttools.core import engine

        self.planned(n_bytes)
        return engine.threads_for(n_bytes, self.threads)


def _cache_record(path: str, found: list[Path], reading: _Reading) -> dict[str, Any]:
    from weighttools.analyzers.digest.hub_cache import CachedFile, cached_files, faults, size_of
    from weighttools.analyzers.digest.verification import Problem

    asked: dict[str, CachedFile] = {}
    unread: dict[str, list[str]] = {}
    for snapshot in found:
        for file in cached_files(snapshot):
            name = f"{snapshot.name}/{file.name}" if len(found) > 1 else file.name
            if file.digest is None:
                unread.setdefault(file.instead, []).append(name)
            else:
                asked[name] = file
    places = {os.path.realpath(file.path) for file in asked.values()}
    with reading.pool(sum(map(size_of, places))) as pool:
        told = zip(asked, faults(list(asked.values()), pool, reading.progress), strict=True)
        problems = [Problem(fault[0], "file", name, fault[1])._asdict() for name, fault in told if fault]
    weights = {why: [name for name in names if _is_weight_name(name)] for why, names in unread.items()}
    problems += [Problem("unverified", "file", name, why)._asdict() for why in weights for name in weights[why]]
    record = {"schema": "weighttools.verify/1", "path": path, "checkpoint": path, "against": "cache"}
    notes = _cache_notes(path, len(asked), unread)
    return {**record, "same": not problems, "n_files": len(asked), "n_tensors": 0, "problems": problems, "notes": notes}


def _cache_notes(path: str, n_files: int, unread: Mapping[str, list[str]]) -> list[str]:
    """Say what could not be verified; nothing at all is an error, so that it does not pass for verified."""
    from weighttools.errors import SourceError, few

    if not n_files:
        fact = "; ".join(f"{few(names)}: {why}" for why, names in unread.items()) or "the snapshot is empty"
        raise SourceError(
            f"nothing of it can be verified ({fact})",
            subject=path,
            expected="links to blobs named by their digests",
            remedy="fetch it again, or hold it against a manifest",
            code="nothing-to-verify",
        )
    notes = [f"not verified, for they are {why}: {few(names)}" for why, names in unread.items()]
    return [*notes, "whether the repository has more files than are cached cannot be told offline"]


def _read(path: str) -> Manifest:
    from weighttools.analyzers.digest.statement import is_manifest, read_manifest
    from weighttools.errors import CorruptFileError, UnknownFormatError
    from weighttools.io.text import is_json, read_json

    if os.path.isdir(path):
        raise UnknownFormatError(
            "is a directory that is no model of a Hugging Face cache",
            subject=path,
            expected="a manifest, or a model in a cache",
            remedy="write a manifest first: weighttools hash PATH --manifest FILE",
        )
    try:
        found = read_json(path)
    except CorruptFileError:
        if is_json(path):
            raise
        raise UnknownFormatError(
            "is no manifest",
            subject=path,
            expected="what hash --manifest writes",
            remedy="give the manifest first, then the checkpoint",
        ) from None
    if not is_manifest(found):
        raise UnknownFormatError("is no manifest", subject=path, expected="what hash --manifest writes")
    return read_manifest(found, path)


def _beside(path: str, manifest: Manifest) -> str:
    """Return what a manifest is of: the directory it lies in, or the only file that it names there."""
    folder = os.path.dirname(path) or "."
    return os.path.join(folder, manifest.files[0].name) if len(manifest.files) == 1 else folder


def _against(manifest: Manifest, place: str, path: str, reading: _Reading) -> dict[str, Any]:
    from weighttools.errors import SourceError
    from weighttools.io.home import home_of

    home = home_of(place)
    if home is None or not os.path.exists(place):
        raise SourceError("there is nothing to verify", subject=place, expected="the checkpoint", code="no-such-file")
    files, notes = _files(manifest, home, place)
    files = {name: file for name, file in files.items() if not _is_same(home.path_of(name), path)}
    weights = {entry.name for entry in manifest.files if _is_weight_name(entry.name)}
    is_other = bool(manifest.tensors) and not files.keys() & (weights or {entry.name for entry in manifest.files})
    held = _beside_weights(manifest, weights, is_whole=os.path.isdir(place)) if is_other else manifest
    if is_other:
        files = {name: file for name, file in files.items() if not _is_weight_name(name)}
    problems = _file_problems(held, files, reading)
    if manifest.tensors and (is_other or problems):
        tensors = _tensor_problems(manifest, place, reading)
        notes += _said(is_other, is_same=bool(problems) and not tensors)
        problems += tensors
    return {
        "checkpoint": place,
        "against": manifest.kind,
        "same": not problems,
        "n_files": len(held.files),
        "n_tensors": len(manifest.tensors),
        "problems": [one._asdict() for one in problems],
        "notes": [*manifest.notes, *notes],
    }


def _files(manifest: Manifest, home: Home, place: str) -> tuple[dict[str, LocalFile], list[str]]:
    """Return the files of what a manifest is held against, by name; an index stands for the directory it lies in."""
    from weighttools.analyzers.digest.manifest import named_files

    is_index = place.endswith(_INDEX)
    if os.path.isdir(place) or is_index:
        named = [entry.name for entry in manifest.files if _is_weight_name(entry.name) and home.has(entry.name)]
        links = [name for name in named if not name.endswith(_INDEX)]
        return named_files(home, [*map(home.path_of, links), *([place] if is_index else [])], is_whole=True)
    files, notes = named_files(home, [place], is_whole=False)
    if manifest.kind == "oms" and not manifest.is_whole:  # of a file, whatever it is called
        files = dict(zip([manifest.files[0].name], files.values(), strict=False))
    return files, notes


_INDEX = ".index.json"


def _is_weight_name(name: str) -> bool:
    """Whether a file holds weights, by its name: such may be links to anywhere, as caches and git-annex make them."""
    from weighttools.formats import by_any_suffix

    return name.endswith(_INDEX) or by_any_suffix(name) is not None


def _beside_weights(manifest: Manifest, weights: Container[str], is_whole: bool) -> Manifest:
    """Return a manifest of the other files of a directory; of none, where a file is held against it."""
    from dataclasses import replace

    return replace(manifest, files=tuple(f for f in manifest.files if is_whole and f.name not in weights))


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _file_problems(manifest: Manifest, files: Mapping[str, LocalFile], reading: _Reading) -> list[Problem]:
    from weighttools.analyzers.digest.verification import file_problems

    with reading.pool(sum(files[entry.name].size for entry in manifest.files if entry.name in files)) as pool:
        return list(file_problems(manifest, files, pool, reading.progress))


def _said(is_other: bool, is_same: bool) -> list[str]:
    other = "none of the manifest's weight files is there: the content was held against it, and they were not"
    same = "the content is what the manifest says: names, dtypes, shapes and every bit of the tensors"
    return [*([other] if is_other else []), *([same] if is_same else [])]


def _tensor_problems(manifest: Manifest, place: str, reading: _Reading) -> list[Problem]:
    from weighttools.analyzers.digest.tree import digests, named_digests
    from weighttools.analyzers.digest.verification import Problem, tensor_problems
    from weighttools.core import engine
    from weighttools.errors import WeighttoolsError

    def hashed(tensor_map: TensorMap) -> Mapping[str, TensorDigest]:
        with reading.pool(sum(spec.nbytes for spec in tensor_map.specs())) as pool:
            window = engine.window_for(reading.threads)
            algorithm = manifest.algorithm or ""
            found = digests(tensor_map.values(), algorithm, manifest.decoded, pool, window, reading.progress)
            return named_digests(tensor_map, found)[0]

    try:
        return list(tensor_problems(manifest, _readable(place, manifest), hashed))
    except WeighttoolsError as error:
        return [Problem("changed", "tensor", "", f"cannot be read: {error}")]


def _readable(place: str, manifest: Manifest) -> TensorMap:
    """Open a checkpoint; of one that a shard is missing from, or damaged in, what the others hold."""
    from contextlib import suppress

    from weighttools.core.tensormap import TensorMap
    from weighttools.errors import WeighttoolsError
    from weighttools.verbs.open import open as open_checkpoint

    try:
        return open_checkpoint(place)
    except WeighttoolsError:
        shards = [os.path.join(place, entry.name) for entry in manifest.files if _is_shard(entry.name)]
        found = []
        for shard in shards if os.path.isdir(place) else ():
            with suppress(WeighttoolsError):
                found.append(open_checkpoint(shard))
        if not found:
            raise
        joined = TensorMap.joined(found)
        ties = {alias: kept for alias, kept in (manifest.aliases or {}).items() if alias not in joined}
        return joined.replace(aliases={alias: kept for alias, kept in ties.items() if kept in joined})


def _is_shard(name: str) -> bool:
    return _is_weight_name(name) and not name.endswith(_INDEX)
