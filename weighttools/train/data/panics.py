"""What the package ``tokenizers`` raises, its panics included, as one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from weighttools.errors import SpecError, WeighttoolsError


@contextlib.contextmanager
def told(fact: str, kind: type[WeighttoolsError] = SpecError, subject: object = None) -> Iterator[None]:
    """Turn what the package raises within into an error of ours, its first line after `fact`.

    Notes
    -----
    A panic is no Exception, and the package writes it to the standard error before it raises it: what is known to
    make it panic is refused beforehand, by `tokenizer_bounds`.
    """
    try:
        yield
    except (WeighttoolsError, ImportError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise kind(f"{fact}: {line}", subject=subject) from None
