"""Low-rank adapters against peft and torch: gradients, saving, loading, dropout, what is refused."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.train.gradcheck import gradcheck
from tests.train.models.test_models import CONFIGS, IDS, MASK, arrays, errors, outputs, reference
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.train import (
    adapter_of,
    load_lora,
    lora,
    merge_lora,
    models,
    save_lora,
    value_and_grad,
)
from weighttools.train.adapters.low_rank import LowRank, low_rank_linear
from weighttools.train.ops import embedding, linear, tanh, transpose
from weighttools.train.optim import adamw
from weighttools.train.tasks.model import Model

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own
TARGETS = {
    "bert": ["query", "value", "dense"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "v_proj", "down_proj"],
    "distilbert": ["q_lin", "lin1"],
    "albert": ["query", "value", "ffn"],
    "gemma2": ["q_proj", "o_proj"],
    "phi3": ["qkv_proj", "gate_up_proj"],
}


def ours(kind: str, values: dict[str, Any], **options: Any) -> Model:
    run = models.from_config(CONFIGS[kind].to_dict(), values)
    return Model(lambda p, batch: run(p, batch["ids"], batch["mask"], **options), dict(values))


def theirs(kind: str, seed: int = 1, **options: Any) -> Any:
    """A peft model whose factors are both random."""
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": TARGETS[kind], **options})
    model = peft.get_peft_model(reference(kind), config).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(0.3 * torch.randn_like(p))
    return model


BATCH = {"ids": IDS, "mask": MASK}


def trained(module: Any) -> dict[str, Any]:
    return {n.replace(".default", ""): p for n, p in module.named_parameters() if p.requires_grad}


def gradients_of(module: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    module.zero_grad()
    (outputs(module) * torch.tensor(weights).to(next(module.parameters()).dtype)).sum().backward()
    return {n: p.grad.double().numpy() for n, p in trained(module).items()}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_outputs_and_gradients_are_those_of_peft(kind: str, rslora: bool, tmp_path: Path) -> None:
    base = arrays(reference(kind))
    module = theirs(kind, use_rslora=rslora)
    module.save_pretrained(tmp_path)
    model = load_lora(ours(kind, base), tmp_path)
    assert set(model.params) == set(trained(module))
    y = model.run(model.params, BATCH)
    assert np.abs(y - outputs(module).detach().numpy())[MASK].max() < 1e-5
    weights = np.random.default_rng(1).standard_normal(y.shape) * MASK[..., None]
    single = gradients_of(module, weights)
    truth = gradients_of(module.double(), weights)
    wide = load_lora(ours(kind, {n: a.astype(np.float64) for n, a in base.items()}), tmp_path)

    def scalar(p: Any, weights: Any, model: Model) -> Any:
        return (model.run(p, BATCH) * weights).sum()

    _, found = value_and_grad(scalar, wide.params, weights, wide)
    assert found.keys() == truth.keys() and max(errors(found, truth).values()) < 2e-6
    _, found = value_and_grad(scalar, model.params, weights.astype(np.float32), model)
    assert {g.dtype for g in found.values()} == {np.dtype(np.float32)}
    assert max(errors(found, truth).values()) <= 3 * max(errors(single, truth).values())


@pytest.mark.parametrize("kind", TARGETS)
def test_peft_loads_what_we_save(kind: str, tmp_path: Path) -> None:
    base = reference(kind)
    model = lora(ours(kind, arrays(base)), r=2, alpha=3, rslora=True, targets=[f"*{t}.weight" for t in TARGETS[kind]])
    rng = np.random.default_rng(0)
    for array in model.params.values():
        array[...] = 0.3 * rng.standard_normal(array.shape)
    save_lora(tmp_path / "adapter", model, task_type="FEATURE_EXTRACTION")
    module = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert np.abs(model.run(model.params, BATCH) - outputs(module).detach().numpy())[MASK].max() < 1e-5
    again = load_lora(ours(kind, arrays(reference(kind))), tmp_path / "adapter")
    assert again.params.keys() == model.params.keys()
    assert all(again.params[n].tobytes() == a.tobytes() for n, a in model.params.items())
    assert again.run.places == model.run.places
    with pytest.raises(wt.WeighttoolsError, match=r"exists and is not empty; force \(--force\) replaces its weights"):
        save_lora(tmp_path / "adapter", model)
    save_lora(tmp_path / "adapter", model, force=True)


def test_factors_begin_as_peft_begins_them() -> None:
    model = lora(ours("llama", arrays(reference("llama"))), r=4)
    module = peft.get_peft_model(reference("llama"), peft.LoraConfig(r=4))  # its default targets too
    assert {n: a.shape for n, a in model.params.items()} == {n: tuple(p.shape) for n, p in trained(module).items()}
    for name, array in model.params.items():
        if "lora_B" in name:
            assert not array.any()
        else:
            bound = 1 / math.sqrt(array.shape[1])
            assert 0.85 * bound < np.abs(array).max() <= bound and abs(array.mean()) < 0.2 * bound
    many = lora(Model(linear, {"q.weight": np.zeros((4, 512), np.float32)}), r=256, targets="q*").params
    a = many["base_model.model.q.lora_A.weight"]
    assert abs(a.std() * math.sqrt(3 * 512) - 1) < 0.01 and np.abs(a).max() <= 1 / math.sqrt(512)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_new_adapter_changes_nothing_and_trains_only_itself(kind: str) -> None:
    base = ours(kind, arrays(reference(kind)))
    before = {n: a.copy() for n, a in base.params.items()}
    model = lora(base, r=2, seed=3)
    assert np.array_equal(model.run(model.params, BATCH), base.run(base.params, BATCH))

    def loss(p: Any) -> Any:
        return (model.run(p, BATCH) * MASK[..., None].astype(np.float32)).sum()

    optimizer = adamw(lr=0.1)
    state = optimizer.init(model.params)
    values = []
    for _ in range(4):
        value, grads = value_and_grad(loss, model.params)
        optimizer.step(model.params, grads, state)
        values.append(float(value))
    assert values[-1] < values[0] - 0.1 and len(set(values)) == 4
    assert all(base.params[n].tobytes() == a.tobytes() for n, a in before.items())


@given(
    st.lists(st.integers(1, 5), min_size=5, max_size=5), st.booleans(), st.sampled_from([0.0, 0.4]), st.integers(0, 99)
)
def test_pullback(sizes: list[int], has_bias: bool, rate: float, seed: int) -> None:
    n, m, n_in, n_out, rank = sizes
    rng = np.random.default_rng(seed)
    shapes = [(n, m, n_in), (n_out, n_in), (rank, n_in), (n_out, rank), *([(n_out,)] if has_bias else [])]
    f = functools.partial(low_rank_linear, scale=1.5, rate=rate, seed=(seed, 1))
    gradcheck(f, [rng.standard_normal(s) for s in shapes], seed=seed)


def test_it_is_the_dense_weight() -> None:
    """Forward and gradients as of the matrix that it stands for, transposed or not."""
    rng = np.random.default_rng(0)
    x, w, a, b = (rng.standard_normal(s) for s in ((7, 5), (4, 5), (2, 5), (4, 2)))
    low = LowRank(w, a, b, 0.7)
    assert np.allclose(linear(x, low), x @ (w + 0.7 * b @ a).T, atol=1e-13)
    stored = LowRank(w.T.copy(), a, b, 0.7, is_turned=True)
    assert np.allclose(linear(x, transpose(stored)), linear(x, low), atol=1e-13)
    assert stored.shape == (5, 4) and transpose(stored).shape == (4, 5) and low.ndim == 2 and low.dtype == np.float64


def test_frozen_weights_cost_no_gradient_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product of the size of a weight is made on the way back but the one for the input."""
    x, w = np.ones((64, 40)), np.ones((30, 40))
    p = {"a": np.ones((2, 40)), "b": np.zeros((30, 2))}
    shapes: list[tuple[int, ...]] = []
    matmul = np.matmul

    def seen(*args: Any, **options: Any) -> Any:
        shapes.append(np.dot(*args).shape)
        return matmul(*args, **options)

    monkeypatch.setattr(np, "matmul", seen)
    value_and_grad(lambda p: linear(x, LowRank(w, p["a"], p["b"], 1.0)).sum(), p)
    assert w.shape not in shapes and shapes.count((64, 30)) == 1 and (64, 40) not in shapes


def test_dropout_is_of_the_inputs_and_can_be_had_again() -> None:
    base = Model(lambda p, batch: linear(batch["inputs"], p["q.weight"]), {"q.weight": np.zeros((1, 1000))})
    model = lora(base, r=1, alpha=1, targets="q*", dropout=0.25, seed=5)
    name_a, name_b = model.params
    model.params[name_a][...] = 1
    model.params[name_b][...] = 1

    def value(seed: Any, model: Model = model) -> float:
        batch = {"inputs": np.ones((1, 1000)), "seed": seed}
        return float(value_and_grad(lambda p: model.run(p, batch).sum(), model.params)[0])

    assert float(model.run(model.params, {"inputs": np.ones((1, 1000))}).sum()) == 1000  # none in evaluation
    first = value((0, 1, 2, 3))
    kept = first * 0.75
    assert abs(kept - round(kept)) < 1e-6 and abs(kept - 750) < 5 * math.sqrt(1000 * 0.25 * 0.75)
    assert value((0, 1, 2, 3)) == first  # the same step again
    drops = {first, *(value((0, 1, step, 0)) for step in range(4))}
    drops.add(value((0, 1, 2, 3), dataclasses.replace(model, run=dataclasses.replace(model.run, seed=6))))
    assert len({round(d * 0.75) for d in drops}) >= 4  # counts may meet by chance


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_gradients_are_the_same_when_layers_are_computed_again(kind: str) -> None:
    values = arrays(reference(kind))
    plain, again = (
        lora(ours(kind, values), r=2, dropout=0.3),
        lora(ours(kind, values, recompute=True), r=2, dropout=0.3),
    )
    rng = np.random.default_rng(0)
    params = {n: a + rng.standard_normal(a.shape).astype(np.float32) for n, a in plain.params.items()}
    batch = {**BATCH, "seed": (0, 2, 5, 0)}
    (y, g), (y2, g2) = (
        value_and_grad(lambda p, model: model.run(p, batch).sum(), params, model) for model in (plain, again)
    )
    assert y == y2 and g.keys() == g2.keys() == params.keys()
    assert all(np.allclose(g[n], g2[n], rtol=1e-5, atol=1e-6) for n in g)


def test_targets_that_are_not_there_and_other_mistakes() -> None:
    model = ours("gpt2", arrays(reference("gpt2")))
    with pytest.raises(TensorNotFoundError, match="'\\*q_proj\\*' matches no tensor"):
        lora(model, targets=["*c_attn*", "*q_proj*"])
    with pytest.raises(TensorNotFoundError, match="matches no tensor"):
        lora(model, targets="*.bias")  # no matrices
    with pytest.raises(SpecError, match="rank of 0"):
        lora(model, r=0)
    with pytest.raises(SpecError, match="dropout 1"):
        lora(model, dropout=1.0)
    with pytest.raises(SpecError, match="no targets"):
        lora(model, targets=[])
    with pytest.raises(SpecError, match="the other way round"):
        turned = lora(model, fan_in_fan_out=False)
        turned.run(turned.params, BATCH)
    with pytest.raises(SpecError, match=r"transformer.wte.weight: the model uses this weight in 'embedding'"):
        table = lora(model, targets="*wte*")
        table.run(table.params, BATCH)
    with pytest.raises(TensorNotFoundError, match="usual name"):
        lora(Model(linear, {"w": np.ones((2, 2))}))
    with pytest.raises(SpecError, match="has no adapter"):
        save_lora("nowhere", model)
    with pytest.raises(SpecError, match="NumPy"):
        np.asarray(LowRank(np.ones((2, 2)), np.ones((1, 2)), np.ones((2, 1)), 1.0))
    tied = dataclasses.replace(model, origin=wt.TensorMap.from_arrays({}, aliases={"lm_head.weight": "wte.weight"}))
    with pytest.raises(TensorNotFoundError, match=r"lm_head.weight is tied to wte.weight"):
        lora(tied, targets="lm_head*")


def test_adapters_that_do_not_fit_are_refused_when_they_are_loaded(tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "llama")
    with pytest.raises(SpecError, match="which the base does not have"):
        load_lora(ours("gpt2", arrays(reference("gpt2"))), tmp_path / "llama")
    values = arrays(reference("llama"))
    name = "model.layers.1.self_attn.q_proj.weight"
    with pytest.raises(SpecError, match=r"layers.1.self_attn.q_proj.weight: factors .* do not fit a weight \(20, 24\)"):
        load_lora(Model(linear, {**values, name: values[name][:20]}), tmp_path / "llama")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    peft.get_peft_model(reference("llama"), config).save_pretrained(tmp_path / "headed")
    with pytest.raises(SpecError, match=r"brings 'lm_head.weight', which the model does not have"):
        load_lora(Model(linear, {n: a for n, a in values.items() if n != "lm_head.weight"}), tmp_path / "headed")


def test_all_linear_and_patterns() -> None:
    model = ours("llama", arrays(reference("llama")))
    stems = {n.split(".")[-3] for n in lora(model, targets="all-linear").params}
    assert stems == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    only = lora(model, targets=["*layers.1*q_proj*"])
    assert len(only.params) == 2 and only.notes[-1].startswith("LoRA: 1 weights adapted")


@pytest.mark.parametrize("kind", TARGETS)
def test_modules_are_named_as_for_peft(kind: str) -> None:
    module = peft.get_peft_model(reference(kind), peft.LoraConfig(r=2, target_modules=TARGETS[kind]))
    model = ours(kind, arrays(reference(kind)))
    assert set(lora(model, r=2, targets=TARGETS[kind]).params) == set(trained(module))
    first = lora(model, r=2, targets=TARGETS[kind][0]).params
    assert set(first) == set(lora(model, r=2, targets=f"*.{TARGETS[kind][0]}.weight").params)
    name = next(iter(first)).removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    for target in (name, f"{name}.weight", name.partition(".")[2], f"re:^{name}"):
        assert len(lora(model, r=2, targets=[target]).params) == 2


@pytest.mark.parametrize("target", ["proj", "_proj", "q_proj.", "self_attn", "q_pro"])
def test_a_part_of_a_modules_name_is_no_name(target: str) -> None:
    with pytest.raises(TensorNotFoundError, match="matches no tensor"):
        lora(ours("llama", arrays(reference("llama"))), targets=["q_proj", target])


def test_heads_are_trained_whole_and_saved_as_modules_to_save(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=40, num_labels=3
    )
    torch.manual_seed(0)
    module = transformers.BertForSequenceClassification(config).eval()
    values = arrays(module)
    run = models.from_config(config.to_dict(), values)

    def classify(p: Any, batch: Any) -> Any:
        first = run(p, batch["ids"], batch["mask"])[:, 0]
        return linear(
            tanh(linear(first, p["bert.pooler.dense.weight"], p["bert.pooler.dense.bias"])),
            p["classifier.weight"],
            p["classifier.bias"],
        )

    model = lora(Model(classify, values, added=("classifier.weight", "classifier.bias")), r=2)
    rng = np.random.default_rng(0)
    for array in model.params.values():
        array += (0.3 * rng.standard_normal(array.shape)).astype(np.float32)
    found = model.run(model.params, BATCH)
    save_lora(tmp_path / "a", model, task_type="SEQ_CLS")
    base = transformers.BertForSequenceClassification(config)
    base.load_state_dict(module.state_dict())
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "a").eval()
    expected = loaded(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long()).logits.detach().numpy()
    assert np.abs(found - expected).max() < 1e-5
    again = load_lora(Model(classify, arrays(module)), tmp_path / "a")
    assert np.array_equal(again.run(again.params, BATCH), found)
    merged = merge_lora(wt.TensorMap.from_arrays(arrays(module)), model).read()
    assert np.abs(classify(merged, BATCH) - found).max() < 1e-5
    with pytest.raises(SpecError, match="adapted and trained whole"):
        lora(Model(classify, values), targets="*query.weight", also=["*query*"])


def test_a_trained_model_merges_as_its_saved_adapter(tmp_path: Path) -> None:
    values = arrays(reference("gpt2"))
    model = lora(ours("gpt2", values), r=2)
    for array in model.params.values():
        array += np.float32(0.01)
    save_lora(tmp_path / "a", model)
    base = wt.TensorMap.from_arrays(values)
    first, second = merge_lora(base, model).read(), merge_lora(base, tmp_path / "a").read()
    assert all(first[n].tobytes() == second[n].tobytes() for n in base)
    assert {n for n in base if first[n].tobytes() != values[n].tobytes()} == {p.name for p in model.run.places}
    assert adapter_of(model).updates.keys() == {p.name.removesuffix(".weight") for p in model.run.places}
    plain = ours("gpt2", first)
    assert np.abs(plain.run(first, BATCH) - model.run(model.params, BATCH))[MASK].max() < 1e-5


def test_an_embedding_is_no_weighted_sum() -> None:
    with pytest.raises(SpecError, match="'embedding'"):
        embedding(LowRank(np.ones((2, 2)), np.ones((1, 2)), np.ones((2, 1)), 1.0), ids=np.zeros(1, int))
