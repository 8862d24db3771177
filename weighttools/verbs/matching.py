"""How diff matches what names do not: by the names of llama.cpp, by what stands before names, by content, by parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weighttools.analyzers.compare.matching import Matching, Stage
    from weighttools.core.tensor import Tensor
    from weighttools.core.tensormap import TensorMap
    from weighttools.io.progress import Progress


def stages(threads: int | None, progress: Progress) -> list[Stage]:
    """Return the stages of `match`, each of which looks at what the one before it left over.

    Parameters
    ----------
    threads
        Worker threads; None: one a CPU.
    progress
        Called with the number of bytes just read.
    """
    from weighttools.analyzers.compare.content import ContentStage
    from weighttools.analyzers.compare.parts import PartsStage
    from weighttools.analyzers.compare.prefixes import match_prefixes

    return [match_gguf, match_prefixes, ContentStage(threads, progress), PartsStage(threads, progress)]


def match_gguf(before: TensorMap, after: TensorMap) -> Matching:
    """Match a GGUF file's names with those of Hugging Face's classes, and its layout: llama's q and k are permuted."""
    from weighttools.analyzers.compare.matching import Matching
    from weighttools.analyzers.compare.pair import Pair

    old, new = (_translated(one, other) for one, other in ((before, after), (after, before)))
    pairs = []
    for name, (source, tensor) in new.items():
        if name in old:
            before_name, before_tensor = old[name]
            how = "dequantized" if before_tensor.spec.is_quantized or tensor.spec.is_quantized else "renamed"
            if before_tensor.shape == tensor.shape and before_name != source:
                pairs.append(Pair(before_name, source, how, before_tensor, tensor))
    return Matching.of_stage(pairs, before, after)


def _translated(tensor_map: TensorMap, other: TensorMap) -> dict[str, tuple[str, Tensor]]:
    """Return tensors by Hugging Face's names, with their own; of GGUF where the other map is of another format."""
    from weighttools.errors import SpecError
    from weighttools.transforms.gguf_names import DERIVED, to_hugging_face

    plain = {name: (name, tensor) for name, tensor in tensor_map.items()}
    if tensor_map.origin.format != "gguf" or other.origin.format == "gguf":
        return plain
    names = [name for name in tensor_map if not any(re.fullmatch(pattern, name) for pattern in DERIVED)]
    try:
        view = to_hugging_face(tensor_map.keep(names))
    except SpecError:  # an architecture whose names are not known
        return plain
    return {new: (old, tensor) for old, (new, tensor) in zip(names, view.items(), strict=True)}
