"""What the verbs say of the fixtures, as plain JSON: for a test that no change of the house changes a record.

``python -m tests.records`` writes ``tests/records.json`` anew. Do that with the code before a change, never with the
code under test; where a record is meant to change, the difference is part of that change's own commit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import weighttools as wt
from weighttools.errors import WeighttoolsError

FIXTURES = Path("fixtures")
FILE = Path("tests") / "records.json"
VERBS: dict[str, Callable[[str], Any]] = {
    "inspect": wt.inspect,
    "params": wt.params,
    "stats": wt.stats,
    "check": wt.check,
}
SUFFIXES = [
    ".safetensors",
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".msgpack",
    ".onnx",
    ".gguf",
    ".h5",
    ".hdf5",
    ".keras",
    ".eqx",
    ".index.json",
]
MOST_BYTES = 2 << 20
"""A fixture's larger files are left out: their records are like the others'."""


def places() -> Iterator[str]:
    """Yield the fixtures that are weights: files and directories of them, relative to the repository."""
    for folder, folders, names in os.walk(FIXTURES):
        folders.sort()
        here = Path(folder)
        if "config.json" in names or any(name.endswith(".index.json") for name in names):
            yield here.as_posix()
        for name in sorted(names):
            if name.endswith(tuple(SUFFIXES)) and (here / name).stat().st_size <= MOST_BYTES:
                yield (here / name).as_posix()


def records(place: str) -> dict[str, Any]:
    """Return what each verb says of a place: its record, or its error's class and line."""
    said: dict[str, Any] = {}
    for name, verb in VERBS.items():
        try:
            said[name] = json.loads(json.dumps(verb(place), allow_nan=False))
        except WeighttoolsError as error:
            said[name] = {"error": type(error).__name__, "line": str(error)}
    return said


def main() -> None:
    """Write the file anew, a line for each place and verb."""
    lines = [
        f"{json.dumps(f'{place} {verb}')}: {json.dumps(record, ensure_ascii=True)}"
        for place in places()
        for verb, record in records(place).items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
