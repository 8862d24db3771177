"""Where the outputs and inputs of a layer's weight lie; it compiles and loads nothing, for statistics begin with it."""

from __future__ import annotations

from typing import NamedTuple


class Axes(NamedTuple):
    """Where outputs and inputs of a weight lie.

    Parameters
    ----------
    cut
        Where its axes are parted into the rows and the columns of a matrix.
    outputs, inputs
        Axes, next to each other; each lies wholly in the rows or in the columns. Inputs may be none.
    """

    cut: int
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]

    def named(self, which: tuple[int, ...]) -> str:
        """Say which units lie along some axes: ``"rows"`` and ``"columns"`` where they are torch's."""
        if which in ((0,), (1,)) and self == TORCH:
            return "rows" if which == (0,) else "columns"
        what = "outputs" if which == self.outputs else "inputs"
        return f"{what} (ax{'is' if len(which) == 1 else 'es'} {', '.join(map(str, which))})"


TORCH = Axes(1, (0,), (1,))
"""(out, in, …): torch's Linear and convolutions, and what nothing else is known of."""
IN_OUT = Axes(1, (1,), (0,))
"""(in, out): Keras's and Flax's dense layers, GPT-2's Conv1D."""
