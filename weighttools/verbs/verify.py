"""The verb ``verify``: a checkpoint held against its manifest, or a Hugging Face cache against itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from weighttools.core.options import takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import THREADS

if TYPE_CHECKING:
    from weighttools.analyzers.digest.manifest import Manifest
    from weighttools.analyzers.digest.tree import TensorDigest
    from weighttools.analyzers.digest.verification import Problem
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.io.home import Home
    from weighttools.verbs.record_types import VerifyRecord

OPTIONS = THREADS


@takes(*OPTIONS)
def verify(
    path: PathLike,
    checkpoint: PathLike | None = None,
    *,
    threads: int | None = None,
    progress: Progress = silent,
) -> VerifyRecord:
    """Verify a checkpoint against a manifest, or a Hugging Face cache against the names of its blobs; no network.

    Parameters
    ----------
    path
        A manifest as ``hash --manifest`` writes it (our own, or a statement of OpenSSF model signing, of which no
        signature is checked); or a model in a Hugging Face cache: its directory, a snapshot of it, or ``org/model``.
    checkpoint
        What to hold against the manifest; by default what lies beside it. Where it has none of the manifest's weight
        files (it was converted, or cut into other shards), its content is held against it, and files are not.
    threads
        Worker threads; default: one a CPU.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    VerifyRecord
        A ``weighttools.verify/1`` record: each missing, extra or changed file and tensor is a row of ``problems``.

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

    if checkpoint is None and (found := snapshots(_cached(os.fspath(path)))):
        return cast("VerifyRecord", _cache_record(os.fspath(path), found, progress))
    manifest = _read(os.fspath(path))
    place = os.fspath(checkpoint) if checkpoint is not None else _beside(os.fspath(path), manifest)
    record = _against(manifest, place, os.fspath(path), threads, progress)
    return cast("VerifyRecord", {"schema": "weighttools.verify/1", "path": os.fspath(path), **record})


def _cached(path: str) -> Path:
    """Return the directory that a path means; of ``org/model``, that in the cache."""
    if os.path.exists(path) or path.count("/") != 1:
        return Path(os.path.abspath(path))
    from weighttools.errors import WeighttoolsError
    from weighttools.verbs.open import open as open_checkpoint

    try:
        return Path(open_checkpoint(path).origin.files[0]).parent
    except WeighttoolsError:
        return Path(path)


def _cache_record(path: str, found: list[Path], progress: Progress) -> dict[str, Any]:
    from weighttools.analyzers.digest.hub_cache import cached_files

    problems: list[dict[str, Any]] = []
    n_files = 0
    unread: dict[str, list[str]] = {}
    for snapshot in found:
        for file in cached_files(snapshot):
            name = f"{snapshot.name}/{file.name}" if len(found) > 1 else file.name
            if file.digest is None:
                unread.setdefault(file.instead, []).append(name)
                continue
            n_files += 1
            if problem := file.problem(name):
                problems.append(problem._asdict())
            else:
                progress(file.path.stat().st_size)
    record = {"schema": "weighttools.verify/1", "path": path, "checkpoint": path, "against": "cache"}
    notes = _cache_notes(path, n_files, unread)
    return {**record, "same": not problems, "n_files": n_files, "n_tensors": 0, "problems": problems, "notes": notes}


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
    from weighttools.analyzers.digest.manifest import is_manifest, read_manifest
    from weighttools.errors import UnknownFormatError
    from weighttools.io.text import read_json

    if os.path.isdir(path):
        raise UnknownFormatError(
            "is a directory that is no model of a Hugging Face cache",
            subject=path,
            expected="a manifest, or a model in a cache",
            remedy="write a manifest first: weighttools hash PATH --manifest FILE",
        )
    found = read_json(path)
    if not is_manifest(found):
        raise UnknownFormatError("is no manifest", subject=path, expected="what hash --manifest writes")
    return read_manifest(found, path)


def _beside(path: str, manifest: Manifest) -> str:
    """Return what a manifest is of: the directory it lies in, or the only file that it names there."""
    folder = os.path.dirname(path) or "."
    return os.path.join(folder, manifest.files[0].name) if len(manifest.files) == 1 else folder


def _against(manifest: Manifest, place: str, path: str, threads: int | None, progress: Progress) -> dict[str, Any]:
    from weighttools.analyzers.digest.manifest import named_files
    from weighttools.analyzers.digest.verification import file_problems
    from weighttools.errors import SourceError
    from weighttools.io.home import home_of

    home = home_of(place)
    if home is None or not os.path.exists(place):
        raise SourceError("there is nothing to verify", subject=place, expected="the checkpoint", code="no-such-file")
    listed = {entry.name for entry in manifest.files}
    is_whole = os.path.isdir(place)
    weights = [home.path_of(name) for name in listed if _is_weight_file(home, name)] if is_whole else [place]
    files, notes = named_files(home, weights, is_whole)
    files = {name: file for name, file in files.items() if not _is_same(home.path_of(name), path)}
    is_other = not listed & files.keys() and bool(manifest.tensors)
    problems = [] if is_other else list(file_problems(manifest, files))
    if is_other or (problems and manifest.tensors):
        problems += _tensor_problems(manifest, place, threads, progress)
    if is_other or (problems and not any(one.kind == "tensor" for one in problems) and manifest.tensors):
        notes += _said(is_other, problems)
    return {
        "checkpoint": place,
        "against": manifest.kind,
        "same": not problems,
        "n_files": 0 if is_other else len(manifest.files),
        "n_tensors": len(manifest.tensors),
        "problems": [one._asdict() for one in problems],
        "notes": [*manifest.notes, *notes],
    }


def _is_weight_file(home: Home, name: str) -> bool:
    """Whether a file that a manifest names may be a link to anywhere, as caches and git-annex make them of weights."""
    from weighttools.formats import by_any_suffix

    return home.has(name) and by_any_suffix(name) is not None


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _said(is_other: bool, problems: list[Problem]) -> list[str]:
    if is_other:
        return ["none of the manifest's files is there: the content was held against it, and files were not"]
    return (
        ["the content is what the manifest says: names, dtypes, shapes and every bit of the tensors"]
        if problems
        else []
    )


def _tensor_problems(manifest: Manifest, place: str, threads: int | None, progress: Progress) -> list[Problem]:
    from weighttools.analyzers.digest.tree import digests, named_digests
    from weighttools.analyzers.digest.verification import Problem, tensor_problems
    from weighttools.core import engine
    from weighttools.errors import WeighttoolsError
    from weighttools.verbs.open import open as open_checkpoint

    def hashed(tensor_map: TensorMap) -> Mapping[str, TensorDigest]:
        n_bytes = sum(spec.nbytes for spec in tensor_map.specs())
        with engine.threads_for(n_bytes, threads) as pool:
            window = 2 * (threads or engine.n_threads()) + 2
            algorithm = manifest.algorithm or ""
            found = digests(tensor_map.values(), algorithm, manifest.decoded, pool, window, progress)
            return named_digests(tensor_map, found)[0]

    try:
        return list(tensor_problems(manifest, open_checkpoint(place), hashed))
    except WeighttoolsError as error:
        return [Problem("changed", "tensor", "", f"cannot be read: {error}")]
