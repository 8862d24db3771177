"""Names that share one stored tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from weighttools.core.findings import NOTE, Finding
from weighttools.core.tensormap import TensorMap


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each stored tensor that has several names."""
    names: dict[str, list[str]] = defaultdict(list)
    for alias, kept in tensor_map.aliases.items():
        names[kept].append(alias)
    for kept, aliases in names.items():
        yield Finding(NOTE, "tied", f"{', '.join(map(repr, aliases))} and {kept!r} are one tensor", kept)
