"""The records that verbs return and commands print as JSON: every key, in one place.

Keys keep their meaning; more may be added, and ``schema`` counts up should one ever change. `path` is as it was given,
names of dtypes are NumPy's and ml_dtypes', sizes are bytes, NaN and infinity are null with the count beside them.
`notes` are lines about what was left out, guessed or not applied. A key that is not always there says when it is.
"""

from __future__ import annotations

from weighttools.verbs.record_types.findings import (
    AgainstRecord,
    CheckRecord,
    CodeRow,
    FindingRow,
    FixedIndex,
    RenameRow,
)
from weighttools.verbs.record_types.headers import (
    Bitmasks,
    CacheRecord,
    Counts,
    EstimateRecord,
    FileLayout,
    FormatRow,
    GroupRow,
    InspectRecord,
    LayoutRecord,
    LoadRow,
    OverlapRow,
    ParamsRecord,
    PieceRow,
    ShareRow,
    Sizes,
    TensorRow,
    TrainRow,
)
from weighttools.verbs.record_types.values import (
    Figures,
    Histogram,
    InitCheckRecord,
    LayerRow,
    SpectrumRecord,
    SpectrumRow,
    StatsOthers,
    StatsPlan,
    StatsRecord,
    StatsRow,
    StatsTotal,
)

__all__ = [
    "AgainstRecord",
    "Bitmasks",
    "CacheRecord",
    "CheckRecord",
    "CodeRow",
    "Counts",
    "EstimateRecord",
    "Figures",
    "FileLayout",
    "FindingRow",
    "FixedIndex",
    "FormatRow",
    "GroupRow",
    "Histogram",
    "InitCheckRecord",
    "InspectRecord",
    "LayerRow",
    "LayoutRecord",
    "LoadRow",
    "OverlapRow",
    "ParamsRecord",
    "PieceRow",
    "RenameRow",
    "ShareRow",
    "Sizes",
    "SpectrumRecord",
    "SpectrumRow",
    "StatsOthers",
    "StatsPlan",
    "StatsRecord",
    "StatsRow",
    "StatsTotal",
    "TensorRow",
    "TrainRow",
]
