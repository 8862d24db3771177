"""Looking for what is dangerous or doubtful in files: what their formats say of them, then checks of the open map."""

from __future__ import annotations

from collections.abc import Callable

from weighttools.analyzers.checks import findings
from weighttools.core.findings import ERROR, Finding
from weighttools.core.tensor import Source
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, UnsupportedError
from weighttools.formats import check_file, directory_files
from weighttools.io.source import open_source


def check(place: str, opened: Callable[[], TensorMap], source: Source | None = None) -> list[Finding]:
    """Return the findings on a file, directory or index; a file that cannot be opened is a finding too.

    Parameters
    ----------
    place
        Where it lies.
    opened
        Opens it; called after its files have been looked at.
    source
        The one file to look at, if it is open already (standard input is read only once).
    """
    found: list[Finding] = []
    try:
        for file in (source,) if source else map(open_source, directory_files(place)):
            found += check_file(file)
        found += findings(opened())
    except (FormatError, UnsupportedError) as error:
        found.append(Finding(ERROR, "unreadable", str(error)))
    return found
