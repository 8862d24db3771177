"""The verb ``convert``: a checkpoint in another format, dtype, sharding or layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.options import READING, TAKING, WRITING
from weighttools.verbs.save import DEQUANTIZE, VERIFY

if TYPE_CHECKING:
    from weighttools.core.dtypes import DType
    from weighttools.core.tensormap import TensorMap, Transform
    from weighttools.formats.opening import PathLike
    from weighttools.transforms.layout_change import Layout
    from weighttools.verbs.records import Record

FRAMEWORKS = ("torch", "keras", "flax", "mlx")
OPTIONS = (
    Option("dtype", None, metavar="DTYPE", help="Cast floating tensors, e.g. to bfloat16; integers stay."),
    Option(
        "keep_dtype", default=(), many=True, metavar="PATTERN",
        help="Do not cast tensors whose name matches. Repeatable.",
    ),
    Option(
        "saturate", bool, False,
        help="Clip to the dtype's range; without it, what is too large becomes Inf or NaN.",
    ),
    DEQUANTIZE,
    Option("quantize", metavar="ENCODING", help="Encode float weights of a GGUF target: q8_0."),
    Option("names", choices=("hf", "gguf"), help="Translate names and layout to Hugging Face's or GGUF's."),
    Option(
        "rename", default=(), many=True, metavar="OLD=NEW",
        help="Names that begin with OLD begin with NEW; or re:PATTERN=REPLACEMENT. The first that fits. Repeatable.",
    ),
    Option(
        "apply", None, default=(), many=True, metavar="NAME[:ARGUMENT,...]",
        help="Apply a transform that an installed package adds, or our own, before --dtype and the like. Repeatable.",
    ),
    *TAKING,
    Option(
        "layout", choices=FRAMEWORKS,
        help="Rename and transpose as this framework does; what cannot be known is refused.",
    ),
    Option("layout_from", choices=FRAMEWORKS, help="The source's layout, if it is not told by itself."),
    Option(
        "layout_rule", default=(), many=True, metavar="PATTERN=RULE",
        help="What the tensors are whose name matches: linear, embedding, conv2d, depthwise2d, norm, transpose(1,0), "
        "keep, drop, …. Repeatable.",
    ),
    VERIFY,
    Option(
        "tied", default="alias", choices=("alias", "copy", "error"), shows_default=True,
        help="Tied tensors: keep the tie where the target can, write each name out, or refuse.",
    ),
    *WRITING,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def convert(
    src: PathLike | TensorMap,
    dst: PathLike,
    *,
    dtype: str | DType | Any | None = None,
    keep_dtype: Sequence[str] = (),
    saturate: bool = False,
    dequantize: bool = False,
    quantize: str | None = None,
    names: str | None = None,
    rename: Sequence[str] = (),
    apply: Sequence[str | Transform] | str | Transform = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    layout: str | None = None,
    layout_from: str | None = None,
    layout_rule: Sequence[str] = (),
    verify: bool = False,
    tied: str = "alias",
    format: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    npz_bf16: str = "keep",
    dry_run: bool = False,
    force: bool = False,
    assume: str | None = None,
    root: str | None = None,
    beside: Mapping[str, bytes] | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> Record:
    """Convert a checkpoint to another format, dtype, sharding or layout, in memory that does not grow with it.

    Parameters
    ----------
    src
        As for `open`, or an open map.
    dst
        The target. One with a suffix is a file; one without is a Hugging Face directory; ``"-"`` is standard output.
    dtype
        Cast floating tensors to this dtype: a name, or a dtype of NumPy or ml_dtypes.
    keep_dtype
        Name patterns of tensors that are not cast.
    saturate
        Clip to the range of `dtype` instead of giving Inf or NaN.
    dequantize
        Decode quantised tensors to float32; with `dtype` they are decoded anyway.
    quantize
        Encode floating weights of two dimensions or more, for a format that holds them: ``"q8_0"``.
    names
        Translate names, and the layout that goes with them, to ``"hf"`` (Hugging Face) or ``"gguf"``.
    rename
        Then rename by rules, ``"OLD=NEW"`` for beginnings or ``"re:PATTERN=REPLACEMENT"``; the first that fits.
    apply
        Then apply these transforms, in order: by name (``"NAME"`` or ``"NAME:ARGUMENT,KEY=VALUE"``, our own or an
        installed package's), or functions from TensorMap to TensorMap.
    include, exclude
        Name patterns of tensors to take, and to leave out.
    layout, layout_from
        Rename and transpose tensors as this framework lays them out: ``"torch"``, ``"keras"``, ``"flax"`` or
        ``"mlx"``; from the layout of `layout_from`, or of the framework that the names and shapes speak for.
    layout_rule
        ``PATTERN=RULE``: what tensors are where the names do not tell; see `transforms.layout.layout`.
    verify
        Before the target gets its name, read what was written back with the format's reference reader (safetensors,
        NumPy, h5py, gguf, PyTorch), where it is installed, else with our own, and compare each tensor bit for bit with
        what was to be written; with `layout` also take every tensor back to the source's. If that fails, the target
        stays as it was.
    tied
        What becomes of tied tensors: ``"alias"`` keeps them where the target can, ``"copy"`` writes each name out,
        ``"error"`` refuses.
    format
        The target's format, if its suffix does not say it.
    max_shard_size
        Largest shard of a directory, in bytes or as ``"5GB"``; default 5 GB.
    single
        Write a directory's weights as one file.
    compression
        Compress the values, where the format can: ``"gzip"`` for HDF5.
    store
        ``"bitmask"`` stores tensors with many zeros as a bit for each element and the other values, in safetensors;
        see `weighttools.encodings.bitmask`. The values are read twice.
    npz_bf16
        How NPZ and NPY hold floats that NumPy does not know: ``"keep"`` their bits, ``"float32"`` widens them exactly.
    dry_run
        Plan only: write nothing.
    force
        Replace an existing target.
    assume, root
        As for `open`.
    beside
        Files to put into a target directory, by name; they take the place of the source's. By default, with `names`
        ``"hf"`` from a GGUF file, config.json and the tokenizer's files that its metadata stand for.
    planned
        Called once with the number of bytes that `progress` will be told.
    progress
        Called with the number of bytes just written, or just looked at where `store` needs that first.

    Returns
    -------
    dict
        A ``weighttools.convert/1`` record: what was (or would be) written, planned peak memory, notes. With
        `layout` also `layout` (source, target, evidence), `layout_log` (a row for each tensor: src, dst, rule, why,
        shape_src, shape_dst) and `n_verified`. With `verify` also `n_verified`, how many tensors were compared, and
        `verified_with`, a row for each reader: reader, n_tensors, and why it was our own, if it was.

    Raises
    ------
    SourceError
        The target exists and `force` is not given, or cannot be written; it is then as it was.
    SpecError
        Options do not fit each other, the format cannot hold the map, or something that is read would be lost.
    TensorNotFoundError
        A pattern matches nothing.
    CorruptFileError
        What `verify` read back is not what was to be written.
    """
    from weighttools.core.engine import collector_paused
    from weighttools.formats.base import ReadOptions
    from weighttools.formats.opening import chosen
    from weighttools.transforms.changes import recoded, taken
    from weighttools.write.plan import plan

    with collector_paused():
        target = os.fspath(dst)
        opened = chosen(src, (), (), ReadOptions(assume, root))
        if beside is None and names == "hf":
            opened = _with_companions(opened, target, format)
        before = taken(opened, include, exclude, names, rename, apply)
        for_llama_cpp = names == "gguf" or _is_for_llama_cpp(before, target, format)
        after = recoded(before, dequantize, dtype, keep_dtype, saturate, quantize, tied, for_llama_cpp)
        change = _plan_layout(before, target, layout, layout_from, layout_rule)
    made = plan(
        change.apply(after) if change else after, target,
        original=change.apply(before) if change else before, format=format, max_shard_size=max_shard_size,
        single=single, compression=compression, store=store, npz_bf16=npz_bf16, force=force, beside=beside,
        verify=verify, further=_taken_back(change, after) if change else None,
    )  # fmt: skip
    record = made.run(dry_run=dry_run, planned=planned, progress=progress)
    return record | _laid_out(change, record) if change else record


def _is_for_llama_cpp(tensor_map: TensorMap, dst: str, format: str | None) -> bool:
    """Whether a model of GGUF's own names and settings becomes a GGUF file again."""
    to_gguf = (format or "").lower() == "gguf" or (format is None and dst.lower().endswith(".gguf"))
    return to_gguf and "general.architecture" in tensor_map.metadata


def _with_companions(opened: TensorMap, dst: str, format: str | None) -> TensorMap:
    """Return a GGUF file's map with the files that go into a target directory with its tensors."""
    from weighttools.write.destination import means_directory

    if not means_directory(dst, format):
        return opened
    from weighttools.train.checkpoints.companions import gguf_files

    files, lacking = gguf_files(opened)
    return opened.replace(origin=opened.origin._replace(beside=files, lacking=tuple(lacking)))


def _plan_layout(
    tensor_map: TensorMap, dst: str, target: str | None, source: str | None, rules: Sequence[str]
) -> Layout | None:
    """Plan the change of layout that the options ask for, if any."""
    from weighttools.errors import SpecError, option

    if target is None:
        if source or rules:
            fact = f"{option('layout_from')} and {option('layout_rule')} need {option('layout')}"
            raise SpecError(fact, expected="the target's layout")
        return None
    from weighttools.transforms.layout import layout
    from weighttools.transforms.layout_keras import structure_for

    return layout(tensor_map, target, source, rules, structure_for(dst) if target == "keras" else None)


def _laid_out(change: Layout, record: Record) -> Record:
    """Return what a record says of a change of layout."""
    where = {"source": change.source, "target": change.target, "evidence": list(change.evidence)}
    return {"layout": where, "layout_log": change.log(), "n_verified": record.get("n_verified", 0)}


def _taken_back(change: Layout, before: TensorMap) -> Callable[[TensorMap], int]:
    """Return what proves of a map of what was written that a change of layout lost nothing."""
    from weighttools.transforms.layout_verify import verify

    return lambda after: verify(before, after, change)
