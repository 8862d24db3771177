"""A Hugging Face cache, held against the names of its blobs: each is the digest of what it should hold.

Source: huggingface_hub 2.4, ``file_download`` and ``utils/_shared_blobs``: a file of a snapshot is a link to
``blobs/ETAG``, and that is the file, or itself a link into the store that repositories share. The etag is the SHA-256
of a large file, and git's SHA-1 of a small one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from weighttools.analyzers.digest.files import git_sha1, sha256
from weighttools.errors import SourceError
from weighttools.io.source import LocalFile


class CachedFile(NamedTuple):
    """A file of a snapshot, and the digest that it should have; None where its name tells none."""

    name: str
    path: Path
    digest: str | None

    def problem(self) -> str | None:
        """Read the file, and return what is wrong with it."""
        try:
            file = LocalFile(self.path)
            found = sha256(file) if self.digest and len(self.digest) == 64 else git_sha1(file)
        except SourceError as error:
            return error.fact
        return None if found == self.digest else f"its digest is {found}, and it is cached as {self.digest}"


def snapshots(path: Path) -> list[Path]:
    """Return the snapshots that a path means: itself, or those of the repository that it is; none of another place."""
    if path.parent.name == "snapshots" and path.is_dir():
        return [path]
    below = path / "snapshots"
    return sorted(one for one in below.iterdir() if one.is_dir()) if below.is_dir() else []


def cached_files(snapshot: Path) -> Iterator[CachedFile]:
    """Yield the files of a snapshot, by name."""
    for folder, folders, names in os.walk(snapshot):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            yield CachedFile(path.relative_to(snapshot).as_posix(), path, _etag(path))


def _etag(path: Path) -> str | None:
    if not path.is_symlink():
        return None
    target = Path(os.readlink(path))
    is_digest = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", target.name)
    return target.name if is_digest and target.parent.name == "blobs" else None
