"""What lies beside a tuned model's weights, so that other programs load it: config.json, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.families.gguf.tokenizer_files import tokenizer_files as carried_files
from weighttools.families.gguf.tokenizer_json import has_tokenizer
from weighttools.io.beside import not_copied
from weighttools.io.home import Home, home_of
from weighttools.train.adapters.adapting import peft_config
from weighttools.train.checkpoints.heads import Classifier, Embedder, Regressor, form_of
from weighttools.train.checkpoints.loading import CONFIG, OURS, SEQUENCES, Loaded
from weighttools.train.checkpoints.pooling import pad_of
from weighttools.train.models.classes import CLASSES, class_of
from weighttools.write.adapters import CONFIG as ADAPTER
from weighttools.write.adapters import HEAD, of_head

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "generation_config.json",
)
VOCABULARIES = {
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
}  # fmt: skip
"""Those of them without which there is no tokenizer."""


def companions(model: Loaded, pad_id: int | None = None) -> dict[str, bytes]:
    """Return the files to write into a tuned model's directory, by name.

    Parameters
    ----------
    model
        The model.
    pad_id
        The token that fills up texts, for a config.json that does not say.

    Returns
    -------
    dict
        config.json, told of the head; of a model that was a single file also what makes up its tokenizer (a
        directory's other files are copied when it is written). Empty for a model without config.json.
    """
    if not model.config or model.origin is None:
        return {}
    files = {} if _is_directory(model.origin) else tokenizer_files(model.origin)[0]
    return files | {CONFIG: _json(config_with_head(model, pad_id))}


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def left_out(model: Loaded, beside: Mapping[str, bytes]) -> list[str]:
    """Return the lines that say which files of a tokenizer `companions` leaves out, and what no other program reads.

    Parameters
    ----------
    model
        The model. Of one that was a directory, it is told when that is written.
    beside
        What is written beside the weights after all.
    """
    if not model.config or model.origin is None or _is_directory(model.origin):
        return []
    home = home_of(model.origin.origin)
    reasons = {name: why for name, why in _found(home).items() if why and name not in beside}
    return [*not_copied(reasons), *(_unloadable(model.config) if CONFIG in beside else ())]


def tokenizer_files(origin: TensorMap) -> tuple[dict[str, bytes], str]:
    """Return what makes up the tokenizer of a checkpoint that is a single file, and why there is none, if so.

    Parameters
    ----------
    origin
        The open checkpoint.

    Returns
    -------
    files
        Those beside it; if there are none, tokenizer.json and its settings made of a GGUF file's metadata.
    why
        Empty if there are any.
    """
    home = home_of(origin.origin)
    read = {name: home.read(name, MAX_COMPANION_BYTES) for name, why in _found(home).items() if home and not why}
    files = {name: data for name, data in read.items() if data is not None}
    if files.keys() & VOCABULARIES:
        return files, ""
    carried, why = _carried(origin)
    return {**carried, **files}, why


def gguf_files(origin: TensorMap) -> tuple[dict[str, bytes], list[str]]:
    """Return what stands in a GGUF file's metadata as the files of a directory: config.json, and the tokenizer's.

    Parameters
    ----------
    origin
        The open checkpoint.

    Returns
    -------
    files
        By name; nothing where the source is no GGUF file.
    lacking
        Why one of them is not there, a line each, and what of them no other program reads.
    """
    from weighttools.train.models.gguf import from_gguf, is_gguf

    if not is_gguf(origin):
        return {}, []
    try:
        config = from_gguf(origin)[1]
    except WeighttoolsError as error:
        return {}, [f"no config.json is written: {error}"]
    tokenizer, why = tokenizer_files(origin)
    lacking = [f"no tokenizer.json is written: {why}"] if why else []
    return {CONFIG: _json(config), **tokenizer}, [*lacking, *_unloadable(config)]


def _unloadable(config: Mapping[str, Any]) -> list[str]:
    """Return the line that says that transformers loads no model by a config.json; none where it does."""
    rope = config.get("rope_scaling")
    if not isinstance(rope, Mapping) or rope.get("rope_type") != "divided":
        return []
    return [
        "transformers cannot load this config.json: its rotary positions follow no rule known there, and stand as"
        " divisors (rope_type divided), which weighttools reads; put the original model's rope_scaling in its place"
    ]


def _is_directory(origin: TensorMap) -> bool:
    home = home_of(origin.origin)
    return home is not None and home.is_whole


def _found(home: Home | None) -> dict[str, str]:
    """Return the files of the tokenizer beside a checkpoint, each with why it is not copied, or nothing if it is."""
    there = [name for name in TOKENIZER if home.lies(name)] if home else []
    return {name: home.why_not_copied(name, MAX_COMPANION_BYTES) for name in there if home}


def _carried(origin: TensorMap) -> tuple[dict[str, bytes], str]:
    """Return the tokenizer of a GGUF file's metadata, as files; or nothing, and why it cannot be built."""
    if not has_tokenizer(origin.metadata):
        return {}, "none lies beside the checkpoint, and none is in its metadata"
    try:
        return carried_files(origin.metadata, origin.origin.path), ""
    except WeighttoolsError as error:
        return {}, str(error)


def config_with_head(model: Loaded, pad_id: int | None = None) -> dict[str, Any]:
    """Return a model's config.json with its head in it, as transformers reads it.

    A head with a pooling of one's own is none that transformers has: then ``architectures`` stays, and the pooling
    stands under ``weighttools``.
    """
    architecture, head = model.architecture, model.head
    config = dict(model.config)
    if head is None and architecture.family in CLASSES:
        config.setdefault("architectures", [class_of(architecture.family, architecture.kind)])
    if head is None or isinstance(head, Embedder):
        return config
    own = form_of(architecture.family, architecture.kind, None) == form_of(
        architecture.family, architecture.kind, head.pooling
    )
    config.pop(OURS, None)
    if own and architecture.family in CLASSES:
        config["architectures"] = [f"{CLASSES[architecture.family]}ForSequenceClassification"]
    if not own:
        config[OURS] = {"pooling": head.pooling}
    if architecture.kind == "decoder" and pad_id is not None and pad_of(config, architecture.family) is None:
        config["pad_token_id"] = pad_id
    return config | _labels(head)


def _labels(head: Classifier | Regressor) -> dict[str, Any]:
    if isinstance(head, Regressor):
        names = tuple(f"LABEL_{i}" for i in range(head.n_targets))
        problem = "regression"
    else:
        names, problem = head.names or tuple(map(str, range(head.n_classes))), "single_label_classification"
    table = {str(i): name for i, name in enumerate(names)}
    return {"id2label": table, "label2id": {name: i for i, name in enumerate(names)}, "problem_type": problem}


_BODIES: Mapping[str, str] = {
    "albert": "albert.",
    "bert": "bert.",
    "camembert": "roberta.",
    "distilbert": "distilbert.",
    "electra": "electra.",
    "gpt2": "transformer.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
}
"""What transformers puts before a body's names where a head stands on it; decoders other than GPT-2 have ``model.``."""
_TASKS = {"language model": "CAUSAL_LM", "classification": "SEQ_CLS", "regression": "SEQ_CLS"}
"""peft's words for tasks."""


def adapter_prefix(base: Loaded) -> str:
    """Return what peft's model has before the names of a file that has no prefix."""
    architecture = base.architecture
    is_body = isinstance(base.head, Embedder) or (base.head is None and architecture.kind != "decoder")
    if architecture.kind not in SEQUENCES or architecture.prefix or is_body:
        return ""
    return _BODIES.get(architecture.family, "model." if architecture.kind == "decoder" else "")


def adapter_companions(tuned: Loaded, base: Loaded, task: str, pad_id: int | None = None) -> dict[str, bytes]:
    """Return the files to write beside an adapter: adapter_config.json, the tokenizer, and the names of the classes.

    Parameters
    ----------
    tuned, base
        The model with its adapter, and without it.
    task
        What was learnt, as `Task.name` says.
    """
    task_type = _TASKS.get(task) if base.architecture.kind in SEQUENCES else None
    config = json.dumps(peft_config(tuned, adapter_prefix(base), task_type), indent=2) + "\n"
    files = {name: data for name, data in companions(tuned, pad_id).items() if name != CONFIG}
    if isinstance(tuned.head, Classifier | Regressor) and tuned.config:
        files[HEAD] = _json(of_head(config_with_head(tuned, pad_id)))
    return files | {ADAPTER: config.encode()}
