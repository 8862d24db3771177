"""Names and layouts of GGUF against the ``gguf`` package's tables and transformers' own GGUF reader."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, quants

import weighttools as wt
from tests.formats.gguf_golden import golden_read, golden_write
from tests.strategies import assert_same
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.families.gguf.names import FAMILIES
from weighttools.transforms.gguf_names import translate

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 128}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SMALL),
    "llama-biases": ("LlamaForCausalLM", {**SMALL, "attention_bias": True}),
    "llama-tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", SMALL),
    "gemma": ("GemmaForCausalLM", SMALL),
    "gemma2": ("Gemma2ForCausalLM", {**SMALL, "query_pre_attn_scalar": 8}),  # llama.cpp scales by a head's size
    "gemma3": ("Gemma3ForCausalLM", {**SMALL, "query_pre_attn_scalar": 8}),
    "qwen2": ("Qwen2ForCausalLM", {key: value for key, value in SMALL.items() if key != "head_dim"}),
    "qwen3": ("Qwen3ForCausalLM", SMALL),
    "phi3": ("Phi3ForCausalLM", {**SMALL, "pad_token_id": 0}),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "bert": ("BertModel", {**SMALL, "type_vocab_size": 2}),
}
LOADED = ["llama", "llama-biases", "llama-tied", "mistral", "gemma2", "gemma3", "qwen2", "qwen3", "phi3", "gpt2"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def model(name: str) -> Any:
    """A small model of random weights, norms and biases too."""
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    built = getattr(transformers, kind)(getattr(transformers, kind).config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return built


def saved(name: str, folder: Path) -> tuple[Any, Path]:
    built = model(name)
    built.save_pretrained(folder / "hf")
    return built, folder / "hf"


def state(built: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The model's parameters, ties once each name."""
    return {name: tensor.detach().numpy() for name, tensor in built.state_dict().items()}


def is_shifted(name: str, architecture: str) -> bool:
    return architecture.startswith("gemma") and name.endswith("norm.weight")


@pytest.mark.parametrize("name", MODELS)
def test_names_are_those_of_the_packages_tables(name: str, tmp_path: Path) -> None:
    _, folder = saved(name, tmp_path)
    translated = translate("gguf")(wt.open(folder))
    architecture = str(translated.metadata["general.architecture"])
    kind = next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == architecture)
    table = gguf.get_tensor_name_map(kind, 2)
    stored = set(wt.open(folder))
    expected = {table.get_name(key, try_suffixes=(".weight", ".bias")) for key in stored}
    if architecture == "bert":  # the package has no name for the pooler there; llama.cpp calls it cls
        expected = (expected - {None}) | {"cls.weight", "cls.bias"}
    assert set(translated) == expected


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_the_same(name: str, tmp_path: Path) -> None:
    _, folder = saved(name, tmp_path)
    wt.convert(folder, tmp_path / "m.gguf", names="gguf")
    wt.convert(tmp_path / "m.gguf", tmp_path / "back.safetensors", names="hf")
    before, after = wt.open(folder), wt.open(tmp_path / "back.safetensors")
    assert set(after) == set(before)
    for key in before:
        if is_shifted(key, name):
            np.testing.assert_allclose(after[key].read(), before[key].read(), atol=1.3e-7, rtol=0)
        else:
            assert_same({key: after[key].read()}, {key: before[key].read()})


@pytest.mark.parametrize("name", LOADED)
def test_transformers_loads_our_gguf_as_the_model_it_was(name: str, tmp_path: Path) -> None:
    built, folder = saved(name, tmp_path)
    (tmp_path / "out").mkdir()
    wt.convert(folder, tmp_path / "out" / "m.gguf", names="gguf")
    config = transformers.LlamaConfig(**SMALL) if name == "mistral" else built.config  # GGUF calls both llama
    settings = {"gguf_file": "m.gguf", "dtype": torch.float32, "config": config}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", **settings).eval()
    found, expected = state(loaded), state(built)
    assert set(found) == set(expected)
    for key, array in expected.items():
        assert found[key].shape == array.shape, key
        tolerance = 1.3e-7 if is_shifted(key, name) else 0
        np.testing.assert_allclose(found[key], array, atol=tolerance, rtol=0, err_msg=key)


def test_gemma_norms_are_one_more_in_gguf(tmp_path: Path) -> None:
    built, folder = saved("gemma", tmp_path)
    wt.convert(folder, tmp_path / "m.gguf", names="gguf")
    found = golden_read(tmp_path / "m.gguf")
    expected = {"output_norm.weight": "model.norm", "blk.1.attn_norm.weight": "model.layers.1.input_layernorm"}
    for ours, theirs in expected.items():
        np.testing.assert_array_equal(found[ours], state(built)[f"{theirs}.weight"] + np.float32(1))
    assert "output.weight" not in found


def test_settings_of_the_config_become_metadata(tmp_path: Path) -> None:
    _, folder = saved("llama", tmp_path)
    wt.convert(folder, tmp_path / "m.gguf", names="gguf")
    metadata = wt.open(tmp_path / "m.gguf").metadata
    found = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    assert found["attention.head_count"] == 4 and found["attention.head_count_kv"] == 2
    assert (found["block_count"], found["embedding_length"], found["rope.freq_base"]) == (2, 32, 10000.0)
    assert type(found["rope.freq_base"]).__name__ == "Float32" and type(found["block_count"]).__name__ == "UInt32"
    assert str(found["attention.layer_norm_rms_epsilon"]) == "1e-06"


def test_a_missing_output_is_a_tie_to_the_embedding(tmp_path: Path) -> None:
    _, folder = saved("llama-tied", tmp_path)
    wt.convert(folder, tmp_path / "m.gguf", names="gguf")
    assert "output.weight" not in golden_read(tmp_path / "m.gguf")
    wt.convert(tmp_path / "m.gguf", tmp_path / "back.safetensors", names="hf")
    assert dict(wt.open(tmp_path / "back.safetensors").aliases) == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0], ids=["q8_0", "q4_0"])
def test_quantised_q_and_k_are_permuted_without_decoding(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    plain = rng.standard_normal((32, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    blocks = quants.quantize(plain, kind)
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight"):
        writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wt.convert(tmp_path / "q.gguf", tmp_path / "hf.gguf", names="hf")
    found = golden_read(tmp_path / "hf.gguf")
    for which, n_heads in (("q", 4), ("k", 2)):
        half = 32 // n_heads // 2
        expected = blocks.reshape(n_heads, half, 2, -1).swapaxes(1, 2).reshape(blocks.shape)
        np.testing.assert_array_equal(found[f"model.layers.0.self_attn.{which}_proj.weight"], expected)
    assert wt.open(tmp_path / "hf.gguf")["model.layers.0.self_attn.q_proj.weight"].spec.encoding == kind.name.lower()


def test_a_prefix_of_an_outer_class_makes_no_difference(tmp_path: Path) -> None:
    for name, prefix in (("bert", "bert."), ("gpt2", "")):
        _, folder = saved(name, tmp_path / name)
        plain = wt.open(folder)
        other = plain.rename(lambda key, prefix=prefix: prefix + key if prefix else key.removeprefix("transformer."))
        assert set(translate("gguf")(other)) == set(translate("gguf")(plain))


def test_what_the_other_side_derives_is_left_out_and_said(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": np.ones((4, 2), np.float32), "rope_freqs.weight": np.ones(4, np.float32)}
    golden_write(tmp_path / "m.gguf", tensors)
    record = wt.convert(tmp_path / "m.gguf", tmp_path / "m.safetensors", names="hf")
    assert list(wt.open(tmp_path / "m.safetensors")) == ["model.embed_tokens.weight"]
    assert any("rope_freqs.weight" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("arrays", "metadata", "match"),
    [
        ({"blk.0.odd.weight": np.ones(2, np.float32)}, {"general.architecture": "llama"}, "no known translation"),
        ({"token_embd": np.ones(2, np.float32)}, {"general.architecture": "llama"}, "no known translation"),
        ({"a": np.ones(2, np.float32)}, {"general.architecture": "mamba"}, "'mamba' has no table"),
        ({"a": np.ones(2, np.float32)}, {}, "architecture is not known"),
        ({"blk.0.attn_q.weight": np.ones((4, 2), np.float32)}, {"general.architecture": "llama"}, "attention heads"),
        (
            {"blk.0.attn_q.weight": np.ones((6, 2), np.float32)},
            {"general.architecture": "llama", "llama.attention.head_count": 4},
            "6 rows for 4 heads",
        ),
        (
            {"blk.0.attn_qkv.weight": np.ones(6, np.float32)},
            {"general.architecture": "gpt2"},
            "expected a matrix",
        ),
    ],
)
def test_what_is_not_known_is_refused(arrays: Any, metadata: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        translate("hf")(TensorMap.from_arrays(arrays, metadata))


def test_hostile_settings_are_refused_or_ignored(tmp_path: Path) -> None:
    wt.save(tmp_path / "m.safetensors", TensorMap.from_arrays({"model.norm.weight": np.ones(2, np.float32)}))
    for key, value in {"rms_norm_eps": "1e999", "num_attention_heads": "1e400", "vocab_size": "-1" + "0" * 400}.items():
        (tmp_path / "config.json").write_text(f'{{"model_type": "llama", "{key}": {value}}}')
        with pytest.raises(SpecError, match=f"config.json: {key} is .*; expected a "):
            translate("gguf")(wt.open(tmp_path / "m.safetensors"))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rms_norm_eps": "1", "vocab_size": [1]}')
    found = translate("gguf")(wt.open(tmp_path / "m.safetensors"))
    assert list(found) == ["output_norm.weight"] and set(found.metadata) == {"general.architecture"}


@pytest.mark.parametrize("window", [8, 64, None, "unsaid"])
def test_a_window_that_gguf_has_no_place_for_is_said(window: Any, tmp_path: Path) -> None:
    """Where texts come out differently without it, and nowhere else: as transformers computes them."""
    built, home = saved("mistral", tmp_path)
    config = json.loads((home / "config.json").read_text())
    longest = 8192 if window == "unsaid" else 64
    config |= {"max_position_embeddings": longest, "sliding_window": window}
    if window == "unsaid":
        del config["sliding_window"]  # which is 4,096 then
    (home / "config.json").write_text(json.dumps(config))
    said = [note for note in translate("gguf")(wt.open(home)).origin.notes if "sliding_window" in note]
    read = transformers.AutoConfig.from_pretrained(home).sliding_window
    assert bool(said) == (read is not None and read < longest)
    assert all(f"texts of more than {read:,} tokens come out differently" in note for note in said)
    if window != "unsaid":
        ids = torch.arange(60)[None] % 64
        built.config.sliding_window, whole = None, built(ids).logits
        windowed = transformers.MistralForCausalLM.from_pretrained(home).eval()(ids).logits
        assert torch.allclose(windowed, whole, atol=1e-4) != bool(said)


def test_every_family_is_tested() -> None:
    assert {name.partition("-")[0] for name in MODELS} - {"mistral"} == set(FAMILIES)
