"""Digests of files as bytes: SHA-256, git's, and the short ones that stable-diffusion-webui shows."""

from __future__ import annotations

import hashlib
from typing import Any

from weighttools.io.source import LocalFile

_PIECE = 1 << 20


def sha256(file: LocalFile, start: int = 0) -> str:
    """Return the SHA-256 of a file's bytes from `start` on, in hexadecimal."""
    return _hashed(file, start, hashlib.sha256())


def git_sha1(file: LocalFile) -> str:
    """Return what git calls a file of these bytes: the SHA-1 of ``blob``, its size, a NUL and the bytes."""
    state = hashlib.sha1(usedforsecurity=False)
    state.update(f"blob {file.size}\0".encode())
    return _hashed(file, 0, state)


def _hashed(file: LocalFile, start: int, state: Any) -> str:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    for at in range(start, file.size, _PIECE):
        part = view[: min(_PIECE, file.size - at)]
        file.readinto(at, part)
        state.update(part)
    return str(state.hexdigest())


def file_row(path: str) -> dict[str, Any]:
    """Return a file's size and digests.

    Notes
    -----
    stable-diffusion-webui, ``modules/hashes.py``: the short hash (AutoV2) is the first ten digits of the file's
    SHA-256; ``addnet_hash_safetensors`` (AutoV3) is the SHA-256 of what follows the header, of which twelve are shown.
    """
    file = LocalFile(path)
    whole = sha256(file)
    row = {"path": path, "size": file.size, "sha256": whole, "autov2": whole[:10], "autov3": None}
    if path.endswith(".safetensors") and file.size >= 8:
        body = 8 + int.from_bytes(file.read(0, 8), "little")
        row["autov3"] = sha256(file, body)[:12] if body <= file.size else None
    return row
