"""Inputs that the fuzzer found to take new branches: each opens, or is refused in a line."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS, attack, corpus, seeds
from tests.work import bounded

pytestmark = pytest.mark.usefixtures("one_listing_parent")


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    for path in corpus(name):
        with bounded():
            attack(name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_open(name: str) -> None:
    """What the fuzzer begins with is good, but for the fixtures that are meant to be refused."""
    opened = [attack(name, data) for data in seeds(name)]
    assert any(opened)
