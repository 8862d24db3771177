"""Members of archives are held against their CRC-32 as they are read; zlib and zipfile are the oracles."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import shutil
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import weighttools as wt
from tests.refused import refused
from weighttools.core.crc32 import crc32, crc32_of, joined
from weighttools.core.spec import Span
from weighttools.errors import CorruptFileError
from weighttools.io.contents import Checked
from weighttools.io.source import Bytes, LocalFile

torch = pytest.importorskip("torch")

SIZES = [0, 1, 3, 4, 1023, 1024, 1025, 524_287, 524_288, 1 << 20, 2_000_003]


@pytest.mark.parametrize("n_bytes", SIZES)
def test_crc32_is_zlibs(n_bytes: int) -> None:
    data = random.Random(n_bytes).randbytes(n_bytes)
    assert crc32(memoryview(data)) == zlib.crc32(data)
    cut = n_bytes // 3
    assert joined(zlib.crc32(data[:cut]), zlib.crc32(data[cut:]), n_bytes - cut) == zlib.crc32(data)
    pieces = [memoryview(data)[at : at + 99_991] for at in range(0, n_bytes, 99_991)]
    assert crc32_of(iter(pieces)) == zlib.crc32(data)


def test_pieces_in_any_order_give_the_crc_of_the_whole() -> None:
    data = os.urandom(300_000)
    for seed in range(20):
        rng = random.Random(seed)
        cuts = sorted({0, 300_000, *(rng.randrange(300_000) for _ in range(8))})
        runs = [*itertools.pairwise(cuts), (100, 200_000)]  # one that overlaps others, too
        rng.shuffle(runs)
        content = Checked(Bytes(data), "m", 0, len(data), zlib.crc32(data))
        for start, stop in runs:
            buffer = bytearray(stop - start)
            content.readinto(start, memoryview(buffer))
            assert buffer == data[start:stop]
            content.confirm(start, stop - start)
        assert content.is_confirmed


def test_what_was_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an array's member only the header is left to read, whatever the number of passes."""
    data = os.urandom(1_000_000)
    source = Bytes(data)
    content = Checked(source, "m", 0, len(data), zlib.crc32(data))
    content.n_needed = len(data) - 128
    read: list[int] = []
    real = Bytes.readinto
    monkeypatch.setattr(Bytes, "readinto", lambda s, at, b: (read.append(b.nbytes), real(s, at, b))[1])
    for _ in range(3):
        for at in range(128, len(data), 250_000):
            content.readinto(at, memoryview(bytearray(min(250_000, len(data) - at))))
            content.confirm(at, min(250_000, len(data) - at))
    assert content.is_confirmed
    assert sum(read) == 3 * (len(data) - 128) + 128


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    large = rng.standard_normal((300, 500), dtype=np.float32)
    return {
        "small": np.arange(12.0),
        "large": large,
        "turned": np.asfortranarray(large[:90]),
        "big": large.astype(">f4"),
    }


def flipped(path: Path, member: str) -> Path:
    """Flip one bit in the middle of a stored member, which zipfile then refuses."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    data = bytearray(path.read_bytes())
    begin = (
        info.header_offset
        + 30
        + sum(data[info.header_offset + at] + (data[info.header_offset + at + 1] << 8) for at in (26, 28))
    )
    data[begin + info.file_size - 3] ^= 1
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile, match="CRC-32"):
        archive.read(member)
    return path


def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", **arrays())
    return tmp_path / "a.npz"


def pt(tmp_path: Path) -> Path:
    tensors = {name: torch.from_numpy(array.astype("=f4").copy()) for name, array in arrays().items()}
    shared = torch.arange(50_000.0)
    halves = {"a": shared[:25_000], "b": shared[25_000:], "turned": tensors["turned"].t()}
    torch.save({**tensors, **halves}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [info.filename for info in archive.infolist() if info.file_size > 40 and "pkl" not in info.filename]


READERS: dict[str, Callable[[Path], object]] = {
    "stats": lambda path: wt.stats(path),
    "stats in a thread": lambda path: wt.stats(path, threads=1),
    "quantiles": lambda path: wt.stats(path, quantiles=[0.5]),
    "safetensors": lambda path: wt.convert(path, path.parent / "out.safetensors"),
    "cast": lambda path: wt.convert(path, path.parent / "out.safetensors", dtype="bfloat16"),
    "directory": lambda path: wt.convert(path, f"{path.parent}/out/"),
    "npz": lambda path: wt.convert(path, path.parent / "out.npz"),
    "hdf5": lambda path: wt.convert(path, path.parent / "out.h5"),
    "read": lambda path: [tensor.read() for tensor in wt.open(path).values()],
    "blocks": lambda path: [list(tensor.blocks()) for tensor in wt.open(path).values()],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", [npz, pt])
def test_a_flipped_bit_is_found_by_whoever_reads_the_member_whole(
    reader: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    READERS[reader](make(tmp_path))
    for member in members(tmp_path / make(tmp_path).name):
        before = set(tmp_path.iterdir())
        for left in before - {tmp_path / "a.npz", tmp_path / "a.pt"}:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        with refused(CorruptFileError, "damaged-member", f"'{member}'", "CRC-32"):
            READERS[reader](flipped(make(tmp_path), member))
        assert {path.name for path in tmp_path.iterdir()} == {make(tmp_path).name}, "nothing is written"


@pytest.mark.parametrize("make", [npz, pt])
def test_a_slice_is_not_checked_and_check_names_every_damaged_member(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    named = members(path)
    for member in named:
        flipped(path, member)
    assert wt.get(path, "large[:2]").shape == (2, 500)
    found = [f for f in wt.check(path)["findings"] if f["code"] == "damaged-member"]
    assert len(found) == len(named)
    assert all(any(repr(member) in f["message"] for f in found) for member in named)


def test_check_reads_members_that_hold_no_tensor(tmp_path: Path) -> None:
    path = pt(tmp_path)
    with zipfile.ZipFile(path) as archive:
        other = next(info.filename for info in archive.infolist() if info.filename.endswith("serialization_id"))
    flipped(path, other)
    wt.stats(path)
    assert [f["code"] for f in wt.check(path)["findings"] if f["severity"] == "error"] == ["damaged-member"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_inside_a_keras_archive(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(400), keras.layers.Dense(30)])
    path = tmp_path / "a.keras"
    model.save(path)
    wt.stats(path)
    assert not [f for f in wt.check(path)["findings"] if f["severity"] == "error"]
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("model.weights.h5")
        assert info.compress_type == zipfile.ZIP_STORED
        place = path.read_bytes().find(keras.ops.convert_to_numpy(model.layers[0].kernel).tobytes())
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 4
    path.write_bytes(data)
    with refused(CorruptFileError, "damaged-member", "'model.weights.h5'"):
        wt.stats(path)
    with refused(CorruptFileError, "damaged-member", "'model.weights.h5'"):
        wt.convert(path, tmp_path / "o.safetensors")
    assert "damaged-member" in [f["code"] for f in wt.check(path)["findings"]]


def test_other_processes_only_read_and_the_member_is_checked_here(tmp_path: Path) -> None:
    path = flipped(npz(tmp_path), "large.npy")
    with ProcessPoolExecutor(1) as pool, refused(CorruptFileError, "damaged-member", "'large.npy'"):
        wt.stats(path, executor=pool)
    content = Checked(LocalFile(path), "m", 0, 100, 0)
    copy = pickle.loads(pickle.dumps(Span(content.source, 0, 100, content))).content
    copy.readinto(0, memoryview(bytearray(100)))
    assert (copy.crc, copy.length, copy.is_confirmed) == (0, 100, False)


def test_members_that_a_damaged_directory_passes_over_are_missed(tmp_path: Path) -> None:
    """A flipped bit in a comment's length makes zipfile skip the next entry without a word."""
    np.savez(tmp_path / "a.npz", a=np.ones(2), b=np.ones(3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 32] = (data.index(b"PK\x05\x06") - data.index(b"PK\x01\x02", entry + 4)) & 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert len(archive.namelist()) == 1
    with pytest.raises(CorruptFileError, match="holds 1 members; expected 2, as its end record says"):
        wt.open(tmp_path / "a.npz")
    assert any(finding["severity"] == "error" for finding in wt.check(tmp_path / "a.npz")["findings"])


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_who_reads_a_matrix_whole_for_its_spectrum_or_its_ranks_is_told(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    np.savez(path, a=array) if suffix == "npz" else torch.save({"a": torch.from_numpy(array)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(array.tobytes()) + 1000] ^= 4
    path.write_bytes(data)
    for read in (wt.spectrum, lambda p: wt.prune(p, sparsity=0.5)):
        with refused(CorruptFileError, "damaged-member", "CRC-32"):
            read(path)


def test_the_pickle_of_a_pytorch_file_is_read_whole(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(b"layer.weight")] ^= 4
    (tmp_path / "a.pt").write_bytes(data)
    with refused(CorruptFileError, "damaged-member", "data.pkl'"):
        wt.open(tmp_path / "a.pt")
