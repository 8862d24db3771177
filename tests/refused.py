"""A refusal as a test asserts it: class, code and facts, in whatever words they are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from weighttools.errors import WeighttoolsError


@contextmanager
def refused(
    kind: type[WeighttoolsError], code: str, *facts: object
) -> Iterator[pytest.ExceptionInfo[WeighttoolsError]]:
    """Expect an error.

    Parameters
    ----------
    kind
        Its class.
    code
        Its code, one of `core.error_codes.CODES`.
    facts
        What its line must name: a subject, a name, a number.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, str(caught.value)
    lacking = [fact for fact in facts if str(fact) not in str(caught.value)]
    assert not lacking, f"{caught.value} does not name {lacking}"
