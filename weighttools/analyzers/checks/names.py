"""Names that other tools stumble over: control characters, which a terminal would obey, and empty names."""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import printable


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each name that is empty or not printable as it is."""
    for name in [*tensor_map, *tensor_map.aliases]:
        if not name or not name.isprintable():
            shown = printable(name)
            yield Finding(WARNING, "odd-name", f"a tensor is called {shown!r}", shown, "rename it")
