"""What a file is, by its first bytes, that is no weight file and no pickle: pages, pointers, archives, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable


def _lfs(head: bytes) -> str | None:
    if not head.startswith(b"version https://git-lfs"):
        return None
    size = re.search(rb"^size (\d{1,19})$", head, re.MULTILINE)
    return f"is a git-LFS pointer to {int(size[1]):,} bytes, not the file itself" if size else "is a git-LFS pointer"


def _html(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return (
        "is an HTML page, not weights" if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) else None
    )


def _json(head: bytes) -> str | None:
    return "is JSON text, not weights" if re.match(rb'\s*\{\s*["}]', head) else None


def _magic(head: bytes) -> str | None:
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            return f"is {name}"
    return None


def _tar(head: bytes) -> str | None:
    return "is a tar archive" if head[257:262] == b"ustar" else None


_OTHERS = {
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstandard-compressed",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"PK\x03\x04": "a zip archive, but no NPY, PyTorch or Keras one",
    b"\x7fELF": "a program",
}


def known_stranger(head: bytes) -> str | None:
    """Say what a file is that is plainly no weight file and no pickle; None if that is not known."""
    return next((fact for guess in REMEDIES if (fact := guess(head))), None)


def known_container(head: bytes) -> str | None:
    """Say what a compressed file or an archive is that is not looked into; None for a zip and for anything else."""
    return None if head.startswith(b"PK") else _tar(head) or (_magic(head) if head.startswith(_CONTAINERS) else None)


_CONTAINERS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!")

REMEDIES: dict[Callable[[bytes], str | None], str] = {
    _lfs: "run: git lfs pull",
    _html: "the download gave a web page (a login or an error?): fetch the file itself",
    _json: "give the weight file, or the directory that holds an index",
    _tar: "of 2017's torch.save or a .pth.tar by name? save it again with torch.save, or unpack it",
    _magic: "give a file that `weighttools formats` lists, unpacked",
}
"""How to tell one, and what to do about it."""
