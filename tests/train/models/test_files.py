"""Checkpoints of every kind, run as they are, against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

import weighttools as api
import weighttools as wt
from tests.formats.gguf_golden import golden_write
from tests.train.models.test_models import CONFIGS, IDS, LLAMA3, MASK, outputs, reference
from weighttools import train
from weighttools.cli.main import main
from weighttools.errors import SpecError, UnsupportedError, WeighttoolsError
from weighttools.train import models
from weighttools.train.models.classes import CLASSES, class_of
from weighttools.train.models.gguf import MODEL_TYPES
from weighttools.transforms.gguf_names import to_gguf

EXACT = 2e-5


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def expected(kind: str) -> np.ndarray:
    return outputs(reference(kind)).detach().numpy()


def found(path: Path) -> np.ndarray:
    checkpoint = models.load(path)
    assert {a.dtype for a in checkpoint.params.values()} == {np.dtype(np.float32)}
    result: np.ndarray = checkpoint.architecture(checkpoint.params, IDS, MASK)
    return result


def error(path: Path, kind: str) -> float:
    theirs = expected(kind)
    return float(np.abs(found(path) - theirs)[MASK].max() / np.abs(theirs).max())


@pytest.mark.parametrize("kind", CONFIGS)
def test_directories_run_as_they_are(kind: str, tmp_path: Path) -> None:
    module = reference(kind)
    module.save_pretrained(tmp_path / "safetensors")
    assert error(tmp_path / "safetensors", kind) < EXACT
    (tmp_path / "bin").mkdir()
    torch.save(module.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "config.json").write_text((tmp_path / "safetensors" / "config.json").read_text())
    assert error(tmp_path / "bin", kind) < EXACT
    assert models.load(tmp_path / "bin").architecture.report([]).missing


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    module = reference("llama").to(torch.bfloat16)
    module.save_pretrained(tmp_path)
    theirs = outputs(module.float()).detach().numpy()
    assert np.abs(found(tmp_path) - theirs)[MASK].max() < EXACT


SETTINGS: dict[str, dict[str, Any]] = {
    "gemma2": {
        "attention__key_length": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 2.0,
        "attention__sliding_window": 3,
    },
    "gemma3_text": {"attention__key_length": 8, "attention__sliding_window": 3, "rope__freq_base": 1e6},
    "llama linear": {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0},
    "llama yarn": {
        "rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 8,
    },
    "qwen2": {"rope__freq_base": 500.0},
    "qwen3": {"attention__key_length": 8},
}  # fmt: skip
"""What llama.cpp's converter writes beside the usual, with ``__`` for a dot."""
GGUF = (
    "bert", "gpt2", "llama", "llama linear", "llama llama3", "llama yarn", "mistral whole", "gemma", "gemma2",
    "gemma3_text", "qwen2", "qwen3",
)  # fmt: skip


def as_gguf(kind: str, folder: Path) -> Path:
    """Write a model as llama.cpp's converter would."""
    module = reference(kind)
    module.save_pretrained(folder / "hf")
    translated = to_gguf(wt.open(folder / "hf"))
    name = str(translated.metadata["general.architecture"])
    arrays = {n: t.read() for n, t in translated.items()}
    own = {
        k: (float(v) if type(v) is float else v)
        for k, v in translated.metadata.items()
        if k.startswith(f"{name}.") and k != f"{name}.rope.freq_base"
    }
    base = {"rope.freq_base": float((module.config.to_dict().get("rope_parameters") or {}).get("rope_theta") or 1e4)}
    extra = {k.replace("__", "."): v for k, v in SETTINGS.get(kind, {}).items()}
    if kind == "llama llama3":
        arrays["rope_freqs.weight"] = llama3_divisors(module)
    golden_write(folder / "m.gguf", arrays, name, **own | {f"{name}.{k}": v for k, v in {**base, **extra}.items()})
    return folder / "m.gguf"


def llama3_divisors(module: Any) -> np.ndarray:
    """What llama.cpp's converter stores: each frequency before, divided by the frequency after."""
    after = module.model.rotary_emb.inv_freq.double().numpy()
    size = 2 * len(after)
    before = module.config.rope_parameters["rope_theta"] ** -(np.arange(0, size, 2) / size)
    return np.asarray(before / after, np.float32)


@pytest.mark.parametrize("kind", GGUF)
def test_gguf_files_run_as_they_are(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind in ("gemma2", "gemma3_text"):  # GGUF has no entry for it: heads of 8 are scaled as such
        monkeypatch.setattr(CONFIGS[kind], "query_pre_attn_scalar", 8)
    if kind == "gemma3_text":  # nor for which layers have windows: all but every sixth
        monkeypatch.setattr(CONFIGS[kind], "layer_types", ["sliding_attention"] * 2)
    path = as_gguf(kind, tmp_path)
    assert error(path, kind) < EXACT
    (tmp_path / "hf" / "model.safetensors").unlink()  # it runs by itself, and can be trained
    if kind != "bert":
        model = train.model(path)
        z = model.run(model.params, {"ids": IDS, "mask": MASK})
        assert np.abs(z - expected(kind))[MASK].max() < EXACT * np.abs(z).max()


@pytest.mark.parametrize("kind", GGUF)
def test_gguf_files_become_directories_that_transformers_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the class, the ties and the rotary rule that config.json must state for it."""
    if kind in ("gemma2", "gemma3_text"):
        monkeypatch.setattr(CONFIGS[kind], "query_pre_attn_scalar", 8)
    if kind == "gemma3_text":
        monkeypatch.setattr(CONFIGS[kind], "layer_types", ["sliding_attention"] * 2)
    if kind == "llama llama3":  # The rule of the models that there are.
        monkeypatch.setattr(CONFIGS[kind], "rope_parameters", {**LLAMA3, "original_max_position_embeddings": 8192})
    path = as_gguf(kind, tmp_path)
    done = CliRunner().invoke(main, ["convert", str(path), str(tmp_path / "out"), "--names", "hf"])
    assert done.exit_code == 0 and "no tokenizer.json is written" in done.stderr, done.output
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    make = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    assert hasattr(transformers, said["architectures"][0])
    options = {"add_pooling_layer": False} if kind == "bert" else {}
    module, info = make.from_pretrained(tmp_path / "out", output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    theirs = expected(kind)
    assert np.abs(outputs(module.eval()).detach().numpy() - theirs)[MASK].max() < EXACT * np.abs(theirs).max()


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_those_of_transformers(kind: str) -> None:
    for name in (class_of(kind, models.FAMILIES[kind].kind), f"{CLASSES[kind]}ForSequenceClassification"):
        assert hasattr(transformers, name)


def test_what_lies_beside_a_converted_file_is_said(tmp_path: Path) -> None:
    path = as_gguf("llama llama3", tmp_path)  # Divisors of a rule that none of Llama 3 has.

    def run(source: Path, target: str, *options: str) -> str:
        done = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / target), *options])
        assert done.exit_code == 0, done.output
        return str(done.stderr)

    assert "transformers cannot load this config.json: its rotary positions" in run(path, "divided", "--names", "hf")
    assert json.loads((tmp_path / "divided/config.json").read_text())["rope_scaling"]["rope_type"] == "divided"
    with pytest.raises(KeyError, match="divided"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "divided")
    assert "config.json" not in run(path, "one.safetensors", "--names", "hf")
    assert "give the directory" in run(tmp_path / "hf/model.safetensors", "copied")
    assert not (tmp_path / "copied/config.json").exists()
    assert "give the directory" not in run(tmp_path / "hf", "whole")
    golden_write(tmp_path / "odd.gguf", {"a.weight": np.zeros(2, np.float32)}, "falcon")
    assert "a.gguf" not in run(tmp_path / "odd.gguf", "odd")


def test_a_quantised_file_is_decoded(tmp_path: Path) -> None:
    as_gguf("llama", tmp_path)
    api.convert(tmp_path / "m.gguf", tmp_path / "q.gguf", quantize="q8_0")
    theirs = expected("llama")
    assert np.abs(found(tmp_path / "q.gguf") - theirs)[MASK].max() < 0.02 * np.abs(theirs).max()


def test_what_gguf_says_and_is_not_known_is_refused(tmp_path: Path) -> None:
    arrays = {"token_embd.weight": np.zeros((4, 8), np.float32)}
    golden_write(tmp_path / "a.gguf", arrays, "falcon")
    with pytest.raises(UnsupportedError, match="no table for GGUF's 'falcon'"):
        models.load(tmp_path / "a.gguf")
    golden_write(tmp_path / "b.gguf", arrays, "llama", llama__block_count=2)
    with pytest.raises(SpecError, match="lacks num_attention_heads"):
        models.load(tmp_path / "b.gguf")
    sizes = {"attention.key_length": 8, "rope.dimension_count": 4}
    golden_write(tmp_path / "c.gguf", arrays, "llama", **{f"llama.{key}": n for key, n in sizes.items()})
    with pytest.raises(UnsupportedError, match=r"rope\.dimension_count is 4, of heads of 8"):
        models.load(tmp_path / "c.gguf")
    assert set(MODEL_TYPES.values()) <= set(models.FAMILIES)


@pytest.mark.parametrize("text", ["[]", "{", '{"model_type": 3}', '{"model_type": "bert", "num_hidden_layers": -1}'])
def test_bad_configurations_are_one_line(text: str, tmp_path: Path) -> None:
    api.save(tmp_path / "model.safetensors", wt.TensorMap.from_arrays({"a.weight": np.zeros((2, 2), np.float32)}))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeighttoolsError) as raised:
        models.load(tmp_path / "model.safetensors")
    assert "\n" not in str(raised.value)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    module = reference("bert")
    module.save_pretrained(tmp_path)
    tensor_map = wt.open(tmp_path)
    arrays = {n: t.read() for n, t in tensor_map.items()}
    arrays["embeddings.LayerNorm.weight"] = np.zeros(24, np.int64)
    api.save(tmp_path / "model.safetensors", wt.TensorMap.from_arrays(arrays), force=True)
    with pytest.raises(SpecError, match=r"embeddings.LayerNorm.weight: is stored as int64"):
        models.load(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
