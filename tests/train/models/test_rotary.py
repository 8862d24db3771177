"""Rotary frequencies against transformers' own functions, over their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weighttools.errors import SpecError
from weighttools.train.models.rotary import llama3_of, rotary, rotated

THETA = {"rope_theta": st.sampled_from([100.0, 1e4, 1e6])}
FACTOR = {"factor": st.floats(1, 64)}
CONTEXT = {"original_max_position_embeddings": st.sampled_from([64, 2048, 32768])}
KINDS: dict[str, dict[str, Any]] = {
    "linear": {**THETA, **FACTOR},
    "llama3": {**THETA, **FACTOR, **CONTEXT, "low_freq_factor": st.floats(0.5, 2), "high_freq_factor": st.floats(3, 9)},
    "yarn": {
        **THETA, **FACTOR, **CONTEXT,
        "attention_factor": st.none() | st.floats(0.5, 2),
        "beta_fast": st.none() | st.sampled_from([16, 32]),
        "beta_slow": st.none() | st.sampled_from([1, 2]),
        "mscale": st.none() | st.sampled_from([0.707, 1.0]),
        "mscale_all_dim": st.none() | st.sampled_from([0.5, 1.0]),
        "truncate": st.booleans(),
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_scaled_frequencies_are_those_of_transformers(kind: str, data: Any) -> None:
    drawn = data.draw(st.fixed_dictionaries(KINDS[kind]))
    parameters = {"rope_type": kind, **{k: v for k, v in drawn.items() if v is not None}}
    config = transformers.LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=dict(parameters))
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config)
    ours = rotary(parameters, 64)
    np.testing.assert_allclose(ours.frequencies, theirs.numpy(), rtol=2e-5)
    assert ours.factor == pytest.approx(factor)


def test_only_the_first_part_of_a_head_turns() -> None:
    found = rotary({"partial_rotary_factor": 0.5}, 8)
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 8))
    y = rotated(x, found.tables(np.arange(3), x.dtype))
    assert np.array_equal(y[..., 4:], x[..., 4:]) and np.array_equal(y[:, 0], x[:, 0])
    assert np.allclose(np.hypot(y[..., :2], y[..., 2:4]), np.hypot(x[..., :2], x[..., 2:4]), atol=1e-15)
    assert np.allclose(y[0, 2, 0, 0], x[0, 2, 0, 0] * np.cos(2) - x[0, 2, 0, 2] * np.sin(2), atol=1e-15)


@pytest.mark.parametrize("divisors", [[1.0], [0.0] * 4, [[1.0] * 4], ["a"] * 4, None, [float("nan")] * 4])
def test_divisors_that_do_not_fit_are_refused(divisors: Any) -> None:
    with pytest.raises(SpecError, match="divisors"):
        rotary({"rope_type": "divided", "divisors": divisors}, 8)


@given(
    factor=st.sampled_from([8.0, 16.0, 32.0]), theta=st.sampled_from([1e4, 5e5]), size=st.sampled_from([32, 64, 128])
)
def test_the_rule_of_llama3_is_found_in_its_divisors(factor: float, theta: float, size: int) -> None:
    rule = {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = transformers.LlamaConfig(
        hidden_size=size, num_attention_heads=1, rope_parameters={**rule, "rope_theta": theta}
    )
    after, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    before = rotary({"rope_theta": theta}, size).frequencies
    divisors = (before / after.double().numpy()).astype(np.float32).tolist()
    assert llama3_of(divisors, theta) == rule
    assert llama3_of([*divisors[:-1], 1.01 * divisors[-1]], theta) == {}
    assert llama3_of(divisors[::-1], theta) == {}


@pytest.mark.parametrize("divisors", [[], [0.0] * 4, ["a"] * 4, [float("nan")] * 4, [float("inf")] * 4, None])
@pytest.mark.parametrize("theta", [1e4, None, "a", 0.0, float("nan")])
def test_divisors_that_are_none_follow_no_rule(divisors: Any, theta: Any) -> None:
    assert llama3_of(divisors, theta) == {}
