"""``python -m weighttools``."""

from weighttools.cli.main import run

run()
