"""Writing a map to its destination, whole or not at all, and what lies beside a source's weights with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from weighttools.core.budgets import MAX_COMPANION_BYTES
from weighttools.core.tensor import confirm
from weighttools.core.tensormap import TensorMap
from weighttools.formats import load
from weighttools.formats.base import WriteOptions
from weighttools.formats.huggingface import format as huggingface
from weighttools.io.beside import not_copied
from weighttools.io.directory import atomic_directory, keep_others
from weighttools.io.home import Home, home_of
from weighttools.io.progress import Progress
from weighttools.io.sink import atomic_file
from weighttools.write.destination import Destination, superseded

if TYPE_CHECKING:
    from weighttools.write.verify import Verification

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


def names_of_companions(tensor_map: TensorMap) -> list[str]:
    """Return the names of what lies beside the weights of a source directory; of any other source none."""
    home = home_of(tensor_map.origin)
    return list(_companions(home)) if home and home.is_whole else []


def execute(
    tensor_map: TensorMap,
    target: Destination,
    options: WriteOptions,
    force: bool,
    progress: Progress,
    last: Callable[[], object],
    proof: Verification | None = None,
) -> None:
    """Write a map; `last` is called when all is written and nothing has its name yet: if it fails, nothing gets it.

    So it is with `proof`, which reads back what was written.
    """
    if target.is_directory:
        _write_directory(tensor_map, target, options, force, progress, last, proof)
        return
    writer = load(target.format).write
    assert writer is not None
    with atomic_file(target.path, force=force, progress=progress) as sink:
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
    target: Destination,
    options: WriteOptions,
    force: bool,
    progress: Progress,
    last: Callable[[], object],
    proof: Verification | None,
) -> None:
    old = Path(target.path)
    with atomic_directory(target.path, force=force) as new:
        huggingface.write(tensor_map, new, target.files, options, progress)
        _confirm(tensor_map)
        if proof:
            proof.check(new)
        found = {name: why for name, why in _copy_companions(tensor_map, new).items() if name not in options.beside}
        for name, content in options.beside.items():
            (new / name).write_bytes(content)
        if old.is_dir():
            keep_others(old, new, (target.replaced | superseded(target)).__contains__)
        first = huggingface.taken_before(new, target.files)
        lacking = {name: why for name, why in found.items() if why and not os.path.lexists(new / name)}
        last()
    copied = [name for name, why in found.items() if not why]
    target.notes += [f"copied with the weights: {', '.join(copied)}"] if copied else []
    target.notes += not_copied(lacking)
    if first is not None:
        target.notes.append(f"{first} is another model's, and who reads the directory takes it before this one")


def _copy_companions(tensor_map: TensorMap, new: Path) -> dict[str, str]:
    """Copy what lies beside the weights of a source directory (configuration, tokenizer), but no other weights.

    Each one's name is returned, with why it was not copied, or nothing if it was.
    """
    home = home_of(tensor_map.origin)
    if home is None or not home.is_whole:
        return {}
    return {name: home.copy(name, new / name, MAX_COMPANION_BYTES) for name in _companions(home)}


def _companions(home: Home) -> Iterable[str]:
    """Yield the names of the files beside the weights, and of links to folders, which are not looked into."""
    return (name for name in home.files() if not name.lower().endswith((*_WEIGHTS, ".index.json")))
