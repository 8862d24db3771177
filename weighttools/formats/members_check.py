"""What is wrong with the members of a zip archive, whatever they hold: their checksums, and bytes around them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from weighttools.core.findings import ERROR, Finding
from weighttools.core.tensor import Source
from weighttools.errors import UnsafeFileError, WeighttoolsError
from weighttools.formats import trailing
from weighttools.io.archive import extent, is_zip, members


def check(source: Source, confirmed: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Yield the members whose content is not what its CRC-32 tells, each read once; nothing for what is no archive.

    Parameters
    ----------
    source
        The file.
    confirmed
        Names of files and members that have been read and checked already.
    """
    if not is_zip(source.read(0, min(4, source.size))):
        return
    for name, member in members(source).items():
        if (source.name, name) in confirmed:
            continue
        try:
            member.check()
        except UnsafeFileError as error:
            yield Finding(ERROR, "inflates-without-measure", str(error), remedy=error.remedy)
        except WeighttoolsError as error:
            yield Finding(ERROR, "damaged-member", str(error), remedy=error.remedy)


def surroundings(source: Source) -> Iterator[Finding]:
    """Yield what lies before an archive's first member and behind its end."""
    begin, end = extent(source)
    yield from trailing.before(source, begin, "the archive's first member")
    yield from trailing.behind(source, end, "the archive's end")
