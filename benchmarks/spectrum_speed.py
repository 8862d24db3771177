"""``weighttools spectrum`` against WeightWatcher, on one model, whole processes in turn.

python benchmarks/spectrum_speed.py MODEL [ROUNDS]
MODEL is a directory that transformers loads, with a model.safetensors. Also the norms by singular values of
``weighttools stats``, against `numpy.linalg.svd` of each matrix.
"""

from __future__ import annotations

import sys
from pathlib import Path

from paired import alternate, report

TOOL = [sys.executable, "-m", "weighttools"]
WEIGHTWATCHER = """
import logging, sys, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
from transformers import AutoModel
import weightwatcher
print(weightwatcher.WeightWatcher(model=AutoModel.from_pretrained(sys.argv[1])).analyze())
"""
SVD = """
import sys
import numpy as np
from safetensors.numpy import load_file
for name, array in load_file(sys.argv[1]).items():
    if array.ndim > 1 and array.dtype.kind == "f":
        s = np.linalg.svd(array.reshape(len(array), -1).astype(np.float64), compute_uv=False)
        print(name, s[0], s.sum())
"""


def main(folder: Path, rounds: int) -> None:
    weights = str(folder / "model.safetensors")
    spectra = {
        "spectrum": [*TOOL, "spectrum", "--json", weights],
        "WeightWatcher": [sys.executable, "-c", WEIGHTWATCHER, str(folder)],
    }
    results = alternate(spectra, rounds)
    report(f"spectra of {folder.name}", results, "spectrum", {"WeightWatcher": "0.02"})
    print(f"  WeightWatcher / spectrum: {results['WeightWatcher'].seconds / results['spectrum'].seconds:.1f}  (aim 50)")
    norms = {
        "stats": [*TOOL, "stats", "--norm", "spectral,nuclear", "--json", weights],
        "numpy.linalg.svd": [sys.executable, "-c", SVD, weights],
    }
    report(f"norms of {folder.name}", alternate(norms, rounds), "stats", {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
