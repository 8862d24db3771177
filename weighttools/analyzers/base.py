"""What an analyzer is: a statistic that ``stats`` computes beside the usual ones where it is asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from weighttools.analyzers.run import Statistic


class Analyzer(NamedTuple):
    """A statistic, and the columns that it fills.

    Parameters
    ----------
    of
        Makes a state of a `weighttools.analyzers.run.Block`, which holds values of any dtype, and NaN and Inf. States
        are merged in order, and finished: `weighttools.analyzers.run.State` says how.
    columns
        The figures of `finish` that the table shows, in order; a record has all of them.
    title
        What they are, in one line.
    by_axes
        Whether `Block.axes` must tell where a tensor's outputs and inputs lie, which takes a look at all names.
    """

    of: Statistic
    columns: tuple[str, ...]
    title: str = ""
    by_axes: bool = False
