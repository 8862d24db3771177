"""Fuzz one format: ``python -m tests.fuzz.fuzz_formats TARGET SECONDS FINDINGS``.

With atheris (``pip install atheris``) the mutations are guided by coverage of the package; for the formats that are
listed in another process, and with ``--random``, they are random. Every distinct fault (by where it was raised) is
put into the directory FINDINGS with its traceback, as are the slowest input and the one that took the most memory,
and the run goes on. Checksums of archive members are taken as right, or mutations would end there.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

SLOW = ("hdf5", "keras")
"""Formats that are listed in a process of its own, so that guidance by coverage sees nothing of them."""
MEMORY_STEP = 40 << 20
_TOKENS = (
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xff\xff\x7f",
    b"\x01",
    b"\x80",
    b"-1",
    b"9" * 19,
    b"[",
    b"{",
    b'"',
    b"\x1b[31m",
)


@dataclass(slots=True)
class Watch:
    """What a run has seen.

    Parameters
    ----------
    findings
        The directory to put faults into.
    n_executions, n_opened
        How many inputs were tried, and how many of them opened.
    slowest_seconds
        CPU time of the slowest input.
    """

    name: str
    findings: Path
    n_executions: int = 0
    n_opened: int = 0
    slowest_seconds: float = 0.0
    peak_bytes: int = 0
    seen: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def attempt(self, attack: Callable[[str, bytes], bool], data: bytes) -> None:
        """Try one input and write down what it did."""
        began = time.process_time()
        try:
            self.n_opened += attack(self.name, data)
        except Exception as error:
            self._fault(error, data)
        self._cost(time.process_time() - began, data)
        self.n_executions += 1
        if self.n_executions % 1000 == 0:
            self.report()

    def _fault(self, error: Exception, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        last = next((f for f in reversed(frames) if "weighttools" in f.filename), frames[-1])
        key = f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
        if key not in self.seen:
            self.seen.add(key)
            self.keep(key, data)
            (self.findings / f"{self.name}-{key}.txt").write_text("".join(traceback.format_exception(error)))

    def _cost(self, seconds: float, data: bytes) -> None:
        if seconds > max(self.slowest_seconds, 0.01):
            self.slowest_seconds = seconds
            self.keep("slowest", data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if self.peak_bytes and peak > self.peak_bytes + MEMORY_STEP:
            self.keep(f"memory-{peak >> 20}MB", data)
            self.peak_bytes = peak
        self.peak_bytes = self.peak_bytes or peak

    def keep(self, key: str, data: bytes) -> None:
        """Save an input."""
        self.findings.mkdir(parents=True, exist_ok=True)
        (self.findings / f"{self.name}-{key}").write_bytes(data)

    def report(self) -> None:
        """Write the figures down, as the run may be ended at any time."""
        self.findings.mkdir(parents=True, exist_ok=True)
        line = (
            f"{self.name}: {self.n_executions} executions in {time.monotonic() - self.began:.0f} s, {self.n_opened} "
            f"opened, slowest {self.slowest_seconds:.3f} s, peak {self.peak_bytes >> 20} MB, faults {sorted(self.seen)}"
        )
        (self.findings / f"{self.name}.log").write_text(line + "\n")


def trust_checksums() -> None:
    """Let every CRC-32 of an archive member be right."""
    from weighttools.io import archive, contents

    class Right(int):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    archive.crc32 = lambda data: Right()  # type: ignore[assignment]
    archive.crc32_of = lambda pieces: Right(sum(map(len, pieces)))  # type: ignore[assignment]
    contents.joined = lambda *a: Right()  # type: ignore[assignment]
    contents.crc32_of = lambda pieces: Right(sum(map(len, pieces)))  # type: ignore[assignment]


def import_all() -> None:
    """Import the whole package, that its coverage be measured."""
    import weighttools

    for module in pkgutil.walk_packages(weighttools.__path__, "weighttools."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few places overwritten, taken out, doubled or put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) or 1)
        n = rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + n] = rng.randbytes(n)
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            token = rng.choice(_TOKENS)
            out[at : at + len(token)] = token
        elif kind == 3:
            del out[at : at + n]
        else:
            out[at:at] = out[at : at + n]
    return bytes(out)


def run_random(
    watch: Watch, attack: Callable[[str, bytes], bool], inputs: list[bytes], seconds: float, seed: int
) -> None:
    """Try random mutations of the inputs for some seconds."""
    rng = random.Random(seed)
    while time.monotonic() - watch.began < seconds:
        watch.attempt(attack, mutated(rng.choice(inputs), rng))
    watch.report()


def run_guided(watch: Watch, attack: Callable[[str, bytes], bool], inputs: list[bytes], seconds: float) -> None:
    """Let libFuzzer choose the mutations; it ends the process itself."""
    import atheris

    seeds = watch.findings / f"{watch.name}.corpus"
    seeds.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(inputs):
        (seeds / f"seed{i}").write_bytes(data)
    limits = [
        f"-max_total_time={seconds:.0f}",
        "-max_len=16384",
        "-timeout=20",
        "-rss_limit_mb=2000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={watch.findings}/{watch.name}-", str(seeds)],
                  lambda data: watch.attempt(attack, data))  # fmt: skip
    atheris.Fuzz()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("seconds", type=float)
    parser.add_argument("findings", type=Path)
    parser.add_argument("--random", action="store_true", help="do without atheris")
    parser.add_argument("--seed", type=int, default=1, help="of random mutations")
    options = parser.parse_args()
    is_guided = not options.random and options.target not in SLOW
    if is_guided:
        instrument()
    trust_checksums()
    from tests.fuzz.targets import attack, corpus, seeds
    from tests.listing_server import one_parent

    inputs = seeds(options.target) + [path.read_bytes() for path in corpus(options.target)]
    run = run_guided if is_guided else partial(run_random, seed=options.seed)
    with one_parent() if options.target in SLOW else nullcontext():
        run(Watch(options.target, options.findings), attack, inputs, options.seconds)


def instrument() -> None:
    """Import the package with atheris counting its branches."""
    import atheris

    with atheris.instrument_imports(include=["weighttools"]):
        import_all()


if __name__ == "__main__":
    main()
