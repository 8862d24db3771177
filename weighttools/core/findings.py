"""What a check says: a severity, a code that does not change, a line for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from weighttools.core.budgets import MAX_FINDINGS_OF_A_KIND

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Parameters
    ----------
    severity
        `ERROR` (do not use the file as it is), `WARNING` (look at it) or `NOTE`.
    code
        A short name that stays the same, for scripts.
    message
        One line: what was found, and where.
    tensor
        The tensor it is about, if it is about one.
    remedy
        What can be done.
    """

    severity: str
    code: str
    message: str
    tensor: str | None = None
    remedy: str | None = None

    def record(self) -> dict[str, str | None]:
        """Return the finding with stable keys."""
        return {
            "severity": self.severity,
            "code": self.code,
            "tensor": self.tensor,
            "message": self.message,
            "remedy": self.remedy,
        }


def summed_up(findings: Iterable[Finding], most: Mapping[str, int] | None = None) -> Iterator[Finding]:
    """Yield the first findings of each kind, as they come, then how many more there are, a line for each kind.

    Parameters
    ----------
    findings
        What was found.
    most
        How many of a code are said, where it is not `MAX_FINDINGS_OF_A_KIND`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    limits = most or {}
    for finding in findings:
        kind = finding.severity, finding.code
        counts[kind] += 1
        if counts[kind] <= limits.get(finding.code, MAX_FINDINGS_OF_A_KIND):
            yield finding
    for (severity, code), n in counts.items():
        rest = n - limits.get(code, MAX_FINDINGS_OF_A_KIND)
        if rest > 0:
            yield Finding(severity, code, f"and {rest:,} more of this kind")
