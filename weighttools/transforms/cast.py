"""Casting floating tensors to another floating dtype, correctly rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from weighttools.core.dtypes import DTYPES, DType, dtype
from weighttools.core.patterns import matching
from weighttools.core.readers import Elementwise
from weighttools.core.spec import Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap, Transform
from weighttools.errors import SpecError, option
from weighttools.families.packed import is_scale, refuse
from weighttools.transforms.dequantize import decoded, without_file_type

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_FLOAT32 = DTYPES["float32"]
_CUT = (1 << 29) - 1
"""The bits of a float64's significand that a float32 does not have."""
_TARGETS = tuple(d.name for d in DTYPES.values() if d.is_float and d.bits >= 8 and d.name != "float8_e8m0fnu")


def cast(
    target: DType | str | Any,
    keep: Sequence[str] = (),
    saturate: bool = False,
    spare: Callable[[str, Tensor], bool] | None = None,
) -> Transform:
    """Return a transform that casts floating tensors to `target`; integers, booleans and complex stay.

    Quantised tensors are decoded for it. A quantisation's scales that stand by themselves (of a cache of keys, of
    activations) keep their dtype, which a note says.

    Parameters
    ----------
    target
        A floating dtype of at least 8 bits, or its name.
    keep
        Name patterns of tensors to leave as they are.
    saturate
        Give values beyond the target's range, Inf too, its largest finite value (as torch does for float8_e4m3fn)
        instead of Inf, or NaN where the dtype has no Inf (as IEEE 754 and ml_dtypes do, and torch for the others).
    spare
        Says which tensors' readers take no dtype but theirs: they are left as they are, and that is noted.

    Raises
    ------
    SpecError
        `target` is not such a dtype, or weights are packed in a way that is not decoded.
    TensorNotFoundError
        A pattern of `keep` matches nothing.
    """
    target = dtype(target)
    if target.name not in _TARGETS:
        raise SpecError(f"cannot cast to {target}", expected=f"one of {', '.join(_TARGETS)}")

    def transform(tensor_map: TensorMap) -> TensorMap:
        kept = matching(tensor_map, keep) if keep else set()
        refuse(tensor_map, option("dtype"), kept)
        scales = [name for name in tensor_map if name not in kept and is_scale(name)]
        kept.update(scales)
        spared = {n for n, t in tensor_map.items() if spare is not None and t.dtype.is_float and spare(n, t)} - kept

        def one(name: str, tensor: Tensor) -> Tensor:
            if name in kept or name in spared or not tensor.dtype.is_float:
                return tensor
            if tensor.dtype == target:
                return decoded(tensor)
            return _cast_tensor(tensor, target, saturate)

        found = tensor_map.map(one)
        found = found.replace(metadata=without_file_type(found.metadata))
        what = f"{len(spared):,} norms, biases and tables of positions stay float32: llama.cpp reads no other"
        notes = [what] if spared and target.name != "float32" else []
        return found.noted(*notes, *_kept(tensor_map, scales, target))

    return transform


def _kept(tensor_map: TensorMap, scales: Sequence[str], target: DType) -> list[str]:
    """Say which scales were not cast."""
    changed = [name for name in scales if tensor_map[name].dtype != target]
    n = (
        f"{len(changed):,} scales of a quantisation keep their dtypes"
        if len(changed) > 1
        else "a scale keeps its dtype"
    )
    return [f"{n} (first {changed[0]!r}), for rounding them would change what they scale"] if changed else []


def native_floats(tensor_map: TensorMap) -> TensorMap:
    """Widen floats that NumPy does not know (bfloat16, 8 bits and fewer) to float32, which holds them exactly.

    Raises
    ------
    SpecError
        Weights are packed: their floats mean nothing without their scales.
    """
    refuse(tensor_map, f"{option('npz_bf16')} float32")

    def one(name: str, tensor: Tensor) -> Tensor:
        return _cast_tensor(tensor, _FLOAT32) if _is_foreign(tensor.dtype) and not is_scale(name) else tensor

    return tensor_map.map(one)


def _is_foreign(dtype: DType) -> bool:
    return dtype.is_float and dtype.name not in ("float16", "float32", "float64")


def _cast_tensor(tensor: Tensor, target: DType, saturate: bool = False) -> Tensor:
    fn = partial(cast_block, target=target, saturate=saturate)
    return Tensor(Spec(target, tensor.shape), Elementwise(tensor.reader, fn))


def cast_block(block: Array, target: DType, saturate: bool = False) -> Array:
    """Return `block` (any floating dtype) rounded to nearest, ties to even, in the dtype `target`."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if saturate:
            block = _clipped(block, target)
        if block.dtype == np.float64 and target.bits < 32 and target.name != "float16":
            block = to_odd(block)
        if target.name == "float16" and block.dtype.itemsize < 4:
            block = block.astype(np.float32)
        return block.astype(target.numpy)


def _clipped(block: Array, target: DType) -> Array:
    import ml_dtypes
    import numpy as np

    limit = float(ml_dtypes.finfo(target.numpy).max)  # type: ignore[no-untyped-call]
    wide = block.astype(np.float32) if block.dtype.itemsize < 4 else block
    return np.clip(wide, -limit, limit) if limit < float(np.finfo(wide.dtype).max) else wide


def to_odd(block: Array) -> Array:
    """Round float64 to float32 by round-to-odd, after which a second rounding to fewer bits is exact.

    Casting float64 to bfloat16 by way of a float32 rounded to nearest rounds twice, and ties go wrong.

    References
    ----------
    S. Boldo and G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
    odd", IEEE Transactions on Computers 57(4), 2008, theorem 3.
    """
    import numpy as np

    bits = block.view(np.int64)
    sticky = (bits & _CUT) + _CUT  # carries into the last bit that float32 keeps where anything is cut off
    odd = ((bits | sticky) & ~_CUT).view(np.float64).astype(np.float32)
    is_subnormal = (odd.view(np.uint32) << np.uint32(1)) - np.uint32(1) < np.uint32(0xFFFFFF)
    if is_subnormal.any():  # these have fewer bits to keep
        odd[is_subnormal] = _to_odd_with_care(block[is_subnormal])
    return odd


def _to_odd_with_care(block: Array) -> Array:
    import numpy as np

    near = block.astype(np.float32)
    bits = near.view(np.uint32).copy()
    wide = near.astype(np.float64)
    bits -= (np.abs(wide) > np.abs(block)).astype(np.uint32)
    bits |= ((wide != block) & ~np.isnan(block)).astype(np.uint32)
    return bits.view(np.float32)
