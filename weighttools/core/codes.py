"""The codes of findings: one table, which ``weighttools check --codes`` prints and the documentation shows."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from weighttools.core.findings import Finding


class Code(NamedTuple):
    """What a code means.

    Parameters
    ----------
    severities
        Those that it comes with, the worst first.
    meaning
        What was found, and why it matters.
    remedy
        What can be done.
    reads
        What must be read to find it: ``"headers"`` or ``"values"``.
    """

    severities: str
    meaning: str
    remedy: str
    reads: str = "headers"


CODES: dict[str, Code] = {
    "unreadable": Code(
        "error",
        "the file cannot be opened as a checkpoint, or a tensor cannot be read",
        "as the message says",
    ),
    "damaged-member": Code(
        "error",
        "the content of an archive's member is not what its CRC-32 tells",
        "fetch the file again, or take a backup: some of its values are not those that were stored",
        "values",
    ),
    "inflates-without-measure": Code(
        "error",
        "a compressed member of an archive claims far more bytes than are stored",
        "if it is meant to be so, save it again without compression",
        "values",
    ),
    "left-out": Code(
        "warning, note",
        "the file holds what is not read as a tensor; what lies outside the file is a warning: loaders follow it",
        "see whether they are wanted; copy a file with its values: h5repack, or h5copy -f ext",
    ),
    "trailing-bytes": Code(
        "warning",
        "bytes before or behind what the format reads: no loader sees them, a scanner may or may not",
        "convert it with weighttools, and keep the result",
    ),
    "reference-refuses": Code(
        "error",
        "the format's reference library refuses a file that weighttools reads: what loads by that library fails on it",
        "convert it with weighttools, and load the result",
    ),
    "pickle-runs-code": Code(
        "error",
        "unpickling would call what is not needed to rebuild tensors and plain containers, or import what is dangerous",
        "convert it with weighttools, and load the result",
    ),
    "pickle-imports": Code(
        "warning",
        "unpickling would import what is not known to be harmless",
        "convert it with weighttools, and load the result",
    ),
    "chat-template": Code(
        "error, warning",
        "a chat template reaches for attributes that lead to Python's modules, or by names that it puts together, or is"
        " not looked into (a warning: calls what is not known)",
        "do not render it; take the template from the model's makers",
    ),
    "template-name": Code(
        "error",
        "a named chat template has a path for its name: saving the tokenizer would write outside its directory",
        "rename it",
    ),
    "remote-code": Code(
        "warning",
        "a configuration names Python code, which transformers runs if it is told trust_remote_code=True",
        "read the code before you trust it, or leave trust_remote_code off",
    ),
    "python-files": Code(
        "warning",
        "Python files lie beside the weights: loaders that trust the directory run them",
        "read them before you trust them",
    ),
    "keras-lambda": Code(
        "error, warning",
        "a Keras configuration holds Lambda layers: Python code that loading the model runs (an error if marshalled)",
        "load only the weights, into a model that you define",
    ),
    "keras-imports": Code(
        "error",
        "a Keras configuration names modules or functions that loading the model would import or call",
        "load only the weights, into a model that you define",
    ),
    "keras-custom": Code(
        "warning",
        "a Keras configuration asks for registered classes or functions that Keras itself has not",
        "load only the weights, or see where the model's code comes from",
    ),
    "onnx-operator": Code(
        "warning",
        "the model uses operators of its own, for which a runtime must load a library",
        "see where the library comes from",
    ),
    "onnx-path": Code(
        "error",
        "the model names data files that do not lie in its directory: a runtime may read any file so",
        "do not open it elsewhere; save it again with its data beside it",
    ),
    "broken-pickle": Code(
        "error",
        "a pickle does not follow its own rules",
        "do not load it with an unpickler",
    ),
    "linked-file": Code(
        "note",
        "a configuration, a tokenizer or a template beside the weights is a link out of the directory: it is not read",
        "put the file itself there, if it is to be read",
    ),
    "linked-weights": Code(
        "note",
        "a weight file of the directory is a link out of it: what is read lies elsewhere, and may change there",
        "nothing, where a store such as git-annex or DVC made it",
    ),
    "not-looked-into": Code(
        "error, warning",
        "an archive holds compressed files or archives that were not looked into (an error: too deep in one another)",
        "unpack it, and check what comes out",
    ),
    "torchscript": Code(
        "note",
        "the archive holds code of a TorchScript model, which runs when the model is called",
        "convert it with weighttools, which takes the parameters only",
    ),
    "odd-name": Code(
        "warning",
        "a tensor's name is empty or holds control characters",
        "rename it",
    ),
    "nan": Code(
        "error, warning",
        "values are NaN (a warning in buffers); the first index is given",
        "go back to an earlier checkpoint",
        "values",
    ),
    "inf": Code(
        "error, note",
        "values are infinite (a note in buffers, where masks hold them); the first index is given",
        "cast from a wider dtype, or clip",
        "values",
    ),
    "all-zero": Code(
        "warning, note",
        "every value is zero (a note for vectors, where biases begin so)",
        "see whether it was ever written or trained",
        "values",
    ),
    "constant": Code(
        "warning, note",
        "every value is the same (a note for vectors, where norms begin so)",
        "see whether it was ever trained",
        "values",
    ),
    "dead-rows": Code(
        "warning, note",
        "whole rows of a matrix are zero: outputs that never fire (a note in embeddings)",
        "prune them, or see why they died",
        "values",
    ),
    "dead-columns": Code(
        "note",
        "whole columns of a matrix are zero: inputs that are never read",
        "prune them, or see why they are not used",
        "values",
    ),
    "large-values": Code(
        "warning",
        "a matrix is far larger than its likes in other layers, or than trained weights are",
        "look for a diverged run",
        "values",
    ),
    "outlier-exponent": Code(
        "error, warning",
        "a few values stand many powers of two above all others, as a flipped bit leaves them",
        "fetch the file again, and compare hashes",
        "values",
    ),
    "duplicate": Code(
        "note",
        "tensors hold the same bytes twice",
        "tie them before saving",
        "values",
    ),
    "tied": Code(
        "note",
        "several names share one stored tensor",
        "none needed; writing keeps the tie",
    ),
    "mixed-dtypes": Code(
        "warning, note",
        "the same tensor of different layers has different dtypes (a note: dtypes differ between kinds)",
        "convert --dtype makes them one",
    ),
    "index-missing": Code(
        "error",
        "a shard holds tensors that the index does not name: loaders leave them out",
        "check --fix-index",
    ),
    "index-extra": Code(
        "error",
        "the index names tensors that its shard does not hold",
        "check --fix-index, or fetch the shard",
    ),
    "index-misplaced": Code(
        "error",
        "the index places a tensor in another shard than the one that holds it",
        "check --fix-index",
    ),
    "missing-shard": Code(
        "error",
        "the index names a file that is not there",
        "fetch it",
    ),
    "duplicate-tensor": Code(
        "error",
        "two shards hold a tensor of one name",
        "find out which is right",
    ),
    "stray-shard": Code(
        "warning",
        "a shard lies in the directory, but the index does not name it",
        "remove it, or check --fix-index",
    ),
    "stale-total": Code(
        "warning",
        "total_size of the index is not what the shards hold",
        "check --fix-index",
    ),
    "broken-index": Code(
        "error",
        "the index is no index, or names files outside its directory",
        "check --fix-index",
    ),
    "no-format": Code(
        "warning, note",
        "the metadata lacks format: pt, which some loaders demand (a warning beside a config.json)",
        "write the file again with it",
    ),
    "broken-config": Code(
        "warning",
        "a configuration beside the weights cannot be read",
        "fetch it again",
    ),
    "config-shape": Code(
        "error",
        "a tensor's shape is not what config.json says",
        "find out which of the two is right",
    ),
    "config-layers": Code(
        "error",
        "there are more or fewer layers than config.json says",
        "find out which of the two is right",
    ),
    "config-tensors": Code(
        "error, warning, note",
        "a tensor that config.json's model has is missing, or one is there that it has not",
        "find out which of the two is right",
    ),
    "tokenizer-larger": Code(
        "error",
        "the tokenizer makes ids that the embedding has no row for",
        "resize the embedding, or fetch the right tokenizer",
    ),
    "token-id": Code(
        "error",
        "a configuration names a token that the embedding has no row for",
        "correct the configuration, or resize the embedding",
    ),
    "tokenizer-smaller": Code(
        "note",
        "the embedding has rows that no token has, as padding leaves them",
        "none needed",
    ),
    "gguf-metadata": Code(
        "error",
        "GGUF metadata contradict the tensors, the tokenizer or one another: a runtime refuses it, or reads it wrongly",
        "convert the model to GGUF again",
    ),
    "adapter-target": Code(
        "error",
        "the adapter changes a module that the base does not have",
        "see whether it is the right base",
    ),
    "adapter-shape": Code(
        "error",
        "the adapter's factors do not fit each other or the base's weight",
        "see whether it is the right base",
    ),
    "adapter-rank": Code(
        "error",
        "the adapter's factors are of another rank than its adapter_config.json says, which sets their scale",
        "see whether the two files belong together",
    ),
    "adapter-config": Code(
        "warning",
        "the adapter has no adapter_config.json, which says its scale and what it is for",
        "fetch it and put it beside the weights",
    ),
    "adapter-grouped": Code(
        "note",
        "the adapter changes a grouped convolution over all its groups, which its weight cannot hold",
        "use the adapter beside the base; it cannot be merged",
    ),
    "adapter-unchecked": Code(
        "warning, note",
        "tensors of the adapter were not held against the base: their layout is not peft's LoRA",
        "load it in the program that it is for",
    ),
    "names-differ": Code(
        "warning",
        "names or shapes differ from those of the other checkpoint",
        "rename as told",
    ),
}


def remedied(finding: Finding) -> Finding:
    """Return a finding with its code's remedy, where it brings none of its own."""
    known = CODES.get(finding.code)
    return replace(finding, remedy=known.remedy) if known and finding.remedy is None else finding
