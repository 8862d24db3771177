"""Writing a manifest of what was hashed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from weighttools.errors import SpecError, few, option

if TYPE_CHECKING:
    from weighttools.analyzers.digest.manifest import FileEntry
    from weighttools.analyzers.digest.tree import TensorDigest
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.io.home import Home


def check_manifest(target: PathLike, path: PathLike | TensorMap, force: bool, is_part: bool) -> None:
    """Refuse, before anything is read, a manifest that could not be written or would not be whole.

    Raises
    ------
    SpecError
        It is of some tensors only, or of a map that is open already.
    SourceError
        The target exists, or cannot be written.
    """
    from weighttools.io.sink import check_writable

    if is_part:
        fact = f"{option('manifest')} is of a whole checkpoint"
        raise SpecError(fact, expected=f"neither {option('include')} nor {option('exclude')}", code="options-exclude")
    if not isinstance(path, (str, os.PathLike)):
        raise SpecError(f"{option('manifest')} is of files", expected="a path", code="needs-a-path")
    check_writable(target, force=force)


def write_manifest(
    target: PathLike,
    tensor_map: TensorMap,
    stored: Mapping[str, TensorDigest],
    record: Mapping[str, Any],
    form: str,
    force: bool,
    threads: int | None = None,
) -> list[str]:
    """Write a manifest, all or nothing, and return what should be said.

    Parameters
    ----------
    target
        Where; what lies there already is no part of it.
    tensor_map, stored
        The checkpoint, and the digests of its tensors.
    record
        Its record.
    form
        ``"json"`` or ``"oms"``.
    force
        Replace an existing file.
    threads
        Worker threads; default: one a CPU.

    Raises
    ------
    UnsafeFileError
        A file has a name by which no manifest can name it.
    SpecError
        The target is one of the files that are read, or the checkpoint has no files.
    """
    from weighttools.analyzers.digest import manifest as made
    from weighttools.core import engine
    from weighttools.io.home import home_of
    from weighttools.io.sink import atomic_file
    from weighttools.write import protection

    origin = tensor_map.origin
    home = home_of(origin)
    if home is None or not origin.files:
        raise SpecError(f"{option('manifest')} is of files", expected="a path", code="needs-a-path")
    protection.refuse_read([protection.file("the manifest", os.fspath(target))], origin.files)
    files, notes = made.named_files(home, origin.files, home.is_whole)
    own = [name for name, file in files.items() if os.path.realpath(file.path) == os.path.realpath(target)]
    listed = {name: file for name, file in files.items() if name not in own}
    with engine.threads_for(sum(file.size for file in listed.values()), threads) as pool:
        entries = made.file_entries(listed, pool)
    hidden = made.hidden_names(home) if home.is_whole else []
    if hidden:
        notes.append(f"hidden files are no part of the manifest: {few(hidden)}")
    if form == "oms":
        has_links = any(os.path.islink(file.path) for file in listed.values())
        told = _statement(entries, home, [*hidden, *own], has_links)
    else:
        told = _own(entries, home, tensor_map, stored, record)
    with atomic_file(target, force=force) as sink:
        sink.write(made.to_bytes(told))
    return notes


def _statement(entries: Sequence[FileEntry], home: Home, ignored: Sequence[str], has_links: bool) -> dict[str, Any]:
    from weighttools.analyzers.digest.statement import WHOLE, serialization, statement

    how = serialization(ignored, has_links)
    if home.is_whole or len(entries) != 1:
        return statement(entries, home.name, how)
    return statement([entries[0]._replace(name=WHOLE)], entries[0].name, how)


def _own(
    entries: tuple[FileEntry, ...],
    home: Home,
    tensor_map: TensorMap,
    stored: Mapping[str, TensorDigest],
    record: Mapping[str, Any],
) -> dict[str, Any]:
    from weighttools.analyzers.digest.manifest import Manifest, tensor_entries

    return Manifest(
        "manifest",
        entries,
        record["algorithm"],
        record["content"],
        tensor_entries(tensor_map, stored, record["decoded"]),
        dict(tensor_map.aliases),
        record["decoded"],
        is_whole=home.is_whole,
    ).record()
