"""What `train_speed.py` measures: for each workload our step and torch's, with random weights of the real shapes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

SMALL = "--small" in sys.argv
RNG = np.random.default_rng(0)
Step = Callable[[], Any]
Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bert:
    """all-MiniLM-L6-v2's sizes."""

    size: int = 48 if SMALL else 384
    layers: int = 2 if SMALL else 6
    vocabulary: int = 1000 if SMALL else 30522
    batch: int = 4 if SMALL else 32


@dataclass(frozen=True)
class Llama:
    """SmolLM-135M's sizes."""

    size: int = 576
    layers: int = 2 if SMALL else 30
    vocabulary: int = 1000 if SMALL else 49152
    tokens: int = 32 if SMALL else 128


def normal(*shape: int) -> np.ndarray:
    array = RNG.standard_normal(shape, np.float32)
    array *= 0.02
    return array


def tensors(params: Mapping[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(a).requires_grad_(True) for name, a in params.items()}


def loaded(module: Any, params: Params) -> Any:
    """Put the arrays into a module whose tensors have the same names; tied ones stay tied."""
    import torch

    state = {name: torch.from_numpy(a) for name, a in params.items()}
    missing = module.load_state_dict(state, strict=False, assign=True).missing_keys
    module.tie_weights()
    assert all(name in ("lm_head.weight", "embeddings.position_ids") for name in missing), missing
    return module


# The MLP


def mlp_data() -> tuple[Params, np.ndarray, np.ndarray]:
    sizes = (784, 512, 512, 10)
    p = {f"{i}.weight": normal(o, n) for i, (n, o) in enumerate(pairwise(sizes))}
    p |= {f"{i}.bias": normal(o) for i, o in enumerate(sizes[1:])}
    return p, normal(128, 784), RNG.integers(0, 10, 128)


def mlp_ours() -> Step:
    from weighttools import train
    from weighttools.train import models

    p, x, y = mlp_data()

    def loss(p: Any) -> Any:
        return train.losses.cross_entropy(models.mlp(p, x, layers=["0", "1", "2"]), target=y)

    return lambda: train.value_and_grad(loss, p)


def mlp_torch() -> Step:
    import torch

    p, x, y = mlp_data()
    t, tx, ty = tensors(p), torch.from_numpy(x), torch.from_numpy(y)

    def step() -> None:
        for tensor in t.values():
            tensor.grad = None
        h = tx
        for i in range(3):
            h = torch.nn.functional.linear(h if i == 0 else h.relu(), t[f"{i}.weight"], t[f"{i}.bias"])
        torch.nn.functional.cross_entropy(h, ty).backward()

    return step


# MiniLM


def bert_params(c: Bert) -> Params:
    n, rows = c.size, {"word": c.vocabulary, "position": 512, "token_type": 2}
    p = {f"embeddings.{t}_embeddings.weight": normal(count, n) for t, count in rows.items()}
    norms = ["embeddings", *(f"encoder.layer.{i}.{s}" for i in range(c.layers) for s in ("attention.output", "output"))]
    for at in norms:
        p |= {f"{at}.LayerNorm.weight": np.ones(n, np.float32), f"{at}.LayerNorm.bias": np.zeros(n, np.float32)}
    for at in (f"encoder.layer.{i}" for i in range(c.layers)):
        dense = {f"attention.self.{s}": (n, n) for s in ("query", "key", "value")} | {"attention.output.dense": (n, n)}
        for name, shape in (dense | {"intermediate.dense": (4 * n, n), "output.dense": (n, 4 * n)}).items():
            p |= {f"{at}.{name}.weight": normal(*shape), f"{at}.{name}.bias": normal(shape[0])}
    return p


def bert_data(c: Bert, ragged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (batch, 64), and each sequence's length: 8 to 64, or 64."""
    lengths = np.linspace(8, 64, c.batch).astype(int) if ragged else np.full(c.batch, 64)
    return RNG.integers(1, c.vocabulary, (c.batch, 64)), RNG.permutation(lengths)


def top_two(names: Iterator[str] | Params, c: Bert) -> list[str]:
    return [n for n in names if n.startswith(tuple(f"encoder.layer.{i}." for i in range(c.layers - 2, c.layers)))]


def bert_ours(ragged: bool = False, top: bool = False) -> Step:
    from weighttools import train
    from weighttools.train import models

    c = Bert()
    p, (ids, lengths) = bert_params(c), bert_data(c, ragged)
    data: dict[str, Any] = {}
    if ragged:
        ids = np.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)])
        data = {"lengths": lengths.tolist()}

    def loss(p: Any) -> Any:
        y = models.bert(p, ids, layers=c.layers, heads=12, **data)
        return train.ops.mean(y * y)

    return lambda: train.value_and_grad(loss, p, train=top_two(p, c) if top else None)


def bert_torch(ragged: bool = False, top: bool = False) -> Step:
    import torch
    from transformers import BertConfig, BertModel

    c = Bert()
    sizes = {"hidden_size": c.size, "num_hidden_layers": c.layers, "intermediate_size": 4 * c.size}
    config = BertConfig(vocab_size=c.vocabulary, num_attention_heads=12, **sizes)
    with torch.device("meta"):
        module = BertModel(config, add_pooling_layer=False).eval()
    params = bert_params(c)
    module.embeddings.position_ids = torch.arange(512)[None]
    module.embeddings.token_type_ids = torch.zeros(1, 512, dtype=torch.long)
    loaded(module, params)
    trained = top_two(params, c) if top else params
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    ids, lengths = bert_data(c, ragged)
    mask = torch.from_numpy(np.arange(64) < lengths[:, None])
    data = {"attention_mask": mask.long()} if ragged else {}
    tids, n = torch.from_numpy(ids), int(lengths.sum()) * c.size

    def step() -> None:
        module.zero_grad()
        y = module(input_ids=tids, **data).last_hidden_state
        ((y[mask] if ragged else y).square().sum() / n).backward()

    return step


# SmolLM


def llama_params(c: Llama) -> Params:
    n, inner = c.size, 1536
    dense = {"self_attn.q_proj": (n, n), "self_attn.k_proj": (192, n), "self_attn.v_proj": (192, n)}
    dense |= {"self_attn.o_proj": (n, n), "mlp.gate_proj": (inner, n), "mlp.up_proj": (inner, n)}
    p = {"model.embed_tokens.weight": normal(c.vocabulary, n), "model.norm.weight": np.ones(n, np.float32)}
    for at in (f"model.layers.{i}" for i in range(c.layers)):
        p |= {f"{at}.{s}.weight": normal(*shape) for s, shape in (dense | {"mlp.down_proj": (n, inner)}).items()}
        p |= {f"{at}.{s}_layernorm.weight": np.ones(n, np.float32) for s in ("input", "post_attention")}
    return p


def llama_torch_module(c: Llama, params: Params) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    sizes = {"hidden_size": c.size, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}
    config = LlamaConfig(
        vocab_size=c.vocabulary, num_hidden_layers=c.layers, tie_word_embeddings=True, rms_norm_eps=1e-5, **sizes
    )
    with torch.device("meta"):
        module = LlamaForCausalLM(config).eval()
    module.model.rotary_emb = LlamaRotaryEmbedding(config)  # the one table that no file holds
    return loaded(module, params)


def following(ids: np.ndarray) -> np.ndarray:
    """Return the token after each; the last has none."""
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -100)], axis=1)


def llama_loss(c: Llama) -> tuple[Any, np.ndarray]:
    from weighttools import train
    from weighttools.train import models

    ids = RNG.integers(1, c.vocabulary, (1, c.tokens))

    def loss(p: Any) -> Any:
        logits = models.llama(p, ids, layers=c.layers, heads=9, key_heads=3)
        return train.losses.cross_entropy(logits, target=following(ids))

    return loss, ids


def llama_ours(update: bool = False) -> Step:
    from weighttools import train

    without_numba()
    c = Llama()
    p, (loss, _) = llama_params(c), llama_loss(c)
    if not update:
        return lambda: train.value_and_grad(loss, p)
    optimizer = train.optim.adamw(1e-5).after(train.optim.ClipNorm(1.0))
    state = optimizer.init(p)

    def step() -> None:
        _, grads = train.value_and_grad(loss, p)
        optimizer.step(p, grads, state)

    return step


def llama_torch(update: bool = False) -> Step:
    import torch

    c = Llama()
    module = llama_torch_module(c, llama_params(c))
    ids = torch.from_numpy(RNG.integers(1, c.vocabulary, (1, c.tokens)))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-5)

    def step() -> None:
        module.zero_grad()
        module(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        if update:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()

    return step


def lora_ours() -> Step:
    from weighttools import train
    from weighttools.train import models
    from weighttools.train.parallel import threads_for
    from weighttools.train.tasks.model import weights

    c = Llama()
    p, ids = llama_params(c), RNG.integers(1, c.vocabulary, (1, c.tokens))
    sizes = {"layers": c.layers, "heads": 9, "key_heads": 3}
    base = train.Model(lambda p, batch: models.llama(p, batch["ids"], **sizes), p)
    tuned = train.lora(base, r=8, alpha=16, targets=["*.q_proj.weight", "*.v_proj.weight"])

    def loss(p: Any) -> Any:
        return train.losses.cross_entropy(tuned.run(p, {"ids": ids}), target=following(ids))

    def step() -> None:
        with threads_for(weights(tuned.run, tuned.params)):  # as fit does
            train.value_and_grad(loss, tuned.params)

    return step


def lora_torch() -> Step:
    import torch
    from peft import LoraConfig, get_peft_model

    c = Llama()
    module = llama_torch_module(c, llama_params(c))
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    module = get_peft_model(module, config).eval()
    ids = torch.from_numpy(RNG.integers(1, c.vocabulary, (1, c.tokens)))

    def step() -> None:
        module.zero_grad()
        module(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    return step


# AdamW


def without_numba() -> None:
    """Take the chain of NumPy sweeps even where numba is installed."""
    from weighttools.train.optim import fused

    fused._compiled = lambda: None


def adamw_params() -> tuple[Params, Params]:
    sizes = [(100, 100)] if SMALL else [(30522, 384), *[(1536, 384), (384, 1536), (384, 384)] * 6, (1536, 2048)]
    p = {f"{i}.weight": normal(*s) for i, s in enumerate(sizes)}
    return p, {name: normal(*a.shape) for name, a in p.items()}


def adamw_ours(fast: bool = False) -> Step:
    from weighttools import train

    if not fast:
        without_numba()
    p, g = adamw_params()
    optimizer = train.optim.adamw(1e-3)
    state = optimizer.init(p)
    return lambda: optimizer.step(p, g, state)


def adamw_torch(**options: Any) -> Step:
    import torch

    p, g = adamw_params()
    t = tensors(p)
    for name, tensor in t.items():
        tensor.grad = torch.from_numpy(g[name])
    return torch.optim.AdamW(list(t.values()), 1e-3, **options).step


# HIPS autograd


def mlp_autograd() -> Step:
    from autograd_workloads import mlp

    return mlp(*mlp_data())


def bert_autograd() -> Step:
    from autograd_workloads import bert

    c = Bert()
    return bert(bert_params(c), bert_data(c, ragged=False)[0], c.layers, 12)


@dataclass(frozen=True)
class Workload:
    """Two contestants and the ratio of their times: what must hold, and the aim."""

    ours: Callable[[], Step]
    theirs: Callable[[], Step]
    must: float
    aim: float


WORKLOADS = {
    "mlp": Workload(mlp_ours, mlp_torch, 1.05, 0.95),
    "minilm": Workload(bert_ours, bert_torch, 1.05, 0.95),
    "ragged": Workload(lambda: bert_ours(ragged=True), lambda: bert_torch(ragged=True), 0.75, 0.65),
    "top-two": Workload(lambda: bert_ours(top=True), lambda: bert_torch(top=True), 1.05, 0.9),
    "smollm": Workload(llama_ours, llama_torch, 0.88, 0.80),
    "smollm-adamw": Workload(lambda: llama_ours(update=True), lambda: llama_torch(update=True), 1.0, 0.86),
    "smollm-lora": Workload(lora_ours, lora_torch, 0.92, 0.85),
    "adamw": Workload(adamw_ours, adamw_torch, 0.6, 0.6),
    "adamw-fused": Workload(adamw_ours, lambda: adamw_torch(fused=True), 2.8, 2.8),
    "adamw-fast": Workload(lambda: adamw_ours(fast=True), lambda: adamw_torch(fused=True), 1.1, 1.1),
    "mlp-autograd": Workload(mlp_ours, mlp_autograd, 0.33, 0.33),
    "minilm-autograd": Workload(bert_ours, bert_autograd, 0.33, 0.33),
}
