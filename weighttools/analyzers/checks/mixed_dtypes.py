"""Floating dtypes that differ, between layers or between kinds of tensors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from weighttools.analyzers.alike import TensorFamily, families
from weighttools.core.findings import NOTE, WARNING, Finding
from weighttools.core.tensormap import TensorMap


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a warning for each family of tensors with several dtypes, and a note if kinds of tensors differ.

    A GGUF file is mixed by design, layer by layer too (llama.cpp, ``llama_tensor_get_type``): it gets neither.
    """
    if tensor_map.origin.format == "gguf":
        return
    kinds: dict[tuple[str, tuple[int, ...]], list[TensorFamily]] = defaultdict(list)
    for family in families(tensor_map):
        if family.is_parameter:
            kinds[family.words, family.spec.shape].append(family)
    uneven = [found for found in kinds.values() if len({f.spec.dtype for f in found}) > 1]
    for found in uneven:
        yield Finding(WARNING, "mixed-dtypes", f"tensors called like {found[0].words!r} are {_told(found)}")
    everything = [family for found in kinds.values() for family in found]
    if not uneven and len({family.spec.label for family in everything}) > 1:
        yield Finding(NOTE, "mixed-dtypes", f"parameters are {_told(everything)}")


def _told(found: list[TensorFamily]) -> str:
    counts: Counter[str] = Counter()
    for family in found:
        counts[family.spec.label] += family.n_tensors
    return ", ".join(f"{label} ({n:,} tensors)" for label, n in counts.most_common())
