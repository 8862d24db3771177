"""How far do sentence embeddings drift when their model is pruned or decayed? A table, in Markdown.

python examples/pruned_sentences.py DIRECTORY
DIRECTORY holds all-MiniLM-L6-v2, or another BERT whose embedding is the mean of the last hidden states: its weights,
config.json and tokenizer.json. Needs the package ``tokenizers``. The weights are changed, and the model is run, by
weighttools alone; nothing is trained afterwards.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import weighttools as wt
from weighttools.train import models

SENTENCES = (
    "A single man in possession of a good fortune, must be in want of a wife.",
    "Call me Ishmael.",
    "Happy families are all alike; every unhappy family is unhappy in its own way.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do.",
    "You will rejoice to hear that no disaster has accompanied the commencement of an enterprise.",
    "No one would have believed in the last years of the nineteenth century that this world was being watched keenly.",
    "To Sherlock Holmes she is always the woman.",
    "The sun shone, having no alternative, on the nothing new.",
    "Four score and seven years ago our fathers brought forth on this continent, a new nation.",
    "Every body continues in its state of rest, or of uniform motion in a right line.",
    "There is grandeur in this view of life, with its several powers.",
    "Water boils at a lower temperature on high mountains because the air pressure is lower there.",
    "The heart pumps blood through the lungs, where it takes up oxygen.",
    "Preheat the oven to two hundred degrees and butter a shallow dish.",
    "Knead the dough for ten minutes, then let it rise in a warm place.",
    "The train to Edinburgh leaves from platform four at half past nine.",
    "All flights out of the city were cancelled because of heavy snow.",
    "Central banks raised interest rates again to bring inflation down.",
    "Shares fell after the company said that its profits would be lower than expected.",
    "How do I reset my password if I no longer have access to my old email address?",
    "The function returns an error when the file that it opens is empty.",
    "She scored twice in the second half and won the match for her team.",
    "The old violin in the attic turned out to be worth more than the house.",
)

CHANGES: Mapping[str, Callable[[wt.TensorMap], wt.TensorMap]] = {
    **{f"prune {share:.0%}": partial(wt.prune, sparsity=share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "prune 50%, each tensor": partial(wt.prune, sparsity=0.5, scope="tensor"),
    "prune 50%, at random": partial(wt.prune, sparsity=0.5, random=True),
    "prune 2:4": partial(wt.prune, nm="2:4"),
    "prune 4:8": partial(wt.prune, nm="4:8"),
    "prune heads, 25%": partial(wt.prune, structure="heads", n_heads=12, sparsity=0.25),
    "decay to 99%": partial(wt.decay, rate=0.1, lr=1e-3, steps=100),
    "decay to 90%": partial(wt.decay, rate=0.1, lr=1e-2, steps=105),
    "decay, L1 0.01": partial(wt.decay, l1=0.01),
}
"""What is done to the weights; norms, biases and embeddings are left alone, as they are unless one says otherwise."""


def encoder(directory: Path) -> Callable[[Mapping[str, Any]], np.ndarray[Any, Any]]:
    """Return a function from a model's arrays to the embeddings of `SENTENCES`: unit rows, (sentences, size)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch(list(SENTENCES))
    ids, mask = (np.array([getattr(row, part) for row in batch]) for part in ("ids", "attention_mask"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))

    def encode(arrays: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        mean = models.mean_pool(models.from_config(config, arrays)(arrays, ids, mask), mask).astype(np.float64)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    return encode


def rows(directory: Path, changes: Sequence[str] = tuple(CHANGES)) -> dict[str, dict[str, float]]:
    """Return for each change the share of zeros in the changed tensors, the bytes of a file that stores bitmasks, and
    the mean and the least cosine similarity of a sentence's embedding to the original's.
    """
    original, encode = wt.open(directory), encoder(directory)
    before = encode(original.read())
    found = {}
    for name in changes:
        changed = CHANGES[name](original)
        arrays = changed.read()
        parts = [arrays[n] for n in changed.report["names"]]
        planned = wt.convert(changed, "x.safetensors", store="bitmask", dry_run=True)
        cosines = (before * encode(arrays)).sum(1)
        found[name] = {
            "zeros": 1 - sum(map(np.count_nonzero, parts)) / sum(part.size for part in parts),
            "bytes": planned["stored_bytes"],
            "mean": float(cosines.mean()),
            "least": float(cosines.min()),
        }
    return found


def main(directory: Path) -> None:
    print("| change | zeros in the changed tensors | file with bitmasks | mean cosine | least cosine |")
    print("|---|--:|--:|--:|--:|")
    for name, row in rows(directory).items():
        sizes = f"{row['zeros']:.1%} | {row['bytes'] / 1e6:.1f} MB"
        print(f"| {name} | {sizes} | {row['mean']:.4f} | {row['least']:.4f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
