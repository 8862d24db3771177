"""Numbers as a line of bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=+*#@"


def _letters() -> str:
    """Return the bars, or what stands for them where the terminal's encoding has none."""
    try:
        _BARS.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return _PLAIN
    return _BARS


def counts_line(counts: Sequence[int]) -> str:
    """Return counts as bars from 0 on; any count above zero shows.

    >>> counts_line([0, 1, 100, 50])
    ' ▁█▄'
    """
    bars = _letters()
    most = max(counts, default=0)
    return "".join(bars[max(0, -(-n * len(bars) // most) - 1)] if n else " " for n in counts)


def values_line(values: Sequence[float | None], width: int = 24) -> str:
    """Return values as bars from the least to the greatest; a gap is where there is none.

    Of more than `width` values, that many are taken, evenly, the last one among them.

    >>> values_line([1.0, 2.0, None, 3.0])
    '▁▅ █'
    """
    bars = _letters()
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    known = [value for value in values if value is not None]
    least, spread = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    top = len(bars) - 1
    return "".join(" " if v is None else bars[round((v - least) / spread * top) if spread else 0] for v in values)
