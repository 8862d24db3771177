"""What `convert` changes on the way: the transforms that its options mean, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.core.patterns import listed
from weighttools.errors import SpecError, option

if TYPE_CHECKING:
    from weighttools.core.dtypes import DType
    from weighttools.core.tensormap import TensorMap, Transform


def taken(
    tensor_map: TensorMap,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    names: str | None = None,
    rename: Sequence[str] = (),
    apply: Sequence[str | Transform] | str | Transform = (),
) -> TensorMap:
    """Return the tensors to take, under the names that they shall have, as other transforms give them.

    Parameters are those of `weighttools.convert`.
    """
    chosen = tensor_map.select(*listed(include), exclude=exclude)
    if names:
        from weighttools.transforms.gguf_names import translate

        chosen = translate(names)(chosen)
    if rename:
        from weighttools.transforms.renaming import rename as by_rules

        chosen = by_rules(rename)(chosen)
    if apply:
        from weighttools.transforms.naming import parsed

        steps = [apply] if isinstance(apply, str) or callable(apply) else apply
        chosen = chosen.pipe(*(parsed(step) if isinstance(step, str) else step for step in steps))
    return chosen


def recoded(
    tensor_map: TensorMap,
    dequantize: bool = False,
    dtype: str | DType | Any | None = None,
    keep_dtype: Sequence[str] = (),
    saturate: bool = False,
    quantize: str | None = None,
    tied: str = "alias",
    for_llama_cpp: bool = False,
) -> TensorMap:
    """Return a map whose tensors are stored in another way.

    Parameters
    ----------
    tensor_map
        What was taken.
    dequantize, dtype, keep_dtype, saturate, quantize, tied
        As of `weighttools.convert`.
    for_llama_cpp
        Whether llama.cpp is to read the result, which takes norms and biases as float32 only.

    Raises
    ------
    SpecError
        An option does not fit the others, or is not known.
    """
    if keep_dtype and dtype is None:
        fact = f"{option('keep_dtype')} needs {option('dtype')}"
        raise SpecError(fact, expected="a dtype to cast the other tensors to")
    return tensor_map.pipe(*_recodings(dequantize, dtype, keep_dtype, saturate, quantize, tied, for_llama_cpp))


def _recodings(
    dequantize: bool, dtype: Any, keep_dtype: Sequence[str], saturate: bool, quantize: str | None, tied: str, full: bool
) -> Iterator[Transform]:
    """Yield the transforms, in the order in which they apply."""
    if dequantize:
        from weighttools.transforms.dequantize import dequantize as decode

        yield decode()
    if dtype is not None:
        from weighttools.transforms.cast import cast
        from weighttools.transforms.gguf_layout import is_full

        yield cast(dtype, keep_dtype, saturate, is_full if full else None)
    if quantize:
        from weighttools.transforms.quantize import quantize as encode

        yield encode(quantize)
    if tied != "alias":
        from weighttools.transforms.ties import TIED

        yield TIED[tied]
