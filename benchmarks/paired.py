"""Paired timing of whole commands: alternating runs, medians, ratios, peak memory.

An absolute time says little on a shared machine; the ratio of two commands run in turn says much.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Median wall-clock seconds and the largest peak memory in bytes of one command's runs."""

    seconds: float
    peak_bytes: int


def once(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; return wall-clock seconds and its peak resident memory in bytes."""
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=cached)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert process.stderr is not None
    errors = process.stderr.read().decode(errors="replace")
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)[:200]} failed with {process.returncode}:\n{errors}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alternate(
    commands: Mapping[str, Sequence[str]], rounds: int = 7, before: Callable[[], None] | None = None
) -> dict[str, Result]:
    """Run every command `rounds` times in turn, after one warm-up each; `before` tidies up before each run."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    peaks: dict[str, list[int]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            if before:
                before()
            elapsed, peak = once(command)
            if turn:
                seconds[name].append(elapsed)
                peaks[name].append(peak)
            time.sleep(0.05)
    return {name: Result(statistics.median(seconds[name]), max(peaks[name])) for name in commands}


def report(title: str, results: Mapping[str, Result], subject: str, aims: Mapping[str, str]) -> None:
    """Print the subject's time as a ratio to each other command's, with the aim beside it."""
    print(title)
    for name, result in results.items():
        print(f"  {name:<34} {result.seconds * 1e3:9.1f} ms  peak {result.peak_bytes / 2**20:7.1f} MiB")
    for name, result in results.items():
        if name != subject:
            ratio = results[subject].seconds / result.seconds
            print(f"  {subject} / {name}: {ratio:.2f}  (aim {aims.get(name, 'none')})")
