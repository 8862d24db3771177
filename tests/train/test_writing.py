"""Text from checkpoints: tokenizers built from GGUF's metadata against transformers' own, and the command."""

from __future__ import annotations

import inspect
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tokenizers
import torch
import transformers
from click.testing import CliRunner
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter

import weighttools as wt
from tests.formats.gguf_golden import finish
from weighttools import train
from weighttools.cli.main import main
from weighttools.errors import CorruptFileError, MissingDependencyError, SourceError, SpecError, UnsupportedError
from weighttools.train.data.gguf_tokenizer import gguf_tokenizer, merges_by_score
from weighttools.train.data.tokens import tokens
from weighttools.train.writing import Writer, writer
from weighttools.transforms.gguf_names import to_gguf

END = "<|endoftext|>"
CORPUS = ["the cat sat on the mat and the dog sat on the log", "naïve café 日本 🙂 1234 x1 I'm you're\n\n\tend "] * 4
TEXTS = [
    *CORPUS[:2], "", " ", "  lead", "trail  ", "a\r\n\r\nb", "I'M 12345 67", "e\u0301 x\u00a0y", f"one{END}two {END}",
    "日本語1２3", "\x00\x1b[2J", "'s 'll  't\n \n", "foo(bar)=={1:[2]}  # ok\n", "🙂🙂 🙂",
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    found = Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(CORPUS, trainer)
    return found


def parts(trained: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def metadata(trained: Tokenizer, cut: str | None, **more: Any) -> dict[str, Any]:
    vocabulary, merges = parts(trained)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    own = {
        "model": "gpt2", "tokens": tokens, "merges": [" ".join(pair) for pair in merges],
        "token_type": [3 if token == END else 1 for token in tokens], "eos_token_id": vocabulary[END],
    }  # fmt: skip
    cuts = {} if cut is None else {"pre": cut}
    return {f"tokenizer.ggml.{key}": value for key, value in {**own, **cuts, **more}.items()}


def theirs(trained: Tokenizer, cut: str) -> Any:
    """What transformers, or the package, makes of the same tokens for a family of tokenizers."""
    vocabulary, merges = parts(trained)
    if cut in ("gpt-2", "qwen2"):
        kind = transformers.GPT2Tokenizer if cut == "gpt-2" else transformers.Qwen2Tokenizer
        return kind(vocab=vocabulary, merges=merges).backend_tokenizer
    found = Tokenizer.from_str(trained.to_str())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut == "smollm")
    if cut == "smollm":
        found.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    else:
        pattern = inspect.signature(TikTokenConverter).parameters["pattern"].default
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        found.pre_tokenizer = pre_tokenizers.Sequence([split, level])
        found.model = tokenizers.models.BPE(vocabulary, merges, ignore_merges=True)
    return found


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_tokenizers_in_metadata_are_those_of_transformers(trained: Tokenizer, cut: str) -> None:
    ours = gguf_tokenizer(metadata(trained, cut, add_bos_token=False))
    other = theirs(trained, cut)
    for text in TEXTS:
        ids = ours.encode(text).ids
        assert ids == other.encode(text).ids, text
        assert ours.decode(ids) == other.decode(ids)
    assert any(ours.encode(text).ids != trained.encode(text).ids for text in TEXTS) == (cut != "gpt-2")


def test_texts_begin_as_the_file_says(trained: Tokenizer) -> None:
    plain = gguf_tokenizer(metadata(trained, "gpt-2")).encode("the cat").ids
    begun = gguf_tokenizer(metadata(trained, "gpt-2", bos_token_id=0, add_bos_token=True)).encode("the cat").ids
    assert begun == [0, *plain]
    assert gguf_tokenizer(metadata(trained, "llama-bpe", bos_token_id=0)).encode("the cat").ids[0] == 0
    assert gguf_tokenizer(metadata(trained, None) | {"general.architecture": "gpt2"}).encode("the cat").ids == plain


def test_tokenizers_that_are_not_known_or_damaged_are_refused(trained: Tokenizer) -> None:
    for own in ({"pre": "mystery"}, {"model": "t5", "pre": "default"}):
        with pytest.raises(UnsupportedError, match=r"put the model's tokenizer.json beside the file"):
            gguf_tokenizer(metadata(trained, None, **own))
    for own in ({"merges": ["zz top"]}, {"tokens": []}, {"tokens": ["\udc80"], "merges": []}):
        with pytest.raises(CorruptFileError, match="make no tokenizer"):
            gguf_tokenizer(metadata(trained, "gpt-2", **own))


PIECES = [
    "▁the",
    "▁cat",
    "▁dog",
    "at",
    "he",
    "th",
    "▁t",
    "▁c",
    "ca",
    "og",
    "▁d",
    "do",
    "▁s",
    "sat",
    "▁sat",
    "on",
    "▁on",
    "an",
    "and",
    "▁an",
    "▁and",
    "▁▁",
    "▁▁▁",
    "is",
]


def pieces(**more: Any) -> dict[str, Any]:
    """A vocabulary as SentencePiece makes them: control tokens, all bytes, pieces with scores, letters."""
    letters = sorted(set("".join(PIECES)) | set("abcdefghijklmnopqrstuvwxyz.,'é"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *PIECES, *letters, "<tool>"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(PIECES) + len(letters)), 4]
    order = np.random.default_rng(1).permutation(len(PIECES))
    scores = [0.0] * 259 + [-float(i) for i in order] + [-1e3 - i for i in range(len(letters))] + [0.0]
    own = {
        "model": "llama",
        "tokens": tokens,
        "token_type": kinds,
        "scores": scores,
        "bos_token_id": 1,
        "unknown_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in {**own, **more}.items()}


def merged_by_hand(text: str, metadata: dict[str, Any]) -> list[int]:
    """llama.cpp's way: join the best pair of neighbours, the first of equal ones, as long as there is one."""
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    known = {t: i for i, t in enumerate(tokens) if metadata["tokenizer.ggml.token_type"][i] == 1}
    parts = list(text.replace(" ", "▁"))
    while True:
        found = [(-scores[known[a + b]], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in known]
        if not found:
            break
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids: list[int] = []
    for part in parts:
        ids += [known[part]] if part in known else [tokens.index(f"<0x{byte:02X}>") for byte in part.encode()]
    return ids


@given(st.text("the cadogsan .'é日\n", max_size=30))
def test_sentencepiece_in_metadata_merges_as_llama_cpp_does(text: str) -> None:
    said = pieces(add_bos_token=False)
    ids = gguf_tokenizer(said).encode(text).ids
    assert ids == (merged_by_hand(f" {text}", said) if text else [])
    assert gguf_tokenizer(said).decode(ids) == text
    bare = pieces(add_bos_token=False, add_space_prefix=False)
    assert gguf_tokenizer(bare).encode(text).ids == merged_by_hand(text, bare)


def test_sentencepiece_begins_texts_and_keeps_control_tokens() -> None:
    found = gguf_tokenizer(pieces())
    assert found.encode("the cat</s>the<tool>").tokens == ["<s>", "▁the", "▁cat", "</s>", "▁the", "<tool>"]
    vocabulary = {t: i for i, t in enumerate(pieces()["tokenizer.ggml.tokens"])}
    merges = merges_by_score(*(pieces()[f"tokenizer.ggml.{k}"] for k in ("tokens", "scores", "token_type")))
    theirs = transformers.LlamaTokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    for text in ("the cat sat on and", "the dog  and é 日"):
        assert found.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False).ids
    with pytest.raises(CorruptFileError, match="make no tokenizer"):
        gguf_tokenizer(pieces(scores=[]))


def saved(folder: Path, trained: Tokenizer, with_tokenizer: bool = True) -> Any:
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=trained.get_vocab_size(), hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=40, initializer_range=0.4, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    module = transformers.LlamaForCausalLM(config).eval()
    module.save_pretrained(folder)
    if with_tokenizer:
        trained.save(str(folder / "tokenizer.json"))
    return module


def expected(module: Any, trained: Tokenizer, prompt: str, n: int) -> str:
    ids = torch.tensor([trained.encode(prompt).ids])
    settings = transformers.GenerationConfig(max_new_tokens=n, do_sample=False, pad_token_id=0)
    found = module.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)[0]
    return str(trained.decode(found[ids.shape[1] :].tolist()))


def run(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(main, ["generate", *arguments], **options)


def test_the_command_writes_what_transformers_does(tmp_path: Path, trained: Tokenizer) -> None:
    module = saved(tmp_path, trained)
    text = expected(module, trained, "the cat", 12)
    done = run(str(tmp_path), "--prompt", "the cat", "-n", "12", "--json")
    assert (done.exit_code, json.loads(done.stdout)["text"]) == (0, text)
    assert json.loads(run(str(tmp_path), "-p", "-", "-n", "12", "--json", input="the cat").stdout)["text"] == text
    plain = run(str(tmp_path), "--prompt", "the cat", "-n", "12").stdout
    assert len(plain) == len(text) + 1 and "\x1b" not in plain
    assert all(a == b or b == "\ufffd" for a, b in zip(text, plain, strict=False))
    sampled = [run(str(tmp_path), "-p", "the", "--temperature", "2", "--seed", s).stdout for s in ("1", "1", "2")]
    assert sampled[0] == sampled[1] != sampled[2]
    for option in ("--top-p", "0.5"), ("--top-k", "3"):
        done = run(str(tmp_path), "-p", "the", *option)
        assert isinstance(done.exception, SpecError)
        assert "say nothing at temperature 0; give --temperature" in str(done.exception)


def add_tokenizer(out: GGUFWriter, entries: dict[str, Any]) -> None:
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(entries["tokenizer.ggml.pre"])
    out.add_token_list(entries["tokenizer.ggml.tokens"])
    out.add_token_types(entries["tokenizer.ggml.token_type"])
    out.add_token_merges(entries["tokenizer.ggml.merges"])


def as_gguf(path: Path, folder: Path, trained: Tokenizer, pre: str | None = "gpt-2") -> Path:
    """Write a directory's model as GGUF, and a tokenizer that cuts as `pre` says, or None for none."""
    translated = to_gguf(wt.open(folder))
    out = GGUFWriter(path, "llama")
    for key, value in translated.metadata.items():
        if key.startswith("llama."):
            (out.add_uint32 if isinstance(value, int) else out.add_float32)(key, value)
    if pre is not None:
        add_tokenizer(out, metadata(trained, pre))
    for name, tensor in translated.items():
        out.add_tensor(name, tensor.read())
    finish(out)
    return path


@pytest.mark.filterwarnings("ignore")  # peft's own
@pytest.mark.parametrize("kind", ["carried", "unknown", "none", "beside", "file"])
def test_an_adapter_merged_into_gguf_brings_its_tokenizer(tmp_path: Path, trained: Tokenizer, kind: str) -> None:
    """Made of the metadata, else that beside the file; where it cannot be, a line says so. A file has no companions."""
    saved(tmp_path / "hf", trained, with_tokenizer=False)
    pre = {"unknown": "nobody's", "none": None}.get(kind, "gpt-2")
    gguf = as_gguf(tmp_path / "m.gguf", tmp_path / "hf", trained, pre)
    llama = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    peft.get_peft_model(llama, peft.LoraConfig(r=2)).save_pretrained(tmp_path / "adapter")
    if kind == "beside":
        (tmp_path / "tokenizer.json").write_text("{}")
    out = tmp_path / ("merged.safetensors" if kind == "file" else "merged")
    args = ["merge-adapter", str(gguf), str(tmp_path / "adapter"), "-o", str(out), "--names", "hf"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "no tokenizer.json is written" in line]
    wanted = {
        "unknown": "m.gguf: its tokenizer is 'gpt2', cut by \"nobody's\"",
        "none": "none lies beside the checkpoint, and none is in its metadata",
    }
    assert len(said) == (kind in wanted) and all(wanted[kind] in line for line in said), done.stderr
    if kind == "beside":
        assert (out / "tokenizer.json").read_text() == "{}"
    elif kind == "carried":
        found = Tokenizer.from_file(str(out / "tokenizer.json"))
        assert [found.encode(text).ids for text in CORPUS] == [trained.encode(text).ids for text in CORPUS]
    else:
        assert not (out / "tokenizer.json").exists()


def test_a_tuned_gguf_becomes_a_directory_that_transformers_loads(tmp_path: Path, trained: Tokenizer) -> None:
    saved(tmp_path / "hf", trained, with_tokenizer=False)
    gguf = as_gguf(tmp_path / "m.gguf", tmp_path / "hf", trained)
    (tmp_path / "x.txt").write_text("the cat sat on the log and the dog sat on the mat")
    args = ["--data", str(tmp_path / "x.txt"), "--steps", "2", "--lr", "0.01", "-o", str(tmp_path / "tuned")]
    done = CliRunner().invoke(main, ["finetune", str(gguf), *args])
    assert done.exit_code == 0, done.output
    module, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tuned/tokenizer.json"))
    ids = torch.tensor([fast("the cat sat on the log and the dog sat on the mat")["input_ids"]])
    with torch.no_grad():
        logits = module(ids).logits.numpy()
    ours = train.model(tmp_path / "tuned")
    assert np.abs(ours.run(ours.params, {"ids": ids.numpy()}) - logits).max() < 2e-5
    assert ids[0].tolist() == tokens(gguf).ids(["the cat sat on the log and the dog sat on the mat"])[0].tolist()
    metadata_left = wt.open(tmp_path / "tuned").metadata
    assert not [key for key in metadata_left if key.startswith("tokenizer.ggml.")]


def test_gguf_files_write_by_themselves(tmp_path: Path, trained: Tokenizer) -> None:
    module = saved(tmp_path / "hf", trained, with_tokenizer=False)
    as_gguf(tmp_path / "m.gguf", tmp_path / "hf", trained)
    known = tokens(tmp_path / "m.gguf")
    assert (known.end_id, known.max_length) == (trained.token_to_id(END), module.config.max_position_embeddings)
    done = run(str(tmp_path / "m.gguf"), "-p", "the dog", "-n", "8", "--json")
    assert json.loads(done.stdout)["text"] == expected(module, trained, "the dog", 8)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_an_adapter_of_peft_is_added(tmp_path: Path, trained: Tokenizer) -> None:
    from peft import LoraConfig, get_peft_model

    module = saved(tmp_path / "base", trained)
    plain = expected(module, trained, "the cat", 10)
    tuned = get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    done = run(str(tmp_path / "base"), "--adapter", str(tmp_path / "adapter"), "-p", "the cat", "-n", "10", "--json")
    text = json.loads(done.stdout)["text"]
    assert text == expected(tuned.eval(), trained, "the cat", 10) != plain


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_a_model_writes_before_and_after_training(tmp_path: Path, trained: Tokenizer) -> None:
    from peft import PeftModel

    module = saved(tmp_path / "base", trained)
    model = train.model(tmp_path / "base")
    assert train.write(model, "the cat", 8) == expected(module, trained, "the cat", 8)
    tuned = train.lora(model, r=2, targets="all-linear")
    assert train.write(tuned, "the cat", 8) == train.write(model, "the cat", 8)
    for name, array in tuned.params.items():
        array[...] = np.random.default_rng(len(name)).standard_normal(array.shape)
    train.save_lora(tmp_path / "adapter", tuned)
    text = train.write(tuned, "the cat", 8)
    theirs = PeftModel.from_pretrained(module, tmp_path / "adapter").eval()
    assert text == expected(theirs, trained, "the cat", 8) != train.write(model, "the cat", 8)


def test_text_ends_before_a_stop_token(tmp_path: Path, trained: Tokenizer) -> None:
    module = saved(tmp_path, trained)
    ids = trained.encode("the cat").ids
    third = int(
        module.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False, pad_token_id=0)[0, len(ids) + 2]
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [third]}))
    whole = expected(module, trained, "the cat", 3)
    found = writer(tmp_path)
    assert found.stops == {third} and whole.startswith("".join(found.write("the cat", 9)))


@pytest.mark.parametrize("value", ["99999999999999999999", '[3, "x"]'])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_stop_tokens_that_are_none_are_refused(tmp_path: Path, trained: Tokenizer, file: str, value: str) -> None:
    saved(tmp_path, trained)
    settings = json.loads((tmp_path / file).read_text()) | {"eos_token_id": "HERE"}
    (tmp_path / file).write_text(json.dumps(settings).replace('"HERE"', value))
    with pytest.raises(CorruptFileError, match=rf"{file}: eos_token_id is (9{{20}}|'x'); expected a token's number"):
        writer(tmp_path)


def test_a_model_with_a_head_writes_nothing(tmp_path: Path, trained: Tokenizer) -> None:
    saved(tmp_path, trained)
    with pytest.raises(UnsupportedError, match="outputs are those of a Classifier, not the next token's"):
        train.write(train.model(tmp_path, train.Classifier(2)), "the cat", 2)


def test_a_model_of_tied_arrays_writes(tmp_path: Path, trained: Tokenizer) -> None:
    module = saved(tmp_path, trained)
    module.lm_head.weight = module.model.embed_tokens.weight
    module.config.tie_word_embeddings = True
    module.save_pretrained(tmp_path)
    wt.convert(tmp_path, tmp_path / "m.pt")  # which keeps both names
    (tmp_path / "model.safetensors").unlink()
    model = train.model(tmp_path / "m.pt")
    text = expected(module, trained, "the cat", 8)
    assert train.write(model, "the cat", 8) == text == train.write(train.lora(model, r=2), "the cat", 8)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_an_adapter_that_overflows_is_told_by_the_scores(tmp_path: Path, trained: Tokenizer) -> None:
    """NumPy's warnings are errors here."""
    saved(tmp_path / "base", trained)
    tuned = train.lora(train.model(tmp_path / "base"), r=2)
    for array in tuned.params.values():
        array[...] = 1e30
    train.save_lora(tmp_path / "adapter", tuned)
    made = writer(tmp_path / "base", adapter=tmp_path / "adapter")
    with pytest.raises(SpecError, match="the scores of the next token are NaN"):
        list(made.write("the cat", 3))


def test_a_prompt_that_the_tokenizer_cannot_take_is_one_line(tmp_path: Path, trained: Tokenizer) -> None:
    saved(tmp_path, trained)
    found = Tokenizer(tokenizers.models.WordLevel({"zz": 0}, unk_token="[UNK]"))
    checkpoint = writer(tmp_path).checkpoint
    with pytest.raises(SpecError, match="a text cannot be tokenized: WordLevel error: Missing"):
        next(Writer(checkpoint, found).write("the cat"))
    found = Tokenizer.from_str(trained.to_str())
    found.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip("t", 0, 9)])
    with pytest.raises(SpecError, match="tokens cannot be made a text: index out of bounds"):
        list(Writer(checkpoint, found).write("t", 1))


def test_a_panic_is_no_finding(tmp_path: Path, trained: Tokenizer) -> None:
    """Whatever reaches the command's end is one line and exit 2, also what is no Exception."""
    code = (
        "import sys; from weighttools.cli import exits\n"
        "class Panic(BaseException): pass\n"
        "def main(**_): raise Panic('no entry')\n"
        "exits.guarded(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("weighttools: internal error: Panic: no entry")
    assert done.stderr.count("\n") == 1


def test_pieces_are_whole_characters(tmp_path: Path, trained: Tokenizer) -> None:
    saved(tmp_path, trained)
    checkpoint = writer(tmp_path).checkpoint
    target = trained.encode("x 🙂é日 end").ids

    class Scripted:
        """A model that writes the target after its first token."""

        def __call__(self, params: Any, ids: Any) -> Any:
            scores = np.zeros((1, ids.shape[1], trained.get_vocab_size()))
            scores[0, -1, target[ids.shape[1]]] = 1
            return scores

    object.__setattr__(checkpoint, "architecture", Scripted())
    pieces = list(Writer(checkpoint, trained).write("x", len(target) - 1))
    assert "".join(pieces) == " 🙂é日 end" and not any("\ufffd" in piece for piece in pieces)


def test_what_is_missing_is_said(tmp_path: Path, trained: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "a", trained, with_tokenizer=False)
    with pytest.raises(SourceError, match="has no tokenizer.json; name the tokenizer"):
        writer(tmp_path / "a")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="is no tokenizer"):
        writer(tmp_path / "a", tmp_path / "tokenizer.json")
    trained.save(str(tmp_path / "tokenizer.json"))
    assert run(str(tmp_path / "a"), "-p", "x", "--tokenizer", str(tmp_path), "-n", "2").exit_code == 0
    none = run(str(tmp_path / "a"), "-p", "x", "-n", "0").exception
    assert isinstance(none, SpecError) and str(none).startswith("--max-tokens 0 is out of range")
    with pytest.raises(SpecError, match="the prompt has no tokens"):
        next(writer(tmp_path / "a", tmp_path).write(""))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[text\]'"):
        writer(tmp_path / "a", tmp_path)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[text\]'"):
        gguf_tokenizer(metadata(trained, "gpt-2"))


def test_prompts_that_a_model_cannot_take_are_one_line(tmp_path: Path, trained: Tokenizer) -> None:
    saved(tmp_path, trained)
    config = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 40}
    (tmp_path / "config.json").write_text(json.dumps(config))
    n = len(trained.encode("the cat").ids)
    assert run(str(tmp_path), "-p", "the cat", "-n", str(40 - n)).exit_code == 0
    said = f"a prompt of {n} tokens, and {41 - n} to follow; the model takes 40"
    for arguments, message in (
        (("-p", "the cat", "-n", str(41 - n)), said),
        (("-p", "x", "-n", "2", "--seed", "-1"), "--seed -1 is out of range; expected a whole number, 0 or more"),
        (("-p", "x \udcff", "-n", "2"), "the prompt is not UTF-8: character 3"),
    ):
        error = run(str(tmp_path), *arguments).exception
        assert isinstance(error, SpecError) and message in str(error)
    error = run(str(tmp_path), "-p", "-", input=b"ab\xff\xfe").exception
    assert isinstance(error, SourceError) and "standard input: byte 0xff is not UTF-8" in str(error)
