"""Every real weight file of the table opens, with the names and counts that an independent reader found."""

from __future__ import annotations

from typing import Any

import pytest

import weighttools as wt
from tests.real import real_file, rows

pytestmark = pytest.mark.real
READ = [row for row in rows() if row["format"] not in ("tflite", "text")]


@pytest.mark.parametrize("row", READ, ids=[f"{row['package']}:{row['path'].rpartition('/')[2]}" for row in READ])
def test_counts_are_those_of_an_independent_reader(row: dict[str, Any]) -> None:
    record = wt.inspect(real_file(row["package"], row["path"]))
    if "n_tensors" in row:
        assert record["n_tensors"] + len(record["aliases"]) == row["n_tensors"]
    if "n_elements" in row and not record["aliases"]:
        assert record["n_elements"] == row["n_elements"]
