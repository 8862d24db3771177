"""The verb ``open``: a checkpoint as a map of lazy tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weighttools.core.options import takes
from weighttools.verbs.options import OPENING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike

OPTIONS = OPENING


@takes(*OPTIONS)
def open(
    path: PathLike | TensorMap,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
) -> TensorMap:
    """Open a checkpoint; only headers are read.

    Parameters
    ----------
    path
        A weight file, a directory with weights, an index file, ``org/model`` in the local Hugging Face cache, a
        ``file://`` URL of one of these, or ``-`` for standard input. Every verb takes this, or an open map.
    include
        Take only tensors whose whole name matches one of these patterns, case and all: a glob (``*`` crosses dots) or
        ``re:REGEX``.
    exclude
        Leave out tensors whose name matches; wins over `include`.
    assume
        The dtype of elements whose type the file does not name (a bare ``V2`` in an NPZ).
    root
        The part of a nested checkpoint to read, by its dotted path; ``"."`` reads all of it by full names. By
        default the usual wrappers (``state_dict``, ``model``, …) are taken off, and a note says so.

    Raises
    ------
    SourceError
        There is nothing to read there.
    FormatError
        What is there is not known, damaged, or unsafe.
    TensorNotFoundError
        A pattern matches nothing, or all together leave nothing.
    SpecError
        `assume` or `root` is given for a map that is open already.

    Examples
    --------
    >>> tensor_map = open("fixtures/safetensors/tiny/model.safetensors", exclude="*.bias")
    >>> tensor_map["fc.weight"].shape
    (3, 4)
    >>> tensor_map["fc.weight"][0, :2]
    array([0., 1.], dtype=float32)
    """
    from weighttools.formats.base import ReadOptions
    from weighttools.formats.opening import chosen

    return chosen(path, include, exclude, ReadOptions(assume, root))
