"""Adapters and tied weights through `fit`: resumed to the bit, saved as they were, loaded by peft and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import weighttools as wt
from tests.train.adapters.test_lora import ours
from tests.train.models.test_models import CONFIGS, arrays, reference
from weighttools import train
from weighttools.train.tasks.model import Model

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own
IDS = np.random.default_rng(0).integers(1, 50, (12, 7))


def tuned(**options: Any) -> Model:
    base = ours("llama", arrays(reference("llama")))
    model = Model(lambda p, batch: base.run(p, {"ids": batch["ids"], "mask": None}), base.params)
    return train.lora(model, r=2, dropout=0.2, **options)


def fitted(model: Model, **options: Any) -> train.Result:
    data = train.data.arrays(ids=IDS, target=np.roll(IDS, -1, 1))
    return train.fit(model, data, task=train.Classification(50), batch_size=5, log=None, **options)


def test_only_factors_learn_and_the_result_is_peft_s_file(tmp_path: Path) -> None:
    model = tuned()
    frozen = {n: a.copy() for n, a in model.run.frozen.items()}
    result = fitted(model, epochs=6, optimizer=train.optim.adamw(lr=0.02), freeze=["*layers.0.*"])
    losses = [record["loss"] for record in result.history.epochs]
    assert losses[-1] < losses[0] - 0.2
    assert all(model.run.frozen[n].tobytes() == a.tobytes() for n, a in frozen.items())
    assert result.trained and all(".layers.1." in name for name in result.trained)
    wt.save(tmp_path / "adapter_model.safetensors", result.tensor_map)
    train.save_lora(tmp_path / "adapter", result.model, task_type="CAUSAL_LM")
    first, second = (
        load_file(tmp_path / "adapter_model.safetensors"),
        load_file(tmp_path / "adapter" / "adapter_model.safetensors"),
    )
    assert first.keys() == second.keys() and all(first[n].tobytes() == second[n].tobytes() for n in first)
    module = peft.PeftModel.from_pretrained(reference("llama"), tmp_path / "adapter").eval()
    expected = module(torch.tensor(IDS)).logits.detach().numpy()
    assert np.abs(model.run(model.params, {"ids": IDS}) - expected).max() < 1e-4


def test_both_factors_decay_as_with_torch() -> None:
    model = tuned()
    assert [line.partition(":")[0] for line in train.optim.adamw().describe(model.params).splitlines()] == [
        "decay 0.01, rate x 1"
    ]


def test_resuming_with_dropout_continues_to_the_bit(tmp_path: Path) -> None:
    whole = fitted(tuned(), epochs=4)
    fitted(tuned(), epochs=2, state=tmp_path / "state")
    resumed = fitted(tuned(), epochs=4, state=tmp_path / "state", resume=True)
    assert all(resumed.model.params[n].tobytes() == a.tobytes() for n, a in whole.model.params.items())
    assert any(np.abs(a).max() > 1e-4 for n, a in whole.model.params.items() if "lora_B" in n)
    other = fitted(tuned(seed=7), epochs=4)
    assert any(other.model.params[n].tobytes() != a.tobytes() for n, a in whole.model.params.items())


def test_generate_writes_with_the_adapter() -> None:
    values = arrays(reference("llama"))
    architecture = train.models.from_config(CONFIGS["llama"].to_dict(), values)
    model = train.lora(Model(lambda p, batch: architecture(p, batch["ids"]), values), r=2)
    rng = np.random.default_rng(0)
    for array in model.params.values():
        array += rng.standard_normal(array.shape).astype(np.float32)
    merged = train.merge_lora(wt.TensorMap.from_arrays(values), model).read()
    found = train.generate(architecture, train.weights_of(model), IDS[:2], 8)
    assert np.array_equal(found, train.generate(architecture, merged, IDS[:2], 8))
    assert not np.array_equal(found, train.generate(architecture, values, IDS[:2], 8))
    plain = Model(architecture, values)
    assert train.weights_of(plain) is plain.params


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_tied_tensors_stay_tied(kind: str, suffix: str, tmp_path: Path) -> None:
    """One array learns from both uses, as torch's does, and the file written is tied as the file read."""
    module = reference(kind)
    if suffix == "bin":
        torch.save(module.state_dict(), tmp_path / "model.bin")
    else:
        module.save_pretrained(tmp_path)
    origin = wt.open(tmp_path / f"model.{suffix}")
    config = module.config.to_dict()
    run = train.models.from_config(config, [*origin, *origin.aliases])
    names = run.report([*origin, *origin.aliases]).used
    params = {n: a for n, a in origin.read().items() if n in names}
    assert len(origin.aliases) == (suffix == "bin") and "lm_head.weight" not in params
    model = Model(lambda p, batch: run(p, batch["ids"]), params, origin)
    data = train.data.arrays(ids=IDS[:, :-1], target=IDS[:, 1:])
    result = train.fit(
        model, data, task=train.Classification(50), batch_size=12, steps=2, optimizer=train.optim.sgd(0.1), log=None
    )
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.tensor(IDS), labels=torch.tensor(IDS)).loss.backward()
        optimizer.step()
    for name, p in module.named_parameters():
        np.testing.assert_allclose(params[name], p.detach().numpy(), rtol=2e-4, atol=2e-5)
    wt.save(tmp_path / f"tuned.{suffix}", result.tensor_map)
    again = wt.open(tmp_path / f"tuned.{suffix}")
    assert again.aliases == origin.aliases and list(again) == list(origin)
    if suffix == "bin":
        state = torch.load(tmp_path / "tuned.bin", weights_only=True)
        table = "transformer.wte.weight" if kind == "gpt2" else "model.embed_tokens.weight"
        assert state["lm_head.weight"].data_ptr() == state[table].data_ptr()
    else:
        (tmp_path / "tuned").mkdir()
        (tmp_path / "tuned.safetensors").rename(tmp_path / "tuned" / "model.safetensors")
        module.config.save_pretrained(tmp_path / "tuned")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").eval()
        assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()
        expected = loaded(torch.tensor(IDS)).logits.detach().numpy()
        assert np.abs(run(params, IDS) - expected).max() < 1e-4
