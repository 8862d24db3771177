"""The operations: fused, with hand-written pullbacks. Each works on plain arrays and on a tape's variables alike.

- Layers: `linear`, `embedding`, `matmul`, `conv`, `max_pool`, `avg_pool`
- Attention: `attention`, `rope`, `rope_tables`
- Norms and noise: `layer_norm`, `rms_norm`, `batch_norm`, `normalize`, `softmax`, `log_softmax`, `dropout`
- Activations: `relu`, `leaky_relu`, `elu`, `gelu`, `gelu_tanh`, `silu`, `swiglu`, `sigmoid`, `tanh`
- Arithmetic: `add`, `sub`, `mul`, `div`, `power`, `absolute`, `exp`, `log`, `sqrt`, `sum`, `mean`
- Shapes: `reshape`, `transpose`, `take`, `concat`
"""

from __future__ import annotations

from weighttools.train.autograd.variable import absolute as absolute
from weighttools.train.autograd.variable import add as add
from weighttools.train.autograd.variable import div as div
from weighttools.train.autograd.variable import matmul as matmul
from weighttools.train.autograd.variable import mean as mean
from weighttools.train.autograd.variable import mul as mul
from weighttools.train.autograd.variable import power as power
from weighttools.train.autograd.variable import reshape as reshape
from weighttools.train.autograd.variable import sub as sub
from weighttools.train.autograd.variable import sum as sum
from weighttools.train.autograd.variable import take as take
from weighttools.train.autograd.variable import transpose as transpose
from weighttools.train.ops.attention import attention as attention
from weighttools.train.ops.attention import rope as rope
from weighttools.train.ops.attention import rope_tables as rope_tables
from weighttools.train.ops.basic import concat as concat
from weighttools.train.ops.basic import exp as exp
from weighttools.train.ops.basic import log as log
from weighttools.train.ops.basic import sqrt as sqrt
from weighttools.train.ops.conv import avg_pool as avg_pool
from weighttools.train.ops.conv import conv as conv
from weighttools.train.ops.conv import max_pool as max_pool
from weighttools.train.ops.dense import embedding as embedding
from weighttools.train.ops.dense import linear as linear
from weighttools.train.ops.dropout import dropout as dropout
from weighttools.train.ops.norms import batch_norm as batch_norm
from weighttools.train.ops.norms import layer_norm as layer_norm
from weighttools.train.ops.norms import log_softmax as log_softmax
from weighttools.train.ops.norms import normalize as normalize
from weighttools.train.ops.norms import rms_norm as rms_norm
from weighttools.train.ops.norms import softmax as softmax
from weighttools.train.ops.pointwise import elu as elu
from weighttools.train.ops.pointwise import gelu as gelu
from weighttools.train.ops.pointwise import gelu_tanh as gelu_tanh
from weighttools.train.ops.pointwise import leaky_relu as leaky_relu
from weighttools.train.ops.pointwise import relu as relu
from weighttools.train.ops.pointwise import sigmoid as sigmoid
from weighttools.train.ops.pointwise import silu as silu
from weighttools.train.ops.pointwise import swiglu as swiglu
from weighttools.train.ops.pointwise import tanh as tanh

__all__ = [
    "absolute",
    "add",
    "attention",
    "avg_pool",
    "batch_norm",
    "concat",
    "conv",
    "div",
    "dropout",
    "elu",
    "embedding",
    "exp",
    "gelu",
    "gelu_tanh",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max_pool",
    "mean",
    "mul",
    "normalize",
    "power",
    "relu",
    "reshape",
    "rms_norm",
    "rope",
    "rope_tables",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "sub",
    "sum",
    "swiglu",
    "take",
    "tanh",
    "transpose",
]


def __dir__() -> list[str]:
    return sorted(__all__)
