"""Hostile and broken HDF5 files: each gives one clear line, soon, and nothing outside the file is read."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import weighttools as wt
from tests.thorough import amount
from tests.work import bounded
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, UnsafeFileError, UnsupportedError, WeighttoolsError
from weighttools.formats.hdf5 import process


def elsewhere(directory: Path) -> Path:
    """A file with a secret that no other file may lead to."""
    with h5py.File(directory / "secret.h5", "w") as file:
        file["x"] = np.full(4, 1234.5)
    (directory / "secret.bin").write_bytes(np.full(4, 1234.5).tobytes())
    return directory / "secret.h5"


def external_link(file: Any) -> None:
    file["leak"] = h5py.ExternalLink("secret.h5", "/x")


def external_storage(file: Any) -> None:
    file.create_dataset("leak", (4,), "f8", external=[("secret.bin", 0, 32)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4,))
    file.create_virtual_dataset("leak", layout)


def soft_through_external(file: Any) -> None:
    file["leak"] = h5py.ExternalLink("secret.h5", "/")
    file["indirect"] = h5py.SoftLink("/leak/x")


def nested_external(file: Any) -> None:
    file.create_group("deep/er")["leak"] = h5py.ExternalLink("/etc/passwd", "/x")


@pytest.mark.parametrize("make", [external_link, external_storage, virtual, soft_through_external, nested_external])
def test_what_leaves_the_file_is_left_out_and_named(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path)
    monkeypatch.chdir(tmp_path)
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        make(file)
    with pytest.raises(UnsafeFileError, match="holds no values of its own: .*leak.*not followed"):
        wt.open(tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "a") as file:
        file["good"] = np.arange(3.0)
    tensor_map = wt.open(tmp_path / "bad.h5")
    assert list(tensor_map) == ["good"] and not tensor_map.aliases
    assert tensor_map["good"].read().tolist() == [0, 1, 2]
    assert "leak" in tensor_map.origin.notes[0] and tensor_map.origin.notes[0].startswith("left out: ")


def test_a_layer_in_another_file_is_left_out_of_a_keras_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file.attrs["layer_names"] = [b"near", b"far"]
        for name in ("near", "far"):
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel:0"]
        file["near/kernel:0"] = np.arange(3.0)
        file["far/kernel:0"] = h5py.ExternalLink("secret.h5", "/x")
    tensor_map = wt.open(tmp_path / "k.h5")
    assert list(tensor_map) == ["near/kernel:0"] and "far/kernel:0" in tensor_map.origin.notes[0]


def test_a_dangling_soft_link_out_of_the_file_is_only_a_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["good"] = np.arange(3.0)
        file["soft"] = h5py.SoftLink("/../../etc/passwd")
    tensor_map = wt.open(tmp_path / "s.h5")
    assert list(tensor_map) == ["good"] and not tensor_map.aliases
    assert "/../../etc/passwd" in tensor_map.origin.notes[0]


def chunked(path: Path, **options: Any) -> tuple[bytearray, int, int]:
    """A file of one chunk; return its bytes, and where the chunk lies."""
    with h5py.File(path, "w") as file:
        thing = file.create_dataset("x", data=np.arange(64, dtype="f8"), chunks=(64,), **options)
        info = thing.id.get_chunk_info(0)
    return bytearray(path.read_bytes()), info.byte_offset, info.size


def refused(path: Path, data: bytes, match: str = ".") -> None:
    path.write_bytes(data)
    with bounded(), pytest.raises(WeighttoolsError, match=match):
        for tensor in wt.open(path).values():
            tensor.read()


def test_a_chunk_of_no_bytes_with_a_checksum(tmp_path: Path) -> None:
    """libhdf5 reads out of bounds when a chunk's size is 0 and Fletcher-32 wants its last four bytes."""
    path = tmp_path / "c.h5"
    data, _, size = chunked(path, fletcher32=True)
    key = struct.pack("<II", size, 0)  # the B-tree key: size of the chunk, filter mask
    at = data.index(key, data.index(b"TREE"))
    assert data.count(key) >= 1
    for wrong in (0, 1, 3, size - 1, size + 4, 0xFFFFFFFF):
        data[at : at + 4] = struct.pack("<I", wrong)
        refused(path, data)


@pytest.mark.parametrize("values", [63, 65, 0, 100_000])
def test_a_chunk_that_inflates_to_another_length(tmp_path: Path, values: int) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        thing = file.create_dataset("x", (64,), "f8", chunks=(64,), compression="gzip")
        thing.id.write_direct_chunk((0,), zlib.compress(np.arange(values, dtype="f8").tobytes()))
    with pytest.raises(CorruptFileError, match=r"'x'.*inflates to"):
        wt.open(path)["x"].read()


@pytest.mark.parametrize("garbage", [b"", b"\0", b"not deflate at all", b"x\x9c"])
def test_a_chunk_that_does_not_inflate(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        thing = file.create_dataset("x", (64,), "f8", chunks=(64,), compression="gzip")
        thing.id.write_direct_chunk((0,), garbage or b"\1")
    with pytest.raises(CorruptFileError, match="'x'"):
        wt.open(path)["x"].read()


@pytest.mark.parametrize("garbage", [b"\xff", b"\x20\x05", b"\x01ab", b"\x1fab", b"\0a\xe0\xff\x00" * 9])
def test_a_chunk_that_is_no_lzf(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        thing = file.create_dataset("x", (64,), "f8", chunks=(64,), compression="lzf")
        thing.id.write_direct_chunk((0,), garbage)
    with pytest.raises(CorruptFileError, match="'x'"):
        wt.open(path)["x"].read()


def test_a_wrong_checksum(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    data, offset, _ = chunked(path, fletcher32=True)
    data[offset + 9] ^= 4
    refused(path, data, "Fletcher-32")


def test_an_unknown_filter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(64), chunks=(64,), scaleoffset=0)
    tensor_map = wt.open(path)
    assert tensor_map["x"].shape == (64,)
    with pytest.raises(UnsupportedError, match=r"scaleoffset.*h5repack"):
        tensor_map["x"].read()


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20, 1 << 20)])
@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"}])
def test_shapes_without_values_are_refused(tmp_path: Path, shape: tuple[int, ...], options: Any) -> None:
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape, "f8", **options)
    refused(path, path.read_bytes(), "claims .* bytes, of which 0 are stored")


@pytest.mark.usefixtures("one_listing_parent")
def test_a_global_heap_object_of_no_size(tmp_path: Path) -> None:
    """libhdf5 walks a heap of objects by their sizes: a size of 0 kept it walking for ever."""
    path = tmp_path / "h.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file.attrs["text"] = "words " * 20
        file.attrs["more"] = "words " * 30
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    for at in range(heap + 8, heap + 96, amount(8, 1)):
        wrong = bytearray(data)
        wrong[at] = 0
        if wrong == data:
            continue
        path.write_bytes(wrong)
        try:
            wt.open(path).read()  # returns: the child's limits end an endless loop
        except WeighttoolsError as error:
            assert str(error).isprintable()


PROGRAMS = {
    "while True: pass": "more than 1 s",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "crashed on it .SIGSEGV",
    "x = [0]\nwhile True: x = x + x": "more memory|crashed",
    "open('/etc/hostname')": "Too many open files|crashed",
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits and signals are those of Linux")
def test_a_child_of_one_parent_is_confined(tmp_path: Path, listing_server: Any) -> None:
    """It says what a process of its own says, and has its limits."""
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file.attrs["layer_names"] = np.full(200_000, b"a name of twenty let")
    with (tmp_path / "x.h5").open("rb") as file:
        size = (tmp_path / "x.h5").stat().st_size
        listed = [
            start(file.fileno(), (0, size, 9.0, 160 << 20), 60) for start in (listing_server.start, process.start)
        ]
        assert listed[0].stdout == listed[1].stdout and [done.returncode for done in listed] == [0, 0]
        hungry = listing_server.start(file.fileno(), (0, size, 9.0, 1 << 20), 60)
        assert b"memory" in hungry.stdout
        with pytest.raises(subprocess.TimeoutExpired):
            listing_server.start(file.fileno(), (0, size, 9.0, 160 << 20), 1e-6)
        assert listing_server.start(file.fileno(), (0, size, 1e-6, 160 << 20), 60).returncode == -signal.SIGPROF
        assert listing_server.start(file.fileno(), (0, size, 9.0, 160 << 20), 60).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits and signals are those of Linux")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_child_that_dies_is_one_error(tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits hold: what libhdf5 might be made to do is done here by a program in its place."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3.0)
    start = "import sys; sys.path[:] = sys.argv[5:]; from weighttools.formats.hdf5.listing import confine\n"
    limits = "confine(float(sys.argv[3]), int(sys.argv[4]))\n"
    monkeypatch.setattr(process, "_PROGRAM", f"{start}{limits}{program}")
    with pytest.raises(CorruptFileError) as caught:
        wt.open(tmp_path / "x.h5")
    assert "HDF5 library" in str(caught.value)


def test_a_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(1000.0)
    data = path.read_bytes()
    path.write_bytes(data[:5000])
    with pytest.raises(CorruptFileError, match=f"truncated: {len(data) - 5000:,} bytes are missing of {len(data):,}"):
        wt.open(path)


def varied(path: Path, libver: str = "earliest") -> bytes:
    """A file with a little of everything; the latest structures carry checksums, the earliest do not."""
    with h5py.File(path, "w", libver=libver) as file:
        file["plain"] = np.arange(8.0)
        file.create_dataset("g/packed", data=np.arange(300), chunks=(64,), compression="gzip", shuffle=True)
        file.create_dataset("g/checked", data=np.arange(30.0), chunks=(16,), fletcher32=True)
        file.create_dataset("g/lzf", data=np.zeros(300), chunks=(64,), compression="lzf")
        file.attrs["text"] = "words"
        file.attrs["layer_names"] = np.array([b"g"])
        file["g"].attrs["weight_names"] = np.array([b"packed", b"checked"])
        file["tie"] = file["plain"]
        file["soft"] = h5py.SoftLink("/g/lzf")
    return path.read_bytes()


@pytest.mark.usefixtures("one_listing_parent")
@pytest.mark.parametrize(("libver", "n"), [("earliest", 60), ("latest", 15)])
def test_mutants_give_values_or_one_line(tmp_path: Path, libver: str, n: int) -> None:
    path = tmp_path / "m.h5"
    data = varied(path, libver)
    rng = random.Random(1)
    filled = [at for at, byte in enumerate(data) if byte] + list(range(200))
    for _ in range(amount(n // 5, n)):
        mutant = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            mutant[rng.choice(filled)] = rng.choice([0, 1, 255, rng.randrange(256)])
        path.write_bytes(mutant)
        try:
            for tensor in wt.open(path).values():
                tensor.read()
        except WeighttoolsError as error:
            assert str(error).isprintable()


def test_weights_that_are_not_there_are_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["dense/kernel:0"] = np.arange(3.0)
        file.attrs["layer_names"] = np.array([b"dense"])
        file["dense"].attrs["weight_names"] = np.array([b"kernel:0", b"bias:0"])
    with pytest.raises(CorruptFileError, match="dense/bias:0"):
        wt.open(tmp_path / "k.h5")


def test_listing_works_where_nothing_is_on_the_path_but_the_package(tmp_path: Path) -> None:
    """From another directory, with PYTHONPATH that holds a false h5py in the current directory."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3.0)
    (tmp_path / "h5py.py").write_text("raise SystemExit('the wrong h5py')")
    root = str(Path(wt.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); import weighttools as wt; print(list(wt.open('x.h5')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "['x']", done.stderr


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_full_disk_leaves_the_old_target(
    tmp_path: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write call in turn fails: the target stays as it was, with one line said and nothing left behind."""
    wt.save(tmp_path / "src.npz", TensorMap.from_arrays({"a": np.arange(5000.0), "b": np.arange(3)}, {"k": "v"}))
    (tmp_path / "old.h5").write_bytes(b"old")
    real = os.write
    calls = 0

    def write(fd: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    for allowed in range(100):  # noqa: B007 - seen by `write`
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            patch.delattr(os, "copy_file_range", raising=False)
            try:
                wt.convert(tmp_path / "src.npz", tmp_path / "old.h5", compression=compression, force=True)
                break
            except WeighttoolsError as error:
                assert "No space left" in str(error)
        assert (tmp_path / "old.h5").read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["old.h5", "src.npz"]
    assert 1 <= allowed < 99
    assert list(wt.open(tmp_path / "old.h5")) == ["a", "b"]
