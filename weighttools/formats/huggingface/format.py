"""Hugging Face checkpoint directories: one weight file, or shards and the index that says which tensor is where.

Safetensors files come first; a directory that has only PyTorch's ``.bin`` files is read alike.

Source: huggingface_hub, ``serialization/_torch.py`` and ``_base.py`` (index and shard names); the cache's layout is
documented in its guide "Understand caching". The index is followed, never a glob; it is held against the shards
both ways; its totals are computed anew, never believed.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from weighttools.core import plan
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import CorruptFileError, SourceError, UnknownFormatError, WeighttoolsError, few, printable
from weighttools.formats import other_kinds, read_file
from weighttools.formats.base import ReadOptions, WriteOptions
from weighttools.formats.safetensors import format as safetensors
from weighttools.io.beside import check_name, links_out, weights
from weighttools.io.progress import Progress, silent
from weighttools.io.source import LocalFile
from weighttools.io.text import read_json

NAME = "huggingface"
INDEX = ".safetensors.index.json"
DCP_METADATA = ".metadata"
STEMS = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
KINDS = {".safetensors": "safetensors", ".bin": "pytorch"}
"""Suffixes of the weight files of a directory, and their formats; the first that is there is read."""
_SHARD = re.compile(r"(?P<stem>.+)-(?P<i>\d+)-of-(?P<n>\d+)\.(?:safetensors|bin)")
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin", "random_states.bin"})
"""Files of a training directory that have a weight file's suffix."""


def read(path: str | Path, options: ReadOptions | None = None) -> TensorMap:
    """Read a checkpoint directory (its index if it has one, else its one weight file), or the index given.

    Raises
    ------
    UnknownFormatError
        There are no weights in it, or several checkpoints and none of a usual name.
    """
    directory = Path(path)
    if not directory.is_dir():
        return read_index(directory, options)
    names = _listed(directory)
    for suffix in KINDS:
        found = _read_kind(directory, names, suffix, options)
        if found is not None:
            return found
    if DCP_METADATA in names:
        from weighttools.formats.torch import dcp

        return dcp.read(directory, options)
    if other := _other_weights(directory, names):
        return _as_directory(directory, read_file(LocalFile(other), options))
    if (kind := other_kinds.of_directory(names)) is not None:
        raise UnknownFormatError(kind.fact, subject=directory, remedy=kind.remedy)
    raise UnknownFormatError(
        "holds no weights that a directory is read for",
        subject=directory,
        expected=f"*.safetensors or *{INDEX}, the same with .bin, *.gguf, or torch's {DCP_METADATA}",
        remedy=_loose_files(directory, names),
    )


def _as_directory(directory: Path, found: TensorMap) -> TensorMap:
    origin = _origin(directory, found.origin.format, found.origin.files, found.origin.notes)
    return found.replace(origin=origin._replace(values=found.origin.values, foreign=found.origin.foreign))


def _read_kind(directory: Path, names: list[str], suffix: str, options: ReadOptions | None) -> TensorMap | None:
    """Read the directory's checkpoint of files with one suffix; None if it has none."""
    ending = suffix + ".index.json"
    index = _preferred([n for n in names if n.endswith(ending)], ending, directory)
    if index:
        return read_index(directory / index, options)
    files = [n for n in names if n.endswith(suffix) and n not in _NO_WEIGHTS]
    shards = [n for n in files if _SHARD.fullmatch(n)]
    if shards and len(shards) == len(files):
        return _without_index(directory, shards, options)
    single = _preferred([n for n in files if n not in shards], suffix, directory)
    if single is None:
        return None
    found = read_file(LocalFile(directory / single), options)
    return _as_directory(directory, found.noted(*_left_out(single, shards)))


def _left_out(single: str, shards: list[str]) -> list[str]:
    """Say that numbered shards beside the one file that is read are not: they may be the same model, or another."""
    if not shards:
        return []
    what = "a numbered shard beside it has" if len(shards) == 1 else f"{len(shards):,} numbered shards beside it have"
    fate = "is" if len(shards) == 1 else "are"
    return [f"{single} is read; {what} no index and {fate} left out, first {printable(shards[0])}"]


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise SourceError(f"cannot be listed: {error.strerror}", subject=directory) from None


def _other_weights(directory: Path, names: Iterable[str]) -> str | None:
    """Return the file to open for a directory that holds one checkpoint of a format other than safetensors."""
    from weighttools.formats.gguf import split as gguf_split

    return gguf_split.of_directory(directory, names)


def _loose_files(directory: Path, names: Iterable[str]) -> str:
    from weighttools.formats import by_any_suffix

    loose = [name for name in names if by_any_suffix(name)]
    if loose:
        return f"name a file in it: {printable(few(loose))}"
    folders = [name for name in names if _holds_weights(directory / name)]
    what = "it is a pipeline of several models: " if _PIPELINE in names and folders else ""
    return f"{what}name a folder in it: {printable(few(folders, 12))}" if folders else "check the path"


_PIPELINE = "model_index.json"
"""By which diffusers knows a pipeline's directory; its models lie in folders."""


def _holds_weights(folder: Path) -> bool:
    from weighttools.formats import by_suffix

    try:
        return folder.is_dir() and any(map(by_suffix, os.listdir(folder)))
    except OSError:
        return False


def _preferred(candidates: list[str], suffix: str, directory: Path) -> str | None:
    """Return the candidate of the most usual stem; several unusual ones are not chosen between."""
    for stem in STEMS:
        if stem + suffix in candidates:
            return stem + suffix
    if len(candidates) > 1:
        raise UnknownFormatError(
            f"holds {len(candidates)} checkpoints",
            subject=directory,
            remedy=f"name one of {', '.join(candidates[:5])}",
            code="several-checkpoints",
        )
    return candidates[0] if candidates else None


def _without_index(directory: Path, shards: list[str], options: ReadOptions | None) -> TensorMap:
    """Read a complete set of numbered shards that has lost its index."""
    parsed = [match for match in map(_SHARD.fullmatch, shards) if match]
    stems, counts = {m["stem"] for m in parsed}, {int(m["n"]) for m in parsed}
    missing = set(range(1, max(counts) + 1 if max(counts) <= 100_000 else 1)) - {int(m["i"]) for m in parsed}
    if len(stems) > 1 or len(counts) > 1 or missing or len(parsed) != max(counts):
        raise CorruptFileError(
            f"has {len(shards)} shards, no index, and no complete set",
            subject=directory,
            expected=f"*{INDEX} beside the shards",
        )
    maps = [_shard(directory, name, options, directory) for name in shards]
    seen: set[str] = set()
    for name, part in zip(shards, maps, strict=True):
        if twice := seen.intersection(part):
            raise CorruptFileError(
                f"tensor {min(twice)!r} is also in another shard", subject=directory / name, code="names-collide"
            )
        seen.update(part)
    note = "there is no index: the numbered shards were joined"
    return _joined(directory, TensorMap.joined(maps), maps, [note])


def read_index(index: Path, options: ReadOptions | None = None) -> TensorMap:
    """Read the shards that an index names, and hold index and shards against each other.

    Raises
    ------
    CorruptFileError
        The index is no index, a shard is missing or damaged, or names differ between index and shards.
    UnsafeFileError
        A shard's name would leave the directory.
    """
    record = read_json(index)
    weight_map = _weight_map(record, index)
    directory = index.parent
    shards = _named_shards(directory, dict.fromkeys(weight_map.values()), options, index)
    found = TensorMap.joined(shards.values())
    if not _agree(weight_map, shards, found):
        raise _disagreement(index, weight_map, shards)
    notes = _stale_total(record, found)
    return _joined(directory, found, list(shards.values()), notes, _ties(record, found))


def _weight_map(record: dict[str, Any], index: Path) -> dict[str, str]:
    weight_map = record.get("weight_map")
    if not isinstance(weight_map, dict) or not all(type(v) is str for v in weight_map.values()):
        raise CorruptFileError(
            "has no weight_map", subject=index, expected='{"weight_map": {tensor: file}}', code="bad-index"
        )
    return weight_map


def _named_shards(
    directory: Path, names: Iterable[str], options: ReadOptions | None, index: Path
) -> dict[str, TensorMap]:
    """Read each shard once, in however many ways an index spells its name."""
    read: dict[str, TensorMap] = {}
    found = {}
    for name in names:
        check_name(name, index)
        plain = posixpath.normpath(name)
        if plain not in read:
            read[plain] = _shard(directory, plain, options, index)
        found[name] = read[plain]
    return found


def _shard(directory: Path, name: str, options: ReadOptions | None, subject: Path) -> TensorMap:
    source = LocalFile(weights(directory, name, subject), name=str(directory / name))
    try:
        return read_file(source, options)
    finally:
        source.close()  # thousands of shards must not hold thousands of descriptors


def _agree(weight_map: dict[str, str], shards: dict[str, TensorMap], found: TensorMap) -> bool:
    """Whether the shards hold just the tensors that the index names, each where it says."""
    nowhere = repeat("")  # no file is called so; str.__eq__ of None would be NotImplemented, which passes for true
    placed = (all(map(file.__eq__, map(weight_map.get, shard, nowhere))) for file, shard in shards.items())
    tied = sum(weight_map.get(alias) == file for file, shard in shards.items() for alias in shard.aliases)
    return len(found) + tied == len(weight_map) and all(placed)


def _disagreement(index: Path, weight_map: dict[str, str], shards: dict[str, TensorMap]) -> CorruptFileError:
    held = {file: {*shard, *shard.aliases} for file, shard in shards.items()}
    absent = [name for name, file in weight_map.items() if name not in held[file]]
    if absent:
        fact = f"names {len(absent):,} tensors that its shards do not hold, first {absent[0]!r}"
        return CorruptFileError(fact, subject=index, expected=f"it in {weight_map[absent[0]]}")
    name, file = next((n, f) for f, shard in shards.items() for n in shard if weight_map.get(n) != f)
    elsewhere = f"; the index places it in {weight_map[name]}" if name in weight_map else ""
    fact = f"does not name tensor {name!r} of shard {file}{elsewhere}"
    return CorruptFileError(fact, subject=index, expected="every tensor of every shard, where it is")


def _ties(record: dict[str, Any], found: TensorMap) -> dict[str, str]:
    """Return the ties that huggingface_hub records in the metadata of an index: dropped name to kept name."""
    metadata = record.get("metadata")
    entries = metadata.items() if isinstance(metadata, dict) else ()
    return {name: kept for name, kept in entries if isinstance(kept, str) and kept in found and name not in found}


def _stale_total(record: dict[str, Any], found: TensorMap) -> list[str]:
    total = sum(found.sizes())
    metadata = record.get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    if claimed is None or claimed in (total, sum(spec.encoded_bytes for spec in found.specs())):
        return []
    return [f"the index says total_size {claimed!r}; the shards hold {total:,} bytes"]


def _joined(
    directory: Path, tensor_map: TensorMap, shards: list[TensorMap], notes: list[str], ties: Mapping[str, str] = {}
) -> TensorMap:
    metadata: dict[str, Any] = {}
    aliases = dict(ties)
    for shard in shards:
        clash = [key for key, value in shard.metadata.items() if metadata.setdefault(key, value) != value]
        notes += [f"shards differ in the metadata entry {key!r}: the first shard's is kept" for key in clash]
        aliases |= shard.aliases
    files = tuple(file for shard in shards for file in shard.origin.files)
    notes += dict.fromkeys(note for shard in shards for note in shard.origin.notes)
    origin = _origin(directory, shards[0].origin.format if shards else "safetensors", files, tuple(notes))
    values = {name: value for shard in shards for name, value in shard.origin.values.items()}
    foreign = tuple(entry for shard in shards for entry in shard.origin.foreign)
    origin = origin._replace(values=values, foreign=foreign)
    return safetensors.with_ties(tensor_map.replace(metadata=metadata, aliases=aliases, origin=origin))


def _origin(directory: Path, format_name: str, files: tuple[str, ...], notes: tuple[str, ...]) -> Origin:
    """Return what is known of a directory's map; files that lie elsewhere are said."""
    return Origin(str(directory), format_name, files, tuple(dict.fromkeys((*notes, *links_out(directory, files)))))


def shard_plan(tensor_map: TensorMap, max_shard_bytes: int | None, stem: str = "model") -> dict[str, list[str]]:
    """Return file name to tensor names, as huggingface_hub would share them out: greedily, in order."""
    sizes = [(name, tensor.spec.nbytes) for name, tensor in tensor_map.items()]
    groups = [list(tensor_map)] if max_shard_bytes is None else plan.shards(sizes, max_shard_bytes)
    if len(groups) == 1:
        return {f"{stem}.safetensors": groups[0]}
    n = len(groups)
    return {f"{stem}-{i:05d}-of-{n:05d}.safetensors": names for i, names in enumerate(groups, 1)}


def write(
    tensor_map: TensorMap,
    directory: Path,
    files: dict[str, list[str]],
    options: WriteOptions | None = None,
    progress: Progress = silent,
) -> None:
    """Write the shards of `shard_plan`, and last, if there are several, their index; `directory` holds none yet.

    Ties are recorded where huggingface_hub records them: in the one file's metadata, or else in the index.
    """
    from weighttools.io.sink import new_file

    ties = tensor_map.aliases if len(files) == 1 else {}
    for file, names in files.items():
        part = tensor_map.replace(tensors={name: tensor_map[name] for name in names}, aliases=ties)
        with new_file(directory / file, progress) as sink:
            safetensors.write(part, sink, options)
    if len(files) > 1:
        with new_file(directory / f"{stem_of(files)}{INDEX}") as sink:
            sink.write(index_text(tensor_map, files).encode("utf-8"))


def stem_of(files: Iterable[str]) -> str:
    """Return what the names of a model's files begin with."""
    first = next(iter(files))
    match = _SHARD.fullmatch(first)
    return match["stem"] if match else first.removesuffix(".safetensors")


def index_text(tensor_map: TensorMap, files: dict[str, list[str]]) -> str:
    """Return the index with huggingface_hub's entries, spelled as transformers spells it (sorted, a last line feed)."""
    total = sum(tensor.spec.nbytes for tensor in tensor_map.values())
    metadata = {**tensor_map.aliases, "total_size": total}
    weight_map = {name: file for file, names in files.items() for name in names}
    return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"


def superseded(directory: Path, files: Iterable[str]) -> frozenset[str]:
    """Return the names of the files in a directory that a new model, of `files`, takes the place of.

    They lie in the directory itself, and are those that `write` would call so (the stem's one file, its numbered
    shards, its index), and the shards that the index names, if it is one that is read. Any other file is somebody
    else's.
    """
    stem = stem_of(files)
    index = directory / f"{stem}{INDEX}"
    listed = _listed(directory) if directory.is_dir() else []
    shards = {match[0] for match in map(_SHARD.fullmatch, listed) if match and match["stem"] == stem}
    own = {f"{stem}.safetensors", index.name, *shards}
    known = own.union(_named(index, own)).intersection(listed)
    return frozenset(name for name in known if name.endswith((".safetensors", INDEX)))


def _named(index: Path, own: Collection[str]) -> Iterable[str]:
    """Return what an index calls its shards, beyond its own names; one that reading refuses names nothing."""
    try:
        named = set(_weight_map(read_json(index), index).values()).difference(own) if index.is_file() else ()
        if named:
            read_index(index)
    except WeighttoolsError:
        return ()
    return named


def taken_before(directory: Path, files: Iterable[str]) -> str | None:
    """Return the file by which `read` takes a directory for another model than that of `files`, if there is one."""
    names, written = _listed(directory), list(files)
    own = f"{stem_of(written)}{INDEX if len(written) > 1 else '.safetensors'}"
    indexes = [f"{stem}{INDEX}" for stem in STEMS]
    strange = [name for name in names if name.endswith(INDEX) and name not in indexes]
    ranked = [*indexes, *strange, *(f"{stem}.safetensors" for stem in STEMS)]
    return next((name for name in ranked[: ranked.index(own)] if name in names), None)


def cached(repository: str) -> Path | None:
    """Return the local snapshot of ``org/model`` in the Hugging Face cache, if there is one."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        return None
    home = cache_directory() / f"models--{repository.replace('/', '--')}"
    snapshots = home / "snapshots"
    main = home / "refs" / "main"
    if main.is_file():
        wanted = snapshots / main.read_text(encoding="utf-8", errors="replace").strip()
        if wanted.parent == snapshots and wanted.is_dir():
            return wanted
    found = sorted(p for p in snapshots.iterdir() if p.is_dir()) if snapshots.is_dir() else []
    return found[0] if len(found) == 1 else None


def cache_directory() -> Path:
    """Return where the Hugging Face cache lies: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HOME", default)).expanduser() / "hub"
