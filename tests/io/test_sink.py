"""Atomic writing: whatever fails, the target is the old one or the new one, whole, with nothing beside it."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighttools
from tests.io.faults import CALLS, Fault, os_error
from weighttools.errors import SourceError, WeighttoolsError
from weighttools.io import directory, sink, temporary

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EINTR)

# writer -> the target's name and the options that make `convert` take that way
WRITERS: dict[str, tuple[str, list[str]]] = {
    "safetensors, copied": ("out.safetensors", []),
    "safetensors, cast": ("out.safetensors", ["--dtype", "bfloat16"]),
    "npz": ("out.npz", []),
    "npy": ("out.npy", ["-i", "a.weight"]),
    "shards": ("out", ["--max-shard-size", "5KB"]),
}
every_writer = pytest.mark.parametrize("writer", WRITERS)

Snapshot = dict[str, bytes]


def snapshot(path: Path) -> Snapshot:
    """Every file at or below `path`, hidden ones too, by its relative name."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()] if path.exists() else []
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    rng = np.random.default_rng(0)
    arrays = {f"{name}.weight": rng.standard_normal((32, 32), np.float32) for name in "abc"}
    save_file(arrays | {"n": np.arange(3)}, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text("{}")
    return path


class Place:
    """A directory with an old target in it, and the new one that a run without faults gives."""

    def __init__(self, home: Path, source: Path, writer: str, inside: Callable[..., object]) -> None:
        name, self.options = WRITERS[writer]
        self.home, self.source, self.target = home / "place", source, home / "place" / name
        self.home.mkdir()
        self.inside = inside
        self._put_old()
        self.old = snapshot(self.home)
        assert self.convert().code == 0
        self.new = snapshot(self.home)
        assert self.new != self.old

    def _put_old(self) -> None:
        if self.target.suffix:
            self.target.write_bytes(b"the old target")
        else:
            (self.target / "sub").mkdir(parents=True)
            (self.target / "model.safetensors").write_bytes(b"old weights")
            (self.target / "sub" / "notes.txt").write_bytes(b"kept")

    def restore(self) -> None:
        if snapshot(self.home) != self.old:
            shutil.rmtree(self.home)
            self.home.mkdir()
            self._put_old()

    def convert(self):
        return self.inside("convert", self.source, self.target, "--force", *self.options)


@pytest.fixture
def place(tmp_path: Path, source: Path, inside, writer: str) -> Place:
    return Place(tmp_path, source, writer, inside)


def n_calls(place: Place, call: str, monkeypatch: pytest.MonkeyPatch) -> int:
    place.restore()
    with monkeypatch.context() as patch:
        fault = Fault(call).into(patch)
        assert place.convert().code == 0
    return fault.n_calls


def same_values(place: Place) -> bool:
    """Whether an archive that could not be stepped back in (its bytes differ) holds what it should, by NumPy's word."""
    with np.load(place.target, allow_pickle=False) as found, np.load(io.BytesIO(place.new["out.npz"])) as wanted:
        return found.files == wanted.files and all(found[k].tobytes() == wanted[k].tobytes() for k in wanted.files)


def told_plainly(err: str, target: Path) -> bool:
    """One line that names the target, and no excuse of a program that met what it did not expect."""
    return err.count("\n") == 1 and str(target) in err and "internal error" not in err and "Traceback" not in err


@every_writer
@pytest.mark.parametrize("call", CALLS)
def test_each_call_may_fail(place: Place, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(n_calls(place, call, monkeypatch)):
        for number in ERRORS:
            place.restore()
            with monkeypatch.context() as patch:
                Fault(call, at, os_error(number)).into(patch)
                ran = place.convert()
            what = (call, at, errno.errorcode[number], ran)
            if call in ("open", "stat", "fstat", "scandir"):  # it may be the clearing up that failed
                temporary.remove_debris(place.home)
            now = snapshot(place.home)
            if ran.code == 0:
                assert now == place.new or (call == "lseek" and same_values(place)), what
            else:
                assert ran.code == 2, what
                assert now in (place.old, place.new), what
                assert ran.err.count("\n") == 1 and "internal error" not in ran.err, what


@every_writer
@pytest.mark.parametrize("call", ["write", "posix_fallocate", "fsync", "ftruncate", "chmod", "replace", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_is_told(place: Place, call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """These calls cannot fail without the run failing: the old target stays, and the line names it."""
    for at in range(n_calls(place, call, monkeypatch)):
        place.restore()
        with monkeypatch.context() as patch:
            Fault(call, at, os_error(number)).into(patch)
            ran = place.convert()
        assert ran.code == 2, (at, ran)
        assert told_plainly(ran.err, place.target), (at, ran)
        assert os.strerror(number) in ran.err
        if "as it was" in ran.err:
            assert snapshot(place.home) == place.old, (at, ran)
        else:  # the last rename was done, and only its sync failed
            assert call == "fsync" and snapshot(place.home) == place.new, (at, ran)


@every_writer
@pytest.mark.parametrize("call", ["write", "copy_file_range", "fsync", "replace"])
def test_interrupted_anywhere(place: Place, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(n_calls(place, call, monkeypatch)):
        place.restore()
        with monkeypatch.context() as patch:
            Fault(call, at, KeyboardInterrupt).into(patch)
            ran = place.convert()
        assert (ran.code, ran.out) == (130, ""), (at, ran)
        assert snapshot(place.home) in (place.old, place.new), at


@every_writer
def test_short_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it was given."""
    place.restore()
    write, copy = os.write, os.copy_file_range
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:7]))
    monkeypatch.setattr(os, "copy_file_range", lambda a, b, n, at: copy(a, b, min(n, 1001), at))
    assert place.convert().code == 0
    assert snapshot(place.home) == place.new


@every_writer
def test_no_copying_in_the_kernel(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another file system or an old kernel the bytes go through memory."""
    for number in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        place.restore()

        def refuse(*args: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "copy_file_range", refuse)
            patch.setattr(os, "posix_fallocate", refuse)
            assert place.convert().code == 0
        assert snapshot(place.home) == place.new


def test_source_shrinks_while_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *args: 0)
    ran = inside("convert", source / "model.safetensors", tmp_path / "x.safetensors")
    assert ran.code == 2 and "shrank" in ran.err
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("writer", ["shards"])
def test_exchange_in_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel cannot exchange two names, two renames do it, and a failed one is undone."""
    monkeypatch.setattr(directory, "exchange", lambda a, b: False)
    for at in range(n_calls(place, "rename", monkeypatch)):
        place.restore()
        with monkeypatch.context() as patch:
            Fault("rename", at, os_error(errno.EIO)).into(patch)
            ran = place.convert()
        now = snapshot(place.home)
        place.convert()
        assert ran.code == 2 and now == place.old, (at, ran)
        assert snapshot(place.home) == place.new, "the next run leaves nothing of the last"


def half_exchanged(home: Path) -> tuple[Path, Path, Path]:
    """What a writer that is killed between the two renames leaves: target, new one and holder of the old one."""
    target, new = home / "out", leave(home / "out", directory._make)
    target.mkdir()
    for path, text in ((target, "old"), (new, "new")):
        (path / text).write_text(text)
    holder, held = directory._set_aside(target, new)
    os.close(held)
    assert not target.exists()
    return target, new, holder


def test_killed_in_the_middle_of_an_exchange_in_steps(tmp_path: Path) -> None:
    target, _, holder = half_exchanged(tmp_path)
    with pytest.raises(SourceError, match="--force"), directory.atomic_directory(target):
        raise AssertionError("the old target is back, so it is not to be replaced without force")
    assert (target / "old").read_text() == "old"
    with directory.atomic_directory(target, force=True) as new:
        (new / "f").write_text("f")
    assert snapshot(target) == {"f": b"f"} and os.listdir(tmp_path) == ["out"] and not holder.exists()


def test_killed_at_the_end_of_an_exchange_in_steps(tmp_path: Path) -> None:
    target, new, _ = half_exchanged(tmp_path)
    os.rename(new, target)
    with directory.atomic_directory(target, force=True):
        assert (target / "new").exists(), "what took its place is not undone"
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".old")]


def test_what_was_set_aside_is_kept_where_another_took_its_name(tmp_path: Path) -> None:
    target, _, holder = half_exchanged(tmp_path)
    target.mkdir()
    with directory.atomic_directory(target) as new:
        (new / "f").write_text("f")
    assert (holder / "old" / "old").read_text() == "old"


def test_a_living_writer_keeps_what_it_set_aside(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "new").mkdir()
    holder, held = directory._set_aside(tmp_path / "out", tmp_path / "new")
    with directory.atomic_directory(tmp_path / "out"):
        assert holder.exists()
    os.close(held)


@pytest.mark.parametrize("mark", [None, b"not ours"])
def test_a_neighbour_is_not_debris(mark: bytes | None, source: Path, tmp_path: Path, inside) -> None:
    """A name alone makes nothing ours: neither the name that we give, nor one that looks like it."""
    names = [".out.weighttools.old", ".out.weighttools-abcdefgh.old", ".out.weighttools-mine.tmp", ".out.weighttools"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
        if mark is not None:
            (tmp_path / name / directory._MARK_FILE).write_bytes(mark)
    assert inside("convert", source, tmp_path / "out").code == 0
    assert inside("convert", source, tmp_path / "out").code == 2
    assert inside("convert", source, tmp_path / "out", "--force").code == 0
    assert all((tmp_path / name / "mine").read_text() == "mine" for name in names)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="needs Linux's renameat2")
def test_exchange_is_one_rename(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for path in (a, b):
        path.mkdir()
        (path / path.name).touch()
    assert directory.exchange(a, b)
    assert (os.listdir(a), os.listdir(b)) == (["b"], ["a"])


def test_mode_is_kept_and_umask_obeyed(source: Path, tmp_path: Path, inside) -> None:
    old, new, folder = tmp_path / "old.npz", tmp_path / "new.npz", tmp_path / "folder"
    old.touch()
    old.chmod(0o664)
    mask = os.umask(0o027)
    try:
        for target in (old, new, folder):
            assert inside("convert", source, target, "--force").code == 0
    finally:
        os.umask(mask)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (old, new, folder, folder / "model.safetensors")]
    assert modes == [0o664, 0o640, 0o750, 0o640]
    folder.chmod(0o770)
    assert inside("convert", source, folder, "--force").code == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o770


def test_symbolic_links_are_written_through(source: Path, tmp_path: Path, inside) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for name in ("file.npz", "new.npz", "folder"):
        (tmp_path / name).symlink_to(real / name)
    (real / "file.npz").write_bytes(b"old")
    (real / "folder").mkdir()
    for name in ("file.npz", "new.npz", "folder"):
        assert inside("convert", source, tmp_path / name, "--force").code == 0
        assert (tmp_path / name).is_symlink()
        assert len(weighttools.open(real / name)) == 4
    assert sorted(os.listdir(real)) == ["file.npz", "folder", "new.npz"]


def test_circular_link(tiny: Path, tmp_path: Path, inside) -> None:
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    ran = inside("convert", tiny, tmp_path / "loop.npz", "--force")
    assert ran.code == 2 and told_plainly(ran.err, tmp_path / "loop.npz")


def test_other_name_of_a_hard_linked_target_keeps_the_old(source: Path, tmp_path: Path, inside) -> None:
    target, other = tmp_path / "t.npz", tmp_path / "other"
    target.write_bytes(b"old")
    os.link(target, other)
    assert inside("convert", source, target, "--force").code == 0
    assert other.read_bytes() == b"old" and len(weighttools.open(target)) == 4


@pytest.mark.parametrize("kind", ["device", "pipe", "directory", "socket"])
def test_what_is_no_file_is_refused(kind: str, tiny: Path, tmp_path: Path, inside) -> None:
    target = tmp_path / "t.npz"
    if kind == "device":
        target.symlink_to(os.devnull)
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "socket":
        os.mknod(target, stat.S_IFSOCK | 0o600)
    else:
        target.mkdir()
    before = target.stat()
    ran = inside("convert", tiny, target, "--force", "--to", "npz")
    assert ran.code == 2 and told_plainly(ran.err, target)
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)


@every_writer
def test_refused_without_force(writer: str, source: Path, tmp_path: Path, inside) -> None:
    name, options = WRITERS[writer]
    target = tmp_path / name
    assert inside("convert", source, target, *options).code == 0
    before = snapshot(target)
    ran = inside("convert", source, target, *options)
    assert ran.code == 2 and told_plainly(ran.err, target) and "--force" in ran.err
    assert snapshot(target) == before


@pytest.mark.parametrize("name", ["no/such/t.npz", "no/such/dir"])
def test_missing_directory(name: str, tiny: Path, tmp_path: Path, inside) -> None:
    ran = inside("convert", tiny, tmp_path / name)
    assert ran.code == 2 and told_plainly(ran.err, tmp_path / name) and "does not exist" in ran.err


@every_writer
def test_read_only_directory(writer: str, source: Path, inside) -> None:
    """Told plainly; root may write anywhere, so as root this runs as nobody."""
    home = Path(tempfile.mkdtemp(prefix="weighttools-test-"))
    home.chmod(0o755)
    try:
        _check_read_only(Place(home, shutil.copytree(source, home / "source"), writer, inside))
    finally:
        shutil.rmtree(home)


def _check_read_only(place: Place) -> None:
    place.restore()
    os.chmod(place.home, 0o555)
    place.source.chmod(0o755)
    for path in place.source.iterdir():
        path.chmod(0o644)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        ran = place.convert()
    finally:
        if root:
            os.seteuid(0)
        os.chmod(place.home, 0o755)
    assert ran.code == 2 and told_plainly(ran.err, place.target), ran
    assert snapshot(place.home) == place.old


def test_very_long_names(tiny: Path, tmp_path: Path, inside) -> None:
    """A temporary's name must not be longer than a name may be (255 bytes), whatever the target's is."""
    target = tmp_path / ("é" * 124 + ".npz")
    assert inside("convert", tiny, target).code == 0
    assert set(os.listdir(tmp_path)) == {tiny.name, target.name}


def test_others_in_a_directory_are_kept(source: Path, tmp_path: Path, inside) -> None:
    target = tmp_path / "out"
    (target / "empty").mkdir(parents=True)
    (target / "sub" / "deep").mkdir(parents=True)
    (target / "sub" / "deep" / "model.safetensors").write_text("no part of this checkpoint")
    (target / "README.md").write_text("mine")
    (target / "config.json").write_text("old")
    (target / "other.safetensors").write_text("another model")
    (target / "model-00001-of-00001.safetensors").write_text("superseded")
    (target / "file-link").symlink_to("README.md")
    (target / "dangling").symlink_to("nowhere")
    (target / "folder-link").symlink_to(tmp_path)
    (target / "sub").chmod(0o755)
    assert inside("convert", source, target, "--force").code == 0
    found = {str(p.relative_to(target)) for p in target.rglob("*") if not str(p).startswith(f"{target}/folder-link/")}
    assert found == {
        "empty", "sub", "sub/deep", "sub/deep/model.safetensors", "README.md", "config.json",
        "file-link", "dangling", "folder-link", "model.safetensors", "other.safetensors",
    }  # fmt: skip
    assert os.readlink(target / "folder-link") == str(tmp_path)
    assert os.readlink(target / "dangling") == "nowhere"
    assert (target / "config.json").read_text() == "{}", "the source's own files come with its weights"


@pytest.mark.parametrize("name", ["t.safetensors", "d"])
def test_a_trial_leaves_nothing(name: str, tmp_path: Path) -> None:
    where = directory if name == "d" else sink
    where.check_writable(tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / name).mkdir() if name == "d" else (tmp_path / name).write_text("old")
    where.check_writable(tmp_path / name, force=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(SourceError, match="is a file|is not a regular file"):
        where.check_writable("/dev/null", force=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_trial_finds_what_looks_writable() -> None:
    for where in (sink, directory):
        with pytest.raises(SourceError, match="cannot be written"):
            where.check_writable("/proc/x")


def test_convert_in_place(source: Path, inside) -> None:
    file = source / "model.safetensors"
    before = weighttools.open(file).read()
    assert inside("convert", file, file, "--force").code == 0
    assert inside("convert", source, source, "--force", "--max-shard-size", "5KB").code == 0
    assert not file.exists()
    after = weighttools.open(source).read()
    assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}


def test_temporaries_of_living_writers_stay(tmp_path: Path) -> None:
    with sink.atomic_file(tmp_path / "a", force=True) as a, directory.atomic_directory(tmp_path / "d") as d:
        a.write(b"a")
        (d / "f").write_bytes(b"f")
        assert temporary.remove_debris(tmp_path) == []
        with sink.atomic_file(tmp_path / "a") as other:
            other.write(b"b")
    assert snapshot(tmp_path) == {"a": b"a", "d/f": b"f"}


def leave(path: Path, make: Callable[[Path], int | None]) -> Path:
    """Leave a temporary as a killed writer does: marked, and its lock free."""
    held, left = temporary.make_beside(path, make)
    os.close(held)
    return left


def test_debris_of_dead_writers_goes(tmp_path: Path) -> None:
    leave(tmp_path / "t.npz", sink._make).write_bytes(b"half")
    folder = leave(tmp_path / "d", directory._make)
    (folder / "sub").mkdir()
    (folder / "sub" / "f").touch()
    leave(tmp_path / "gone", sink._make).unlink()
    assert len(os.listdir(tmp_path)) == 5
    with sink.atomic_file(tmp_path / "new") as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == ["new"]


def put_strangers(place: Path) -> Snapshot:
    """Files and folders with names like those of temporaries, some with what stands where a mark would."""
    for name in (".notes.weighttools-my_notes.tmp", ".d.weighttools-0123abcd.tmp"):
        (place / name).mkdir()
        (place / name / "thesis.txt").write_text("mine")
    for letter in "fgh":
        (place / f".{letter}.weighttools-0123abcd.tmp").write_text("mine")
    for name in (".x.weighttools-abc", ".x.tmp", ".f.weighttools-abcdefgh.tmp"):
        (place / name).write_text("mine")
    (place / ".f.weighttools-0123abcd.mark").write_text("a file")
    (place / ".g.weighttools-0123abcd.mark").symlink_to("elsewhere")
    (place / ".h.weighttools-0123abcd.mark").symlink_to(temporary._words(".g.weighttools-0123abcd.tmp"))
    return snapshot(place)


@pytest.mark.parametrize("target", ["o.npz", "o"])
def test_a_name_alone_is_no_debris(target: str, source: Path, tmp_path: Path, inside) -> None:
    """Strangers' files are never removed, whatever they are called."""
    place = tmp_path / "place"
    place.mkdir()
    before = put_strangers(place)
    assert inside("convert", source, place / target).code == 0
    now = snapshot(place)
    assert {name: now.get(name) for name in before} == before
    assert (place / ".g.weighttools-0123abcd.mark").is_symlink()


@pytest.mark.parametrize("target", ["o.npz", "o"])
def test_a_refused_run_removes_nothing(target: str, source: Path, tmp_path: Path, inside) -> None:
    """Not even debris of our own: a source whose values turn out wrong is refused after the target is begun."""
    place, broken = tmp_path / "place", tmp_path / "broken.npz"
    place.mkdir()
    np.savez(broken, w=np.full(1000, 0x41, np.uint8))
    broken.write_bytes(broken.read_bytes().replace(b"A" * 1000, b"A" * 999 + b"B"))
    leave(place / "x", sink._make).write_bytes(b"half")
    before = sorted(os.listdir(place))
    ran = inside("convert", broken, place / target)
    assert ran.code == 2 and "CRC" in ran.err
    assert sorted(os.listdir(place)) == before


def test_debris_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a killed writer's temporary fills the disk, it goes before the next one gives up."""
    left = leave(tmp_path / "old", sink._make)
    real = os.posix_fallocate

    def full(fd: int, at: int, n: int) -> None:
        if left.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, at, n)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with sink.atomic_file(tmp_path / "new") as file:
        file.reserve(10)
        file.write(b"x")
    assert snapshot(tmp_path) == {"new": b"x"}


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("moment", ["before it is made", "before it is locked"])
def test_taken_for_debris_before_it_is_locked(
    kind: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may look at any moment between the making of the mark and the lock."""
    where, name = (
        (temporary, "_has_name")
        if moment == "before it is locked"
        else (sink if kind == "file" else directory, "_make")
    )
    real, seen = getattr(where, name), []

    def watched(*args: Any) -> Any:
        if not seen:
            seen.append(sorted(os.listdir(tmp_path)))
            temporary.remove_debris(tmp_path)
            assert os.listdir(tmp_path) == []
        return real(*args)

    monkeypatch.setattr(where, name, watched)
    if kind == "file":
        with sink.atomic_file(tmp_path / "t") as file:
            assert len(os.listdir(tmp_path)) == 2, "the temporary and its mark"
            file.write(b"x")
    else:
        with directory.atomic_directory(tmp_path / "t") as new:
            assert len(os.listdir(tmp_path)) == 2
            (new / "f").touch()
    assert len(seen) == 1 and os.listdir(tmp_path) == ["t"]


def test_errors_name_the_target_not_the_temporary(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", Fault("fsync", 0, os_error(errno.EIO)))
    with pytest.raises(WeighttoolsError) as error:
        weighttools.convert(source, tmp_path / "out")
    assert str(error.value).startswith(f"{tmp_path / 'out' / 'model.safetensors'}: ") and ".tmp" not in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="one root")
def test_the_root_of_a_file_system_is_no_target() -> None:
    """Nothing can be made beside it, and nothing exchanged with it."""
    with pytest.raises(SourceError, match="root of a file system"), directory.atomic_directory("/", force=True):
        pytest.fail("it must not begin")


@pytest.mark.parametrize("target", ["", ".", "..", "../d", "./"])
def test_the_current_directory_is_not_taken_away(
    target: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside
) -> None:
    """A shell whose directory was exchanged would go on in the old one, which is no more."""
    place = tmp_path / "e" / "d"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    before = os.stat(place).st_ino
    ran = inside("convert", source, target, "--force")
    assert ran.code == 2 and "the current directory" in ran.err
    assert (os.stat(place).st_ino, os.listdir(place), os.listdir(place.parent)) == (before, [], ["d"])
