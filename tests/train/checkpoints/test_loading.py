"""Checkpoints with heads against transformers: what it wrote gives the same outputs here, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from torch import nn

import weighttools as wt
from weighttools import train
from weighttools.errors import SpecError, UnsupportedError, WeighttoolsError
from weighttools.train.data.texts import Texts

SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**SIZES, "intermediate_size": 40, "max_position_embeddings": 20}
DECODER = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 40, "pad_token_id": 0}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig(**ENCODER),
    "roberta": transformers.RobertaConfig(**{**ENCODER, "max_position_embeddings": 22}, pad_token_id=1),
    "distilbert": transformers.DistilBertConfig(vocab_size=50, dim=24, n_layers=2, n_heads=4, hidden_dim=40),
    "albert": transformers.AlbertConfig(**ENCODER, embedding_size=12),
    "electra": transformers.ElectraConfig(**ENCODER, embedding_size=12),
    "gpt2": transformers.GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=20, pad_token_id=0),
    "llama": transformers.LlamaConfig(**DECODER),
    "qwen2": transformers.Qwen2Config(**DECODER),
}
IDS = tuple(np.random.default_rng(i).integers(3, 50, n).astype(np.int32) for i, n in enumerate((7, 3, 5, 7)))


def texts(kind: str) -> Texts:
    pairs = tuple(np.arange(len(one), dtype=np.int32) // 4 for one in IDS) if kind in ("bert", "albert") else None
    return Texts(IDS, pairs, np.array([0, 1, 2, 1]), CONFIGS[kind].pad_token_id)


def shaken(module: Any) -> Any:
    """A module with no zero biases and no norms of ones."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.1 * torch.randn_like(tensor)
    return module.eval()


def theirs(module: Any, batch: Any) -> np.ndarray:
    inputs = {"input_ids": torch.tensor(batch["ids"]).long(), "attention_mask": torch.tensor(batch["mask"]).long()}
    if "segments" in batch:
        inputs["token_type_ids"] = torch.tensor(batch["segments"]).long()
    with torch.no_grad():
        logits: np.ndarray = module(**inputs).logits.numpy()
    return logits


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_head_of_transformers_gives_the_same_scores(kind: str, tmp_path: Path) -> None:
    config = type(CONFIGS[kind])(**{**CONFIGS[kind].to_dict(), "num_labels": 3, "id2label": None, "label2id": None})
    config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    module = shaken(transformers.AutoModelForSequenceClassification.from_config(config))
    module.save_pretrained(tmp_path)
    model = train.model(tmp_path)
    assert isinstance(model.head, train.Classifier) and model.head.names == ("no", "maybe", "yes")
    assert model.added == () and "not used" not in model.notes[0]
    batch = texts(kind).batch(np.arange(4))
    found = model.run(model.params, batch)
    assert found.dtype == np.float32 and np.abs(found - theirs(module, batch)).max() < 3e-6


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_a_new_head_is_one_that_transformers_loads(kind: str, task: str, tmp_path: Path) -> None:
    shaken(transformers.AutoModel.from_config(CONFIGS[kind])).save_pretrained(tmp_path / "base")
    head = train.Classifier(3, init="he_normal", names=("a", "b", "c")) if task == "classes" else train.Regressor(2)
    model = train.model(tmp_path / "base", head)
    assert set(model.added) < set(model.params)
    line = next(note for note in model.notes if note.startswith("new"))
    assert all(name in line for name in model.added)
    tuned = (
        train.fit(model, texts(kind), task=model.task(), steps=2, batch_size=4, log=None) if task == "classes" else None
    )
    tensor_map = tuned.tensor_map if tuned else train.tensor_map(model)
    wt.save(tmp_path / "tuned", tensor_map, beside=train.companions(model, pad_id=0))
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    module, info = load(tmp_path / "tuned", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert module.config.num_labels == model.head.n_outputs
    batch = texts(kind).batch(np.arange(4))
    ours = model.run(model.params, batch)
    assert np.abs(ours - theirs(module.eval(), batch)).max() < 3e-6
    again = train.model(tmp_path / "tuned")
    assert type(again.head) is type(head) and np.array_equal(again.run(again.params, batch), ours)
    if task == "classes":
        assert module.config.id2label == {0: "a", 1: "b", 2: "c"} == dict(enumerate(again.head.names))


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_head_stands_on_a_window_shorter_than_the_texts(pooling: str | None, tmp_path: Path) -> None:
    config = transformers.MistralConfig(**DECODER, sliding_window=4, num_labels=3, attn_implementation="eager")
    module = shaken(transformers.AutoModelForSequenceClassification.from_config(config))
    module.save_pretrained(tmp_path)
    model = train.model(tmp_path, train.Classifier(3, pooling=pooling))
    batch = texts("llama").batch(np.arange(4))
    found = model.run(model.params, batch)
    if pooling is None:
        assert np.abs(found - theirs(module, batch)).max() < 3e-6
    result = train.fit(model, texts("llama"), task=model.task(), steps=1, batch_size=4, log=None)
    assert np.isfinite(result.model.params["score.weight"]).all()


def test_the_mean_of_the_states_is_pooled_without_padding(tmp_path: Path) -> None:
    module = shaken(transformers.AutoModel.from_config(CONFIGS["bert"]))
    module.save_pretrained(tmp_path / "base")
    model = train.model(tmp_path / "base", train.Classifier(2, pooling="mean"))
    batch = texts("bert").batch(np.arange(4))
    inputs = {"input_ids": batch["ids"], "attention_mask": batch["mask"], "token_type_ids": batch["segments"]}
    with torch.no_grad():
        states = module(**{k: torch.tensor(v).long() for k, v in inputs.items()}).last_hidden_state.numpy()
    means = np.stack([state[: len(ids)].mean(0) for state, ids in zip(states, IDS, strict=True)])
    scores = means @ model.params["classifier.weight"].T + model.params["classifier.bias"]
    assert np.abs(model.run(model.params, batch) - scores).max() < 3e-6
    embedder = train.model(tmp_path / "base")
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(embedder.run(embedder.params, batch) - unit).max() < 3e-6
    wt.save(tmp_path / "tuned", train.tensor_map(model), beside=train.companions(model))
    again = train.model(tmp_path / "tuned")
    assert again.head is not None and again.head.pooling == "mean" and again.added == ()
    config = json.loads((tmp_path / "tuned/config.json").read_text())
    assert config["architectures"] == ["BertModel"]  # no class of transformers scores the mean


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_pooling_is_differentiated_rightly(pooling: str) -> None:
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    weights = np.random.default_rng(0).standard_normal((3, 4))
    parts = torch.split(x, [2, 1, 6])
    pick = {"cls": lambda part: part[0], "last": lambda part: part[-1], "mean": lambda part: part.mean(0)}[pooling]
    (torch.stack([pick(part) for part in parts]) * torch.tensor(weights)).sum().backward()

    def loss(p: Any) -> Any:
        return (train.checkpoints.pooling.pooled(p["x"], [2, 1, 6], pooling) * weights).sum()

    value, grads = train.value_and_grad(loss, {"x": x.detach().numpy()})
    assert np.isfinite(value) and np.abs(grads["x"] - x.grad.numpy()).max() < 1e-14


def test_dropout_is_of_training_only(tmp_path: Path) -> None:
    transformers.AutoModel.from_config(CONFIGS["bert"]).save_pretrained(tmp_path)
    model = train.model(tmp_path, train.Classifier(2, dropout=0.5))
    batch = texts("bert").batch(np.arange(4))
    still = model.run(model.params, batch)
    drops = [model.run(model.params, {**batch, "seed": (0, 2, step, 0)}) for step in (0, 0, 1)]
    assert np.array_equal(still, model.run(model.params, batch))
    assert np.array_equal(drops[0], drops[1]) and not np.array_equal(drops[0], drops[2])


def test_stored_dtypes_and_ties_and_what_is_not_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]).to(torch.bfloat16).eval()
    module.save_pretrained(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    model = train.model(tmp_path)
    assert {p.dtype for p in model.params.values()} == {np.dtype(np.float32)} and "lm_head.weight" not in model.params
    assert all(p.flags.c_contiguous and p.flags.writeable for p in model.params.values())
    ids = np.stack([IDS[0], IDS[3]])
    with torch.no_grad():
        expected = module.float()(torch.tensor(ids).long()).logits.numpy()
    assert np.abs(model.run(model.params, {"ids": ids}) - expected).max() < 3e-6
    saved = train.tensor_map(model)
    assert {name: t.dtype.name for name, t in saved.items()} == dict.fromkeys(arrays, "bfloat16")
    headed = train.model(tmp_path, train.Classifier(2))
    assert headed.params["score.weight"].shape == (2, 24) and headed.params["score.weight"].dtype == np.float32


def tied_by_the_other_name(folder: Path) -> Any:
    """A checkpoint whose tied table is stored as the output layer's."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**DECODER, tie_word_embeddings=True, attn_implementation="eager")
    module = shaken(transformers.AutoModelForCausalLM.from_config(config))
    config.save_pretrained(folder)
    arrays = module.state_dict()
    arrays = {"lm_head.weight": arrays["lm_head.weight"], **arrays}
    torch.save(arrays, folder / "pytorch_model.bin")
    assert wt.open(folder).aliases == {"model.embed_tokens.weight": "lm_head.weight"}
    return module


def test_a_model_knows_its_arrays_by_either_name_of_a_tied_one(tmp_path: Path) -> None:
    home = tmp_path / "model"
    home.mkdir()
    module, ids = tied_by_the_other_name(home), np.stack([IDS[0], IDS[3]])
    model = train.model(home)
    logits = module(torch.tensor(ids).long())["logits"].detach().numpy()
    assert "model.embed_tokens.weight" not in model.params
    assert np.abs(model.architecture(model.params, ids) - logits).max() < 3e-6
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = module.generate(torch.tensor(ids).long(), **options).numpy()
    tuned = train.lora(model, r=2)
    for run, params in (
        (model.architecture, model.params),
        (model.architecture, train.weights_of(model)),
        (tuned.architecture, train.weights_of(tuned)),
        (tuned, None),
    ):
        assert np.array_equal(train.generate(run, params, ids, 5), expected)
    before = model.params["lm_head.weight"].copy()
    result = train.fit(
        model,
        train.data.Sequences(tuple(ids[:, :-1]), tuple(ids[:, 1:])),
        task=model.task(),
        steps=2,
        batch_size=2,
        log=None,
    )
    assert (result.model.params["lm_head.weight"] != before).any()
    wt.save(tmp_path / "tuned", result.tensor_map, beside=train.companions(result.model))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").eval()
    found = result.model.architecture(result.model.params, ids)
    assert np.abs(found - again(torch.tensor(ids).long())["logits"].detach().numpy()).max() < 3e-6
    assert again.get_input_embeddings().weight.data_ptr() == again.lm_head.weight.data_ptr()
    headed = train.model(home, train.Classifier(2))
    assert "not used" not in headed.notes[0]


def test_a_stack_whose_layers_are_one_keeps_them_one(tmp_path: Path) -> None:
    shared = nn.Linear(4, 4)
    module = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 3))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    model, x = train.model(tmp_path / "m.pt"), np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    assert set(model.params) == {"0.weight", "0.bias", "4.weight", "4.bias"}
    weights = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    (module(torch.tensor(x)) * torch.tensor(weights)).sum().backward()
    _, grads = train.value_and_grad(lambda p: (model.run(p, {"inputs": x}) * weights).sum(), model.params)
    assert np.abs(model.run(model.params, {"inputs": x}) - module(torch.tensor(x)).detach().numpy()).max() < 1e-6
    assert np.abs(grads["0.weight"] - shared.weight.grad.numpy()).max() < 1e-5
    torch.save(nn.Sequential(shared, nn.ReLU(), shared).state_dict(), tmp_path / "two.pt")
    with pytest.raises(SpecError, match=r"2\.bias: a head cannot replace a layer that is tied to another"):
        train.model(tmp_path / "two.pt", train.Classifier(2))


def test_a_head_of_another_shape_is_drawn_anew_and_said(tmp_path: Path) -> None:
    config = type(CONFIGS["distilbert"])(**{**CONFIGS["distilbert"].to_dict(), "num_labels": 5})
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = train.model(tmp_path, train.Classifier(2))
    assert model.added == ("classifier.weight", "classifier.bias")
    assert "classifier.weight is 5 × 24 in the file, and 2 × 24 is wanted" in model.notes
    saved = train.tensor_map(model)
    assert saved["classifier.weight"].shape == (2, 24) and saved["pre_classifier.weight"].shape == (24, 24)


def test_plain_stacks_and_their_last_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
    save_file({n: rng.standard_normal(s).astype(np.float16) for n, s in shapes.items()}, tmp_path / "m.safetensors")
    p = {n: a.astype(np.float32) for n, a in load_file(tmp_path / "m.safetensors").items()}
    x = rng.standard_normal((5, 4)).astype(np.float32)
    hidden = np.tanh(x @ p["fc1.weight"].T + p["fc1.bias"])
    model = train.model(tmp_path / "m.safetensors", activation="tanh")
    assert np.abs(model.run(model.params, {"inputs": x}) - hidden @ p["fc2.weight"].T - p["fc2.bias"]).max() < 1e-6
    two = train.model(tmp_path / "m.safetensors", train.Classifier(2), activation="tanh")
    assert np.array_equal(two.params["fc1.weight"], p["fc1.weight"]) and two.params["fc2.weight"].shape == (2, 8)
    expected = hidden @ two.params["fc2.weight"].T
    assert np.abs(two.run(two.params, {"inputs": x}) - expected).max() < 1e-6
    saved = train.tensor_map(two)
    assert (
        list(saved) == list(two.origin or ())
        and saved["fc2.bias"].shape == (2,)
        and saved["fc1.weight"].dtype.name == "float16"
    )


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    def written(config: dict[str, Any], **arrays: Any) -> Path:
        save_file(arrays or {"a.weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    with pytest.raises(UnsupportedError, match="write one over the file's names"):
        train.model(written({"model_type": "mystery"}))
    with pytest.raises(SpecError, match="pooling 'max'"):
        train.Classifier(2, pooling="max")
    with pytest.raises(SpecError, match="no initialiser is called 'zero'"):
        train.Classifier(2, init="zero")
    with pytest.raises(SpecError, match="is stored as int64"):
        train.model(written({}, **{"fc.weight": np.ones((2, 3), np.int64)}))
    with pytest.raises(SpecError, match="nothing to pool"):
        train.model(written({}, **{"fc.weight": np.ones((2, 3), np.float32)}), train.Classifier(2, pooling="mean"))
    CONFIGS["bert"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(SpecError, match="which are missing"):
        train.model(written(config, **{"embeddings.word_embeddings.weight": np.ones((50, 24), np.float32)}))
    shaken(transformers.AutoModel.from_config(CONFIGS["bert"])).save_pretrained(tmp_path)
    bad = json.loads((tmp_path / "config.json").read_text()) | {"weighttools": {"pooling": "max"}}
    (tmp_path / "config.json").write_text(json.dumps(bad))
    with pytest.raises(WeighttoolsError, match=r"config\.json: the pooling 'max'"):
        train.model(tmp_path)


def test_a_model_says_what_it_is_trained_for(tmp_path: Path) -> None:
    transformers.AutoModel.from_config(CONFIGS["bert"]).save_pretrained(tmp_path / "bert")
    transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]).save_pretrained(tmp_path / "llama")
    classes = train.model(tmp_path / "bert", train.Classifier(2, names=("no", "yes"))).task(label_smoothing=0.1)
    assert isinstance(classes, train.Classification) and (classes.names, classes.label_smoothing) == (
        ("no", "yes"),
        0.1,
    )
    numbers = train.model(tmp_path / "bert", train.Regressor()).task(error="huber")
    assert isinstance(numbers, train.Regression) and numbers.error == "huber"
    assert isinstance(train.model(tmp_path / "llama").task(), train.LanguageModel)
    with pytest.raises(SpecError, match="no head that says what to learn"):
        train.model(tmp_path / "bert").task()


def test_a_counter_is_not_a_layer(tmp_path: Path) -> None:
    arrays = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32), "step": np.int64(7)}
    save_file({name: np.asarray(array) for name, array in arrays.items()}, tmp_path / "m.safetensors")
    model = train.model(tmp_path / "m.safetensors", train.Classifier(2))
    assert set(model.params) == {"fc.weight", "fc.bias"} and model.notes[0] == "mlp: 2 tensors used; 1 not used: step"
    assert train.tensor_map(model)["step"].read() == 7
