"""Files of other programs that people try, by what is in them, by their names, and as directories: said plainly.

Sources: TensorFlow's ``saved_model.proto``, ``graph.proto`` and ``table_format.txt`` (a checkpoint's index is a table
with a magic number at its end); Core ML's ``Model.proto``; TensorFlow Lite's ``schema.fbs`` (file_identifier);
git-annex's pointer files; SentencePiece's ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from weighttools.core.spec import Source


class Kind(NamedTuple):
    """What a file is, as a fact about it, and what to do."""

    fact: str
    remedy: str


_TENSORFLOW = "load the model with TensorFlow or Keras, and save it as .keras or .h5"
_GRAPH = Kind("is a graph of TensorFlow (GraphDef), which is not read", _TENSORFLOW)
_SAVED_MODEL = Kind("is a TensorFlow SavedModel, which is not read", _TENSORFLOW)
_CHECKPOINT = Kind("is part of a TensorFlow checkpoint, which is not read", _TENSORFLOW)
_CORE_ML = Kind("is a Core ML model, which is not read", "convert the model that it was made from")
_LITE = Kind("is a TensorFlow Lite model, which is not read", "convert the model that it was made from")
_ENGINE = Kind("is a TensorRT engine: compiled for one machine, not weights", "convert the model that it was made from")
_OPENVINO = Kind("is an OpenVINO model's description, which is not read", "convert the model that it was made from")
_CAFFE = Kind("is a Caffe model, which is not read", "convert it to ONNX, or the model that it was made from")
_PADDLE = Kind("is a PaddlePaddle model, which is not read", "save it as safetensors, or convert it to ONNX")
_DARKNET = Kind("is a Darknet weight file, which is not read", "convert it to PyTorch or ONNX")
_MXNET = Kind("is an MXNet parameter file, which is not read", "convert it to ONNX")
_OLD_GGML = Kind("is a ggml file from before GGUF, which is not read", "fetch the model as GGUF")
_ANNEX = Kind("is a git-annex pointer, not the file itself", "run: git annex get")
_DVC = Kind("is a DVC pointer, not the file itself", "run: dvc pull")
_TOKENIZER = Kind("is a tokenizer's file, not weights", "give the weight file, or the directory that holds it")
_CONFIG = Kind("is a model's configuration, not weights", "give the weight file, or the directory that holds it")
_TEXT = Kind("is text, not weights", "give a file that `weighttools formats` lists")
_ZLIB = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
_LEAST_TABLE = 48
_TABLE_END = bytes.fromhex("57fb808b247547db")

_BEGINNINGS = {
    b"ftrt": _ENGINE,
    b"ptrt": _ENGINE,
    b"lmgg": _OLD_GGML,
    b"fmgg": _OLD_GGML,
    b"tjgg": _OLD_GGML,
    b"\x12\x01\x00\x00\x00\x00\x00\x00": _MXNET,
    b"model_checkpoint_path:": _CHECKPOINT,
    b"/annex/objects/": _ANNEX,
    b"outs:\n- md5:": _DVC,
    b"#version: 0.": _TOKENIZER,
}
_SUFFIXES = {
    ".pb": _GRAPH,
    ".pbtxt": _GRAPH,
    ".tflite": _LITE,
    ".mlmodel": _CORE_ML,
    ".engine": _ENGINE,
    ".plan": _ENGINE,
    ".trt": _ENGINE,
    ".caffemodel": _CAFFE,
    ".pdparams": _PADDLE,
    ".pdmodel": _PADDLE,
    ".pdiparams": _PADDLE,
    ".weights": _DARKNET,
    ".index": _CHECKPOINT,
    ".meta": _CHECKPOINT,
}
_SHARD = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}$")
_VOCABULARIES = ("vocab.txt", "merges.txt", ".model", ".spm")


def of_content(head: bytes, source: Source) -> Kind | None:
    """Return what a file plainly is by its bytes; None if that is not known."""
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if source.size >= _LEAST_TABLE and source.read(source.size - len(_TABLE_END), len(_TABLE_END)) == _TABLE_END:
        return _CHECKPOINT
    return next((kind for is_one, kind in _SHAPES if is_one(head)), None) or _of_versioned(head, source.name)


def _inflates(head: bytes) -> bool:
    import zlib

    try:
        return bool(zlib.decompressobj().decompress(head, 64))
    except zlib.error:
        return False


def _of_versioned(head: bytes, name: str) -> Kind | None:
    """A message whose first field is a version and whose second is a message: both models have that shape."""
    if not re.match(rb"\x08[\x01-\x7f]\x12", head):
        return None
    return _SAVED_MODEL if head[1] == 1 and not name.lower().endswith(".mlmodel") else _CORE_ML


def _is_json_with(head: bytes, keys: bytes) -> bool:
    return head.lstrip().startswith(b"{") and re.search(rb'"(?:%b)"\s*:' % keys, head) is not None


_SHAPES: tuple[tuple[Callable[[bytes], bool], Kind], ...] = (
    (lambda head: head[4:8] == b"TFL3", _LITE),
    (
        lambda head: head[:2] in _ZLIB and _inflates(head),
        Kind(
            "is zlib-compressed, as joblib writes", "load it with joblib, if you trust it, and save its arrays as npz"
        ),
    ),
    (lambda head: re.match(rb"\s*<\?xml.{0,100}<net\s", head, re.DOTALL) is not None, _OPENVINO),
    (lambda head: _is_json_with(head, b"added_tokens|tokenizer_class|bos_token|model_max_length"), _TOKENIZER),
    (lambda head: _is_json_with(head, b"model_type|architectures|_class_name"), _CONFIG),
)


def of_name(head: bytes, name: str) -> Kind | None:
    """Return what a file of no known content is by its name, or that it is text; None if nothing is known."""
    lowered = name.lower()
    if _SHARD.search(lowered):
        return _CHECKPOINT
    if lowered.endswith(_VOCABULARIES):
        return _TOKENIZER
    found = next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)
    return found or (_TEXT if _is_text(head) else None)


def _is_text(head: bytes) -> bool:
    """Whether the beginning of a file is words: UTF-8 of printable characters and line ends."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return len(text) > 3 and all(c.isprintable() or c in "\t\r\n" for c in text)


def of_directory(names: Iterable[str]) -> Kind | None:
    """Return what a directory of these files is; None if that is not known."""
    listed = set(names)
    return next((kind for is_one, kind in _DIRECTORIES if is_one(listed)), None)


_DIRECTORIES: tuple[tuple[Callable[[set[str]], bool], Kind], ...] = (
    (lambda names: bool(names & {"saved_model.pb", "saved_model.pbtxt"}), _SAVED_MODEL),
    (
        lambda names: bool(names & {"_CHECKPOINT_METADATA", "manifest.ocdbt", "_METADATA", "ocdbt.process_0"}),
        Kind("is an Orbax checkpoint, which is not read", "restore it with orbax, and save the arrays as safetensors"),
    ),
    (lambda names: {"Manifest.json", "Data"} <= names, _CORE_ML),
    (
        lambda names: any(_SHARD.search(name) for name in names) or any(name.endswith(".ckpt.index") for name in names),
        Kind("is a TensorFlow checkpoint, which is not read", _TENSORFLOW),
    ),
    (
        lambda names: {".zgroup", ".zattrs"} & names != set() or "zarr.json" in names,
        Kind("is a Zarr store, which is not read", "save its arrays as safetensors or npz"),
    ),
)
