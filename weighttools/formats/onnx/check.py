"""What an ONNX runtime would load or read beyond the model: operators of other domains, and data files elsewhere.

Source: ``onnx/onnx.proto`` (ModelProto, FunctionProto, GraphProto, NodeProto, AttributeProto, TensorProto) and
``docs/ExternalData.md``. The whole model is walked by the numbers of its messages' fields; nothing else is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath

from weighttools.core.budgets import CHECKED_LEVELS as _MOST_LEVELS
from weighttools.core.budgets import CHECKED_TEXT as _MOST_TEXT
from weighttools.core.budgets import MOST_NAMED
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.spec import Source
from weighttools.errors import WeighttoolsError, counted
from weighttools.io.protobuf import BYTES, Field, Wire

_STANDARD = ("", "ai.onnx")
_KNOWN = ("ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc",
          "com.ms.internal.nhwc", "org.pytorch.aten")  # fmt: skip
"""Domains of the standard, and those that ONNX Runtime brings itself."""

_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Of each kind of message, the fields that hold messages which are looked into."""
_TEXTS = {"node": (4, 7), "function": (1, 10), "entry": (1, 2)}
"""And the fields that hold texts: operator and domain, name and domain, key and value."""


def check(source: Source) -> Iterator[Finding]:
    """Yield a finding for each domain of operators that a runtime must load code for, and for each path outside."""
    walk = _Walk(source)
    try:
        walk.run()
    except WeighttoolsError as error:
        yield Finding(ERROR, "unreadable", str(error))
    own = walk.functions
    found = Counter({key: n for key, n in walk.operators.items() if key not in own})
    for (domain, kind), n in found.most_common(MOST_NAMED):
        fact = f"the operator {domain[:80]}::{kind[:80]} ({counted(n, 'node')}) is no standard one: it needs a library"
        yield Finding(WARNING, "onnx-operator", fact)
    if len(found) > MOST_NAMED:
        yield Finding(WARNING, "onnx-operator", f"{len(found) - MOST_NAMED:,} more operators are no standard ones")
    outside = [path for path in walk.locations if _leaves(path)]
    for path in outside[:MOST_NAMED]:
        yield Finding(ERROR, "onnx-path", f"data lies in {path[:200]!r}, which leaves the model's directory")


def _leaves(path: str) -> bool:
    pure = PurePosixPath(path.replace("\\", "/"))
    return not path or pure.is_absolute() or bool(PureWindowsPath(path).drive) or ".." in pure.parts or "\0" in path


class _Walk:
    """One walk over one model."""

    def __init__(self, source: Source) -> None:
        self.wire, self.size = Wire(source), source.size
        self.operators: Counter[tuple[str, str]] = Counter()
        self.functions: set[tuple[str, str]] = set()
        self.locations: dict[str, None] = {}

    def run(self) -> None:
        """Walk every message that is looked into, none within another more often than levels are."""
        left = [("model", 0, self.size, 0)]
        while left:
            kind, start, stop, level = left.pop()
            texts: dict[int, str] = {}
            for found in self.wire.fields(start, stop):
                inner = _MESSAGES[kind].get(found.number) if kind in _MESSAGES else None
                if inner and found.wire == BYTES and level < _MOST_LEVELS:
                    left.append((inner, found.offset, found.stop, level + 1))
                elif self._is_text(kind, found):
                    texts[found.number] = self.wire.text(found, _MOST_TEXT)
            self._take(kind, texts)

    def _is_text(self, kind: str, found: Field) -> bool:
        return found.wire == BYTES and found.number in {"node": (4, 7), "function": (1, 10), "entry": (1, 2)}.get(
            kind, ()
        )

    def _take(self, kind: str, texts: dict[int, str]) -> None:
        """Keep what a message's texts say."""
        if kind == "node" and texts.get(7, "") not in (*_STANDARD, *_KNOWN):
            self.operators[texts[7], texts.get(4, "")] += 1
        elif kind == "function":
            self.functions.add((texts.get(10, ""), texts.get(1, "")))
        elif kind == "entry" and texts.get(1) == "location":
            self.locations[texts.get(2, "")] = None
