"""What `convert` can change on the way: the options, and the transforms that they mean, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from weighttools.core.patterns import listed
from weighttools.errors import SpecError

if TYPE_CHECKING:
    from weighttools.core.dtypes import DType
    from weighttools.core.tensormap import TensorMap, Transform

T = TypeVar("T")


class Changes(TypedDict, total=False):
    """The changes, each optional.

    Attributes
    ----------
    include, exclude
        Name patterns of tensors to take, and to leave out.
    names
        Translate names, and the layout that goes with them, to ``"hf"`` (Hugging Face) or ``"gguf"``.
    rename
        Then rename by rules, ``"OLD=NEW"`` for beginnings or ``"re:PATTERN=REPLACEMENT"``; the first that fits.
    apply
        Then apply these transforms, in order: by name (``"NAME"`` or ``"NAME:ARGUMENT,KEY=VALUE"``, our own or an
        installed package's), or functions from TensorMap to TensorMap.
    dequantize
        Decode quantised tensors to float32; with `dtype` they are decoded anyway.
    dtype
        Cast floating tensors to this dtype: a name, or a dtype of NumPy or ml_dtypes.
    keep_dtype
        Name patterns of tensors that are not cast.
    saturate
        Clip to the range of `dtype` instead of giving Inf or NaN.
    quantize
        Encode floating weights of two dimensions or more, for a format that holds them: ``"q8_0"``.
    tied
        What becomes of tied tensors: ``"alias"`` keeps them where the target can, ``"copy"`` writes each name out,
        ``"error"`` refuses.
    """

    include: Sequence[str]
    exclude: Sequence[str]
    names: str | None
    rename: Sequence[str]
    apply: Sequence[str | Transform]
    dequantize: bool
    dtype: str | DType | Any | None
    keep_dtype: Sequence[str]
    saturate: bool
    quantize: str | None
    tied: str


def taken(tensor_map: TensorMap, changes: Changes) -> TensorMap:
    """Return the tensors that the changes take, under the names that they shall have, as other transforms give them."""
    chosen = tensor_map.select(*listed(changes.get("include", ())), exclude=changes.get("exclude", ()))
    if names := changes.get("names"):
        from weighttools.transforms.gguf_names import translate

        chosen = translate(names)(chosen)
    if rules := changes.get("rename"):
        from weighttools.transforms.renaming import rename

        chosen = rename(rules)(chosen)
    if steps := changes.get("apply"):
        from weighttools.transforms.naming import parsed

        named = [steps] if isinstance(steps, str) or callable(steps) else steps
        chosen = chosen.pipe(*(parsed(step) if isinstance(step, str) else step for step in named))
    return chosen


def recodings(changes: Changes, for_llama_cpp: bool = False) -> Iterator[Transform]:
    """Yield the transforms that change how the taken tensors are stored, in the order in which they apply.

    Parameters
    ----------
    changes
        What is asked for.
    for_llama_cpp
        Whether llama.cpp is to read the result, which takes norms and biases as float32 only.

    Raises
    ------
    SpecError
        An option does not fit the others, or is not known.
    """
    dtype = changes.get("dtype")
    if changes.get("keep_dtype") and dtype is None:
        raise SpecError("--keep-dtype needs --dtype", expected="a dtype to cast the other tensors to")
    if changes.get("dequantize"):
        from weighttools.transforms.dequantize import dequantize

        yield dequantize()
    if dtype is not None:
        from weighttools.transforms.cast import cast
        from weighttools.transforms.gguf_layout import is_full

        spare = is_full if for_llama_cpp or changes.get("names") == "gguf" else None
        yield cast(dtype, changes.get("keep_dtype", ()), changes.get("saturate", False), spare)
    if encoding := changes.get("quantize"):
        from weighttools.transforms.quantize import quantize

        yield quantize(encoding)
    if tied := changes.get("tied"):
        from weighttools.transforms.ties import TIED

        yield choice("tied", tied, TIED)


def choice(option: str, value: str, table: Mapping[str, T]) -> T:
    """Return what `value` means in a table of choices.

    Raises
    ------
    SpecError
        It means nothing; the choices are given.
    """
    if value not in table:
        raise SpecError(f"--{option} {value!r} is not known", expected=f"one of {', '.join(table)}")
    return table[value]
