"""The home of weights: what lies beside them (configurations, tokenizers, templates, code), listed, read, copied out.

`home_of` gives the home of a map's origin, and nothing outside this folder and the readers of directories asks the
system about an origin's path: so weights that lie elsewhere (behind a URL, in a store of objects) need one more class
here, a subclass of `Home`, and one line in `HOMES`.
"""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighttools.errors import SourceError, few
from weighttools.io import beside
from weighttools.io.beside import COMPANIONS, LEAVES, MORE_TEMPLATES
from weighttools.io.text import read_bounded, read_json

if TYPE_CHECKING:
    from weighttools.core.spec import Source
    from weighttools.core.tensormap import Origin

_COPY_BYTES = 8 << 20
"""How much of a file is held at once while it is copied."""


class Home(ABC):
    """The place that weights lie in.

    A subclass answers five questions; the rest is made of these, and may be answered faster.

    - Names are relative to the home, with ``/`` between folders, and never lead upwards.
    - A home is read, never written to.
    - Nothing comes from elsewhere: what has a name here and its bytes in another place (a link out of the directory, a
      redirection to another host) `is_elsewhere`, and `open` answers as if it were not there. The one rule for links is
      that of `weighttools.io.beside`.
    - `open` tells the size before the first byte is read, so that readers can refuse by it.
    - Answers are of the moment. Where one costs a request, the subclass remembers what it was told: callers ask for the
      same name several times.
    - What cannot be answered raises SourceError, its subject `path_of` the name; "there is none" is an answer.

    Parameters
    ----------
    place
        What to call it in a message: a directory's path, a URL.
    is_whole
        Whether the origin is the whole home; of a single file in it, what lies beside may be another model's.
    """

    def __init__(self, place: str, is_whole: bool) -> None:
        self.place = place
        self.is_whole = is_whole

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names in the home or a folder of it; none where there is no such folder, or elsewhere."""

    @abstractmethod
    def files(self) -> Iterator[str]:
        """Yield the name of every file in the home and its folders, hidden ones left out, each folder's sorted.

        A folder that is a link is named like a file, and not looked into.
        """

    @abstractmethod
    def lies(self, name: str) -> bool:
        """Whether anything has this name here, be it a link that leads nowhere."""

    @abstractmethod
    def is_elsewhere(self, name: str) -> bool:
        """Whether something has this name here, and its bytes lie in another place."""

    @abstractmethod
    def open(self, name: str) -> Source | None:
        """Return a file, to be read; None where there is none, it is no regular file, or it lies elsewhere."""

    def has(self, name: str) -> bool:
        """Whether a file of this name is there to be opened by others, wherever its bytes lie."""
        return self.lies(name)

    def is_same(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path on this machine is the origin itself: the directory, or the file."""
        return False

    def is_around(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path on this machine lies in this home, links followed."""
        return False

    def path_of(self, name: str) -> str:
        """Return what to call a file in a message."""
        return f"{self.place.rstrip('/')}/{name}"

    @property
    def is_there(self) -> bool:
        """Whether the origin exists, as far as this can be told without opening it."""
        return True

    @property
    def name(self) -> str:
        """The last part of what the home is called, as people name a model by it."""
        return self.place.rstrip("/").rpartition("/")[2]

    def read(self, name: str, most: int) -> bytes | None:
        """Return a file's bytes; None as of `open`.

        Raises
        ------
        CorruptFileError
            They are more than `most`.
        """
        source = self.open(name)
        return None if source is None else read_bounded(source, most)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file; None as of `open`.

        Raises
        ------
        CorruptFileError
            It is larger than any index (or configuration, by its name) is, or not a JSON object.
        """
        source = self.open(name)
        return None if source is None else read_json(source)

    def not_taken(self, names: Sequence[str] = COMPANIONS) -> list[str]:
        """Return the line that says which files of these names lie elsewhere; none where none does."""
        more = [f"{folder}/{name}" for folder in names if folder == MORE_TEMPLATES for name in self.names(folder)]
        found = [name for name in (*names, *more) if self.is_elsewhere(name)]
        return [f"not taken: {few(found)} ({LEAVES}); copy what is needed there"] if found else []

    def why_not_copied(self, name: str, largest: int) -> str:
        """Return why `copy` would leave a file where it is; empty where it would not."""
        return self._for_copying(name, largest)[1]

    def copy(self, name: str, target: Path, largest: int) -> str:
        """Copy a file of at most `largest` bytes to a path, whose folders are made; return why not, if it is not."""
        source, why = self._for_copying(name, largest)
        if source is None:
            return why
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for at in range(0, source.size, _COPY_BYTES):
                out.write(source.read(at, min(_COPY_BYTES, source.size - at)))
        return ""

    def _for_copying(self, name: str, largest: int) -> tuple[Source | None, str]:
        """Return the file to be copied; or none, and why it is left where it is."""
        if self.is_elsewhere(name):  # first of all, so that no answer tells whether a file elsewhere exists
            return None, LEAVES
        source = self.open(name)
        if source is None:  # another may have been put in its place since
            return None, LEAVES if self.is_elsewhere(name) else "no regular file"
        return (None, f"more than {largest:,} bytes") if source.size > largest else (source, "")


class LocalHome(Home):
    """A directory on this machine.

    Parameters
    ----------
    path
        The directory, or a file in it.
    """

    def __init__(self, path: str) -> None:
        is_whole = stat.S_ISDIR(_mode(path))
        self._origin = path
        self._directory = path if is_whole else os.path.dirname(path)
        super().__init__(str(Path(self._directory)), is_whole)

    @property
    def is_there(self) -> bool:
        return bool(_mode(self._origin))

    @property
    def name(self) -> str:
        """The directory's name, also where it is called ``.``."""
        return os.path.basename(os.path.abspath(self.place))

    def names(self, folder: str = "") -> list[str]:
        return beside.names_in(self.place, folder)

    def files(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.place, onerror=_fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            here = Path(folder).relative_to(self.place)
            yield from ((here / name).as_posix() for name in sorted([*names, *links]) if not name.startswith("."))

    def lies(self, name: str) -> bool:
        return bool(_mode(self.path_of(name), follow_symlinks=False))

    def is_elsewhere(self, name: str) -> bool:
        return self.lies(name) and beside.leaves(self._directory, self.path_of(name))

    def open(self, name: str) -> Source | None:
        return beside.companion(self._directory, name)

    def has(self, name: str) -> bool:
        return stat.S_ISREG(_mode(self.path_of(name)))

    def is_same(self, path: str | os.PathLike[str]) -> bool:
        return self.is_there and bool(_mode(path)) and os.path.samefile(self._origin, path)

    def is_around(self, path: str | os.PathLike[str]) -> bool:
        return Path(os.path.realpath(self._directory)) in Path(os.path.realpath(path)).parents

    def path_of(self, name: str) -> str:
        return os.path.join(self._directory, name)


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""What says that there is no such file; any other failure is no answer, and raised: a disk that fails is no absence."""


def _mode(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> int:
    """Return what kind of file a path is, as ``st_mode`` has it; 0 where there is none."""
    try:
        return os.stat(path, follow_symlinks=follow_symlinks).st_mode
    except ValueError:  # a name with a null character
        return 0
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise


def _fail(error: OSError) -> None:
    raise SourceError(f"cannot be read: {error.strerror}", subject=error.filename, code="cannot-be-read") from None


HOMES: dict[str, Callable[[str], Home]] = {}
"""The class of homes behind URLs, by what stands before ``://``; it is called with the origin's path."""


def home_of(origin: Origin | str) -> Home | None:
    """Return the home of an origin, or of a path; None for weights that lie nowhere (arrays, standard input)."""
    path = origin if isinstance(origin, str) else origin.path
    scheme, is_url, _ = path.partition("://")
    if is_url:
        return HOMES[scheme](path) if scheme in HOMES else None
    return None if path in ("", "-") else LocalHome(path)
