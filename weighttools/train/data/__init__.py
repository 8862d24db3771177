"""Data to learn from: samples by number, given in batches; read from files, rows or arrays.

- Numbers: `arrays`, `table`, `npz`, `Table`, `Scaling`
- Texts: `text`, `Texts`, `language`, `Sequences`, `tokens`, `Tokens`
- Drawn by weight: `sampled`
- What they have in common: `Data`, `Batch`
"""

from __future__ import annotations

from weighttools.train.data.arrays import arrays as arrays
from weighttools.train.data.batches import Batch as Batch
from weighttools.train.data.batches import Data as Data
from weighttools.train.data.language import Sequences as Sequences
from weighttools.train.data.language import language as language
from weighttools.train.data.tables import Scaling as Scaling
from weighttools.train.data.tables import Table as Table
from weighttools.train.data.tables import npz as npz
from weighttools.train.data.tables import table as table
from weighttools.train.data.texts import Texts as Texts
from weighttools.train.data.texts import text as text
from weighttools.train.data.tokens import Tokens as Tokens
from weighttools.train.data.tokens import tokens as tokens
from weighttools.train.weights import sampled as sampled

__all__ = [
    "Batch",
    "Data",
    "Scaling",
    "Sequences",
    "Table",
    "Texts",
    "Tokens",
    "arrays",
    "language",
    "npz",
    "sampled",
    "table",
    "text",
    "tokens",
]


def __dir__() -> list[str]:
    return sorted(__all__)
