"""Making system calls fail on demand."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

# The calls of `os` by which a target can be touched, wherever they are made from.
CALLS = (
    "write", "copy_file_range", "posix_fallocate", "fsync", "ftruncate", "lseek",
    "replace", "rename", "chmod", "mkdir", "link", "open", "close", "fstat", "stat", "scandir",
)  # fmt: skip


class Fault:
    """Counts the calls of one function of `os`, and makes one of them fail.

    Parameters
    ----------
    call
        The function's name.
    at
        Which call fails, from 0; None for none.
    error
        Makes what is raised instead.
    """

    def __init__(self, call: str, at: int | None = None, error: Callable[[], BaseException] | None = None) -> None:
        self.call, self.at, self.error = call, at, error
        self.n_calls = 0
        self._real = getattr(os, call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.n_calls += 1
        if self.at == self.n_calls - 1 and self.error is not None:
            raise self.error()
        return self._real(*args, **kwargs)

    def into(self, patch: pytest.MonkeyPatch) -> Fault:
        """Put it in the place of the real one."""
        patch.setattr(os, self.call, self)
        return self


def os_error(number: int) -> Callable[[], OSError]:
    """Make the error that the kernel's `number` becomes."""
    return lambda: OSError(number, os.strerror(number))
