"""Files of other programs, which people try: each is named for what it is, in one line."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from onnx import helper

import weighttools as wt
from weighttools.errors import UnknownFormatError, WeighttoolsError


def field(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, out = len(body), b""
    while length >= 0x80:
        out, length = out + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + out + bytes([length]) + body


# saved_model.proto: saved_model_schema_version = 1, meta_graphs = 2 (MetaGraphDef: meta_info_def = 1, graph_def = 2)
META = field(1, field(4, b"serve") + field(5, b"2.16.1")) + field(2, field(1, field(1, b"x") + field(2, b"Const")) * 9)
# Model.proto of Core ML: specificationVersion = 1, description = 2 (ModelDescription: input = 1)
DESCRIPTION = field(1, field(1, b"image") + field(3, b"\x08\x01")) + field(10, field(1, b"out"))
GRAPH = field(1, field(1, b"weights") + field(2, b"Const"))
TABLE = b"\0" * 60 + bytes.fromhex("57fb808b247547db")

FILES = {
    "saved_model.pb": (b"\x08\x01" + field(2, META), "TensorFlow SavedModel"),
    "long.pb": (b"\x08\x01" + field(2, META * 200), "TensorFlow SavedModel"),
    "model.mlmodel": (b"\x08\x04" + field(2, DESCRIPTION), "Core ML"),
    "old.mlmodel": (b"\x08\x01" + field(2, DESCRIPTION), "Core ML"),
    "graph.pb": (GRAPH, "GraphDef"),
    "saved_model.onnx": (b"\x08\x01" + field(2, META), "TensorFlow SavedModel"),
    "model.tflite": (b"\x1c\0\0\0TFL3\x14\0 \0", "TensorFlow Lite"),
    "checkpoint": (b'model_checkpoint_path: "ckpt-1"\n', "TensorFlow checkpoint"),
    "ckpt-1.index": (TABLE, "TensorFlow checkpoint"),
    "renamed": (TABLE, "TensorFlow checkpoint"),
    "ckpt-1.data-00000-of-00001": (b"\xa1\xb2\xc3\x01" * 20, "TensorFlow checkpoint"),
    "model.engine": (b"ftrt" + bytes(20), "TensorRT"),
    "model.xml": (b'<?xml version="1.0"?>\n<net name="m" version="11">', "OpenVINO"),
    "net.caffemodel": (field(1, b"LeNet"), "Caffe"),
    "model.pdiparams": (bytes(40), "PaddlePaddle"),
    "old.bin": (b"tjgg\x03\0\0\0", "before GGUF"),
    "model.safetensors": (b"/annex/objects/SHA256E-s1--0.safetensors\n", "git annex get"),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "12,345 bytes"),
    "model.bin.dvc": (b"outs:\n- md5: 0123\n", "dvc pull"),
    "page.safetensors": (b"<!DOCTYPE html><html>", "HTML page"),
    "paper.pt": (b"%PDF-1.7\n", "PDF"),
    "tokenizer.json": (b'{"version": "1.0", "added_tokens": []}', "tokenizer"),
    "tokenizer.model": (b"\n\x0e\n\x05<unk>\x15\0\0\0\0", "tokenizer"),
    "vocab.txt": (b"[PAD]\n[UNK]\n", "tokenizer"),
    "merges.txt": (b"#version: 0.2\nh e\n", "tokenizer"),
    "config.json": (b'{"architectures": ["BertModel"], "model_type": "bert"}', "configuration"),
    "train.py": (b"import torch\nmodel = 3\n", "is text"),
    "model.tar.gz": (b"\x1f\x8b\x08\0", "gzip"),
    "model.safetensors.zst": (b"\x28\xb5\x2f\xfd", "zstandard"),
    "random.bin": (b"\xff\xfe\xfd\xfc\x00\x01", "no known format"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_each_is_named(tmp_path: Path, inside, name: str) -> None:
    data, said = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnknownFormatError) as caught:
        wt.open(tmp_path / name)
    assert said in str(caught.value)
    ran = inside("inspect", tmp_path / name)
    assert ran.code == 2 and len(ran.err.splitlines()) == 1 and said in ran.err


@pytest.mark.parametrize(
    "names, said",
    [
        (["saved_model.pb", "variables/", "assets/"], "SavedModel"),
        (["manifest.ocdbt", "_METADATA", "d/"], "Orbax"),
        (["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"], "TensorFlow checkpoint"),
        (["Manifest.json", "Data/"], "Core ML"),
        ([".zgroup", "w/"], "Zarr"),
    ],
)
def test_directories_are_named(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_bytes(b"\x08\x01")
    with pytest.raises(UnknownFormatError, match=said):
        wt.open(tmp_path)


def test_archives_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mlpackage.zip", "w") as archive:
        archive.writestr("a.mlpackage/Manifest.json", "{}")
    with tarfile.open(tmp_path / "b.pth.tar", "w") as old:
        old.addfile(tarfile.TarInfo("storages"))
    for name, said in (("a.mlpackage.zip", "zip archive"), ("b.pth.tar", "tar archive")):
        with pytest.raises(UnknownFormatError, match=said):
            wt.open(tmp_path / name)


@pytest.mark.parametrize("producer", ["", "p", "pytorch", "Ünïcode", "x" * 200, "x" * 5000])
def test_models_of_any_producer_are_onnx_still(tmp_path: Path, producer: str) -> None:
    import numpy as np
    from onnx import numpy_helper

    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.ones(2), "w")])
    model = helper.make_model(graph, producer_name=producer)
    (tmp_path / "noname").write_bytes(model.SerializeToString())
    assert list(wt.open(tmp_path / "noname")) == ["w"]


def test_a_pickle_of_scikit_learn_is_read_or_named(tmp_path: Path) -> None:
    import joblib
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    features = np.arange(12.0).reshape(6, 2)
    fitted = LogisticRegression().fit(features, [0, 1] * 3)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(fitted))
    np.testing.assert_array_equal(wt.open(tmp_path / "a.pkl")["coef_"].read(), fitted.coef_)
    for compress in (0, 3):
        joblib.dump(fitted, tmp_path / "b.bin", compress=compress)
        with pytest.raises(WeighttoolsError, match="zlib-compressed, as joblib" if compress else "a joblib file"):
            wt.open(tmp_path / "b.bin")


def test_an_archive_without_numbers_is_refused_and_one_with_some_says_what_it_lacks(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "words.npz", a=np.array(["x", "y"]))
    with pytest.raises(WeighttoolsError, match=r"holds no array of numbers: member 'a\.npy'"):
        wt.open(tmp_path / "words.npz")
    np.savez(tmp_path / "some.npz", a=np.array(["x", "y"]), w=np.ones(2))
    found = wt.open(tmp_path / "some.npz")
    assert list(found) == ["w"] and "'a.npy'" in found.origin.notes[0]
    np.savez(tmp_path / "none.npz")
    assert len(wt.open(tmp_path / "none.npz")) == 0
