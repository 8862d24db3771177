"""What a check says: a severity, a code that does not change, a line for people."""

from __future__ import annotations

from dataclasses import dataclass

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
