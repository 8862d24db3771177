"""What lies beside weights is read through their home, so that a home elsewhere is one more class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import weighttools as wt
from tests.refused import refused
from tests.transforms.test_gguf_llama_cpp import byte_level, fast
from weighttools.analyzers import configuration
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError
from weighttools.families.packed import said
from weighttools.io.home import HOMES, Home, LocalHome, home_of
from weighttools.io.source import Bytes
from weighttools.train.checkpoints.companions import tokenizer_files
from weighttools.train.data.tokens import tokens
from weighttools.train.models import load
from weighttools.train.models.files import described
from weighttools.train.writing import writer
from weighttools.transforms.gguf_names import translate
from weighttools.write.adapters import beside, open_adapter

AWAY = "a link that leaves its directory"


class MemoryHome(Home):
    """Files in memory, as a store of objects would have them; those in `elsewhere` it only knows by name."""

    def __init__(self, place: str, files: dict[str, bytes], elsewhere: frozenset[str] = frozenset()) -> None:
        super().__init__(place, is_whole=not place.endswith(".safetensors"))
        self._files, self._elsewhere = files, elsewhere

    def names(self, folder: str = "") -> list[str]:
        inside = f"{folder}/" if folder else ""
        return sorted({name[len(inside) :].split("/")[0] for name in self._files if name.startswith(inside)})

    def files(self) -> Iterator[str]:
        yield from sorted(self._files, key=lambda name: (name.count("/"), name))

    def lies(self, name: str) -> bool:
        return name in self._files

    def is_elsewhere(self, name: str) -> bool:
        return name in self._elsewhere

    def open(self, name: str) -> Bytes | None:
        there = name in self._files and name not in self._elsewhere
        return Bytes(self._files[name], self.path_of(name)) if there else None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    home, tokenizer = tmp_path / "model", fast(byte_level("llama-bpe"), bos=True)
    tokenizer.save_pretrained(home)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(home)
    (home / "custom_generate").mkdir()
    (home / "custom_generate" / "generate.py").write_text("import os")
    return home


@pytest.fixture
def remote(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a map of the model's tensors that lies in memory; on disk there is nothing beside its weights any more."""

    def make(place: str = "memory://shop/model", **changed: bytes | None) -> TensorMap:
        names = [path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()]
        files = {name: (model / name).read_bytes() for name in names}
        elsewhere = frozenset(name for name, data in changed.items() if data is None)
        files |= {name: data for name, data in changed.items() if data is not None}
        monkeypatch.setitem(HOMES, "memory", lambda path: MemoryHome(path, files, elsewhere))
        weights = tmp_path / "alone" / "model.safetensors"
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(files["model.safetensors"])
        tensor_map = wt.open(weights)
        return tensor_map.replace(origin=tensor_map.origin._replace(path=place))

    return make


def test_config_and_tokenizer_are_read_through_a_home_in_memory(remote: Any, model: Path) -> None:
    tensor_map, config = remote(), json.loads((model / "config.json").read_text())
    assert configuration.read_beside(tensor_map.origin, "config.json") == config
    assert configuration.heads_beside(tensor_map.origin) == config["num_attention_heads"]
    assert described(tensor_map)[1] == config
    texts = ["the cat sat", "a dog"]
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    known = tokens(tensor_map)
    assert [ids.tolist() for ids in known.ids(texts, special=True)] == [theirs(text)["input_ids"] for text in texts]
    assert known.end_id == theirs.eos_token_id
    files, why = tokenizer_files(tensor_map)
    assert (files["tokenizer.json"], why) == ((model / "tokenizer.json").read_bytes(), "")


def test_a_model_in_memory_generates_what_transformers_does(remote: Any, model: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    ids = torch.tensor([tokenizer("the cat")["input_ids"]])
    generated = theirs.generate(ids, do_sample=False, max_new_tokens=5)[0, ids.shape[1] :]
    ours = "".join(writer(remote()).write("the cat", 5))
    assert ours.removeprefix("the cat").strip() == tokenizer.decode(generated, skip_special_tokens=True).strip()
    assert load(remote()).config["model_type"] == "llama"


def test_companions_are_copied_out_of_a_home_in_memory(remote: Any, model: Path, tmp_path: Path) -> None:
    record = wt.convert(remote(), tmp_path / "o")
    names = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert {p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*") if p.is_file()} == names
    assert all(
        (tmp_path / "o" / name).read_bytes() == (model / name).read_bytes() for name in names - {"model.safetensors"}
    )
    assert "custom_generate/generate.py" in str(record["notes"])
    assert wt.convert(remote(), tmp_path / "o", force=True, dry_run=True)["replaced"] == sorted(names)


def test_checks_and_gguf_read_a_home_in_memory(remote: Any, model: Path) -> None:
    from weighttools.analyzers.checks import findings

    assert [f.record() for f in findings(remote())] == [f.record() for f in findings(wt.open(model))]
    there = wt.open(model)
    for found in (translate("gguf")(remote()), translate("gguf")(there)):
        assert found.metadata["general.name"] == "model"
        assert found.metadata["tokenizer.ggml.tokens"] == translate("gguf")(there).metadata["tokenizer.ggml.tokens"]
    packed = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    tensor_map = remote(**{"config.json": json.dumps(packed).encode()})
    assert said(tensor_map.origin) == {"file": "config.json", "quant_method": "gptq", "bits": "4"}


def test_what_lies_elsewhere_of_a_home_in_memory_is_left_there_and_said(remote: Any, tmp_path: Path) -> None:
    tensor_map = remote(**{"config.json": None, "tokenizer.json": None})
    assert configuration.not_taken(tensor_map.origin) == [f"not taken: config.json ({AWAY}); copy what is needed there"]
    for read in (described, tokens):
        with pytest.raises(UnsafeFileError, match=AWAY):
            read(tensor_map)
    record = wt.convert(tensor_map, tmp_path / "o")
    assert f"config.json ({AWAY}), tokenizer.json ({AWAY})" in str(record["notes"])
    assert not (tmp_path / "o" / "config.json").exists()


def test_files_in_memory_are_read_with_a_bound(remote: Any) -> None:
    big = remote(**{"tokenizer_config.json": b" " * (1 << 25), "config.json": b"[1]"})
    with refused(CorruptFileError, "bad-json", "memory://shop/model/config.json"):
        described(big)
    home = home_of(big.origin)
    assert home is not None
    with pytest.raises(CorruptFileError, match=r"33,554,432 bytes long"):
        home.read_json("tokenizer_config.json")
    assert home.read("config.json", 3) == b"[1]" and home.read("no", 3) is None
    with pytest.raises(CorruptFileError, match="3 bytes long; expected at most 2"):
        home.read("config.json", 2)


def test_beside_one_file_in_memory_lies_what_may_be_another_models(remote: Any, tmp_path: Path) -> None:
    record = wt.convert(remote("memory://shop/model/x.safetensors"), tmp_path / "o")
    assert "config.json beside the source is not copied" in str(record["notes"])
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["model.safetensors"]


def test_an_adapter_in_memory_says_what_its_head_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"adapter_config.json": b"{}", "head_config.json": b'{"num_labels": 3}'}
    monkeypatch.setitem(HOMES, "memory", lambda path: MemoryHome(path, files))
    from weighttools.write.adapters import Adapter

    assert beside(Adapter({}, {}, {}, "memory://adapter"), {"a": 1}) == {"a": 1, "num_labels": 3}
    with pytest.raises(wt.WeighttoolsError, match="holds no adapter"):
        open_adapter("memory://adapter")


def test_what_lies_nowhere_has_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [home_of(Origin(path)) for path in ("", "-", "ftp://x/y")] == [None] * 3
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 4}')
    monkeypatch.chdir(tmp_path)
    tensor_map = TensorMap({}, origin=Origin("-", "safetensors", ("-",)))
    assert described(tensor_map)[1] == {}  # a pipe is no file of the directory that the command runs in
    with pytest.raises(SpecError, match="the architecture is not known"):
        translate("gguf")(tensor_map)
    assert home_of(Origin("x.safetensors")) is not None
    assert described(tensor_map.replace(origin=Origin("x.safetensors")))[1]["model_type"] == "llama"


def test_a_directory_lists_and_names_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a/d", "a/.hidden", ".git/x", "a/c/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "z").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nothing")
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path), "."):
        home = LocalHome(place)
        assert list(home.files()) == ["b.txt", "dangling", "z", "a/d", "a/c/e"]
        assert (home.is_whole, home.name, home.names("a")) == (True, tmp_path.name, [".hidden", "c", "d"])
        assert (home.lies("dangling"), home.has("dangling"), home.open("dangling"), home.has("a")) == (
            True,
            False,
            None,
            False,
        )
        assert home.is_same(tmp_path) and home.is_around(tmp_path / "a" / "new") and not home.is_around(tmp_path)
    file = LocalHome("b.txt")
    assert (file.place, file.path_of("config.json"), file.is_whole) == (".", "config.json", False)
    assert file.is_same(tmp_path / "b.txt") and not file.is_same(tmp_path / "gone")
