"""``.pt`` to safetensors against torch: whole processes, alternating, medians; time and peak memory as ratios.

``python benchmarks/pytorch.py [--megabytes 512] [--rounds 5]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAKE = """
import sys, torch
n = int(sys.argv[2]) * 1_000_000 // (4 * 1024 * 1024 * 4)
torch.save({f"layers.{i}.weight": torch.randn(4096, 1024) for i in range(max(1, n))}, sys.argv[1])
"""
THEIRS = """
import sys, torch
from safetensors.torch import save_file
save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])
"""
TORCH_ALONE = "import torch, safetensors.torch"


def run(command: list[str]) -> tuple[float, int]:
    """Run a process; return its seconds and its peak memory in bytes."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - began, usage.ru_maxrss << 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        src, ours, theirs = (str(Path(home) / name) for name in ("a.pt", "ours.safetensors", "theirs.safetensors"))
        run([sys.executable, "-c", MAKE, src, str(options.megabytes)])
        commands = {
            "weighttools": [sys.executable, "-m", "weighttools", "convert", src, ours, "--force"],
            "torch": [sys.executable, "-c", THEIRS, src, theirs],
            "torch's import alone": [sys.executable, "-c", TORCH_ALONE],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        peaks: dict[str, int] = dict.fromkeys(commands, 0)
        for _ in range(options.rounds):
            for name, command in commands.items():
                taken, peak = run(command)
                seconds[name].append(taken)
                peaks[name] = max(peaks[name], peak)
    for name, taken in seconds.items():
        print(f"{name:22} {statistics.median(taken):7.2f} s   {peaks[name] / 1e6:7.0f} MB")
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    working = medians["torch"] - medians["torch's import alone"]
    print(f"torch / weighttools: {medians['torch'] / medians['weighttools']:.1f}x the time", end="")
    print(f" ({working / medians['weighttools']:.1f}x without torch's import),", end="")
    print(f" {peaks['torch'] / peaks['weighttools']:.1f}x the memory")


if __name__ == "__main__":
    main()
