"""Random bits of every dtype: NaN, Inf, subnormals and extremes give plain records, without a warning."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.strategies import random_array
from tests.thorough import at_most
from weighttools.analyzers.checks import value_findings
from weighttools.core.dtypes import DTYPES

SHAPES = [(), (0, 3), (7,), (5, 8), (64, 48), (2, 3, 4, 4), (1, 300)]


@pytest.mark.parametrize("name", DTYPES)
@at_most(6)
@given(seed=st.integers(0, 2**32 - 1), finite=st.booleans())
def test_records_are_plain(name: str, seed: int, finite: bool) -> None:
    arrays = {f"w{i}": random_array(DTYPES[name], shape, seed + i) for i, shape in enumerate(SHAPES)}
    with np.errstate(all="ignore"):
        nan = {k: ~np.isfinite(v.astype(np.complex128)) for k, v in arrays.items()}
    if finite:
        arrays = {k: np.where(nan[k], np.zeros_like(v), v) for k, v in arrays.items()}
    tensor_map = wt.TensorMap.from_arrays(arrays)
    findings = [finding.record() for finding in value_findings(tensor_map, threads=1)]
    records = (wt.spectrum(tensor_map, values=True), wt.spectrum(tensor_map, exact_limit=3), wt.init_check(tensor_map))
    json.dumps([findings, *records, wt.estimate(tensor_map)], allow_nan=False)
    told = {f["tensor"] for f in findings if f["code"] in ("nan", "inf")}
    assert told == {k for k in arrays if nan[k].any() and not finite}
