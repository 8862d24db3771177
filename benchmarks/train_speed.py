"""Training steps against torch eager: MLP, MiniLM, SmolLM-135M, LoRA, AdamW; random weights of the real shapes.

Workloads named after HIPS autograd are against that.

``python benchmarks/train_speed.py [--only NAME] [--threads N] [--pairs N] [--rounds N] [--small]``

Each contestant is a process of its own, and there are several pairs of them: where a process's memory happens to lie
moves its times by a tenth, for as long as it lives. They step in turn, with a pause between so that no thread of one
still spins while the other works; a turn starts with a step that is not timed. Read the ratios of the medians. CPU
time (user and system, of all threads) is steadier than wall time on a shared machine. Memory is the process's peak
resident size, imports and weights included, and what the steps added to what it was before the first one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from train_workloads import WORKLOADS

PAUSE = 0.2
TURN = 0.25
"""Seconds of rest before each turn, and about how long a turn lasts."""


def resident(key: str) -> float:
    """Return VmHWM (peak) or VmRSS (now) in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def contestant(name: str, is_ours: bool, threads: int) -> None:
    """Make the step; then, for each number read, take that many steps and print their wall and CPU seconds."""
    if not is_ours and not name.endswith("autograd"):
        import torch

        torch.set_num_threads(threads)
    from weighttools.train.memory import keep_pages

    step = WORKLOADS[name].ours() if is_ours else WORKLOADS[name].theirs()
    before = resident("VmRSS")
    with keep_pages() if is_ours else nullcontext():
        for line in sys.stdin:
            step()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(int(line)):
                step()
            seconds = (time.perf_counter() - wall) / int(line), (time.process_time() - cpu) / int(line)
            print("turn", *seconds, resident("VmHWM"), resident("VmHWM") - before, flush=True)


class Process:
    """A contestant under way, and what it has told."""

    def __init__(self, name: str, who: str, threads: int) -> None:
        count = {v: str(threads) for v in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "WEIGHTTOOLS_THREADS")}
        small = [a for a in sys.argv if a == "--small"]
        command = [sys.executable, __file__, "--run", name, who, "--threads", str(threads), *small]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | count
        )
        self.turns: list[list[float]] = []

    def turn(self, n_steps: int) -> list[float]:
        """Let it step; return wall seconds, CPU seconds, peak MiB, MiB above the start."""
        assert self.process.stdin and self.process.stdout
        time.sleep(PAUSE)
        print(n_steps, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("turn "):
                self.turns.append([float(word) for word in line.split()[1:]])
                return self.turns[-1]
        raise SystemExit(f"a contestant ended with {self.process.wait()}")

    def end(self) -> list[list[float]]:
        """Stop it; return its turns."""
        self.process.communicate()
        return self.turns


def race(name: str, rounds: int, threads: int) -> list[list[list[float]]]:
    """Let a new process of each side step in turn; return the turns of both."""
    pair = [Process(name, who, threads) for who in ("ours", "theirs")]
    steps = [max(1, round(TURN / p.turn(1)[0])) for p in pair]
    for p in pair:
        p.turns.clear()
    for _ in range(rounds):
        for p, n in zip(pair, steps, strict=True):
            p.turn(n)
    return [p.end() for p in pair]


def compare(name: str, pairs: int, rounds: int, threads: int) -> None:
    """Print one workload's ratios."""
    races = [race(name, rounds, threads) for _ in range(pairs)]
    ours, theirs = ([median(t[i] for r in races for t in r[side]) for i in range(4)] for side in (0, 1))
    wall, cpu, peak, added = (a / max(b, 1e-9) for a, b in zip(ours, theirs, strict=True))
    w: Any = WORKLOADS[name]
    print(
        f"{name:13} {threads} threads: wall {wall:.2f} (must {w.must:.2f}, aim {w.aim:.2f}), CPU {cpu:.2f}, "
        f"peak {peak:.2f}, added {added:.2f}; ms {ours[0] * 1e3:.1f} / {theirs[0] * 1e3:.1f}, "
        f"CPU ms {ours[1] * 1e3:.1f} / {theirs[1] * 1e3:.1f}, peak MiB {ours[2]:.0f} / {theirs[2]:.0f}, "
        f"added MiB {ours[3]:.0f} / {theirs[3]:.0f}",
        flush=True,
    )


def main() -> None:
    """Run the workloads asked for."""
    parser = argparse.ArgumentParser(description="training steps against torch eager")
    parser.add_argument("--only", choices=WORKLOADS, action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, help="processes of each side, one pair after another")
    parser.add_argument("--rounds", type=int, help="turns of each process")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        contestant(given.run[0], given.run[1] == "ours", given.threads)
        return
    for name in given.only or WORKLOADS:
        compare(
            name, given.pairs or (1 if given.small else 3), given.rounds or (1 if given.small else 5), given.threads
        )


if __name__ == "__main__":
    main()
