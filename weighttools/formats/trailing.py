"""What a file holds beyond what its format reads: bytes behind its end, or before its beginning."""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import WARNING, Finding
from weighttools.core.spec import Source


def behind(source: Source, end: int, last: str) -> Iterator[Finding]:
    """Yield a finding if a file goes on where its format ends.

    Parameters
    ----------
    source
        The file.
    end
        The offset of the first byte that nothing refers to.
    last
        What ends there, for the message.
    """
    if end < source.size:
        yield _finding(source, f"{source.size - end:,} bytes follow {last}, from byte {end:,} on, and are not read")


def before(source: Source, begin: int, first: str) -> Iterator[Finding]:
    """Yield a finding if a file begins before what its format reads; as `behind`."""
    if begin > 0:
        yield _finding(source, f"{begin:,} bytes precede {first} and are not read")


def _finding(source: Source, fact: str) -> Finding:
    return Finding(WARNING, "trailing-bytes", f"{source.name}: {fact}")
