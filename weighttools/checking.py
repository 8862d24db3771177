"""Looking for what is dangerous or doubtful in files: what their formats say of them, then checks of the open map."""

from __future__ import annotations

from collections.abc import Callable

from weighttools.analyzers.checks import findings
from weighttools.core.findings import ERROR, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import FormatError, UnsupportedError
from weighttools.formats import check_file, directory_files
from weighttools.io.source import open_source


def check(place: str, opened: Callable[[], TensorMap]) -> list[Finding]:
    """Return the findings on a file, directory or index; a file that cannot be opened is a finding too.

    Parameters
    ----------
    place
        Where it lies.
    opened
        Opens it; called after its files have been looked at.
    """
    found: list[Finding] = []
    try:
        for file in directory_files(place):
            found += check_file(open_source(file))
        found += findings(opened())
    except (FormatError, UnsupportedError) as error:
        found.append(Finding(ERROR, "unreadable", str(error)))
    return found
