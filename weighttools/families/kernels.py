"""Which axes of a layer's weight are its outputs and which its inputs: frameworks lay them out differently.

Sources: the documentation of torch.nn, keras.layers, flax.linen and mlx.nn; transformers' Conv1D, which GPT-2 has.
Importing this loads no NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap

Shape = tuple[int, ...]


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

    def named(self) -> str:
        """Say which axes the outputs are, as a message does: ``"rows"`` where they are torch's."""
        return "rows" if self.outputs == (0,) else f"outputs (axis {', '.join(map(str, self.outputs))})"

    def named_inputs(self) -> str:
        """Say which axes the inputs are: ``"columns"`` where they are torch's."""
        return "columns" if self.inputs == (1,) else f"inputs (axis {', '.join(map(str, self.inputs))})"


TORCH = Axes(1, (0,), (1,))
"""(out, in, …): torch's Linear and convolutions, and what nothing else is known of."""
IN_OUT = Axes(1, (1,), (0,))
"""(in, out): Keras's and Flax's dense layers, GPT-2's Conv1D."""

_LEAVES = frozenset({"kernel", "pointwise_kernel", "recurrent_kernel", "depthwise_kernel"})
_TRANSPOSED = re.compile(r"conv\dd_?transpose", re.IGNORECASE)
_DEPTHWISE = re.compile(r"depthwise", re.IGNORECASE)
_ATTENTION_IN = re.compile(r"(?:^|_)(?:query|key|value)(?:_|$)")
_ATTENTION_OUT = re.compile(r"^(?:out|(?:attention_)?output(?:_dense)?)$")
_GPT2 = re.compile(r"(?:^|[./])(?:c_attn|c_proj|c_fc|q_attn)\.weight$")


@dataclass(frozen=True, slots=True)
class Layouts:
    """What a whole map tells of how its weights lie.

    Parameters
    ----------
    is_mlx
        Convolutions are (out, …, in).
    is_gpt2
        Weights of GPT-2's names are (in, out): the biases of those that are not square say so.
    """

    is_mlx: bool = False
    is_gpt2: bool = False

    @classmethod
    def of(cls, tensor_map: TensorMap) -> Layouts:
        """Look at a map's metadata, and at the biases beside GPT-2's weights."""
        gpt2 = [name for name in tensor_map if name.endswith(".weight") and _GPT2.search(name)]
        return cls(tensor_map.metadata.get("format") == "mlx", bool(gpt2) and _is_in_out(tensor_map, gpt2))

    def axes(self, name: str, shape: Shape) -> Axes:
        """Return where the outputs and inputs of a tensor of two axes or more lie."""
        path = name.replace(".", "/").removesuffix(":0").split("/")
        if path[-1] in _LEAVES or (path[-2:-1] == ["vars"] and "embedding" not in path[-3 if len(path) > 2 else 0]):
            return _of_kernel(path, len(shape))
        if self.is_mlx and len(shape) > 2:
            return Axes(1, (0,), (len(shape) - 1,))
        return IN_OUT if self.is_gpt2 and len(shape) == 2 and _GPT2.search(name) else TORCH


def _is_in_out(tensor_map: TensorMap, names: Iterable[str]) -> bool:
    for name in names:
        shape, bias = tensor_map[name].shape, name.removesuffix("weight") + "bias"
        if len(shape) == 2 and shape[0] != shape[1] and bias in tensor_map:
            return tensor_map[bias].shape == (shape[1],)
    return False


def _of_kernel(path: list[str], n: int) -> Axes:
    """Return the axes of a Keras or Flax kernel: (…, in, out), with what differs from that."""
    layer = "/".join(path[:-2] if path[-2:-1] == ["vars"] else path[:-1])
    last = layer.rpartition("/")[2]
    if n == 3 and _ATTENTION_IN.search(last):
        return Axes(1, (1, 2), (0,))
    if n == 3 and _ATTENTION_OUT.search(last):
        return Axes(2, (2,), (0, 1))
    if path[-1] == "depthwise_kernel" or (n > 2 and _DEPTHWISE.search(layer)):
        return Axes(n - 2, (n - 2, n - 1), ())
    if n > 2 and _TRANSPOSED.search(layer):
        return Axes(n - 1, (n - 2,), (n - 1,))
    return Axes(n - 1, (n - 1,), (n - 2,))
