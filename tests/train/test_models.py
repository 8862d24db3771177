"""Architectures against transformers: outputs, and every tensor's gradient against torch autograd in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import weighttools as wt
from weighttools.errors import SpecError, UnsupportedError
from weighttools.train import losses, models, value_and_grad

IDS = np.random.default_rng(0).integers(1, 50, (3, 7))  # 0 pads: torch gives its row no gradient, whatever it adds
MASK = np.arange(7) < np.array([[7], [4], [6]])
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40
    ),
    "gpt2": transformers.GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16),
    "llama": transformers.LlamaConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40,
    ),
    "qwen2": transformers.Qwen2Config(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40, tie_word_embeddings=True, rope_parameters={"rope_theta": 500.0, "rope_type": "default"},
    ),
}  # fmt: skip


def reference(kind: str) -> Any:
    torch.manual_seed(0)
    config = CONFIGS[kind]
    config._attn_implementation = "eager"
    make = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    options = {"add_pooling_layer": False} if kind == "bert" else {}
    module = make.from_config(config, **options).eval()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.1 * torch.randn_like(tensor)  # no zero biases, no norms of ones
    return module


def outputs(module: Any) -> torch.Tensor:
    result = module(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long())
    return result.last_hidden_state if "last_hidden_state" in result else result.logits


def gradients(module: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    module.zero_grad()
    (outputs(module) * torch.tensor(weights).to(module.dtype)).sum().backward()
    return {name: p.grad.double().numpy() for name, p in module.named_parameters()}


def arrays(module: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def errors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Each tensor's relative error, with a floor from the global norm: a key bias has a gradient of exactly zero."""
    floor = 1e-3 * max(np.linalg.norm(g) for g in expected.values())
    return {n: float(np.linalg.norm(found[n] - g) / max(np.linalg.norm(g), floor)) for n, g in expected.items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_outputs_and_gradients_are_those_of_transformers(kind: str) -> None:
    module = reference(kind)
    exact = copy.deepcopy(module).double()
    p = arrays(module)
    run = models.from_config(CONFIGS[kind].to_dict(), p)
    weights = np.random.default_rng(1).standard_normal((*IDS.shape, outputs(exact).shape[-1])) * MASK[..., None]

    def scalar(p: Any, weights: Any) -> Any:
        return (run(p, IDS, MASK) * weights).sum()

    truth = gradients(exact, weights)
    p64 = {n: a.astype(np.float64) for n, a in p.items()}
    y = run(p64, IDS, MASK)
    assert np.abs(y - outputs(exact).detach().numpy())[MASK].max() < 2e-6  # rotary angles are float32 in transformers
    _, in64 = value_and_grad(scalar, p64, weights)
    assert max(errors(in64, truth).values()) < 2e-6
    _, in32 = value_and_grad(scalar, p, weights.astype(np.float32))
    assert {g.dtype for g in in32.values()} == {np.dtype(np.float32)} and in32.keys() == truth.keys()
    theirs = max(errors(gradients(module, weights), truth).values())
    assert max(errors(in32, truth).values()) <= 3 * theirs


def test_packed_sequences_are_the_same_as_padded_ones() -> None:
    module = reference("bert")
    p, run = arrays(module), models.from_config(CONFIGS["bert"].to_dict(), arrays(module))
    packed = run(p, IDS[MASK], lengths=MASK.sum(1).tolist())
    assert np.abs(packed - run(p, IDS, MASK)[MASK]).max() < 2e-6
    pooled = models.mean_pool(run(p, IDS, MASK), MASK)
    assert np.allclose(pooled[1], packed[7:11].mean(0), atol=1e-6)


def test_checkpoints_of_unknown_kinds_say_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="write one over the file's names: a"):
        models.from_config({"model_type": "mystery"}, ["a"])
    with pytest.raises(SpecError, match=r"wte\.weight"):
        models.from_config({"model_type": "gpt2", "n_layer": 1, "n_head": 1}, ["a"])
    with pytest.raises(SpecError, match="num_hidden_layers"):
        models.from_config({"model_type": "bert"}, ["embeddings.word_embeddings.weight"])
    with pytest.raises(UnsupportedError, match="rope_scaling"):
        models.from_config({"model_type": "llama", "rope_scaling": {"factor": 8}}, [])


def test_an_mlp_of_one_layer_is_a_weighted_sum() -> None:
    p = wt.TensorMap.from_arrays({"fc.weight": np.ones((1, 3), np.float32), "fc.bias": np.full(1, 0.5, np.float32)})
    values = {name: tensor.read() for name, tensor in p.items()}
    assert models.mlp(values, np.array([[1, 2, 3]], np.float32), layers=["fc"]).tolist() == [[6.5]]
    assert losses.mse(models.mlp(values, np.eye(3, dtype=np.float32), layers=["fc"]), target=np.full((3, 1), 1.5)) == 0


def test_scaled_rotary_embeddings_are_refused() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2}
    scaled = {**config, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}
    with pytest.raises(UnsupportedError, match="rope_type is 'yarn'"):
        models.from_config(scaled, ["model.embed_tokens.weight"])
