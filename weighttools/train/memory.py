"""Keep freed memory in the process while training; see `weighttools.core.memory`."""

from weighttools.core.memory import keep_pages as keep_pages
