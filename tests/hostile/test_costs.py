"""Small files that would cost much: work and memory stay within bounds that the file's own bytes set.

Peak memory is that of a process that does the work (as `tests.test_memory` measures it); work is counted, never timed.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from gguf import GGUFReader

import weighttools as wt
from tests.conftest import clean_environment
from tests.hostile import pickles
from tests.thorough import chosen
from weighttools.errors import CorruptFileError, SpecError, UnsafeFileError, WeighttoolsError

MB = 1 << 20
LIMIT = 300 * MB

VERBS = """
import contextlib, resource, sys, weighttools as wt
from weighttools.errors import WeighttoolsError
for verb in (wt.inspect, wt.check, wt.stats, lambda path: wt.convert(path, path + ".safetensors", force=True)):
    with contextlib.suppress(WeighttoolsError):
        verb(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(path: Path) -> int:
    """The peak memory of a process that does all that the commands do with a file."""
    child = (
        f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {VERBS!r}, {str(path)!r}]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child], env=clean_environment(path.parent), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def gguf(*arrays: bytes) -> bytes:
    """A GGUF file of one tensor; each array is its element type, its count and its elements."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    entries += [text(f"a{i}") + struct.pack("<I", 9) + array for i, array in enumerate(arrays)]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries)
    head += text("output_norm.weight") + struct.pack("<IQIQ", 1, 8, 0, 0)
    return head + b"\0" * (-len(head) % 32 + 32)


EMPTY = struct.pack("<IQ", 0, 0)
WIDE = {
    "an array of arrays": (struct.pack("<IQ", 9, 60_000) + EMPTY * 60_000,),
    "two levels": (struct.pack("<IQ", 9, 200) + (struct.pack("<IQ", 9, 300) + EMPTY * 300) * 200,),
    "many arrays": (struct.pack("<IQB", 0, 1, 7),) * 20_000,
}


@pytest.mark.parametrize("kind", WIDE)
def test_arrays_of_gguf_metadata_are_walked_in_windows(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read a few times, not once for each element, and no more of the file than itself."""
    from weighttools.formats.safetensors import format as safetensors
    from weighttools.io.source import LocalFile

    path, reads, walks = tmp_path / "m.gguf", [], []
    path.write_bytes(gguf(*WIDE[kind]))
    readinto, texts = LocalFile.readinto, safetensors.text_metadata
    monkeypatch.setattr(LocalFile, "readinto", lambda s, at, b: (reads.append(b.nbytes), readinto(s, at, b))[1])
    monkeypatch.setattr(safetensors, "text_metadata", lambda metadata: (walks.append(1), texts(metadata))[1])
    wt.convert(path, tmp_path / "o", names="hf")
    assert len(walks) == 2, "once for what will be lost, once for writing"
    assert sum(reads) < 12 * path.stat().st_size and len(reads) < 40 + 4 * len(WIDE[kind])
    written = wt.open(tmp_path / "o").metadata
    arrays = GGUFReader(path).fields if kind == "many arrays" else {}
    assert all(json.loads(written[name]) == f.contents() for name, f in arrays.items() if name.startswith("a"))
    assert len(json.loads(written["a0"])) == struct.unpack_from("<Q", WIDE[kind][0], 4)[0]


def deflated(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def torch_zip(data: bytes, storage: bytes = bytes(16), method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/data/0", storage)
        archive.writestr("a/version", b"3\n")
    return stream.getvalue()


def many_views(n: int, size: tuple[int, ...], stride: tuple[int, ...], held: int) -> bytes:
    entries = b"".join(
        pickles.text(f"w{i}") + pickles.tensor((size[0] - i,), stride, held=pickles.storage(n=held)) for i in range(n)
    )
    return pickles.proto(b"}(" + entries + b"u")


def npy_header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def zeros(n: int) -> bytes:
    """A gigabyte of zeros deflates to a thousandth: members of them, one or several."""
    return npy_header("'|u1'", f"({n},)") + bytes(n)


def arrays_of_one_text(n_arrays: int, n_bytes: int) -> bytes:
    """NumPy arrays of protocol 2, each made of the same latin-1 text, which every one would encode anew."""
    array = pickletools.optimize(pickle.dumps(np.zeros(n_bytes, np.uint8), 2))
    begin, end = array.index(b"X" + struct.pack("<I", n_bytes)), array.rindex(b"tb.")
    text, rest = array[begin : begin + 5 + n_bytes], array[begin + 5 + n_bytes : end]
    again = b"".join(array[2:begin] + b"j" + struct.pack("<I", 90) + rest + b"tb" for _ in range(n_arrays))
    return b"\x80\x02" + text + b"r" + struct.pack("<I", 90) + b"0](" + again + b"e."


FILES: dict[str, Callable[[], tuple[str, bytes]]] = {
    "empty dictionaries, deflated": lambda: ("a.pt", torch_zip(b"\x80\x02](" + b"}" * 20_000_000 + b"e.")),
    "a stack of dictionaries": lambda: ("a.pt", torch_zip(b"\x80\x02" + b"}" * 7_900_000 + b".")),
    "lists, stored": lambda: ("a.pt", torch_zip(b"\x80\x02](" + b"]" * 900_000 + b"e.", method=zipfile.ZIP_STORED)),
    "dictionaries, stored": lambda: ("a.bin", b"\x80\x02](" + b"}" * 900_000 + b"e."),
    "memos": lambda: ("a.bin", b"\x80\x04N" + b"\x94" * 900_000 + b"."),
    "a text of four bytes a letter": lambda: (
        "a.pt",
        torch_zip(b"\x80\x02X" + struct.pack("<I", 60_000_004) + "😀".encode() + b"a" * 60_000_000 + b"."),
    ),
    "views of a deflated storage": lambda: ("a.pt", torch_zip(many_views(60, (1 << 24,), (1,), 1 << 24), bytes(1 << 26))),
    "expanded tensors": lambda: ("a.pt", torch_zip(many_views(60, (1 << 22,), (0,), 4))),
    "arrays of one text": lambda: ("a.bin", arrays_of_one_text(3000, 400_000)),
    "an array of zeros": lambda: ("a.npz", deflated(**{"a.npy": zeros(800 * MB)})),
    "arrays of zeros": lambda: ("a.npz", deflated(**{f"{i}.npy": zeros(100 * MB) for i in range(8)})),
    "objects": lambda: ("a.npz", deflated(**{"a.npy": npy_header("'|O'", "(9,)") + b"\x80\x02" + b"}" * (300 * MB)})),
    "weights that are zeros": lambda: ("a.keras", deflated(**{"metadata.json": b"{}", "model.weights.h5": bytes(900 * MB)})),
    "a configuration of spaces": lambda: ("a.keras", deflated(**{"config.json": b" " * (150 * MB)})),
}  # fmt: skip


SECOND = ("a stack of dictionaries", "lists, stored", "dictionaries, stored", "memos", "arrays of zeros")
"""Of a kind with another, which stands for both in the quick run."""


@pytest.mark.parametrize("name", chosen(FILES, FILES.keys() - set(SECOND)))
def test_a_small_file_takes_little_memory(name: str, tmp_path: Path) -> None:
    file, data = FILES[name]()
    assert len(data) < 1_000_000
    (tmp_path / file).write_bytes(data)
    assert peak(tmp_path / file) < LIMIT


def test_what_a_member_declares_is_not_reserved(tmp_path: Path) -> None:
    """Eight bytes that say they are a hundred million: no more is allocated than inflates."""
    data = bytearray(deflated(**{"a.npy": npy_header("'|u1'", "(100000000,)") + b"12345678"}))
    size = struct.pack("<I", 128 + 100_000_000)
    for signature, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = data.index(signature) + at
        data[place : place + 4] = size
    (tmp_path / "a.npz").write_bytes(data)
    assert peak(tmp_path / "a.npz") < 100 * MB
    with pytest.raises(CorruptFileError, match="of its declared 100,000,128"):
        wt.stats(tmp_path / "a.npz")


def test_a_storage_is_inflated_once_for_all_its_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    flat = torch.arange(40_000.0)
    torch.save({f"w{i}": flat[i * 1000 : (i + 1) * 1000] for i in range(40)}, tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    (tmp_path / "a.pt").write_bytes(deflated(**members))
    inflated = 0
    real = zlib.decompressobj

    def counted(*args: int) -> object:
        nonlocal inflated
        inflated += 1
        return real(*args)

    tensors = wt.open(tmp_path / "a.pt")
    monkeypatch.setattr("weighttools.io.archive.zlib.decompressobj", counted)
    for i, tensor in enumerate(tensors.values()):
        values = tensor.read()
        np.testing.assert_array_equal(values, flat[i * 1000 : (i + 1) * 1000].numpy())
        values += 1  # its own, not the storage that the others see
    assert inflated == 1


@pytest.mark.parametrize("views", [(60, (1 << 24,), (1,), 1 << 24, 1 << 26), (60, (1 << 22,), (0,), 4, 16)])
def test_views_are_bounded_in_all(views: tuple[int, tuple[int], tuple[int], int, int]) -> None:
    *shown, held = views
    with pytest.raises(UnsafeFileError, match=r"its tensors show [\d,]+ bytes of storages that hold"):
        _read("a.pt", torch_zip(many_views(*shown), bytes(held)))  # type: ignore[arg-type]


def _read(name: str, data: bytes) -> wt.TensorMap:
    from weighttools.formats import read_file
    from weighttools.io.source import Bytes

    return read_file(Bytes(data, name))


def test_an_integer_of_any_length_is_said(tmp_path: Path) -> None:
    """Python refuses to spell integers of more than 4300 digits, as keys and counts alike."""
    long = b"\x8b" + struct.pack("<I", 5000) + b"\x7f" * 5000
    for data in (b"}(" + long + pickles.tensor() + b"u", b"}(" + pickles.text("w") + long + b"u"):
        with pytest.raises(CorruptFileError, match="the pickle holds an integer of 5,000 bytes"):
            _read("a.pt", torch_zip(pickles.proto(data)))


# -- HDF5 -------------------------------------------------------------------------------------------------------------


def test_chunks_far_larger_than_their_data_set_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.create_dataset("w", data=np.zeros(4, "u1"), maxshape=(None,), chunks=(64 * MB,), compression=9)
    with pytest.raises(UnsafeFileError, match=r"'w' of 4 bytes lies in chunks of 67,108,864"):
        wt.open(tmp_path / "one.h5")
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for i in range(60):
            file.create_dataset(f"w{i}", data=np.zeros(4, "u1"), maxshape=(None,), chunks=(4 * MB,), compression=9)
    assert (tmp_path / "many.h5").stat().st_size < MB
    with pytest.raises(UnsafeFileError, match=r"its chunks would inflate to 251,658,240 bytes"):
        wt.open(tmp_path / "many.h5")


def test_a_chunk_somewhat_larger_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", data=np.arange(9.0), maxshape=(None,), chunks=(100_000,), compression=9)
    np.testing.assert_array_equal(wt.open(tmp_path / "a.h5")["w"].read(), np.arange(9.0))


def test_unwritten_data_sets_are_bounded_together(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(100):
            file.create_dataset(f"w{i}", shape=(MB,), dtype="u1")
    np.testing.assert_array_equal(wt.open(_few(tmp_path))["w3"].read(), np.zeros(MB, "u1"))
    with pytest.raises(UnsafeFileError, match=r"claim 104,857,600 bytes that were never written"):
        wt.open(tmp_path / "a.h5")


def _few(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "few.h5", "w") as file:
        for i in range(5):
            file.create_dataset(f"w{i}", shape=(MB,), dtype="u1")
    return tmp_path / "few.h5"


# -- others -----------------------------------------------------------------------------------------------------------


def test_alignment_is_believed_to_64_kib(tmp_path: Path) -> None:
    for metadata in ({"general.alignment": str(1 << 17)}, {"general.alignment": str(1 << 29)}):
        tensors = wt.TensorMap.from_arrays({"w": np.zeros(3, "f4")}, metadata)
        with pytest.raises(SpecError, match="at most 65,536"):
            wt.save(tmp_path / "a.gguf", tensors)
    tensors = wt.TensorMap.from_arrays(
        {f"w{i}": np.zeros(1, "f4") for i in range(2000)}, {"general.alignment": "65536"}
    )
    with pytest.raises(SpecError, match=r"an alignment of 65,536 pads 8,000 bytes of tensors with 131,064,000 more"):
        wt.save(tmp_path / "a.gguf", tensors)
    assert not (tmp_path / "a.gguf").exists()


def test_a_configuration_is_not_150_mb(tmp_path: Path) -> None:
    wt.save(tmp_path / "model.safetensors", wt.TensorMap.from_arrays({"w": np.ones(3, "f4")}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}) + " " * 9_000_000)
    with pytest.raises(WeighttoolsError, match="expected at most 8,000,000"):
        from weighttools.io.text import read_json

        read_json(tmp_path / "config.json")
