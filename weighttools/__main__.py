"""``python -m weighttools``, and the program ``weighttools``."""

from __future__ import annotations

import os


def run() -> None:
    """Run the command line; an interrupt ends it quietly even while it is still being imported."""
    try:
        from weighttools.cli.main import run

        run()
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    run()
