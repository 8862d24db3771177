"""How frameworks lay out and name the tensors of a layer, as data.

Axes: ``o`` output, ``i`` input, ``w`` ``h`` ``d`` space. Sources: the documentation of torch.nn, keras.layers,
flax.linen and mlx.nn. A framework that is missing from a rule's axes has no such layer, or one whose values mean
something else (Flax's ConvTranspose flips its kernel or not, which the file does not say).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

FRAMEWORKS = ("torch", "keras", "flax", "mlx")
SEPARATORS = {"torch": ".", "keras": "/", "flax": "/", "mlx": "."}
METADATA_FORMATS = {"torch": "pt", "keras": "tf", "flax": "flax", "mlx": "mlx"}
"""The metadata entry ``format`` of safetensors files, by which loaders decide whether to transpose."""

NAMING_METADATA = ("layer_names", "weight_names", "keras_names")
"""Metadata of Keras files that lists layers and weights by the names they had."""

KERAS_VARIABLES: dict[str, tuple[str, ...]] = {
    "dense": ("kernel", "bias"),
    "conv1d": ("kernel", "bias"),
    "conv2d": ("kernel", "bias"),
    "conv3d": ("kernel", "bias"),
    "conv1d_transpose": ("kernel", "bias"),
    "conv2d_transpose": ("kernel", "bias"),
    "conv3d_transpose": ("kernel", "bias"),
    "depthwise_conv1d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "group_normalization": ("gamma", "beta"),
    "rms_normalization": ("gamma",),
}
"""Keras 3 numbers the variables of a layer (``layers/dense_1/vars/0``): their names, in that order, by class."""

KERNEL = {"torch": "weight", "keras": "kernel", "flax": "kernel", "mlx": "weight"}


@dataclass(frozen=True, slots=True)
class LayoutRule:
    """What a tensor is, and so what it is called and how its axes lie in each framework.

    Parameters
    ----------
    leaves
        Framework to the last part of the name.
    axes
        Framework to the order of the axes; empty where it is the same everywhere.
    """

    leaves: Mapping[str, str]
    axes: Mapping[str, str] = field(default_factory=dict)


def _kernel(torch: str, keras: str, flax: str, mlx: str) -> LayoutRule:
    axes = {"torch": torch, "keras": keras, "flax": flax, "mlx": mlx}
    return LayoutRule(KERNEL, {framework: order for framework, order in axes.items() if order})


def _vector(torch: str, keras: str, flax: str) -> LayoutRule:
    leaves = {"torch": torch, "keras": keras, "flax": flax, "mlx": torch}
    return LayoutRule({framework: leaf for framework, leaf in leaves.items() if leaf})


RULES: dict[str, LayoutRule] = {
    "linear": _kernel("oi", "io", "io", "oi"),
    "linear_in_out": LayoutRule(KERNEL, {"torch": "io", "keras": "io", "flax": "io", "mlx": "oi"}),
    "conv1d": _kernel("oiw", "wio", "wio", "owi"),
    "conv2d": _kernel("oihw", "hwio", "hwio", "ohwi"),
    "conv3d": _kernel("oidhw", "dhwio", "dhwio", "odhwi"),
    "conv_transpose1d": _kernel("iow", "woi", "", "owi"),
    "conv_transpose2d": _kernel("iohw", "hwoi", "", "ohwi"),
    "conv_transpose3d": _kernel("iodhw", "dhwoi", "", "odhwi"),
    "depthwise1d": LayoutRule({**KERNEL, "keras": "depthwise_kernel"}, _kernel("oiw", "wio", "wio", "owi").axes),
    "depthwise2d": LayoutRule({**KERNEL, "keras": "depthwise_kernel"}, _kernel("oihw", "hwio", "hwio", "ohwi").axes),
    "embedding": _vector("weight", "embeddings", "embedding"),
    "norm": _vector("weight", "gamma", "scale"),
    "norm_bias": _vector("bias", "beta", "bias"),
    "bias": _vector("bias", "bias", "bias"),
    "mean": _vector("running_mean", "moving_mean", "mean"),
    "variance": _vector("running_var", "moving_variance", "var"),
    "count": LayoutRule({"torch": "num_batches_tracked"}),
}
"""Every rule that a tensor can be given; ``linear_in_out`` is Hugging Face GPT-2's Conv1D."""

RANKS = {"embedding": 2, "norm": 1, "norm_bias": 1, "bias": 1, "mean": 1, "variance": 1}
"""The number of axes of rules that name none."""

STATISTICS = ("mean", "variance")

LINEAR = re.compile(
    r"linear|dense|(^|_)lin\d*$|(^|_)fc\d*(_|$)|proj|head|classif|score|logit|pooler|router|mapping|query|key|value|qkv"
    r"|^[qkvo]$|^w[qkvo\d]$|^wi(_\d)?$|(^|_)(in|out|output|gate|up|down)(_|$)|attn|attention|mlp|ffn"
)
TRANSPOSED = re.compile(r"transpos|deconv|convt(_|\d|$)|conv_t(_|\d|$)|up_?conv", re.IGNORECASE)
DEPTHWISE = re.compile(r"depthwise|(^|[_./])dw(_?conv)?(\d*)($|[_./])", re.IGNORECASE)
ATTENTION = re.compile(r"^(query|key|value|out|qkv|attention_output)$|attention|attn", re.IGNORECASE)
RECURRENT = re.compile(
    r"(^|/)\w*(LSTM|GRU|RNN)\w*Cell|^(weight|bias)_(ih|hh)|^recurrent_kernel$|^in_proj_(weight|bias)$"
    r"|(^|/)(\w+_)?cell(_\d+)?/"  # Keras's layers of recurrent cells: gru/cell/vars/0, gru_cell/kernel
)
GPT2 = re.compile(r"^(c_attn|c_proj|c_fc|q_attn)$")
