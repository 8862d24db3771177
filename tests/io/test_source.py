"""Sources: exact reads, threads, pickling, files that change, and what is no file."""

from __future__ import annotations

import io
import os
import pickle
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import weighttools
from tests.formats.conformance import run_python
from tests.refused import refused
from weighttools.core import budgets
from weighttools.errors import CorruptFileError, SourceError, UnsupportedError
from weighttools.io import source as source_module
from weighttools.io import text
from weighttools.io.source import Bytes, LocalFile, SourceStream, open_source, spooled

DATA = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data.bin").write_bytes(DATA)
    return tmp_path / "data.bin"


@pytest.mark.parametrize("positioned", [True, False])
def test_reads_are_exact(path: Path, monkeypatch: pytest.MonkeyPatch, positioned: bool) -> None:
    monkeypatch.setattr(source_module, "_CHUNK", 7)  # as the kernel gives less than is asked for
    if not positioned:
        monkeypatch.delattr(os, "preadv")  # as on Windows
    source = LocalFile(path)
    assert source.size == len(DATA) and source.name == str(path)
    for offset, length in ((0, 0), (0, 1), (3, 100), (len(DATA) - 5, 5), (len(DATA), 0)):
        assert source.read(offset, length) == DATA[offset : offset + length]
        assert Bytes(DATA).read(offset, length) == DATA[offset : offset + length]
        buffer = bytearray(length)
        Bytes(DATA).readinto(offset, memoryview(buffer))
        assert buffer == DATA[offset : offset + length]
    source.close()
    assert source.read(9, 9) == DATA[9:18]  # opened again
    source.close()
    source.close()


@pytest.mark.parametrize("make", [LocalFile, lambda path: Bytes(path.read_bytes(), str(path))])
def test_reading_beyond_the_end_is_told(path: Path, make: type[LocalFile]) -> None:
    with refused(SourceError, "ends-early", "data.bin"):
        make(path).read(len(DATA) - 3, 4)


def test_one_descriptor_serves_many_threads(path: Path) -> None:
    source = LocalFile(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: source.read(i, 300), range(2000)))
    assert found == [DATA[i : i + 300] for i in range(2000)]


def test_pickled_file_opens_again(path: Path) -> None:
    source = LocalFile(path, name="shown")
    source.read(0, 4)
    again = pickle.loads(pickle.dumps(source))
    assert (again.name, again.size, again.read(5, 5)) == ("shown", len(DATA), DATA[5:10])
    assert repr(again) == f"LocalFile({str(path)!r})"


@pytest.mark.parametrize("change", ["replaced", "shortened", "gone"])
def test_file_that_changes_before_its_first_read_is_noticed(path: Path, change: str) -> None:
    source = LocalFile(path)
    if change == "gone":
        path.unlink()
    elif change == "replaced":
        other = path.with_name("other")
        other.write_bytes(DATA[::-1])
        other.rename(path)
    else:
        os.truncate(path, 5)
    with pytest.raises(SourceError, match="cannot be opened" if change == "gone" else "changed since it was opened"):
        source.read(0, 5)


def test_file_that_shrinks_while_open_is_noticed(path: Path) -> None:
    source = LocalFile(path)
    source.read(0, 1)
    os.truncate(path, 100)
    with refused(SourceError, "ends-early", "byte 100"):
        source.read(90, 20)


def test_failing_disk_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    source = LocalFile(path)
    source.fileno()
    monkeypatch.setattr(os, "preadv", fail)
    with refused(SourceError, "cannot-be-read", "data.bin", "Input/output error", "byte 3"):
        source.read(3, 1)


def test_what_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, what in (("pipe", "a named pipe"), ("socket", "a socket"), ("", "a directory")):
            with refused(SourceError, "not-a-file", what, "regular file"):
                open_source(tmp_path / name)
    with refused(SourceError, "not-a-file", "character device"):
        open_source("/dev/null")


def test_missing_file_names_near_ones(path: Path) -> None:
    with refused(SourceError, "no-such-file", "did you mean", "data.bin"):
        open_source(path.with_name("date.bin"))
    with refused(SourceError, "no-such-file") as caught:
        open_source(path.with_name("nothing-like-it"))
    assert caught.value.remedy is None
    with refused(SourceError, "no-such-file"):
        open_source(path.parent / "nowhere" / "x")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_names(name: str) -> None:
    with refused(SourceError, "cannot-be-read") as caught:
        open_source(name)
    assert str(caught.value).isprintable()


def test_a_terminal_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stdin in (Terminal(), None):
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(
            SourceError, match="standard input is a terminal or closed; pipe or redirect a file into it"
        ):
            open_source("-")


def test_urls_are_not_read() -> None:
    with refused(UnsupportedError, "url"):
        open_source("https://example.org/model.safetensors")


@pytest.mark.parametrize("redirected", [True, False])
def test_standard_input(path: Path, redirected: bool) -> None:
    code = f"""
import subprocess
from weighttools.io.source import open_source
if {redirected}:
    import os
    fd = os.open(sys.argv[1], os.O_RDONLY)
else:
    cat = subprocess.Popen(["cat", sys.argv[1]], stdout=subprocess.PIPE)
    fd = cat.stdout.fileno()
import os
os.dup2(fd, 0)
source = open_source("-")
print(source.name, source.size, source.read(300, 3).hex())
"""
    assert run_python(code, str(path)) == f"- {len(DATA)} {DATA[300:303].hex()}"


def test_a_spool_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is filled and while it is read there is nothing that a kill could leave."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    there: list[list[str]] = []

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(DATA), 1000):
            there.append(os.listdir(tmp_path))
            yield DATA[at : at + 1000]

    source = spooled(chunks(), "-")
    assert there and not any(there) and os.listdir(tmp_path) == []
    source.close()  # given back by others that share it; there would be no way to open it again
    assert source.read(300, 9) == DATA[300:309] and source.size == len(DATA)
    with pytest.raises(SourceError, match="known to the process that opened it only"):
        pickle.loads(pickle.dumps(source)).read(0, 1)


def test_a_full_disk_for_a_spool_is_told() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise OSError(28, "No space left on device")

    with pytest.raises(SourceError, match="-: cannot be unpacked to a temporary file: No space left on device"):
        spooled(chunks(), "-")


@pytest.mark.parametrize("host", ["", "localhost"])
def test_file_urls(host: str, tmp_path: Path) -> None:
    """Spelled as the standard library spells them."""
    path = tmp_path / "a b%20ü#?.safetensors"
    save_file({"w": np.ones(3, np.float32)}, path)
    url = path.as_uri().replace("file://", f"file://{host}")
    assert open_source(url).name == str(path)
    assert weighttools.open(url).origin.path == str(path) and list(weighttools.open(tmp_path.as_uri())) == ["w"]
    assert weighttools.check(url)["findings"] == weighttools.check(path)["findings"]
    with refused(UnsupportedError, "url"):
        weighttools.open("file://elsewhere/model.safetensors")


STEPS = st.lists(st.tuples(st.sampled_from("srw"), st.integers(-30, 300), st.integers(0, 2)), max_size=12)


@given(STEPS)
def test_stream_moves_as_a_file_does(steps: list[tuple[str, int, int]]) -> None:
    data = DATA[:200]
    ours, theirs = SourceStream(Bytes(data)), io.BytesIO(data)
    assert ours.readable() and ours.seekable()
    for what, n, whence in steps:
        if what == "s":
            base = {0: 0, 1: theirs.tell(), 2: len(data)}[whence]
            if base + n < 0:
                with pytest.raises(OSError, match="cannot seek"):
                    ours.seek(n, whence)
            else:
                assert ours.seek(n, whence) == theirs.seek(base + n)
        elif what == "r":
            assert ours.read(n) == theirs.read(n if n >= 0 else -1)
        else:
            a, b = bytearray(abs(n)), bytearray(abs(n))
            assert ours.readinto(a) == theirs.readinto(b) and a == b
        assert ours.tell() == theirs.tell()


def test_stream_allocates_no_more_than_there_is() -> None:
    assert SourceStream(Bytes(b"abc")).read(1 << 62) == b"abc"


def test_json_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.json"
    path.write_text('{"a": 1}')
    assert text.read_json(path) == {"a": 1}
    monkeypatch.setattr(budgets, "JSON_BYTES", 7)
    with refused(CorruptFileError, "too-large", "8", "7"):
        text.read_json(path)
