"""What is wrong with the members of a zip archive, whatever they hold: their checksums, and bytes around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from weighttools.core.findings import ERROR, Finding
from weighttools.core.spec import Source
from weighttools.core.tensor import spans
from weighttools.core.tensormap import TensorMap
from weighttools.errors import UnsafeFileError, WeighttoolsError
from weighttools.formats import trailing
from weighttools.io.archive import extent, is_zip, members
from weighttools.io.contents import Checked


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


def joined(found: list[Finding], files: Iterable[Source], tensor_map: TensorMap) -> list[Finding]:
    """Return what was found, and the damaged members of the files.

    Members of the map's tensors that have been read whole were checked with them. A damaged member is told once: as the
    tensor that cannot be read for it, where there is one.
    """
    contents = [span.content for tensor in tensor_map.values() for span in spans(tensor)]
    confirmed = {(c.source.name, c.name) for c in contents if isinstance(c, Checked) and c.is_confirmed}
    damaged = [finding for file in files for finding in check(file, confirmed)]
    told = [
        next((replace(f, code=d.code) for d in damaged if f.code == "unreadable" and d.message in f.message), f)
        for f in found
    ]
    return told + [d for d in damaged if not any(d.message in f.message for f in told)]


def surroundings(source: Source) -> Iterator[Finding]:
    """Yield what lies before an archive's first member and behind its end."""
    try:
        begin, end = extent(source)
    except WeighttoolsError:  # said where it is read
        return
    yield from trailing.before(source, begin, "the archive's first member")
    yield from trailing.behind(source, end, "the archive's end")
