"""What a target's name means, and what may not be replaced by what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory as people name theirs."""
    home = tmp_path / "Qwen2.5-0.5B"
    home.mkdir()
    save_file({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, home / "model.safetensors", {"format": "pt"})
    (home / "config.json").write_text('{"model_type": "qwen2"}')
    return home


@pytest.mark.parametrize("command", ["convert", "scale"])
@pytest.mark.parametrize(
    "name",
    [
        "Qwen2.5-0.5B-bf16",
        "Llama-3.1-8B",
        "bert-base.v2",
        "v1.0",
        "m.bf16",
        "m.q8",
        "phi-3.5",
        "m.Q4_K_M",
        "model.bin/",
    ],
)
def test_a_dot_makes_no_file(name: str, command: str, model: Path, tmp_path: Path, inside: Callable[..., Any]) -> None:
    target = f"{tmp_path}/{name}"
    more = [target] if command == "convert" else ["--by", "1", "-o", target]
    assert inside(command, model, *more).code == 0
    assert load_file(Path(target) / "model.safetensors")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (Path(target) / "config.json").read_text() == '{"model_type": "qwen2"}'


NEAR = {
    "m.safetensor": ".safetensors",
    "m.safetensors2": ".safetensors",
    "m.saftensors": ".safetensors",
    "m.ggfu": ".gguf",
    "m.npzz": ".npz",
    "m.onx": ".onnx",
    "m.hdf": ".hdf5",
    "m.pt2": ".pt",
}


@pytest.mark.parametrize("name", NEAR)
def test_a_suffix_that_nearly_names_a_format(
    name: str, model: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    before = set(tmp_path.iterdir())
    ran = inside("convert", model, tmp_path / name)
    assert ran.code == 2 and ran.err.count("\n") == 1 and f"did you mean {NEAR[name]}? " in ran.err
    assert set(tmp_path.iterdir()) == before
    assert inside("convert", model, f"{tmp_path / name}/").code == 0, "a slash says that it is a directory"
    assert inside("convert", model, tmp_path / name, "--force").code == 0, "and so does the directory itself"


@pytest.mark.parametrize("name", ["t.csv", "t.zip", "t.json", "t.tar"])
def test_other_kinds_of_files_are_no_directories(
    name: str, model: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    ran = inside("convert", model, tmp_path / name)
    assert ran.code == 2 and f"{Path(name).suffix} names no format of weights" in ran.err
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["x.csv", "x", "x.txt", "x/", "x.bf16"])
def test_get_names_what_it_saves(name: str, model: Path, tmp_path: Path, inside: Callable[..., Any]) -> None:
    ran = inside("get", model, "w", "-o", f"{tmp_path}/{name}")
    assert ran.code == 2 and "get saves a tensor as a file; expected a name that ends in one of" in ran.err
    assert all(suffix in ran.err for suffix in (".npy", ".npz", ".safetensors")) and "--to" not in ran.err
    assert not (tmp_path / name).exists()


def test_get_does_not_replace_what_it_reads(model: Path, tmp_path: Path, inside: Callable[..., Any]) -> None:
    file = model / "model.safetensors"
    before = file.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(file)
    for source in (model, file):
        for target in (file, tmp_path / "link.safetensors"):
            ran = inside("get", source, "w[0]", "-o", target, "--force")
            assert ran.code == 2 and "is read too" in ran.err and file.read_bytes() == before
    for _ in range(2):
        assert inside("get", model, "w[0]", "-o", model / "w.npy", "--force").code == 0
    assert np.load(model / "w.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("is_directory", [False, True])
def test_average_does_not_replace_what_it_reads(
    which: int, is_directory: bool, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    places = []
    for i in range(2):
        home = tmp_path / f"run{i}"
        home.mkdir()
        save_file({"w": np.full(3, float(i), np.float32)}, home / "model.safetensors")
        places.append(home if is_directory else home / "model.safetensors")
    ran = inside("average", *places, "-o", places[which], "--force")
    assert ran.code == 2 and "is read too" in ran.err and ran.err.count("\n") == 1
    for i in range(2):
        assert load_file(tmp_path / f"run{i}" / "model.safetensors")["w"].tolist() == [i] * 3
    assert inside("average", *places, "-o", tmp_path / "soup.safetensors").code == 0
    assert load_file(tmp_path / "soup.safetensors")["w"].tolist() == [0.5] * 3


def test_in_place_stays_what_it_was(model: Path, inside: Callable[..., Any]) -> None:
    """One checkpoint may be replaced by what becomes of it."""
    assert inside("scale", model, "--by", "2", "-o", model, "--force").code == 0
    assert load_file(model / "model.safetensors")["w"].tolist() == [[0, 2, 4], [6, 8, 10]]
