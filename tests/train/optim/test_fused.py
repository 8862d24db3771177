"""The compiled sweep of Adam: the chain's bits, and used only where it does what the chain does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from tests.train.optim.test_optim import PAIRS, UNIT, distance, ours, start, theirs
from weighttools.train.optim import chains as optim
from weighttools.train.optim import fused, transforms

CHAINS: dict[str, optim.Optimizer] = {
    "adamw": optim.adamw(1e-2),
    "decay": optim.adamw(1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    "adam": optim.adam(1e-2),
    "clipped": optim.adamw(1e-2).after(transforms.ClipNorm(0.5)),
    "not clipped": optim.adamw(1e-2).after(transforms.ClipNorm(1e9)),
}
OTHERS: dict[str, optim.Optimizer] = {
    "sgd": optim.sgd(0.1),
    "penalty": optim.adam(1e-2, l2=0.1),
    "value": optim.adamw(1e-2).after(transforms.ClipValue(0.1)),
    "proximal": optim.adamw(1e-2, proximal_l1=0.1),
    "lion": optim.lion(),
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Use the sweep for arrays of any size; the sizes that it was given."""
    seen: list[int] = []
    compiled = fused._compiled()
    assert compiled is not None

    def counted(p: Any, *rest: Any) -> None:
        seen.append(p.size)
        compiled(p, *rest)

    monkeypatch.setattr(fused, "sweep", lambda grads: counted)
    return seen


def stepped(optimizer: optim.Optimizer, dtype: Any) -> list[bytes]:
    """Parameters and state after steps from gradients that also hold zeros, subnormals and giants."""
    rng, params = np.random.default_rng(0), start(dtype)
    state = optimizer.init(params)
    for _ in range(5):
        grads = {n: rng.standard_normal(p.shape).astype(dtype) for n, p in params.items()}
        for g in grads.values():
            g.reshape(-1)[:4] = 0.0, -0.0, 1e-42, 1e18
        optimizer.step(params, grads, state)
    return [a.tobytes() for arrays in (params, *state.slots.values()) for a in arrays.values()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHAINS)
def test_the_compiled_sweep_gives_the_chains_bits(
    name: str, dtype: Any, always: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stepped(CHAINS[name], dtype)
    assert sum(always) == 5 * sum(p.size for p in start(dtype).values())
    monkeypatch.setattr(fused, "sweep", lambda grads: None)
    assert found == stepped(CHAINS[name], dtype)


@pytest.mark.parametrize("name", OTHERS)
def test_other_chains_are_not_taken_for_adam(name: str, always: list[int]) -> None:
    stepped(OTHERS[name], np.float32)
    assert not always


def test_200_steps_are_those_of_torch(always: list[int]) -> None:
    make, reference = PAIRS["adamw"]
    found, torch32, torch64 = ours(make(), np.float32), theirs(reference, np.float32), theirs(reference, np.float64)
    assert always and distance(found, torch64) <= distance(torch32, torch64) + 2 * UNIT


def test_it_is_used_for_large_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fused, "_compiled", lambda: asked.append(1))
    fused.sweep({"w": np.zeros(8)})
    assert not asked
    fused.sweep({"w": np.broadcast_to(np.float32(0), (fused.LARGE,))})
    assert asked
