"""float32 in, float32 out and float32 gradients: a float64 that slips in doubles the memory and halves the speed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.train.ops.test_gradients import CASES
from weighttools.train import models, ops
from weighttools.train.autograd.tape import Tape, value_and_grad
from weighttools.train.autograd.variable import Variable
from weighttools.train.losses import cross_entropy

TABLES = ("cos", "sin", "frequencies")
"""Options that the caller makes in the model's dtype; all others may be of any."""


def single(value: Any) -> Any:
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


@pytest.mark.parametrize("name", CASES)
def test_nothing_promotes(name: str) -> None:
    f, arrays, options = CASES[name](np.random.default_rng(0), lambda: 3)
    options = {k: single(v) if k in TABLES else v for k, v in options.items()}
    tape = Tape()
    variables = [Variable(single(a), tape) for a in arrays]
    assert np.asarray(f(*map(single, arrays), **options)).dtype == np.float32
    out = f(*variables, **options)
    assert out.dtype == np.float32
    seen = []
    for i, (operation, slot, args, pullback) in enumerate(tape.entries):
        tape.entries[i] = (operation, slot, args, lambda dy, need, p=pullback: (seen.append(dy.dtype), p(dy, need))[1])
    tape.backward(out, np.ones(out.shape, np.float32))
    assert {str(dtype) for dtype in seen} == {"float32"}
    assert [v.slot.grad.dtype for v in variables] == [np.dtype(np.float32)] * len(variables)


def test_a_model_stays_single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every result on the tape of a whole model, with masks, and every gradient."""
    rng, n = np.random.default_rng(0), 12
    shapes = {"embed_tokens": (20, n), "norm": (n,)} | {
        f"layers.0.{name}": shape
        for name, shape in {
            "input_layernorm": (n,),
            "post_attention_layernorm": (n,),
            **{f"self_attn.{s}_proj": (n, n) for s in "qkvo"},
            **{f"mlp.{s}_proj": (n, n) for s in ("gate", "up", "down")},
        }.items()
    }
    p = {f"model.{k}.weight": rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    ids, kinds, record = rng.integers(0, 20, (2, 5)), [], Tape.record

    def spy(self: Tape, name: str, y: Any, *rest: Any) -> Any:
        kinds.append((name, y.dtype))
        return record(self, name, y, *rest)

    monkeypatch.setattr(Tape, "record", spy)

    def loss(p: Any) -> Any:
        logits = models.llama(p, ids, np.ones((2, 5), bool), layers=1, heads=3, key_heads=3)
        return ops.mul(cross_entropy(logits, target=ids), 0.5)

    value, grads = value_and_grad(loss, p)
    assert {dtype for _, dtype in kinds} == {np.dtype(np.float32)}, kinds
    assert value.dtype == np.float32 and {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
