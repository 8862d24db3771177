"""Files that a directory or a file names, and the one rule for links.

- A path that a person gives may be a link: it is read, and written, through.
- Weight files that describe themselves (a directory's one file, shards, parts, and the index that names them) are read
  through a link wherever it leads, as git-annex, DVC and the Hugging Face cache make them: `weights`. Where one leaves
  its directory is said: `links_out`.
- Raw bytes that a file asks for by name (an ONNX model's data, chunks of a distributed checkpoint), files that lie
  beside weights and are read for them (configurations, tokenizers, templates), and files that are copied with them come
  from the directory itself, or from the blobs of the cache that it is part of, and from nowhere else: `inside`,
  `companion`, `names_in` and `leaves`, by which `weighttools.io.home` reads, copies, and says what is left where it
  is. A stranger's directory could so have a private file read as numbers, or put into what is given away. What was
  looked at is what is read, whatever links are exchanged meanwhile.
- Nothing that a directory or a file names is written or removed through a link: the link itself is replaced
  (`sink.atomic_file` with ``follow=False``), and a directory is exchanged whole, its links with it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from weighttools.errors import SourceError, UnsafeFileError, counted
from weighttools.io.dangling import dangles

if TYPE_CHECKING:
    from weighttools.io.source import LocalFile

LEAVES = "a link that leaves its directory"
"""What a file is that lies beside weights by its name, and elsewhere in truth."""
MORE_TEMPLATES = "additional_chat_templates"
CONFIGURATIONS = ("config.json", "adapter_config.json")
"""What says what a model is."""
OF_TEXTS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""What says how a model's texts begin, end and become tokens."""
COMPANIONS = (
    *CONFIGURATIONS, *OF_TEXTS, "quantize_config.json", "quant_config.json", "hf_quant_config.json",
    "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json", "chat_template.jinja",
    MORE_TEMPLATES,
)  # fmt: skip
"""Files, and a folder, that may lie beside weights and that some verb reads."""


def weights(directory: Path, name: str, subject: object) -> Path:
    """Return the path of a weight file that `subject` names; it may be a link to anywhere.

    Parameters
    ----------
    directory
        Where `subject` lies.
    name
        What it calls the file: relative, with ``/`` between folders.
    subject
        The file that names it (for messages).

    Raises
    ------
    UnsafeFileError
        The name leaves the directory.
    SourceError
        There is no such file, or it is a link that leads nowhere.
    """
    check_name(name, subject)
    return _there(directory / name, subject)


def inside(directory: Path, name: str, subject: object) -> LocalFile:
    """Open a file of raw bytes that `subject` names; links are followed within the directory only.

    Parameters as of `weights`.

    Raises
    ------
    UnsafeFileError
        The name, or a link that it leads to, leaves the directory.
    SourceError
        There is no such file, or it is no regular one.
    """
    from weighttools.io.source import LocalFile

    check_name(name, subject)
    path = directory / name
    if not leaves(directory, path):  # first of all, so that no answer tells whether a file elsewhere exists
        info = _info(directory, _there(path, subject))
        if info is not None:
            return LocalFile(path, info=info)
    raise UnsafeFileError(f"is {LEAVES}", subject=path, expected="a file in the directory", code="leaves-directory")


def companion(directory: str | os.PathLike[str], name: str) -> LocalFile | None:
    """Open a file that lies beside weights, to be read for them; None where there is none, or it is a link out.

    Parameters
    ----------
    directory
        The weights' directory.
    name
        The file's name in it, or below it with ``/``.
    """
    from weighttools.io.source import LocalFile

    path = os.path.join(directory, name)
    if not os.path.lexists(path):  # the usual case, by one look
        return None
    info = _info(directory, path)
    return LocalFile(path, info=info) if info is not None and stat.S_ISREG(info.st_mode) else None


def names_in(directory: str | os.PathLike[str], folder: str) -> list[str]:
    """Return the sorted names in a folder beside weights; none where there is no such folder, or it is a link out."""
    path = os.path.join(directory, folder)
    return sorted(os.listdir(path)) if os.path.isdir(path) and not leaves(directory, path) else []


def _info(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return what a path leads to, as it lies in its directory (or cache); None where it does not, or not any more.

    No link is followed on the way from there, so that one put in meanwhile is noticed: a reader that finds another
    file than this one refuses it.
    """
    real = Path(os.path.realpath(path))
    place = next((place for place in _places(directory) if real.is_relative_to(place)), None)
    if place is None:
        return None
    try:
        info = _walked(place, real) if os.open in os.supports_dir_fd else os.lstat(real)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # another thing lies there now
            return None
        raise
    return None if stat.S_ISLNK(info.st_mode) else info


def _walked(place: Path, real: Path) -> os.stat_result:
    """Return what lies at a path below `place`, from folder to folder."""
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    at = os.open(place, flags)
    try:
        *folders, name = real.relative_to(place).parts or (".",)
        for folder in folders:
            below = os.open(folder, flags | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    finally:
        os.close(at)


def check_name(name: str, subject: object) -> None:
    """Refuse a name by which `subject` would reach out of its directory.

    Raises
    ------
    UnsafeFileError
        It is absolute, or leads upwards, or is none that every system takes alike.
    """
    pure = PurePosixPath(name)
    absolute = pure.is_absolute() or PureWindowsPath(name).drive
    if not name or absolute or ".." in pure.parts or "\\" in name or "\0" in name:
        raise UnsafeFileError(
            f"names the file {name!r}", subject=subject, expected="a plain relative name", code="leaves-directory"
        )


def _there(path: Path, subject: object) -> Path:
    if os.path.exists(path):  # Path.exists would raise for a name that is too long
        return path
    named = f"is named by {os.path.basename(str(subject))}, but "
    dangling = dangles(path)
    if dangling:
        raise SourceError(f"{named}{dangling[0]}", subject=path, remedy=dangling[1], code="dangling-link")
    raise SourceError(
        f"{named}there is no such file", subject=path, remedy="fetch the missing file", code="no-such-file"
    )


def leaves(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    """Whether a path leads out of its directory, links followed; False of one that no file can have."""
    try:
        return not is_inside(directory, path)
    except ValueError:  # no file can have such a name (half of a surrogate pair)
        return False


def is_inside(directory: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    """Whether a path, links followed, stays in its directory or in the blobs of the cache the directory is part of."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(place) for place in _places(directory))


def _places(directory: str | os.PathLike[str]) -> list[Path]:
    home = Path(os.path.realpath(directory))
    repositories = [above.parent for above in home.parents if above.name == "snapshots"]
    shared = [one.parent for one in repositories if one.name.startswith(("models--", "datasets--", "spaces--"))]
    return [home, *(place / "blobs" for place in (*repositories, *shared))]


def links_out(directory: str | os.PathLike[str], files: Iterable[str]) -> list[str]:
    """Return the line that says which weight files of a directory are links out of it; none where none is.

    Parameters
    ----------
    directory
        The directory.
    files
        Paths of files in it.
    """
    home = Path(directory)
    beyond = [file for file in files if _may_leave(home, file) and leaves(home, file)]
    if not beyond:
        return []
    first = f"{os.path.relpath(beyond[0], home)}, to {os.path.realpath(beyond[0])}"
    what = "a weight file is a link" if len(beyond) == 1 else f"{counted(len(beyond), 'weight file')} are links"
    return [f"{what} out of the directory: {first}{', …' if len(beyond) > 1 else ''}"]


def _may_leave(home: Path, file: str) -> bool:
    """Whether a file may lie elsewhere, by one look at it: it is a link, or lies in a folder, which may be one."""
    return os.path.islink(file) or Path(file).parent != home


def not_copied(reasons: Mapping[str, str]) -> list[str]:
    """Return the line that says which files were not copied, and why; none where all were."""
    listed = ", ".join(f"{name} ({why})" for name, why in reasons.items())
    return [f"not copied with the weights: {listed}; copy what is needed yourself"] if reasons else []
