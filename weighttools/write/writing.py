"""Writing a map to a target: choose the format, say what it cannot hold, plan, then write atomically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.core import plan
from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.encodings import bitmask_bytes
from weighttools.core.engine import n_threads
from weighttools.core.memory import keep_pages
from weighttools.core.readers import Positioned
from weighttools.core.tensor import Tensor, confirm
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SourceError, SpecError
from weighttools.formats import load
from weighttools.formats.base import WriteOptions
from weighttools.formats.huggingface import format as huggingface
from weighttools.io.beside import LEAVES, companion, not_copied, why_not_copied
from weighttools.io.directory import atomic_directory, keep_others
from weighttools.io.progress import Progress, silent
from weighttools.io.sink import atomic_file
from weighttools.io.source import path_of_url
from weighttools.transforms.cast import native_floats
from weighttools.write.plan import (
    Plan,
    check_compression,
    check_store,
    names_notes,
    plan_target,
    refuse_encodings,
    shard_notes,
    structure_notes,
    tie_notes,
)
from weighttools.write.verify import Verification

if TYPE_CHECKING:
    from weighttools.io.source import LocalFile

_COPY_BYTES = 8 << 20
_WEIGHTS = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".keras",
    ".msgpack",
    ".onnx",
    ".gguf",
    ".npz",
    ".npy",
    ".ot",
)


def write(
    tensor_map: TensorMap,
    dst: str,
    *,
    original: TensorMap | None = None,
    format_name: str | None = None,
    max_shard_size: int | str | None = None,
    single: bool = False,
    compression: str | None = None,
    store: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    npz_bf16: str = "keep",
    beside: Mapping[str, bytes] | None = None,
    progress: Progress = silent,
    last: Callable[[], object] | None = None,
    verify: bool = False,
    further: Callable[[TensorMap], object] | None = None,
) -> dict[str, Any]:
    """Plan, check and write; return a ``weighttools.convert/1`` record.

    `last` is called when all is written and nothing has its name yet; if it fails, nothing gets it. So it is with
    `verify`, which compares what the format's reference reader reads back, and with what `further` then makes of it.
    """
    dst = path_of_url(dst) if dst.startswith("file://") else dst
    if npz_bf16 not in ("keep", "float32"):
        raise SpecError(f"--npz-bf16 {npz_bf16!r} is not known", expected="keep or float32")
    compression = None if compression == "none" else compression
    if single and max_shard_size is not None:
        raise SpecError("--single and --max-shard-size exclude each other")
    if verify and dst == "-":
        raise SpecError("--verify reads what was written", subject=dst, expected="a file or directory as target")
    planned = plan_target(tensor_map, dst, format_name, max_shard_size, single)
    planned.replaced = _replaced(planned)
    _refuse_nesting(tensor_map, planned)
    if planned.is_directory and "tokenizer.json" in (beside or {}):
        tensor_map = _without_tokenizer(tensor_map)
    if npz_bf16 == "float32" and planned.format in ("npz", "npy"):
        original, tensor_map = original or tensor_map, native_floats(tensor_map)
    refuse_encodings(tensor_map, planned.format)
    check_compression(planned, compression)
    check_store(planned, store)
    planned.notes += _known_before(tensor_map, planned, max_shard_size, beside or {})
    changed, reported = _watched(tensor_map)
    _refuse_loss(tensor_map, planned)
    options = WriteOptions(None, compression, _bitmasks(changed, planned, store, progress), beside or {})
    lost = _lost(tensor_map, planned, options.beside)
    proof = Verification(tensor_map, planned, options.bitmasks, progress, further) if verify else None
    if not dry_run:
        with keep_pages():
            _execute(changed, planned, options, force, progress, last or (lambda: None), proof)
    sizes = stored_sizes(tensor_map, options)
    record = _record(tensor_map, planned, original or tensor_map, sizes, written=not dry_run) | {"replaced": lost}
    record |= proof.record() if proof else {}
    if not tensor_map.origin.reports:
        return record
    from weighttools.transforms.tally import emptied

    transforms = reported(not dry_run)
    return record | {"transforms": transforms, "notes": [*record["notes"], *emptied(transforms[-1])]}


def _known_before(
    tensor_map: TensorMap, planned: Plan, max_shard_size: int | str | None, beside: Mapping[str, bytes]
) -> list[str]:
    """Return what should be known before a byte is written."""
    return [
        *shard_notes(tensor_map, planned, max_shard_size, beside),
        *tie_notes(tensor_map, planned),
        *structure_notes(tensor_map, planned),
        *names_notes(tensor_map, planned),
        *tensor_map.origin.notes,
        *load(planned.format).losses(tensor_map),
    ]


def _without_tokenizer(tensor_map: TensorMap) -> TensorMap:
    """Leave out of the metadata the tokenizer of a GGUF file that is written as files of its own."""
    rest = {key: value for key, value in tensor_map.metadata.items() if not key.startswith("tokenizer.")}
    return tensor_map.replace(metadata=rest)


def _refuse_loss(tensor_map: TensorMap, planned: Plan) -> None:
    """Refuse to put a shard in the place of the model that it is a part of, whose other shards would be lost."""
    if not planned.is_directory:
        return
    target, source = Path(planned.target), Path(tensor_map.origin.path)
    whole = f"{huggingface.stem_of(planned.files)}.safetensors"
    parts = [target / name for name in planned.replaced - {whole}]
    if source.is_file() and any(os.path.exists(part) and source.samefile(part) for part in parts):
        raise SpecError(
            "is a part of the model that would be replaced",
            subject=source,
            remedy="name another directory, or give the whole one",
        )


def _replaced(planned: Plan) -> frozenset[str]:
    return huggingface.superseded(Path(planned.target), planned.files) if planned.is_directory else frozenset()


def _refuse_nesting(tensor_map: TensorMap, planned: Plan) -> None:
    """Refuse to write a directory inside the one that is read: it would be copied with it at the next run."""
    origin = tensor_map.origin.path
    if not (planned.is_directory and origin and os.path.isdir(origin)):
        return
    if Path(os.path.realpath(origin)) in Path(os.path.realpath(planned.target)).parents:
        raise SpecError(
            f"lies inside what is read, {origin}",
            subject=planned.target,
            expected="a directory of its own",
            remedy="name one beside it",
        )


def places(tensor_map: TensorMap, record: Mapping[str, Any], beside: Iterable[str] = ()) -> set[Path]:
    """Return the files that a planned write makes or removes, links followed; none of standard output.

    Parameters
    ----------
    tensor_map
        What is to be written.
    record
        Of `write`, as a dry run gives it.
    beside
        Names of the files to be written with the weights.
    """
    target, files = Path(record["dst"]), [file["name"] for file in record["files"]]
    if record["dst"] == "-":
        return set()
    if record["format"] != huggingface.NAME:
        return {Path(os.path.realpath(target))}
    names = {*files, *beside, *record["replaced"], *_names_of_companions(tensor_map)}
    return {Path(os.path.realpath(target / name)) for name in names}


def _names_of_companions(tensor_map: TensorMap) -> list[str]:
    """Return the names of what lies beside the weights of a source directory; of any other source none."""
    origin = Path(tensor_map.origin.path)
    if not tensor_map.origin.path or not origin.is_dir():
        return []
    return [path.relative_to(origin).as_posix() for path in _companions(origin)]


def _lost(tensor_map: TensorMap, planned: Plan, beside: Iterable[str]) -> list[str]:
    """Return the files of a target directory that are not there, or not the same, once the new ones are."""
    target, origin = Path(planned.target), Path(tensor_map.origin.path)
    if not planned.is_directory or not target.is_dir():
        return []
    is_itself = bool(tensor_map.origin.path) and origin.is_dir() and target.samefile(origin)
    copied = [] if is_itself else _names_of_companions(tensor_map)
    files = {*beside, *(name for name in copied if not why_not_copied(origin, origin / name, MAX_COMPANION_BYTES))}
    return sorted({*planned.replaced, *(name for name in files if os.path.lexists(target / name))})


def _watched(tensor_map: TensorMap) -> tuple[TensorMap, Callable[[bool], list[Mapping[str, Any]]]]:
    """Return the map, counting what changed tensors hold if there are any, and the reports that then can be given."""
    if not tensor_map.origin.reports:
        return tensor_map, lambda written: []
    from weighttools.transforms.tally import reports, watched

    changed, tally = watched(tensor_map)
    return changed, lambda written: reports(tensor_map, tally, written)


def _bitmasks(tensor_map: TensorMap, planned: Plan, store: str | None, progress: Progress) -> Mapping[str, Any]:
    """Count what bitmasks would keep, if they are asked for; it reads all values."""
    if store is None:
        return {}
    from weighttools.encodings.bitmask import counted

    found = counted(tensor_map, progress=progress)
    if found:
        planned.notes.append(
            f"{len(found):,} tensors are stored as bitmasks, which weighttools reads and no other tool; "
            "weighttools convert makes plain tensors of them"
        )
    else:
        planned.notes.append("no tensor takes less room as a bitmask: all are stored as ever")
    return found


def stored_sizes(tensor_map: TensorMap, options: WriteOptions) -> dict[str, int]:
    """Return how many bytes each tensor takes as the options say."""
    sizes = {name: tensor.spec.encoded_bytes for name, tensor in tensor_map.items()}
    for name, counts in options.bitmasks.items():
        spec = tensor_map[name].spec
        sizes[name] = bitmask_bytes(spec.n_elements, int(counts.sum()), spec.dtype.bits)
    return sizes


def _execute(
    tensor_map: TensorMap,
    planned: Plan,
    options: WriteOptions,
    force: bool,
    progress: Progress,
    last: Callable[[], object],
    proof: Verification | None,
) -> None:
    if planned.is_directory:
        _write_directory(tensor_map, planned, options, force, progress, last, proof)
        return
    writer = load(planned.format).write
    assert writer is not None
    with atomic_file(planned.target, force=force, progress=progress) as sink:
        writer(tensor_map, sink, options)
        _confirm(tensor_map)
        if proof and sink.path:
            sink.finish()
            proof.check(sink.path)
        last()


def _confirm(tensor_map: TensorMap) -> None:
    """Check, while the target is not there yet, the CRC-32 of everything that was read for it."""
    for tensor in tensor_map.values():
        confirm(tensor)


def _write_directory(
    tensor_map: TensorMap,
    planned: Plan,
    options: WriteOptions,
    force: bool,
    progress: Progress,
    last: Callable[[], object],
    proof: Verification | None,
) -> None:
    old = Path(planned.target)
    with atomic_directory(planned.target, force=force) as new:
        huggingface.write(tensor_map, new, planned.files, options, progress)
        _confirm(tensor_map)
        if proof:
            proof.check(new)
        found = {name: why for name, why in _copy_companions(tensor_map, new).items() if name not in options.beside}
        for name, content in options.beside.items():
            (new / name).write_bytes(content)
        if old.is_dir():
            keep_others(old, new, (planned.replaced | _replaced(planned)).__contains__)
        first = huggingface.taken_before(new, planned.files)
        lacking = {name: why for name, why in found.items() if why and not os.path.lexists(new / name)}
        last()
    copied = [name for name, why in found.items() if not why]
    planned.notes += [f"copied with the weights: {', '.join(copied)}"] if copied else []
    planned.notes += not_copied(lacking)
    if first is not None:
        planned.notes.append(f"{first} is another model's, and who reads the directory takes it before this one")


def _copy_companions(tensor_map: TensorMap, new: Path) -> dict[str, str]:
    """Copy what lies beside the weights of a source directory (configuration, tokenizer), but no other weights.

    Each one's name is returned, with why it was not copied, or nothing if it was.
    """
    origin = Path(tensor_map.origin.path)
    if not tensor_map.origin.path or not origin.is_dir():
        return {}
    found = {}
    for path in _companions(origin):
        inside = path.relative_to(origin)
        why = found[str(inside)] = why_not_copied(origin, path, MAX_COMPANION_BYTES)
        file = None if why else companion(origin, str(inside))
        if file is not None:
            (new / inside).parent.mkdir(parents=True, exist_ok=True)
            _copy(file, new / inside)
        elif not why:  # it was exchanged since
            found[str(inside)] = LEAVES
    return found


def _copy(file: LocalFile, target: Path) -> None:
    with target.open("wb") as out:
        for at in range(0, file.size, _COPY_BYTES):
            out.write(file.read(at, min(_COPY_BYTES, file.size - at)))


def _companions(directory: Path) -> Iterable[Path]:
    """Yield the files beside the weights, and links to folders, which are not looked into."""
    for folder, folders, names in os.walk(directory, onerror=_fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            if not (name.startswith(".") or name.lower().endswith((*_WEIGHTS, ".index.json"))):
                yield Path(folder) / name


def _fail(error: OSError) -> None:
    raise SourceError(f"cannot be read: {error.strerror}", subject=error.filename) from None


def _record(
    tensor_map: TensorMap, planned: Plan, original: TensorMap, sizes: Mapping[str, int], *, written: bool
) -> dict[str, Any]:
    pairs = [(tensor_map[name].spec, original[name].spec) for name in tensor_map]
    return {
        "schema": "weighttools.convert/1",
        "src": tensor_map.origin.path,
        "dst": planned.target,
        "format": huggingface.NAME if planned.is_directory else planned.format,
        "written": written,
        "n_tensors": len(tensor_map),
        "n_cast": sum(now.dtype != then.dtype for now, then in pairs),
        "n_dequantized": sum(then.is_quantized and not now.is_quantized for now, then in pairs),
        "n_quantized": sum(now.is_quantized and not then.is_quantized for now, then in pairs),
        "stored_bytes": sum(sizes.values()),
        "planned_peak_bytes": max(planned_peak(tensor_map.values()), _planning_peak(tensor_map)),
        "files": [_file_record(sizes, file, names) for file, names in planned.files.items()],
        "notes": planned.notes,
    }


def _planning_peak(tensor_map: TensorMap) -> int:
    """Return the most memory that transforms took to plan, as they report it."""
    return max((report.get("planning_bytes", 0) for report in tensor_map.origin.reports), default=0)


def _file_record(sizes: Mapping[str, int], file: str, names: list[str]) -> dict[str, Any]:
    return {"name": file, "n_tensors": len(names), "stored_bytes": sum(map(sizes.__getitem__, names))}


def planned_peak(tensors: Iterable[Tensor]) -> int:
    """Return the planned peak memory of values, in bytes: copied tensors need one buffer, decoded ones their blocks."""
    decoded = [t for t in tensors if t.stored is None or not (t.spec.encoding == "raw" or t.spec.is_quantized)]
    blocks = [min(t.run_elements, t.n_elements) * _element_bytes(t) for t in decoded]
    return max(_COPY_BYTES, plan.peak_bytes(blocks, n_threads()))


def _element_bytes(tensor: Tensor) -> int:
    """Return the bytes that one element under way takes; where it is computed, in float64 and with temporaries."""
    if isinstance(tensor.decode, Positioned):
        return 40
    return int(getattr(tensor.decode, "element_bytes", max(8, tensor.dtype.bits) // 8))
