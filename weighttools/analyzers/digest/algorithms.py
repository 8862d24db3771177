"""The hash functions that a fingerprint may be made with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from weighttools.errors import MissingDependencyError, SpecError, install


class Hasher(Protocol):
    """What hashlib, xxhash and blake3 give."""

    def update(self, data: Any, /) -> Any:
        """Add bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""


ALGORITHMS = ("xxh3-128", "sha256", "blake3")
"""By their names in records; the first is the default, for what no adversary made."""


def hasher(name: str) -> Callable[[], Hasher]:
    """Return what begins a hash.

    Raises
    ------
    SpecError
        There is no such algorithm.
    MissingDependencyError
        The package that it needs is not installed.
    """
    if name == "sha256":
        return hashlib.sha256
    if name == "xxh3-128":
        import xxhash

        return xxhash.xxh3_128
    if name == "blake3":
        return _blake3()
    raise SpecError(f"no algorithm is called {name!r}", expected=", ".join(ALGORITHMS), code="unknown-option-value")


def _blake3() -> Callable[[], Hasher]:
    try:
        import blake3
    except ImportError:
        raise MissingDependencyError("hashing by blake3 needs the package blake3", remedy=install("hash")) from None
    found: Callable[[], Hasher] = blake3.blake3
    return found
