"""Which axes of a layer's weight are its outputs and which its inputs: frameworks lay them out differently.

Sources: the documentation of torch.nn, keras.layers, flax.linen and mlx.nn; transformers' Conv1D, which GPT-2 has.
Importing this loads no NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighttools.families.axes import IN_OUT, TORCH, Axes

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap

Shape = tuple[int, ...]


_LEAVES = frozenset({"kernel", "pointwise_kernel", "recurrent_kernel", "depthwise_kernel"})
_TRANSPOSED = re.compile(r"conv\dd_?transpose", re.IGNORECASE)
_DEPTHWISE = re.compile(r"depthwise", re.IGNORECASE)
_ATTENTION_IN = re.compile(r"(?:^|_)(?:query|key|value)(?:_|$)")
_ATTENTION_OUT = re.compile(r"^(?:out|(?:attention_)?output(?:_dense)?)$")
CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")
"""Modules of GPT-2 that store (in, out)."""
_GPT2 = re.compile(rf"(?:^|[./])(?:{'|'.join(CONV1D)})\.weight$")


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
        """Return where the outputs and inputs of a tensor lie; of fewer than two axes nothing is said."""
        if len(shape) < 2:
            return TORCH
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
