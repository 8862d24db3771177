"""Finding out before work that takes long whether its target can be written."""

from __future__ import annotations

from weighttools.io import directory, sink
from weighttools.write.destination import means_directory


def check_writable(dst: str, force: bool, format: str | None = None) -> None:
    """Refuse a target that could not be written, before values are read for long.

    Parameters
    ----------
    dst, force, format
        As of `weighttools.write.plan.plan`.

    Raises
    ------
    SourceError
        It exists and `force` is not given, or its directory cannot be written to.
    """
    place = directory if means_directory(dst, format) else sink
    place.check_writable(dst, force=force)
