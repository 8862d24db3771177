"""What can be said of a checkpoint; and the table of analyzers, the figures that ``stats`` gives where it is asked to.

An analyzer is a file with an `Analyzer` (`base`) and one line here; those of installed packages are found by the entry
point group ``weighttools.analyzers``.
"""

from __future__ import annotations

from weighttools.core.registry import Entry, Registry

ANALYZERS = Registry(
    "analyzer",
    "weighttools.analyzers",
    {
        "sparsity": Entry("weighttools.analyzers.sparsity:STRUCTURE"),
        "kurtosis": Entry("weighttools.analyzers.shape:KURTOSIS"),
        "outliers": Entry("weighttools.analyzers.shape:OUTLIERS"),
    },
)
