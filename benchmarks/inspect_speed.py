"""``weighttools inspect`` of one file against Python's own start, and of a trillion parameters against json.loads.

python benchmarks/inspect_speed.py FILE.safetensors [GIANT_DIRECTORY]
The directory is made by ``python benchmarks/make_giant.py DIRECTORY --preset kimi-k2`` (sparse: little disk is used).
"""

from __future__ import annotations

import resource
import sys

from paired import alternate, report

TOOL = [sys.executable, "-m", "weighttools"]
SAFE_OPEN = """
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], "np") as file:
    for name in file.keys():
        part = file.get_slice(name)
        print(name, part.get_dtype(), part.get_shape())
"""
JSON_LOADS = """
import glob, json, struct, sys
headers = []
for path in glob.glob(sys.argv[1] + "/*.safetensors"):
    with open(path, "rb") as file:
        headers.append(file.read(struct.unpack("<Q", file.read(8))[0]))
parsed = [json.loads(header) for header in headers]
"""


def one_file(path: str) -> None:
    results = alternate(
        {
            "inspect": [*TOOL, "inspect", path],
            "import click": [sys.executable, "-c", "import click"],
            "safe_open and print": [sys.executable, "-c", SAFE_OPEN, path],
        },
        rounds=15,
    )
    aims = {"import click": "1.3, at most 2", "safe_open and print": "0.4"}
    report(f"inspect {path}", results, "inspect", aims)


def giant(directory: str) -> None:
    commands = {
        "inspect": [*TOOL, "inspect", directory],
        "json.loads of the headers": [sys.executable, "-c", JSON_LOADS, directory],
    }
    report(f"inspect {directory}", alternate(commands), "inspect", {"json.loads of the headers": "at most 2"})


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    one_file(sys.argv[1])
    if len(sys.argv) > 2:
        giant(sys.argv[2])
