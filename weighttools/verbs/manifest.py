"""Writing a manifest of what was hashed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weighttools.errors import SpecError, few, option

if TYPE_CHECKING:
    from weighttools.analyzers.digest.tree import TensorDigest
    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike


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

    Raises
    ------
    SpecError
        The target is one of the files that are read, or the checkpoint has no files.
    """
    from weighttools.analyzers.digest import manifest as made
    from weighttools.io.home import home_of
    from weighttools.io.sink import atomic_file
    from weighttools.write import protection

    origin = tensor_map.origin
    home = home_of(origin)
    if home is None or not origin.files:
        raise SpecError(f"{option('manifest')} is of files", expected="a path", code="needs-a-path")
    protection.refuse_read([protection.file("the manifest", os.fspath(target))], origin.files)
    files, notes = made.named_files(home, origin.files, home.is_whole)
    mine = os.path.realpath(target)
    entries = made.file_entries({n: f for n, f in files.items() if os.path.realpath(f.path) != mine})
    hidden = made.hidden_names(home) if home.is_whole else []
    if hidden:
        notes.append(f"hidden files are no part of the manifest: {few(hidden)}")
    if form == "oms":
        name = home.name if home.is_whole else os.path.basename(origin.files[0])
        own = [known for known, file in files.items() if os.path.realpath(file.path) == mine]
        told = made.statement(entries, name, [*hidden, *own])
    else:
        tensors = made.tensor_entries(tensor_map, stored, record["decoded"])
        aliases = dict(tensor_map.aliases)
        whole = made.Manifest(
            "manifest", entries, record["algorithm"], record["content"], tensors, aliases, record["decoded"]
        )
        told = whole.record()
    with atomic_file(target, force=force) as sink:
        sink.write(made.to_bytes(told))
    return notes
