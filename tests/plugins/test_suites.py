"""The conformance suites that ship: run on a package that adds to weighttools, and without what they need."""

from __future__ import annotations

import pytest

from tests.plugins.conftest import EXAMPLE, Installed


def test_they_run_on_an_installed_package(toy: Installed) -> None:
    ran = toy.run("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "test_toy_weights.py")
    assert ran.code == 0, ran.out
    assert "49 passed" in ran.out


@pytest.mark.parametrize(
    ("room", "missing"),
    [("formats", "pytest"), ("formats", "hypothesis"), ("analyzers", "pytest"), ("transforms", "hypothesis")],
)
def test_a_suite_without_its_packages_says_so(installed: Installed, room: str, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\ntry:\n    import weighttools.{room}.testing\nexcept ImportError as error:\n    print(error)"
    ran = installed.run("-c", code)
    assert (ran.code, ran.out.count("\n")) == (0, 1), ran.err
    assert ran.out.endswith("; pip install pytest hypothesis\n")
