"""Configurations that say anything at all: a function, or one line."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.models.test_models import CONFIGS, arrays, reference
from weighttools.errors import WeighttoolsError
from weighttools.train import models

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.sampled_from([10**30, -1, 0, 4096, 1e-300, 1e300, float("nan")]),
    st.floats(), st.sampled_from(["", "linear", "yarn", "llama3", "divided", "sliding_attention", "x" * 2000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["rope_type", "factor", "rope_theta", "full_attention", "divisors", "model_type", "a"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=6,
)
PLAIN = {kind: config.to_dict() for kind, config in CONFIGS.items()}
IDS = np.array([[2, 3, 4]])
KEYS = sorted({key for config in PLAIN.values() for key in config} | {"rope_scaling", "text_config", "sliding_window"})


@functools.cache
def held(kind: str) -> dict[str, np.ndarray]:
    return arrays(reference(kind))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers may overflow
@given(st.sampled_from(sorted(CONFIGS)), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4))
def test_any_configuration_gives_a_function_or_one_line(kind: str, changed: dict[str, Any]) -> None:
    config = {**PLAIN[kind], **changed, "model_type": PLAIN[kind]["model_type"]}
    try:
        model = models.from_config(config, held(kind))
        model(held(kind), IDS)
    except WeighttoolsError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000


@pytest.mark.parametrize("kind", CONFIGS)
def test_arrays_that_do_not_fit_are_one_line(kind: str) -> None:
    p = dict(held(kind))
    model = models.from_config(PLAIN[kind], p)
    for name in list(p)[:: max(1, len(p) // 8)]:
        if p[name].ndim == 2:
            with pytest.raises(WeighttoolsError, match="fit|has 3 rows"):
                model({**p, name: p[name][:3, :5]}, IDS + 3)


def is_free(name: str, axis: int) -> bool:
    """Whether a tensor may have any length there: a vocabulary, kinds of segments that the text does not have."""
    return axis == 0 and name.endswith(("lm_head.weight", "token_type_embeddings.weight"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_array_is_repeated_to_fit(kind: str) -> None:
    """NumPy would stretch an axis of length 1, and the model would compute something else without a word."""
    p = dict(held(kind))
    model = models.from_config(PLAIN[kind], p)
    for name in list(p):
        for axis in range(p[name].ndim):
            if p[name].shape[axis] > 1 and not is_free(name, axis):
                cut = np.take(p[name], [0], axis)
                with pytest.raises(WeighttoolsError):
                    model({**p, name: cut}, IDS + 3)
