"""``weighttools convert`` against ``cp`` (same dtype) and against safetensors.torch (float32 to bfloat16).

python benchmarks/convert_speed.py FOLDER [GIB]
Makes a float32 file of GIB (default 2) in FOLDER and converts it. weighttools brings its output to the disk (fsync)
before it takes the target's name, cp and torch do not, so each is also measured with a sync of the file after it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paired import alternate, report

TOOL = [sys.executable, "-m", "weighttools", "convert"]
TORCH = """
import sys, os, torch
from safetensors.torch import load_file, save_file
tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(sys.argv[1]).items()}
save_file(tensors, sys.argv[2], metadata={"format": "pt"})
if sys.argv[3:]:
    with open(sys.argv[2], "rb") as file:
        os.fsync(file.fileno())
"""


def make(path: Path, gib: float) -> None:
    """Write a float32 checkpoint of 16 MiB tensors without holding it in memory."""
    import json
    import struct

    import numpy as np

    n = int(gib * 64)
    size = 16 << 20
    places = {f"layers.{i}.weight": [i * size, (i + 1) * size] for i in range(n)}
    header = {k: {"dtype": "F32", "shape": [2048, 2048], "data_offsets": at} for k, at in places.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(n):
            file.write(rng.standard_normal(size // 4, dtype=np.float32).data)


def main(folder: Path, gib: float) -> None:
    source, target = folder / "bench-src.safetensors", folder / "bench-dst.safetensors"
    subprocess.run([sys.executable, __file__, "--make", str(source), str(gib)], check=True)

    def tidy() -> None:
        target.unlink(missing_ok=True)

    src, dst = str(source), str(target)
    same = {
        "convert": [*TOOL, src, dst],
        "cp": ["cp", src, dst],
        "cp and sync": ["sh", "-c", f"cp {src} {dst} && sync {dst}"],
    }
    report(f"same dtype, {gib} GiB", alternate(same, 5, tidy), "convert", {"cp": "1.1", "cp and sync": "1.1"})
    cast = {
        "convert --dtype": [*TOOL, src, dst, "--dtype", "bfloat16"],
        "torch": [sys.executable, "-c", TORCH, src, dst],
        "torch and sync": [sys.executable, "-c", TORCH, src, dst, "sync"],
    }
    aims = {"torch": "0.35", "torch and sync": "0.35"}
    report(f"float32 to bfloat16, {gib} GiB", alternate(cast, 5, tidy), "convert --dtype", aims)
    source.unlink()
    tidy()


if __name__ == "__main__" and sys.argv[1] == "--make":  # apart, so that this process stays small
    make(Path(sys.argv[2]), float(sys.argv[3]))
elif __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 2.0)
