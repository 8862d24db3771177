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
    """Medians of wall-clock and processor seconds, and the largest peak memory in bytes, of one command's runs."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def once(command: Sequence[str]) -> tuple[float, float, int]:
    """Run a command; return wall-clock and processor seconds, and its peak resident memory in bytes."""
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
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return seconds, usage.ru_utime + usage.ru_stime, peak


def alternate(
    commands: Mapping[str, Sequence[str]], rounds: int = 7, before: Callable[[], None] | None = None
) -> dict[str, Result]:
    """Run every command `rounds` times in turn, after one warm-up each; `before` tidies up before each run."""
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            if before:
                before()
            found = once(command)
            if turn:
                runs[name].append(found)
            time.sleep(0.05)
    columns = {name: list(zip(*found, strict=True)) for name, found in runs.items()}
    return {
        name: Result(statistics.median(wall), statistics.median(cpu), int(max(peaks)))
        for name, (wall, cpu, peaks) in columns.items()
    }


def report(title: str, results: Mapping[str, Result], subject: str, aims: Mapping[str, str]) -> None:
    """Print the subject's time as a ratio to each other command's, with the aim beside it."""
    print(title)
    for name, result in results.items():
        times = f"{result.seconds * 1e3:9.1f} ms  processor {result.cpu_seconds * 1e3:9.1f} ms"
        print(f"  {name:<34} {times}  peak {result.peak_bytes / 2**20:7.1f} MiB")
    for name, result in results.items():
        if name != subject:
            mine = results[subject]
            ratios = f"{mine.seconds / result.seconds:.2f}, processor {mine.cpu_seconds / result.cpu_seconds:.2f}"
            print(f"  {subject} / {name}: {ratios}, peak {mine.peak_bytes / result.peak_bytes:.2f}", end="")
            print(f"  (aim {aims.get(name, 'none')})")
