"""Hold a built wheel against the checkout's files, and what its program prints against README.md.

Run as ``python .ci/wheel_check.py WHEEL PROGRAM PLACE``: the wheel, the ``weighttools`` that was installed from it, and
a directory outside the checkout with the fixtures.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.test_docs import README, Installed, blocks, true_block  # noqa: E402


def left_out(wheel: Path) -> list[str]:
    """Return the checkout's files of the package that the wheel does not hold; ``py.typed`` among what it must."""
    listed = subprocess.run(["git", "ls-files", "weighttools"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {*listed.stdout.splitlines(), "weighttools/py.typed"}
    return sorted(wanted - set(zipfile.ZipFile(wheel).namelist()))


def main() -> int:
    wheel, program, place = map(Path, sys.argv[1:4])
    if missing := left_out(wheel):
        print(f"{wheel.name} lacks {', '.join(missing)}", file=sys.stderr)
        return 1
    how = Installed(shlex.quote(str(program)), place)
    shown = blocks(README.read_text(encoding="utf-8"))
    wrong = [(block, real) for block in shown if (real := true_block(block, how)) != block]
    for block, real in wrong:
        print(f"README.md shows:\n{block}\nthe wheel prints:\n{real}", file=sys.stderr)
    print(f"{wheel.name}: {len(shown) - len(wrong)} of {len(shown)} blocks of README.md as shown")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
