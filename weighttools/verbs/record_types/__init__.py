"""The records that verbs return and commands print as JSON: every key, in one place.

Keys keep their meaning; more may be added, and ``schema`` counts up should one ever change. `path` is as it was given,
names of dtypes are NumPy's and ml_dtypes', sizes are bytes, NaN and infinity are null with the count beside them.
`notes` are lines about what was left out, guessed or not applied. A key that is not always there says when it is.
"""

from __future__ import annotations

from weighttools.verbs.record_types.findings import (
    AgainstRecord as AgainstRecord,
)
from weighttools.verbs.record_types.findings import (
    CheckRecord as CheckRecord,
)
from weighttools.verbs.record_types.findings import (
    CodeRow as CodeRow,
)
from weighttools.verbs.record_types.findings import (
    FindingRow as FindingRow,
)
from weighttools.verbs.record_types.findings import (
    FixedIndex as FixedIndex,
)
from weighttools.verbs.record_types.findings import (
    RenameRow as RenameRow,
)
from weighttools.verbs.record_types.headers import (
    Bitmasks as Bitmasks,
)
from weighttools.verbs.record_types.headers import (
    CacheRecord as CacheRecord,
)
from weighttools.verbs.record_types.headers import (
    Counts as Counts,
)
from weighttools.verbs.record_types.headers import (
    EstimateRecord as EstimateRecord,
)
from weighttools.verbs.record_types.headers import (
    FormatRow as FormatRow,
)
from weighttools.verbs.record_types.headers import (
    GroupRow as GroupRow,
)
from weighttools.verbs.record_types.headers import (
    InspectRecord as InspectRecord,
)
from weighttools.verbs.record_types.headers import (
    LoadRow as LoadRow,
)
from weighttools.verbs.record_types.headers import (
    ParamsRecord as ParamsRecord,
)
from weighttools.verbs.record_types.headers import (
    Sizes as Sizes,
)
from weighttools.verbs.record_types.headers import (
    TensorRow as TensorRow,
)
from weighttools.verbs.record_types.headers import (
    TrainRow as TrainRow,
)
from weighttools.verbs.record_types.values import (
    Figures as Figures,
)
from weighttools.verbs.record_types.values import (
    Histogram as Histogram,
)
from weighttools.verbs.record_types.values import (
    InitCheckRecord as InitCheckRecord,
)
from weighttools.verbs.record_types.values import (
    LayerRow as LayerRow,
)
from weighttools.verbs.record_types.values import (
    SpectrumRecord as SpectrumRecord,
)
from weighttools.verbs.record_types.values import (
    SpectrumRow as SpectrumRow,
)
from weighttools.verbs.record_types.values import (
    StatsOthers as StatsOthers,
)
from weighttools.verbs.record_types.values import (
    StatsPlan as StatsPlan,
)
from weighttools.verbs.record_types.values import (
    StatsRecord as StatsRecord,
)
from weighttools.verbs.record_types.values import (
    StatsRow as StatsRow,
)
from weighttools.verbs.record_types.values import (
    StatsTotal as StatsTotal,
)
