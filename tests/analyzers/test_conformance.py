"""The suite that ships with weighttools, run on every analyzer of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tests.strategies  # noqa: F401  # loads the profile
from tests.analyzers import oracles
from weighttools.analyzers import ANALYZERS
from weighttools.analyzers.testing import AnalyzerConformance

Array = np.ndarray[Any, Any]


class TestKurtosis(AnalyzerConformance):
    name = "kurtosis"
    relative = absolute = 1e-6

    def expected(self, array: Array) -> dict[str, Any]:
        figures = oracles.shape_figures(array)
        return {} if figures is None else dict(zip(("skewness", "kurtosis"), figures, strict=True))


class TestSparsity(AnalyzerConformance):
    name = "sparsity"
    unit = 8

    def expected(self, array: Array) -> dict[str, Any]:
        if array.ndim != 2 or not array.size:
            return {}
        filled = oracles.wide(array).reshape(array.shape) != 0
        found = {
            "n_empty_rows": int((~filled.any(axis=1)).sum()),
            "n_empty_columns": int((~filled.any(axis=0)).sum()),
        }
        for n, m in ((2, 4), (4, 8)):
            if array.shape[1] % m == 0:
                found[f"nm_{n}_{m}"] = float((filled.reshape(-1, m).sum(axis=1) <= n).mean())
        return found


class TestOutliers(AnalyzerConformance):
    name = "outliers"

    def expected(self, array: Array) -> dict[str, Any]:
        if array.ndim != 2 or not array.size:
            return {}
        sizes = np.abs(oracles.wide(array)).reshape(array.shape)
        if not np.isfinite(sizes).all():
            return {}
        found = {}
        for key, most in (("outlier_rows", sizes.max(axis=1)), ("outlier_channels", sizes.max(axis=0))):
            middle = float(np.median(most))
            found[key] = float(most.max()) / middle if middle else None
        return found


def test_every_analyzer_of_the_table_is_tested() -> None:
    tested = {kind.name for kind in AnalyzerConformance.__subclasses__() if kind.__module__ == __name__}
    assert tested == set(ANALYZERS)


@pytest.mark.parametrize("missing", ["expected"])
def test_a_suite_without_an_oracle_fails(missing: str) -> None:
    class Bare(AnalyzerConformance):
        name = "kurtosis"

    with pytest.raises(NotImplementedError):
        Bare().test_the_other_implementation_gives_the_same()
