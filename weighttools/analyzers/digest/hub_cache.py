"""A Hugging Face cache, held against the names of its blobs: each is the digest of what it should hold.

Source: huggingface_hub 2.4, ``file_download`` and ``utils/_shared_blobs``: a file of a snapshot is a link to
``blobs/ETAG``, and that is the file, or itself a link into the store that repositories share. The etag is the SHA-256
of a large file, and git's SHA-1 of a small one. Links lead within the cache, by the rule of `weighttools.io.beside`;
what lies elsewhere is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from weighttools.analyzers.digest.files import git_sha1, sha256
from weighttools.core import engine
from weighttools.errors import SourceError
from weighttools.io import beside
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile

if TYPE_CHECKING:
    from concurrent.futures import Executor

NO_BLOB = "no links to a blob named by its digest"
BEYOND = "links out of the cache"


class CachedFile(NamedTuple):
    """A file of a snapshot, and the digest that it should have; or none, and what it is instead."""

    snapshot: Path
    name: str
    digest: str | None
    instead: str = ""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.snapshot / self.name

    def fault(self) -> tuple[str, str] | None:
        """Read the file, and return what is wrong with it: missing or changed, and why."""
        if not self.path.exists():
            return "missing", f"its blob {self.digest} is not there"
        try:
            file = beside.companion(self.snapshot, self.name)
            detail = "is no regular file" if file is None else self._difference(file)
        except SourceError as error:
            detail = error.fact
        return ("changed", detail) if detail else None

    def _difference(self, file: LocalFile) -> str | None:
        found = sha256(file) if self.digest and len(self.digest) == 64 else git_sha1(file)
        return None if found == self.digest else f"its digest is {found}, and it is cached as {self.digest}"


def faults(
    files: Sequence[CachedFile], executor: Executor | None = None, progress: Progress = silent
) -> list[tuple[str, str] | None]:
    """Return what is wrong with each file, as `CachedFile.fault` does; a blob of several snapshots is read once.

    Parameters
    ----------
    files
        Those with a digest.
    executor
        Threads to read files in; None reads here.
    progress
        Called with the size of each file that is done.
    """
    blobs = {(os.path.realpath(file.path), file.digest): file for file in files}
    found = {}
    run = engine.run(CachedFile.fault, blobs.values(), executor, window=engine.n_threads() + 2)
    for (place, digest), fault in zip(blobs, run, strict=True):
        found[place, digest] = fault
        progress(size_of(place))
    return [found[os.path.realpath(file.path), file.digest] for file in files]


def size_of(place: str | os.PathLike[str]) -> int:
    """Return how many bytes a file has; none of one that is not there."""
    try:
        return os.stat(place).st_size
    except OSError:
        return 0


def snapshots(path: Path) -> list[Path]:
    """Return the snapshots that a path means: itself, or those of the repository that it is; none of another place."""
    if path.parent.name == "snapshots" and path.is_dir():
        return [path]
    below = path / "snapshots"
    return sorted(one for one in below.iterdir() if one.is_dir()) if below.is_dir() else []


def cached_files(snapshot: Path) -> Iterator[CachedFile]:
    """Yield the files of a snapshot, by name; a folder that is a link is not looked into, and named like a file."""
    for folder, folders, names in os.walk(snapshot):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            called, digest = path.relative_to(snapshot).as_posix(), _etag(path)
            if beside.leaves(snapshot, path):  # first of all, so that no answer tells what lies elsewhere
                yield CachedFile(snapshot, called, None, BEYOND)
            else:
                yield CachedFile(snapshot, called, digest, "" if digest else NO_BLOB)


def _etag(path: Path) -> str | None:
    if not path.is_symlink():
        return None
    target = Path(os.readlink(path))
    is_digest = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", target.name)
    return target.name if is_digest and target.parent.name == "blobs" else None
