"""The codes that errors carry (`WeighttoolsError.code`), a line each: for programs and tests, whom words may fail.

A code keeps its meaning; more may be added. Those of a class alone stand first.
"""

from __future__ import annotations

CODES = {
    "error": "anything that is raised on purpose",
    "bad-format": "a file is not what its format demands",
    "unknown-format": "no format recognises the content",
    "corrupt-file": "the content is damaged, cut short or contradicts itself",
    "unsafe-file": "reading the file as asked would run its code, leave its directory or take more than it is worth",
    "unsupported": "the request is understood but not possible",
    "tensor-not-found": "no tensor has that name",
    "spec": "shapes, dtypes or options do not fit",
    "source": "bytes cannot be read or written",
    "missing-dependency": "an optional package is needed and not installed",
    "plugin": "what an installed package adds does not work",
    "training": "training cannot go on: a number is not finite",
    "unknown-option-value": "an option takes one of several values, and this is none of them",
    "options-exclude": "two options contradict each other, or one says nothing here",
    "out-of-range": "a number is outside its option's range",
}
"""Code and meaning."""
