"""What ``diff`` says explains the changes: real edits by the other verbs, other checkpoints, tolerances, the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weighttools as wt
from weighttools.analyzers.compare import explain as explaining
from weighttools.core.tensormap import TensorMap


@pytest.fixture(scope="module")
def net() -> TensorMap:
    """Two layers and an embedding, of normal weights."""
    rng = np.random.default_rng(0)
    names = [f"layers.{n}.{module}" for n in range(2) for module in ("q_proj", "v_proj")]
    arrays = {f"{name}.weight": rng.standard_normal((64, 64), np.float32) for name in names}
    arrays |= {f"{name}.bias": rng.standard_normal(64, np.float32) for name in names}
    return TensorMap.from_arrays({"embed_tokens.weight": rng.standard_normal((90, 64), np.float32), **arrays})


def codes(record: Any) -> dict[str, Any]:
    return {row["code"]: row["evidence"] for row in record["explanation"]}


def test_what_edits_did_is_told(net: TensorMap, tmp_path: Path) -> None:
    """The other verbs say what they did; diff finds it out from the values."""
    edits: dict[str, Callable[[Path], object]] = {
        "decay": lambda path: wt.save(path, wt.decay(net, rate=0.1, lr=0.1)),
        "prune": lambda path: wt.save(path, wt.prune(net, sparsity=0.5)),
        "noise": lambda path: wt.save(path, wt.noise(net, std=0.01)),
        "scale": lambda path: wt.save(path, wt.scale(net, by=3.0)),
        "convert": lambda path: wt.convert(net, path, dtype="bfloat16"),
    }
    found = {}
    for name, edit in edits.items():
        edit(tmp_path / f"{name}.safetensors")
        found[name] = codes(wt.diff(net, tmp_path / f"{name}.safetensors"))
    assert found["decay"]["uniform-shrink"]["factor"] == pytest.approx(0.99, rel=1e-7)
    assert found["prune"]["sparsity"]["is_global"] and found["prune"]["sparsity"]["kept"] == "same"
    assert found["noise"]["noise"]["std"] == pytest.approx(0.01, rel=0.02)
    assert found["scale"]["scaled"]["factor"] == pytest.approx(3.0, rel=1e-7)
    assert found["convert"] == {"rounded": found["convert"]["rounded"]}
    assert found["convert"]["rounded"]["dtype"] == "bfloat16"
    assert "frozen" in found["decay"], "the embedding is left alone"


def test_a_mean_with_another_checkpoint_is_told_and_its_absence_noted(net: TensorMap) -> None:
    other = wt.noise(net, std=0.1)
    record = wt.diff(net, wt.average([net, other]), others=[other])
    assert codes(record)["soup"]["weight_before"] == pytest.approx(0.5, abs=1e-6)
    record = wt.diff(net, wt.decay(net, rate=0.1, lr=0.1), others=[other, other])
    assert codes(record).keys() == {"frozen", "uniform-shrink"}
    assert any("no weighted mean" in note for note in record["notes"])
    assert wt.diff(net, net, others=other)["notes"] == []


def test_nothing_is_read_again_where_nothing_changed_or_nobody_asks(
    net: TensorMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("explained")

    monkeypatch.setattr(explaining, "explain", refuse)
    same = TensorMap.from_arrays(net.read())
    assert wt.diff(net, same)["same"]
    changed = wt.decay(net, rate=0.1, lr=0.1)
    assert wt.diff(net, changed, explain=False)["explanation"] == []
    assert wt.diff(net, changed, rtol=0.1)["explanation"] == [], "all is within the tolerance"
    with pytest.raises(AssertionError, match="explained"):
        wt.diff(net, changed)


def test_the_command_says_it_below_the_sections(net: TensorMap, tmp_path: Path, inside: Callable[..., Any]) -> None:
    old, new, other = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    wt.save(old, net)
    wt.save(new, wt.scale(net, by=0.5, include_all=True))
    wt.save(other, wt.scale(net, by=0.0, include_all=True))
    table = inside("diff", old, new).out
    assert "\nexplanation:\n  All 9 changed tensors" in table and "shrank by the factor 0.5" in table
    assert "explanation" not in inside("diff", old, new, "--no-explain").out
    assert "a soup, 0.5 of the old and 0.5 of" in inside("diff", old, new, "--and", other).out
