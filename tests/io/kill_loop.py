"""Kill a conversion at random moments, many times, and say what was found under the target's name each time.

Run as a script, in a process without threads of its own, so that forking is safe and costs no imports:
``kill_loop.py SOURCE TARGET N SEED OPTIONS_AS_JSON``. Prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import xxhash

import weighttools
from weighttools.formats import FORMATS, load


def digest(path: Path) -> str:
    """One hash over every name and byte at or below a path; "absent" if there is nothing."""
    if path.is_file():
        return xxhash.xxh3_64_hexdigest(path.read_bytes())
    if not path.exists():
        return "absent"
    parts = [(str(p.relative_to(path)), digest(p)) for p in sorted(path.rglob("*")) if p.is_file()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def start(source: Path, target: Path, options: dict[str, Any]) -> tuple[int, int]:
    """Fork a child that converts; return its process id and a pipe that closes when it ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        weighttools.convert(source, target, force=True, **options)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def finish(child: int, pipe: int) -> int:
    os.close(pipe)
    return os.waitpid(child, 0)[1]


def timed(source: Path, target: Path, options: dict[str, Any]) -> float:
    begin = time.perf_counter()
    status = finish(*start(source, target, options))
    assert status == 0, "the conversion itself fails"
    return time.perf_counter() - begin


def put_old(old: Path, target: Path) -> None:
    """Put the old target back; its files are hard links, so a writer that wrote in place would spoil `old` and show."""
    if target.is_dir():
        shutil.rmtree(target)
    if old.is_dir():
        shutil.copytree(old, target, copy_function=os.link)
    else:
        target.unlink(missing_ok=True)
        os.link(old, target)


def main(source: Path, target: Path, n: int, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    for name in FORMATS:
        load(name)
    import ml_dtypes
    import numpy  # all is loaded before the first fork

    assert ml_dtypes and numpy
    old = target.parent.parent / "old"
    old_digest = digest(old)
    durations = []
    for _ in range(3):
        put_old(old, target)
        durations.append(timed(source, target, options))
    new_digest = digest(target)
    known = {old_digest: "old", new_digest: "new"}
    found, debris, random_ = [], 0, random.Random(seed)
    for _ in range(n):
        put_old(old, target)
        child, pipe = start(source, target, options)
        time.sleep(random_.uniform(0, max(durations) * 1.1))
        os.kill(child, signal.SIGKILL)
        finish(child, pipe)
        found.append(known.get(digest(target), "neither"))
        debris += len(os.listdir(target.parent)) > 1
    timed(source, target, options)
    return {
        "seconds": max(durations),
        "found": found,
        "n_debris": debris,
        "spoiled": digest(old) != old_digest or new_digest == old_digest,
        "last": known.get(digest(target), "neither"),
        "left": os.listdir(target.parent),
    }


if __name__ == "__main__":
    begin_source, begin_target, begin_n, begin_seed, begin_options = sys.argv[1:]
    print(
        json.dumps(
            main(Path(begin_source), Path(begin_target), int(begin_n), int(begin_seed), json.loads(begin_options))
        )
    )
