"""Print a constraint for each requirement in pyproject.toml: the lowest version that it allows, no other.

Run as ``python .ci/lowest_versions.py > constraints.txt``; needs the package `packaging`. With the argument `needed`,
only what the package itself needs is printed, without its extras. A bound that was never released, or that contradicts
another one, makes pip fail, as it should.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

# Tools that look at the source and are no part of running or testing it.
_NOT_RUN = {"dev"}


def lowest(requirements: list[Requirement]) -> dict[str, Version]:
    """Return the highest of each package's lower bounds: what one environment with all of them takes."""
    found: dict[str, Version] = {}
    for one in requirements:
        for bound in one.specifier:
            if bound.operator in (">=", "=="):
                found[one.name] = max(found.get(one.name, Version("0")), Version(bound.version))
    return found


def main() -> int:
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"]]
    if sys.argv[1:] != ["needed"]:
        groups += [v for k, v in project["optional-dependencies"].items() if k not in _NOT_RUN]
    requirements = [Requirement(text) for group in groups for text in group]
    requirements = [r for r in requirements if r.name != project["name"] and (not r.marker or r.marker.evaluate())]
    unbounded = [one.name for one in requirements if not lowest([one])]
    if unbounded:
        print(f"no lower bound: {', '.join(unbounded)}", file=sys.stderr)
        return 1
    print("\n".join(f"{name}=={version}" for name, version in lowest(requirements).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
