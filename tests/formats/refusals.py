"""What every refusal of a bad file owes: an error of ours, in one line that names the file, after little work, in little memory."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from tests.work import bounded
from weighttools.core.spec import Source
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError
from weighttools.io.source import Bytes


def refusal(read: Callable[[Source], TensorMap], data: bytes, name: str, kind: type[WeighttoolsError]) -> str:
    """Return the line with which `read` refuses a file called `name`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded(), pytest.raises(kind) as caught:
        read(Bytes(data, name))
    line = str(caught.value)
    assert line.startswith(f"{name}: ") and line.isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250_000
    return line
