"""Records of what check finds."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class FindingRow(TypedDict):
    """A finding: `severity` is error, warning or note; `code` one of those that ``check --codes`` lists."""

    severity: str
    code: str
    tensor: str | None
    message: str
    remedy: str | None


class RenameRow(TypedDict):
    """A rule that renames `n_names` names; `pattern` and `replacement` are for `re.sub`."""

    src: str
    dst: str
    n_names: int
    pattern: str
    replacement: str


class AgainstRecord(TypedDict):
    """How names line up with another checkpoint's.

    `n_same` have one name and shape in both, `different_shapes` one name; `renamed` maps names that line up by the
    rules of `rename`, the rest is `only_here` or `only_there`. `command` is what renames, where there is one.
    """

    path: str
    n_same: int
    rename: list[RenameRow]
    renamed: dict[str, str]
    different_shapes: list[str]
    only_here: list[str]
    only_there: list[str]
    command: NotRequired[str]


class FixedIndex(TypedDict):
    """An index that was written anew."""

    index: str
    n_tensors: int


class CheckRecord(TypedDict):
    """``weighttools.check/1``; `against` and `fixed` are there if asked for."""

    schema: str
    path: str
    findings: list[FindingRow]
    against: NotRequired[AgainstRecord]
    fixed: NotRequired[list[FixedIndex]]


class CodeRow(TypedDict):
    """A code of findings: its severities, what is read for it (headers or values), what it means, what can be done."""

    code: str
    severities: str
    reads: str
    meaning: str
    remedy: str
