"""The words by which frameworks name what is no parameter: tables and patterns that `roles` asks.

Sources: the state dicts of torch.nn, torch.nn.utils (weight_norm, spectral_norm, parametrizations, prune), torch.optim,
torch.ao, Lightning, transformers, timm, diffusers and PEFT; kohya's sd-scripts; Keras 3 (``saving_lib``, legacy HDF5);
Flax and Optax; GPTQ, AWQ, compressed-tensors and bitsandbytes checkpoints.
"""

from __future__ import annotations

import re

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
"""What torch's optimizers keep for each parameter."""

OPTIMIZER = re.compile(r"(?:^|[./])(?:optimizers?|optimizer_weights|optimizer_states?(?:_dict)?|optim|opt_state)[./]")

TRAINING = re.compile(
    r"(?:callbacks|lr_schedulers?|schedulers?_state(?:_dict)?|loops|(?:native_)?amp_scaling_state|rng_states?"
    r"|random_states)[./]"
)
"""How what Lightning, Accelerate and Trainer keep beside a model begins."""
TRAINING_SCALARS = re.compile(r"(?:schedulers?|(?:grad_|amp_)?scaler)[./]")
"""The same, where only scalars are certain: a model may have a module of that name."""
TRAINING_FIGURES = re.compile(
    r"(?i)(?:best|loss|val|valid|validation|train|test|acc|accuracy|epoch|global_step|steps?|iter|iteration|lr"
    r"|learning_rate|metric|f1|bleu|ppl)(?:_\w*)?\d*"
)
"""Scalars that lie outside all modules, beside the weights: what checkpoints keep of a training's course."""

STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance"})

FLAX_STATISTICS = "batch_stats/"
"""Flax's collection of running statistics."""

BESIDE_STATISTICS = {
    "mean": ("variance", "var"),
    "variance": ("mean",),
    "var": ("mean",),
    "count": ("variance",),
}
"""Statistics with plain names, as Keras's Normalization has them: what must stand beside each."""

KERAS_NUMBERED = re.compile(
    r"(?:^|/)(?:(?P<batch>(?:\w+_)?batch_?norm(?:alization)?|bn)|(?P<all>normalization)|(?P<spectral>spectral_normalization))"
    r"(?:_?\d*)/vars/(?P<number>[0-9a-j])$"
)
"""Layers of Keras 3 whose numbered variables are, in part or all, no parameters. In a family's words numbers are
letters."""

SPECTRAL = re.compile(r"(?P<of>.+)_[uv]$")
PARAMETRIZED_VECTOR = re.compile(r"(?:^|\.)parametrizations\..*\._[uv]$")
ORTHOGONAL_BASE = re.compile(r"(?:^|\.)parametrizations\.\w+\.\d*\.base$")
KERAS_VECTORS = frozenset({"vector_u", "sn_u"})
MASK_OF = re.compile(r"(?P<of>.+)_mask$")
MASKS = frozenset({"mask", "attention_mask", "attn_mask", "causal_mask", "masked_bias"})
ATTENTION = re.compile(r"(?:^|[./])(?:self_)?(?:attn|attention)[./]bias$")
"""GPT-2's and GPT-Neo's causal masks are called bias; their shape tells."""

SCALES = re.compile(
    r"(?:\w+_)?scale_inv|(?:\w*weight|kernel|(?:reverse_)?embeddings|inputs?|outputs?|outputs_grad|activations?|act|\w*global|kv|[qkv]|prob)_scale"
    r"(?:_\d*)?|scale_(?:weight|input|output)|(?!layer_|logit_)(?:\w+_)?scales|(?:\w+_)?zero_points?|qzeros|SCB"
    r"|(?:nested_)?(?:absmax|quant_map)|\w+_amax_history"
)
BESIDE_SCALES = {"scale": ("zero_point", "zero", "W_q"), "zero": ("scale",), "biases": ("scales",)}
"""Scales with plain names, as torch.ao, HQQ and MLX have them: what must stand beside each, one of these."""

BUFFERS = frozenset(
    {
        "position_ids",
        "token_type_ids",
        "inv_freq",
        "original_inv_freq",
        "relative_position_index",
        "relative_coords_table",
        "rope_freqs",
        "cos_cached",
        "sin_cached",
        "freqs_cis",
        "pixel_mean",
        "pixel_std",
        "anchor_grid",
        "cluster_size",
        "embed_avg",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef",
        "total_ops",
        "total_params",
        "weight_format",
        "g_idx",
    }
)
"""What modules register as buffers; names without digits too, as a family's words are."""

GGUF_ROPE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""GGUF's tables of rotary frequencies, which the model's configuration determines."""

FACTORS = (
    "lora_down.weight",
    "lora_up.weight",
    "lora_A.weight",
    "lora_B.weight",
    "hada_w1_a",
    "hada_w2_a",
    "lokr_w1",
    "lokr_w2",
    "lokr_w1_a",
    "lokr_w2_a",
    "oft_blocks",
    "oft_diag",
)
"""What kohya's and LyCORIS's ``alpha`` stands beside: it is the strength of these, and a buffer."""
