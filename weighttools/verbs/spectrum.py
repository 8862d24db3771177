"""The verb ``spectrum``: the singular values of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import OPENING

if TYPE_CHECKING:
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import SpectrumRecord
from weighttools.verbs.records import Record

OPTIONS = (
    Option(
        "ranks", int, (1, 8, 16, 32, 64), "Give the energy (part of the squared norm) at these ranks.",
        least=1, by_commas=True, metavar="R,...", shows_default=True,
    ),
    Option(
        "exact_limit", int, 4096, "Decompose matrices whose smaller side is larger by a randomized method.",
        least=0, shows_default=True,
    ),
    Option("values", bool, False, "List the singular values, in JSON."),
    *OPENING,
    Option("threads", int, least=1, help="Tensors at a time. [default: one a CPU]", decides=False),
)  # fmt: skip


@takes(*OPTIONS)
def spectrum(
    path: PathLike | TensorMap,
    *,
    ranks: Sequence[int] = (1, 8, 16, 32, 64),
    exact_limit: int = 4096,
    values: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> SpectrumRecord:
    """Describe the singular values of every matrix, and of kernels as matrices of their first axis by all others.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    ranks
        Give the part of the squared Frobenius norm that the first so many singular values hold.
    exact_limit
        Matrices whose smaller side is larger are decomposed by a randomized method: the largest 256 singular values,
        with a bound on the error of the first.
    values
        List the singular values.
    include, exclude, assume, root
        As for `open`.
    threads
        Tensors at a time; default: one a CPU, where BLAS can be held to one thread (OpenBLAS, Accelerate).
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes of each tensor just done.

    Returns
    -------
    SpectrumRecord
        A ``weighttools.spectrum/1`` record; what its figures mean says `weighttools.analyzers.spectrum.figures`.
    """
    from functools import partial

    from weighttools.analyzers import spectrum as spectra
    from weighttools.core import blas
    from weighttools.formats.opening import name_of
    from weighttools.io.ahead import planned_reading

    request = spectra.SpectrumRequest(tuple(ranks), exact_limit, values)
    tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
    names = spectra.matrix_names(list(tensor_map), tensor_map.specs())
    tensors = [tensor_map[name] for name in names]
    rows: list[Record] = []
    with planned_reading(tensors, planned, progress) as told:
        done = blas.over(partial(spectra.analyse, request=request), tensors, threads)
        for name, tensor, figures in zip(names, tensors, done, strict=True):
            rows.append({"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), **figures})
            told(tensor.spec.nbytes)
    found = {
        "schema": "weighttools.spectrum/1",
        "path": name_of(path),
        "n_left_out": len(tensor_map) - len(names),
        "tensors": rows,
        "notes": list(tensor_map.origin.notes),
    }
    return cast("SpectrumRecord", found)
