"""What `train` and its namespaces have is what their documentation lists, and no module's name leaks out of them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types

import pytest

from weighttools import train

NAMESPACES = ("ops", "losses", "init", "optim", "schedules", "data", "models", "autograd")


@pytest.mark.parametrize("name", ["", *NAMESPACES])
def test_dir_is_what_the_documentation_lists(name: str) -> None:
    space = getattr(train, name) if name else train
    table = re.findall(r"^- (.*(?:\n  .*)*)", space.__doc__, re.M)
    listed = {found for row in table for found in re.findall(r"`(\w+)`", row)} - ({"recompute"} if not name else set())
    assert dir(space) == sorted(space.__all__) == sorted(listed)
    assert all(getattr(space, found).__doc__ for found in dir(space))


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_namespace_has_no_modules(name: str) -> None:
    space = getattr(train, name)
    assert not [found for found in space.__all__ if isinstance(getattr(space, found), types.ModuleType)]


@pytest.mark.parametrize("name", train._MOVED)
def test_a_name_that_moved_says_where_it_is(name: str) -> None:
    place = f"train.{train._MOVED[name]}.{name}"
    with pytest.warns(DeprecationWarning, match=f"^train.{name} is now {re.escape(place)}$"):
        found = getattr(train, name)
    assert found is getattr(importlib.import_module(f"weighttools.train.{train._MOVED[name]}"), name)


def test_what_never_was_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'weighttools.train' has no attribute 'relux'"):
        _ = train.relux


def test_train_loads_nothing_until_it_is_used() -> None:
    code = "import sys, weighttools.train; print([m for m in sys.modules if m == 'numpy' or 'weighttools.train.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
