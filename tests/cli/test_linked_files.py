"""What a directory names is taken only if it lies in it: private files do not get into what is written or said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers
from gguf import GGUFReader

import weighttools as wt
from tests.transforms.test_gguf_llama_cpp import byte_level, fast
from weighttools.errors import WeighttoolsError
from weighttools.io import beside

SECRET = "PRIVATE-KEY-1"
NOT_TAKEN = "not taken: {} (a link that leaves its directory)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home, tokenizer = tmp_path_factory.mktemp("whole"), fast(byte_level("llama-bpe"), bos=True)
    tokenizer.save_pretrained(home)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(home)
    (home / "additional_chat_templates").mkdir()
    (home / "additional_chat_templates" / "tool.jinja").write_text(SECRET)
    (home / "chat_template.jinja").write_text(SECRET)
    (home / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "said": SECRET}))
    return home


@pytest.fixture
def linked(whole: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a copy of the model in which files of these names are links: out of it, or to the blobs of a cache."""

    def make(*names: str, cached: bool = False) -> Path:
        home, store = tmp_path / "models--a--b" / "snapshots" / "abc", tmp_path / "models--a--b" / "blobs"
        shutil.copytree(whole, home)
        shutil.copytree(whole, store)
        outside = store if cached else tmp_path / "elsewhere"
        if not cached:
            store.rename(outside)
        for name in names:
            shutil.rmtree(home / name) if (home / name).is_dir() else (home / name).unlink()
            (home / name).symlink_to(os.path.relpath(outside / name, (home / name).parent))
        return home

    return make


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


TEMPLATES = ["chat_template.jinja", "additional_chat_templates", "additional_chat_templates/tool.jinja"]


@pytest.mark.parametrize("name", [*TEMPLATES, "tokenizer.json", "tokenizer_config.json"])
def test_gguf_takes_no_file_from_elsewhere(linked: Any, inside: Any, tmp_path: Path, name: str) -> None:
    home = linked(name)
    for path in home.rglob("*"):  # the secret stands only behind the link
        if path.is_file() and not path.is_symlink() and path.suffix == ".jinja" and path.parent.name != name:
            path.write_text("plain")
    ran = inside("convert", home, tmp_path / "o.gguf", "--names", "gguf")
    assert ran.code == 0 and NOT_TAKEN.format(name) in ran.err, ran.err
    found = metadata(tmp_path / "o.gguf")
    assert SECRET not in str(found) and ("tokenizer.ggml.tokens" in found) == (name != "tokenizer.json")
    checked = inside("check", home)
    assert NOT_TAKEN.format(name) in checked.out and SECRET not in checked.out


def test_gguf_takes_files_of_a_cache(linked: Any, inside: Any, tmp_path: Path) -> None:
    names = ("chat_template.jinja", "additional_chat_templates/tool.jinja", "config.json", "tokenizer.json")
    ran = inside("convert", linked(*names, cached=True), tmp_path / "o.gguf", "--names", "gguf")
    assert ran.code == 0 and "not taken" not in ran.err, ran.err
    found = metadata(tmp_path / "o.gguf")
    assert found["tokenizer.chat_template"] == found["tokenizer.chat_template.tool"] == SECRET


def test_a_configuration_from_elsewhere_is_not_read(linked: Any, inside: Any, tmp_path: Path) -> None:
    home, data = linked("config.json"), tmp_path / "d.txt"
    data.write_text("a b c\n" * 40)
    for verb in ("convert", "finetune", "generate", "evaluate"):
        options = {"convert": (tmp_path / "o.gguf", "--names", "gguf"), "generate": ("--prompt", "a")}
        more = options.get(verb, ("--data", data, *(("-o", tmp_path / "o") if verb == "finetune" else ())))
        ran = inside(verb, home, *more)
        assert ran.code == 2 and "is a link that leaves its directory" in ran.err, (verb, ran.err)
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.gguf").exists()
    for verb in ("inspect", "estimate"):
        ran = inside(verb, home)
        assert ran.code == 0 and NOT_TAKEN.format("config.json") in ran.err and "Llama" not in ran.out
    assert "config-" not in inside("check", home).out


def test_what_ends_texts_elsewhere_is_left_and_said(linked: Any, inside: Any) -> None:
    ran = inside("generate", linked("generation_config.json"), "--prompt", "a", "-n", "2")
    assert ran.code == 0 and NOT_TAKEN.format("generation_config.json") in ran.err, ran.err


def exchanged(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a link to `secret` take a file's place, as soon as its path was looked at; and once more at the next look."""
    real = os.path.realpath

    def realpath(path: Any, **options: Any) -> Any:
        found = real(path, **options)
        if os.path.basename(os.fspath(path)) == name and not (home / name).is_symlink():
            (home / name).rename(home / "before")
            (home / name).symlink_to(home.parent / "secret")
        return found

    monkeypatch.setattr(os.path, "realpath", realpath)


def test_a_link_put_in_while_a_model_is_opened_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, values = tmp_path / "home", np.zeros(4, np.float32)
    home.mkdir()
    (tmp_path / "secret").write_bytes(b"SECR" * 4)
    tensor = onnx.numpy_helper.from_array(values, "w")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])), home / "m.onnx",
              save_as_external_data=True, location="w.bin", size_threshold=0)  # fmt: skip
    assert wt.open(home / "m.onnx")["w"].read().tolist() == values.tolist()
    exchanged(home, "w.bin", monkeypatch)
    with pytest.raises(WeighttoolsError, match="w.bin: is a link that leaves its directory"):
        wt.open(home / "m.onnx")


def test_a_link_put_in_before_a_file_is_read_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for place, content in ((home, "1"), (tmp_path / "elsewhere", "2")):
        (place / "folder").mkdir(parents=True)
        (place / "folder" / "x.json").write_text(content)
    found = beside.companion(home, "folder/x.json")
    assert found is not None
    (home / "folder").rename(home / "before")
    (home / "folder").symlink_to(tmp_path / "elsewhere" / "folder")
    with pytest.raises(WeighttoolsError, match="changed since it was opened"):
        found.read(0, 1)
    assert beside.companion(home, "folder/x.json") is None


def test_a_companion_exchanged_for_a_link_is_not_copied(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(whole, tmp_path / "home")
    (tmp_path / "secret").write_text("OTHER")
    exchanged(home, "generation_config.json", monkeypatch)
    record = wt.convert(home, tmp_path / "o")
    assert not (tmp_path / "o" / "generation_config.json").exists()
    assert "generation_config.json (a link that leaves its directory)" in str(record["notes"])
