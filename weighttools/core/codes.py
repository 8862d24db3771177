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
    "trailing-bytes": Code(
        "warning",
        "bytes before or behind what the format reads: no loader sees them, a scanner may or may not",
        "convert it with weighttools, and keep the result",
    ),
    "pickle-runs-code": Code(
        "error",
        "unpickling would run code that can do harm",
        "convert it with weighttools, and load the result",
    ),
    "pickle-imports": Code(
        "warning",
        "unpickling would import what is not known to be harmless",
        "convert it with weighttools, and load the result",
    ),
    "keras-lambda": Code(
        "error, warning",
        "a Keras configuration holds Lambda layers: Python code that loading the model runs (an error if marshalled)",
        "load only the weights, into a model that you define",
    ),
    "broken-pickle": Code(
        "error",
        "a pickle does not follow its own rules",
        "do not load it with an unpickler",
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
    "tokenizer-larger": Code(
        "error",
        "the tokenizer makes ids that the embedding has no row for",
        "resize the embedding, or fetch the right tokenizer",
    ),
    "tokenizer-smaller": Code(
        "note",
        "the embedding has rows that no token has, as padding leaves them",
        "none needed",
    ),
    "adapter-target": Code(
        "error",
        "the adapter changes a module that the base has not",
        "see whether it is the right base",
    ),
    "adapter-shape": Code(
        "error",
        "the adapter's factors do not fit each other or the base's weight",
        "see whether it is the right base",
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
