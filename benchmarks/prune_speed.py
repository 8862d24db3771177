"""``weighttools prune``, ``decay`` and ``average`` against torch: load, do the same, save.

python benchmarks/prune_speed.py FOLDER [GIB]
Makes a float32 file of GIB (default 1) in FOLDER. weighttools brings its output to the disk (fsync) before it takes
the target's name, torch does not, so torch is also measured with a sync of the file after it. Torch's global pruning
takes long, and 13 times the file's size in memory, so it has fewer rounds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paired import alternate, report

TOOL = [sys.executable, "-m", "weighttools"]
HEAD = """
import os, sys, torch
from safetensors.torch import load_file, save_file
src, dst = sys.argv[1:3]
"""
TAIL = """
save_file(tensors, dst, metadata={"format": "pt"})
if sys.argv[3:]:
    with open(dst, "rb") as file:
        os.fsync(file.fileno())
"""
PRUNE = """
from torch.nn.utils import prune
modules = {}
for name, tensor in load_file(src).items():
    modules[name] = torch.nn.Module()
    modules[name].register_parameter("weight", torch.nn.Parameter(tensor, requires_grad=False))
prune.global_unstructured([(m, "weight") for m in modules.values()], prune.L1Unstructured, amount=0.5)
for module in modules.values():
    prune.remove(module, "weight")
tensors = {name: module.weight.data for name, module in modules.items()}
"""
DECAY = """
tensors = {name: tensor.mul_(0.99) for name, tensor in load_file(src).items()}
"""
AVERAGE = """
tensors = load_file(src)
for other in (src, src):
    for name, tensor in load_file(other).items():
        tensors[name] += tensor
tensors = {name: tensor.div_(3) for name, tensor in tensors.items()}
"""


def main(folder: Path, gib: float) -> None:
    source, target = folder / "bench-src.safetensors", folder / "bench-dst.safetensors"
    maker = Path(__file__).with_name("convert_speed.py")
    subprocess.run([sys.executable, str(maker), "--make", str(source), str(gib)], check=True)
    src, dst = str(source), str(target)
    runs = {
        "decay": ([*TOOL, "decay", src, "-o", dst, "--rate", "0.01"], DECAY, 3, "0.2"),
        "average": ([*TOOL, "average", src, src, src, "-o", dst], AVERAGE, 3, "0.33"),
        "prune": ([*TOOL, "prune", src, "-o", dst, "--sparsity", "0.5"], PRUNE, 1, "0.2"),
    }
    for name, (mine, script, rounds, aim) in runs.items():
        theirs = [sys.executable, "-c", HEAD + script + TAIL, src, dst]
        commands = {name: mine, "torch": theirs, "torch and sync": [*theirs, "sync"]}
        found = alternate(commands, rounds, lambda: target.unlink(missing_ok=True))
        report(f"{name}, {gib} GiB of float32", found, name, {"torch": aim, "torch and sync": aim})
    source.unlink()
    target.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
