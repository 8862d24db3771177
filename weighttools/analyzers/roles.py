"""What a tensor is for, told by its name and dtype: a parameter, a buffer, or optimizer state."""

from __future__ import annotations

import re

from weighttools.core.dtypes import DType

PARAMETER, BUFFER, OPTIMIZER = "parameter", "buffer", "optimizer"

_BUFFERS = frozenset(
    {
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "moving_mean",
        "moving_variance",
        "position_ids",
        "token_type_ids",
        "inv_freq",
        "original_inv_freq",
        "masked_bias",
        "attention_mask",
        "causal_mask",
        "relative_position_index",
        "rope_freqs",
    }
)
SLOTS = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
        "param_groups",
    }
)
_ROPE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""GGUF's tables of rotary frequencies, which the model's configuration determines."""
_OPTIMIZER = re.compile(r"(?:^|[./])(?:optimizers?|optimizer_weights|optimizer_states?(?:_dict)?|optim|opt_state)[./]")
_KERAS_BUFFERS = re.compile(
    r"(?:^|/)(?:batch_normalization(?:_\d*)?/vars/[23cd]|normalization(?:_\d*)?/vars/[012abc])$"
)
"""Keras 3 numbers a layer's variables: gamma, beta, moving mean, moving variance; or mean, variance, count. In a
family's words (`families`) the numbers are letters."""
_FLAX_BUFFERS = "batch_stats/"
"""Flax's collection of running statistics."""


def role(name: str, dtype: DType) -> str:
    """Return ``"parameter"``, ``"buffer"`` or ``"optimizer"``.

    A parameter is a floating (or complex) tensor that is neither of the others; integers and booleans are buffers,
    as are the running statistics and position tables that frameworks register as such.
    """
    last = name[max(name.rfind("."), name.rfind("/")) + 1 :]
    if ":" in last:
        last = last.partition(":")[0]
    if last in SLOTS or (("optim" in name or "opt_state" in name) and _OPTIMIZER.search(name)):
        return OPTIMIZER
    if ("/vars/" in name and _KERAS_BUFFERS.search(name)) or name.startswith(_FLAX_BUFFERS):
        return BUFFER
    if last in _BUFFERS or name.endswith(_ROPE) or dtype.kind not in ("float", "complex"):
        return BUFFER
    return PARAMETER
