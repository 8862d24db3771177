"""Directories that become GGUF files, and the reverse, in the programs they are for: llama.cpp and transformers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_base import generate_merges

import weighttools as wt
from tests.llama_cpp import LlamaCpp
from tests.thorough import chosen
from weighttools.cli.main import main

CORPUS = [
    "the cat sat on the mat",
    "a dog and a cat and 1234 logs",
    "don't  stop\n\n it's 3.14 or 22",
    "émoji 😀 日本語",
] * 6
TEXTS = [
    "the cat sat",
    "  two  spaces ",
    "a\nb\n\n c\t d\r\n",
    "12 3456 7.89 x2 ½",
    "émoji 😀👩‍👩‍👧 日本語 العربية",
    "don't I'LL WE'RE",
    "<s>the</s> cat",
    " ",
    "unseen: zzz ÿ",
]
SPLITS = {
    "gpt-2": None,
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "smollm": "digits",
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def byte_level(cut: str) -> Tokenizer:
    """A byte-level BPE as the models of one kind have it, trained on a few lines."""
    found = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    split = SPLITS[cut]
    if cut == "qwen2":
        found.normalizer = normalizers.NFC()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in (None, "digits"))
    before = [pre_tokenizers.Digits(individual_digits=True)] if split == "digits" else []
    before = [pre_tokenizers.Split(Regex(split), "isolated")] if split and split != "digits" else before
    found.pre_tokenizer = pre_tokenizers.Sequence([*before, level])
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    found.train_from_iterator(CORPUS, trainer)
    return found


def sentencepiece(begun: bool = True) -> Tokenizer:
    """A BPE of characters with bytes to fall back on, all of whose merges follow from its scores."""
    letters = sorted(set("".join(CORPUS)) - {" "} | set("abcdefghijklmnopqrstuvwxyz▁"))[:80]
    words = ["▁the", "▁cat", "▁t", "th", "he", "the", "at", "ca", "cat", "▁c", "▁ca", "▁a", "nd", "and", "▁and", "▁▁"]
    order = np.random.default_rng(4).permutation(len(words))
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        *(f"<0x{i:02X}>" for i in range(256)),
        *(words[i] for i in order),
        *letters,
    ]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = generate_merges(
        {k: v for k, v in vocab.items() if v >= 260}, {k: -v for k, v in vocab.items() if v >= 260}
    )
    found = (transformers.LlamaTokenizer if begun else transformers.GemmaTokenizer)(vocab, merges).backend_tokenizer
    if begun:  # as the tokenizer.json of Llama 2 and llama.cpp do it; the class has another way with spaces in front
        found.pre_tokenizer = None
        found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.add_special_tokens(["<unk>", "<s>", "</s>", "<pad>"])
    return found


def fast(tokenizer: Tokenizer, bos: bool = False, **more: Any) -> Any:
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends, **more)


SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192, "rope_theta": 500000.0}  # fmt: skip
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0],
        "rope_theta": 10000.0}  # fmt: skip
GEMMA = {**SMALL, "query_pre_attn_scalar": 8, "sliding_window": 16}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaForCausalLM", SMALL, "spm"),
    "llama-tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True, "attention_bias": True}, "smollm"),
    "llama3": ("LlamaForCausalLM", {**SMALL, "rope_parameters": LLAMA3}, "llama-bpe"),
    "llama-linear": ("LlamaForCausalLM", {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}, "spm"),
    "llama-yarn": ("LlamaForCausalLM", {**SMALL, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}}, "spm"),
    "mistral": ("MistralForCausalLM", {**SMALL, "sliding_window": None}, "spm"),
    "qwen2": ("Qwen2ForCausalLM", {k: v for k, v in SMALL.items() if k != "head_dim"}, "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", SMALL, "qwen2"),
    "phi3": ("Phi3ForCausalLM", {**SMALL, "sliding_window": None}, "spm"),
    "phi3-long": ("Phi3ForCausalLM", {**SMALL, "sliding_window": None, "rope_parameters": LONG,
                                      "original_max_position_embeddings": 256, "max_position_embeddings": 512}, "spm"),
    "gemma": ("GemmaForCausalLM", SMALL, "gemma"),
    "gemma2": ("Gemma2ForCausalLM", GEMMA, "gemma"),
    "gemma3": ("Gemma3ForCausalLM", {**GEMMA, "num_hidden_layers": 6}, "gemma"),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}, "gpt-2"),
}  # fmt: skip


def saved(name: str, folder: Path) -> tuple[Any, Any]:
    """A small model of random weights with its tokenizer, in float32."""
    kind, settings, cut = MODELS[name]
    tokenizer = fast(sentencepiece(cut == "spm") if cut in ("spm", "gemma") else byte_level(cut), bos=cut != "gpt-2")
    torch.manual_seed(1)
    spare = 5 if name == "qwen2" else 0  # rows that are no token's
    numbers = {"vocab_size": len(tokenizer) + spare, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    config = getattr(transformers, kind).config_class(**{**settings, **numbers})
    module = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return module, tokenizer


SEVERAL = ("llama", "llama3", "qwen2", "phi3-long", "gemma3", "gpt2")
"""For the quick run: each kind of tokenizer, of norm and of rotary positions."""


@pytest.mark.parametrize("name", chosen(MODELS, SEVERAL))
def test_llama_cpp_writes_what_transformers_does(name: str, tmp_path: Path) -> None:
    module, tokenizer = saved(name, tmp_path / "hf")
    record = wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    said = [note for note in record["notes"] if "llama.cpp" in note]
    assert len(said) == (MODELS[name][2] == "qwen2") and all("NFC" in note for note in said)
    theirs = LlamaCpp(tmp_path / "m.gguf")
    for text in TEXTS:
        assert theirs.ids(text) == tokenizer(text)["input_ids"], text
    ids = tokenizer("the cat sat on the mat and a dog")["input_ids"]
    settings = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 3}
    expected = module.generate(torch.tensor([ids]), **settings)[0].tolist()[len(ids) :]
    assert theirs.greedy(ids, 16) == expected


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "##at", "c", "m", "on", "un", "##able",
         ".", "!", "日", "e", "##mo", "[x]", "1", "##2"]  # fmt: skip


def test_bert_embeds_in_llama_cpp_as_in_transformers(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path / "hf")
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(vocab_size=len(WORDS), initializer_range=0.3, pad_token_id=0, **sizes)
    module = transformers.BertModel(config, add_pooling_layer=False).eval()
    module.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    theirs = LlamaCpp(tmp_path / "m.gguf", embeds=True)
    for text in ("the cats sat on mat.", "The CAT sat 12 日 emo", "unable [MASK] zzz", "Émo c!"):
        assert theirs.ids(text) == tokenizer(text)["input_ids"], text
    ids = tokenizer("the cats sat on the mat.")["input_ids"]
    with torch.no_grad():
        expected = module(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(np.array(theirs.embeddings(ids)), expected, atol=0.01)  # its GELU is a table in float16
    wt.convert(tmp_path / "m.gguf", tmp_path / "back", names="hf")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in ("the cats sat on mat.", "The CAT sat 12 日 emo", "unable [MASK] zzz", "Émo c!"):
        assert again(text, "the cat")["input_ids"] == tokenizer(text, "the cat")["input_ids"], text


def directory(path: Path, target: Path) -> Path:
    """A directory that the command makes of a GGUF file."""
    done = CliRunner().invoke(main, ["convert", str(path), str(target), "--dequantize", "--names", "hf"])
    assert done.exit_code == 0, done.output
    return target


TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize("name", ["llama", "llama-tied", "llama3", "qwen2", "phi3", "gemma2", "gpt2"])
def test_a_directory_has_the_tokenizer_that_transformers_takes_from_the_file(name: str, tmp_path: Path) -> None:
    _, tokenizer = saved(name, tmp_path / "hf")
    (tmp_path / "hf/chat_template.jinja").write_text(TEMPLATE)
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    out = directory(tmp_path / "m.gguf", tmp_path / "out")
    ours = transformers.AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        ids = theirs(text)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids)
    for entry in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "chat_template"):
        assert getattr(ours, entry) == getattr(theirs, entry), entry
    own = {theirs.mask_token_id} - {None}  # Gemma's class calls one so that the file does not
    assert set(ours.all_special_ids) == set(theirs.all_special_ids) - own
    assert ours.chat_template == TEMPLATE
    talk = [{"role": "user", "content": "the cat"}]
    assert ours.apply_chat_template(talk, tokenize=False) == "user: the cat\n"
    plain = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert [plain.encode(text).ids for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
    said = transformers.GenerationConfig.from_pretrained(out)
    assert (said.bos_token_id, said.eos_token_id, said.pad_token_id) == (1, 2, 3)


@pytest.mark.parametrize("name", chosen(MODELS, SEVERAL[::2]))
def test_there_and_back_transformers_computes_the_same(name: str, tmp_path: Path) -> None:
    """Short texts and, for rotary positions that depend on it, texts beyond the original length."""
    module, _ = saved(name, tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    out = directory(tmp_path / "m.gguf", tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for length in (12, 300) if name == "phi3-long" else (12, 100):
        ids = torch.arange(length)[None] % 250 + 4
        with torch.no_grad():
            np.testing.assert_allclose(again(ids).logits.numpy(), module(ids).logits.numpy(), atol=2e-4)


def test_config_json_has_the_vocabulary_that_metadata_lack(tmp_path: Path) -> None:
    module, _ = saved("llama", tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "whole.gguf", names="gguf")
    whole = wt.open(tmp_path / "whole.gguf")
    less = {key: value for key, value in whole.metadata.items() if key != "llama.vocab_size"}
    wt.save(tmp_path / "m.gguf", whole.replace(metadata=less))
    out = directory(tmp_path / "m.gguf", tmp_path / "out")
    ids = torch.tensor([[1, 5, 9, 44]])
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(ids).logits.numpy(), module(ids).logits.numpy())


def test_a_directory_of_a_gguf_file_becomes_the_same_metadata_again(tmp_path: Path) -> None:
    """Types too, and each value as the package gguf reads it; through a single file of text metadata as well."""
    for name in ("llama", "gpt2", "qwen2"):
        saved(name, tmp_path / name)
        first, again, flat = (tmp_path / f"{name}-{i}.gguf" for i in range(3))
        wt.convert(tmp_path / name, first, names="gguf")
        out = directory(first, tmp_path / f"{name}-out")
        assert not [key for key in wt.open(out).metadata if key.startswith("tokenizer.")]
        wt.convert(out, again, names="gguf")
        wt.convert(first, tmp_path / f"{name}.safetensors")
        wt.convert(tmp_path / f"{name}.safetensors", flat)
        expected = read_by_gguf(first)
        assert read_by_gguf(flat) == expected
        found = read_by_gguf(again)
        assert {key: found[key] for key in expected if key != "general.name"} == {
            key: value for key, value in expected.items() if key != "general.name"
        }


def read_by_gguf(path: Path) -> dict[str, Any]:
    """Types and values of the metadata, as the package gguf reads them."""
    fields = GGUFReader(path).fields
    return {
        key: ([kind.name for kind in field.types], field.contents())
        for key, field in fields.items()
        if not key.startswith("GGUF.")
    }


TYPES = {
    "general.architecture": ["STRING"],
    "llama.block_count": ["UINT32"],
    "llama.attention.layer_norm_rms_epsilon": ["FLOAT32"],
    "llama.rope.freq_base": ["FLOAT32"],
    "llama.rope.dimension_count": ["UINT32"],
    "tokenizer.ggml.model": ["STRING"],
    "tokenizer.ggml.pre": ["STRING"],
    "tokenizer.ggml.tokens": ["ARRAY", "STRING"],
    "tokenizer.ggml.token_type": ["ARRAY", "INT32"],
    "tokenizer.ggml.bos_token_id": ["UINT32"],
    "tokenizer.ggml.add_bos_token": ["BOOL"],
}


@pytest.mark.parametrize(("name", "more"), [("llama", {"tokenizer.ggml.scores": ["ARRAY", "FLOAT32"]}),
                                            ("llama3", {"tokenizer.ggml.merges": ["ARRAY", "STRING"]})])  # fmt: skip
def test_types_and_special_tokens_are_those_of_the_package(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    _, tokenizer = saved(name, tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    found = read_by_gguf(tmp_path / "m.gguf")
    for key, kinds in {**TYPES, **more}.items():
        assert found[key][0] == kinds, key
    special = gguf.SpecialVocab(tmp_path / "hf", load_merges=name == "llama3")
    keys = {"unk": "unknown", "pad": "padding", "sep": "seperator"}
    for kind, at in special.special_token_ids.items():
        assert found[f"tokenizer.ggml.{keys.get(kind, kind)}_token_id"][1] == at, kind
    for kind in ("bos", "eos"):
        value = special.add_special_token.get(kind, False)
        assert found[f"tokenizer.ggml.add_{kind}_token"][1] is value, kind
    assert found.get("tokenizer.ggml.merges", (0, []))[1] == special.merges
    assert found["tokenizer.ggml.tokens"][1] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


REFUSED: dict[str, tuple[str, str, Callable[[dict[str, Any]], Any], str]] = {
    "cut": ("llama3", "tokenizer.json", lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="x+"),
            "texts are cut by the expressions"),
    "lowercase": ("llama3", "tokenizer.json", lambda d: d.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    "nfkc": ("llama", "tokenizer.json", lambda d: d.update(normalizer={"type": "NFKC"}), "texts go through NFKC"),
    "merge": ("llama", "tokenizer.json", lambda d: d["model"]["merges"].pop(3), "are not merged"),
    "unigram": ("llama", "tokenizer.json", lambda d: d.update(model={"type": "Unigram", "vocab": []}), "'Unigram'"),
    "beyond": ("llama", "tokenizer.json", lambda d: d["model"]["vocab"].update(far=9999), "has the number 9999"),
    "eos": ("llama", "config.json", lambda d: d.update(eos_token_id=[9999]), ""),
    "gelu": ("llama", "config.json", lambda d: d.update(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "rope": ("llama", "config.json", lambda d: d["rope_parameters"].update(rope_type="dynamic", factor=2.0), "'dynamic'"),
    "scale": ("gemma2", "config.json", lambda d: d.update(query_pre_attn_scalar=99), "query_pre_attn_scalar is 99"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_would_take_for_something_else_is_refused_first(inside: Any, case: str, tmp_path: Path) -> None:
    name, file, change, match = REFUSED[case]
    saved(name, tmp_path / "hf")
    edited(tmp_path / "hf", file, change)
    if case == "eos":
        edited(tmp_path / "hf", "tokenizer_config.json", lambda d: d.update(eos_token=None))
    ran = inside("convert", tmp_path / "hf", tmp_path / "m.gguf", "--names", "gguf")
    assert ran.code == 2 and match in ran.err and ran.err.count("\n") == 1, ran
    assert not (tmp_path / "m.gguf").exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    saved("llama", tmp_path / "hf")
    plain = wt.convert(tmp_path / "hf", tmp_path / "plain.gguf", dry_run=True)
    assert any("names gguf writes" in note for note in plain["notes"])
    (tmp_path / "hf/tokenizer.json").unlink()
    edited(tmp_path / "hf", "config.json", lambda d: d.pop("intermediate_size"))
    notes = wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf", dry_run=True)["notes"]
    assert any("without a tokenizer" in note for note in notes)
    assert any("without feed_forward_length" in note for note in notes)


def test_texts_that_llama_cpp_cuts_otherwise_are_said(tmp_path: Path) -> None:
    _, tokenizer = saved("qwen2", tmp_path / "qwen2")
    wt.convert(tmp_path / "qwen2", tmp_path / "m.gguf", names="gguf")
    assert LlamaCpp(tmp_path / "m.gguf").ids("e\u0301") != tokenizer("e\u0301")["input_ids"]
    saved("llama", tmp_path / "llama")
    first = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    edited(tmp_path / "llama", "tokenizer.json", lambda d: d.update(normalizer=None, pre_tokenizer=first))
    notes = wt.convert(tmp_path / "llama", tmp_path / "m.gguf", names="gguf", force=True)["notes"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "llama/tokenizer.json"))
    assert any("one more space" in note for note in notes)
    theirs = LlamaCpp(tmp_path / "m.gguf")
    assert theirs.ids("the cat") == tokenizer.encode("the cat").ids
    assert theirs.ids(" the cat") != tokenizer.encode(" the cat").ids


def test_norms_stay_float32_for_llama_cpp(tmp_path: Path) -> None:
    _, tokenizer = saved("llama", tmp_path / "hf")
    record = wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf", dtype="float16")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert {kinds["output_norm.weight"], kinds["blk.0.attn_norm.weight"]} == {"F32"}
    assert {kinds["blk.0.attn_q.weight"], kinds["token_embd.weight"]} == {"F16"}
    assert any("stay float32" in note for note in record["notes"])
    assert len(LlamaCpp(tmp_path / "m.gguf").greedy(tokenizer("the cat")["input_ids"], 4)) == 4


def test_a_plain_installation_writes_the_tokenizer(tmp_path: Path) -> None:
    saved("llama", tmp_path / "hf")
    wt.convert(tmp_path / "hf", tmp_path / "m.gguf", names="gguf")
    code = (
        "import sys\n"
        "for name in ('tokenizers', 'transformers', 'gguf', 'torch'): sys.modules[name] = None\n"
        "from weighttools.cli.main import main\n"
        f"main(['convert', {str(tmp_path / 'm.gguf')!r}, {str(tmp_path / 'out')!r}, '--names', 'hf'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "no tokenizer" not in done.stderr, done.stderr
    assert Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode("the cat").ids[0] == 1
