"""Adam with 8-bit moments: its table, its error beside exact AdamW, and its memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from weighttools import train
from weighttools.errors import SpecError
from weighttools.train.optim import chains as optim
from weighttools.train.optim import quantised, transforms
from weighttools.verbs.training.choosing import optimizer as by_name

R = np.random.default_rng(0)


@pytest.mark.parametrize("is_signed", [True, False])
def test_every_number_gets_the_nearest_code_but_for_one_part_in_128(is_signed: bool) -> None:
    table, codes = quantised.table(is_signed), quantised.codes(is_signed)
    assert len(np.unique(table)) == 256 and table[-1] == 1
    assert (table[0] < -0.9) if is_signed else (table[0] == 0)
    x = np.concatenate([R.uniform(0, 1, 5000), 10 ** R.uniform(-8, 0, 5000), table, [0, -0.0, 1e-30]]).astype("f4")
    x = np.concatenate([x, -x]) if is_signed else x
    found = table[codes[x.view(np.uint32) >> 16]]
    best = np.abs(x[:, None] - table[None]).min(1)
    positive = slice(None) if is_signed else x > table[1]
    assert (np.abs(x - found) <= best + np.abs(x) / 128 + 1e-12)[positive].all()
    assert (found[x == 0] == 0).all()
    assert is_signed or (found[x > 0] > 0).all()


def params(n: int = 5000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"fc.weight": rng.standard_normal((n, 7)).astype("f4"), "fc.bias": rng.standard_normal(9).astype("f4")}


def moments(name: str, state: optim.State) -> np.ndarray:
    """The moment of fc.weight as it is stored, read one element at a time."""
    codes = state.slots[f"{name}_codes"]["fc.weight"].reshape(-1)
    scale = state.slots[f"{name}_scale"]["fc.weight"]
    return np.array([quantised.table(name == "first_moment")[c] * scale[i // 2048] for i, c in enumerate(codes)])


def test_the_first_step_is_exact_and_the_state_within_the_tables_error() -> None:
    """35,000 elements: pieces of the chain, blocks and the last, short block all have ends of their own."""
    exact, short, grads = params(), params(), {n: R.standard_normal(p.shape).astype("f4") for n, p in params().items()}
    full, small = optim.adamw(1e-2), optim.adamw(1e-2, state="8bit")
    states = full.init(exact), small.init(short)
    for optimizer, p, state in zip((full, small), (exact, short), states, strict=True):
        optimizer.step(p, grads, state)
    assert all(np.allclose(exact[n], short[n], rtol=1e-6, atol=1e-7) for n in exact)
    g = grads["fc.weight"].reshape(-1)
    scale = np.abs(g).max()
    assert np.abs(moments("first_moment", states[1]) - g).max() < 0.02 * scale
    assert np.abs(moments("root_moment", states[1]) - np.abs(g)).max() < 0.02 * scale
    assert states[1].slots["first_moment_sum"].keys() == {"fc.bias"}


def test_a_zero_gradient_keeps_the_state_at_zero() -> None:
    p, optimizer = params(), optim.adamw(1e-2, state="8bit", weight_decay=0)
    before, state = {n: a.copy() for n, a in p.items()}, optimizer.init(p)
    for _ in range(3):
        optimizer.step(p, {n: np.zeros_like(a) for n, a in p.items()}, state)
    assert all((p[n] == before[n]).all() for n in p)
    assert not moments("first_moment", state).any() and not moments("root_moment", state).any()


def fitted(optimizer: optim.Optimizer, n_steps: int = 150) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a small MLP at its last step, and its weights after that."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((256, 64)).astype("f4")
    y = np.argmax(x @ rng.standard_normal((64, 10)).astype("f4"), axis=1)
    shapes = {"a.weight": (128, 64), "a.bias": (128,), "b.weight": (64, 128), "b.bias": (64,), "c.weight": (10, 64)}
    p = {n: (0.1 * rng.standard_normal(s)).astype("f4") for n, s in shapes.items()}

    def loss(p: dict[str, Any]) -> Any:
        h = train.ops.relu(train.ops.linear(x, p["a.weight"], p["a.bias"]))
        return train.losses.cross_entropy(
            train.ops.linear(train.ops.relu(train.ops.linear(h, p["b.weight"], p["b.bias"])), p["c.weight"]), target=y
        )

    state = optimizer.init(p)
    for _ in range(n_steps):
        value, grads = train.value_and_grad(loss, p)
        optimizer.step(p, grads, state)
    return float(value), p


def test_a_small_fit_ends_where_exact_adamw_does() -> None:
    (exact, p), (short, q) = (fitted(optim.adamw(1e-3, state=s)) for s in ("full", "8bit"))
    start, _ = fitted(optim.adamw(0.0), n_steps=1)
    assert exact < 0.5 * start and abs(short - exact) < 0.02 * start
    moved = {n: np.abs(p[n] - q[n]).mean() / max(np.abs(p[n]).mean(), 1e-9) for n in ("a.weight", "b.weight")}
    assert max(moved.values()) < 0.05, moved


def test_the_state_is_a_quarter() -> None:
    p = {"w": np.zeros((1000, 1000), np.float32)}
    sizes = [
        sum(a.nbytes for slot in optim.adamw(state=s).init(p).slots.values() for a in slot.values())
        for s in ("full", "8bit")
    ]
    assert sizes[0] == 8 * p["w"].size and sizes[1] < 0.252 * sizes[0]


def test_names_and_what_does_not_fit() -> None:
    assert isinstance(by_name("adamw-8bit", weight_decay=0.1).chain[0], quantised.QuantisedAdam)
    assert type(by_name("adamw").chain[0]) is transforms.Adam
    with pytest.raises(SpecError, match="state '4bit'"):
        optim.adamw(state="4bit")
