"""Functions that return a transform: TensorMap to TensorMap, lazily, specs first; and the table of those with a name.

A transform by name is a function of a few arguments that returns a ``TensorMap -> TensorMap``, and one line here; those
of installed packages are found by the entry point group ``weighttools.transforms``.
"""

from __future__ import annotations

from weighttools.core.registry import Entry, Registry

TRANSFORMS = Registry(
    "transform",
    "weighttools.transforms",
    {
        "cast": Entry("weighttools.transforms.cast:cast"),
        "dequantize": Entry("weighttools.transforms.dequantize:dequantize"),
        "quantize": Entry("weighttools.transforms.quantize:quantize"),
    },
)
