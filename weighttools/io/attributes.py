"""A block of lines of our own in a file that belongs to someone else, put there and taken out again.

Once it is taken out the file is what it was, to the byte: the block's first line says whether a line feed, or the file,
was made for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from weighttools.io.sink import atomic_file

_BEGIN, _END = "# begin weighttools", "# end weighttools"
_BLOCK = re.compile(
    rb"(?P<line>\n?)# begin weighttools(?P<how>, after a line feed|, in a new file)?\n.*?# end weighttools\n", re.DOTALL
)


def put_block(path: Path, lines: Sequence[str]) -> None:
    """Put a block of lines at the end of a file, in the place of one that is there; the file is made if need be.

    Raises
    ------
    SourceError
        The file cannot be written.
    """
    take_block(path)
    data = path.read_bytes() if path.exists() else None
    how = ", in a new file" if data is None else ", after a line feed" if data and not data.endswith(b"\n") else ""
    before = b"" if data is None else data + (b"\n" if how == ", after a line feed" else b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, before + "\n".join([_BEGIN + how, *lines, _END, ""]).encode())


def take_block(path: Path) -> bool:
    """Take our block out of a file, and say whether there was one.

    Raises
    ------
    SourceError
        The file cannot be written.
    """
    data = path.read_bytes() if path.exists() else b""
    found = _BLOCK.search(data)
    if not found:
        return False
    is_line_ours = found["how"] == b", after a line feed"
    left = data[: found.start() if is_line_ours else found.end("line")] + data[found.end() :]
    if found["how"] == b", in a new file" and not left:
        path.unlink()
    else:
        _write(path, left)
    return True


def _write(path: Path, data: bytes) -> None:
    with atomic_file(path, force=True) as sink:
        sink.write(data)
