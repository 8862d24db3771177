"""What a file is that is no weight file: said plainly, because it is what people most often have by mistake."""

from __future__ import annotations

from weighttools.core.spec import Source
from weighttools.errors import CorruptFileError, UnknownFormatError
from weighttools.formats import other_kinds
from weighttools.formats.strangers import REMEDIES

_PICKLE_STARTS = b"\x80(c]}lLIFd"
"""What the pickle of a container or a number can begin with, in any protocol."""


def refuse_stranger(head: bytes, source: Source, named: str | None) -> str:
    """Raise for content that no format recognises; return `named` where the suffix's own reader says more.

    Raises
    ------
    CorruptFileError
        The file is empty.
    UnknownFormatError
        The content is something else (named, where it is known), or nothing known.
    """
    if not head:
        raise CorruptFileError(
            "is empty (0 bytes)", subject=source.name, remedy="fetch the file again", code="empty-file"
        )
    if (kind := other_kinds.of_content(head, source)) is not None:
        raise UnknownFormatError(kind.fact, subject=source.name, remedy=kind.remedy)
    for guess, remedy in REMEDIES.items():
        fact = guess(head)
        if fact:
            raise UnknownFormatError(fact, subject=source.name, remedy=remedy)
    if _is_old_pickle(source):
        return "pytorch"
    if named is None or (named == "pytorch" and head[0] not in _PICKLE_STARTS):
        if (kind := other_kinds.of_name(head, source.name)) is not None:
            raise UnknownFormatError(kind.fact, subject=source.name, remedy=kind.remedy)
        raise UnknownFormatError(
            f"is of no known format (it begins with {head[:8]!r})",
            subject=source.name,
            expected="a file that `weighttools formats` lists",
        )
    return named


def _is_old_pickle(source: Source) -> bool:
    """Whether the content runs as a pickle of protocol 0 or 1, which no first byte tells."""
    from weighttools.formats.pickles.scan import begins_pickle
    from weighttools.formats.pickles.stream import Stream

    return begins_pickle(Stream(source))
