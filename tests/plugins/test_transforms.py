"""Transforms of installed packages: by name, in Python and in ``convert --apply``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.plugins.conftest import Installed

GROUP = "weighttools.transforms"
ARRAYS = {"a": np.array([[-1.0, 2.0]], np.float32), "n": np.array([3], np.int64)}


def test_convert_applies_it(toy: Installed, make: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    ran = toy.weighttools(
        "convert", make(ARRAYS), target, "--apply", "times:2.5", "--apply", "times:2", "--dtype", "float16"
    )
    assert (ran.code, ran.err) == (0, "")
    found = load_file(target)
    assert found["a"].dtype == np.float16 and found["a"].tolist() == [[-5.0, 10.0]] and found["n"].tolist() == [3]


def test_python_has_it_by_name(toy: Installed, make: Callable[..., Path]) -> None:
    code = "import sys, weighttools as wt; print(wt.open(sys.argv[1]).pipe(wt.transform('times', 3))['a'].read())"
    assert toy.run("-c", code, make(ARRAYS)) == (0, "[[-3.  6.]]\n", "")


BROKEN = {
    "imports": ("import nowhere", "", "cannot be loaded (ModuleNotFoundError: "),
    "type": ("make = 3", "", "is of type int; expected a function that returns a transform"),
    "makes": ("make = lambda: 3", "", "makes a int; expected a function TensorMap -> TensorMap"),
    "raises": ("make = lambda: 1 / 0", "", "failed (ZeroDivisionError: division by zero)"),
    "changes": ("make = lambda: lambda tensor_map: 1 / 0", "", "failed (ZeroDivisionError: division by zero)"),
    "returns": ("make = lambda: dict", "", "returns a dict; expected a TensorMap"),
}


def test_one_that_does_not_work_is_one_line(installed: Installed, tiny: Path, tmp_path: Path) -> None:
    for kind, (code, arguments, fact) in BROKEN.items():
        installed.add(f"bad-{kind}", {GROUP: {kind: f"bad_{kind}:make"}}, code, f"bad_{kind}")
        ran = installed.weighttools("convert", tiny, tmp_path / "x.npz", "--apply", f"{kind}{arguments}")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
        assert ran.err.startswith(f"weighttools: bad-{kind} 1.0: its transform {kind!r} {fact}"), ran.err
        assert not (tmp_path / "x.npz").exists()


def test_wrong_arguments_are_one_line(toy: Installed, tiny: Path, tmp_path: Path) -> None:
    lines = {
        "times": "the transform 'times' has missing a required argument: 'factor'; expected times(factor)",
        "times:1,2": "the transform 'times' has too many positional arguments; expected times(factor)",
        "times:half": "a factor of 'half'; expected a number",
        "time:1": "unknown transform 'time'; expected one of cast, dequantize, quantize, times",
    }
    for text, line in lines.items():
        ran = toy.weighttools("convert", tiny, tmp_path / "x.npz", "--apply", text)
        assert ran == (2, "", f"weighttools: {line}\n")
