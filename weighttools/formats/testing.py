"""What every format must do. A format's own test subclasses `FormatConformance` and fills in a few attributes.

The oracle is the format's official library, by the hooks `golden_write` and `golden_read`; never our own output.
A minimal subclass::

    class TestThing(FormatConformance):
        format_name = "thing"
        suffix = ".thing"
        dtypes = ("float32", "int64")

        def golden_write(self, path, arrays): officiallibrary.save(arrays, path)
        def golden_read(self, path): return officiallibrary.load(path)

A format of another package is found by its entry point, so that package must be installed. For full messages of what
fails, call ``pytest.register_assert_rewrite("weighttools.formats.testing")`` in ``conftest.py``.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from weighttools.core import testing as strategies
from weighttools.core.dtypes import DTYPES
from weighttools.core.tensormap import TensorMap
from weighttools.core.testing import HOSTILE_PATCHES, assert_same, at_most, bits_of, mutated, random_array, run_python
from weighttools.errors import MissingDependencyError, WeighttoolsError
from weighttools.formats import load, read_file
from weighttools.formats.base import WriteOptions
from weighttools.io.sink import atomic_file
from weighttools.io.source import LocalFile

try:
    import pytest
    from hypothesis import given
    from hypothesis import strategies as st
except ImportError:
    raise MissingDependencyError(
        "the conformance suite needs pytest and Hypothesis", remedy="pip install pytest hypothesis"
    ) from None

Arrays = dict[str, np.ndarray[Any, Any]]

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (8,), (4, 3), (2, 2, 4), (0,), (3, 0, 2), (1, 1, 1, 4))

MEMORY = """
import sys
import numpy as np
import weighttools as wt
import ml_dtypes, {also}
from weighttools.errors import WeighttoolsError

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10

warm = wt.open(sys.argv[1])
for tensor in warm.values():
    for block in tensor.blocks():
        pass
before = peak()
total = 0
for tensor in wt.open(sys.argv[2]).values():
    for block in tensor.blocks():
        total += block.size
print(total, peak() - before)
"""

NO_NUMPY = """
import sys
import weighttools as wt
tensor_map = wt.open(sys.argv[1])
assert len(tensor_map) and [t.shape for t in tensor_map.values()] and tensor_map.totals()[0]
print([name for name in ("numpy", "ml_dtypes", "h5py", "torch") if name in sys.modules])
"""


class FormatConformance:
    """The suite. Attributes say what the format can hold; everything it can hold must survive.

    Attributes
    ----------
    format_name, suffix
        As in the table of formats.
    dtypes
        Every dtype that the format holds under its own name.
    golden_dtypes
        Those that the official library can write and read itself; default `dtypes`.
    shapes
        Shapes that the golden test writes.
    min_dims, max_dims, zero_size
        What shapes the round trips draw.
    whole_bytes
        Whether packed elements must fill whole bytes.
    n_tensors
        The least and most tensors of a file.
    writes, keeps_names, keeps_order, keeps_metadata, keeps_aliases
        What the writer does.
    trailing_slack
        How many bytes may be cut from a file's end without harm (padding).
    header_without_numpy
        Whether opening a file loads no NumPy.
    memory_limit
        Bytes that reading `large_bytes` by blocks may take over a small file.
    """

    format_name: str
    suffix: str
    dtypes: tuple[str, ...]
    golden_dtypes: tuple[str, ...] | None = None
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    min_dims, max_dims, zero_size = 0, 4, True
    whole_bytes = True
    n_tensors = (0, 6)
    writes = True
    keeps_names = True
    keeps_order = True
    keeps_metadata = True
    keeps_aliases = True
    trailing_slack = 0
    header_without_numpy = False
    large_bytes = 96 << 20
    memory_limit = 24 << 20
    memory_imports = "json"
    mutations = 150

    # -- hooks ----------------------------------------------------------------------------------------------------

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        """Write `arrays` with the official library."""
        raise NotImplementedError

    def golden_read(self, path: Path) -> Arrays:
        """Read a file with the official library; a dtype it has no name for may come as void or unsigned bytes."""
        raise NotImplementedError

    def golden_holds(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether the official library can write this array, whose dtype is one of `golden_dtypes`."""
        return True

    def names(self) -> st.SearchStrategy[str]:
        """Names that the format can hold."""
        return strategies.names()

    def arrays(self) -> st.SearchStrategy[np.ndarray[Any, Any]]:
        """Arrays that the format can hold."""
        shape = strategies.shapes(self.min_dims, self.max_dims, zero=self.zero_size)
        return strategies.arrays(self.dtypes, shape, self.whole_bytes)

    def maps(self) -> st.SearchStrategy[TensorMap]:
        """Maps that the format can hold."""
        least, most = self.n_tensors
        return strategies.tensor_maps(
            self.arrays(), self.names(), least, most, metadata=self.keeps_metadata, aliases=self.keeps_aliases
        )

    def load(self, path: Path) -> TensorMap:
        """Open a file with weighttools."""
        return read_file(LocalFile(path))

    # -- helpers --------------------------------------------------------------------------------------------------

    def write(self, tensor_map: TensorMap, path: Path, threads: int | None = 1) -> bytes:
        """Write a map with weighttools and return the file's bytes."""
        writer = load(self.format_name).write
        assert writer is not None
        with atomic_file(path, force=True) as sink:
            writer(tensor_map, sink, WriteOptions(threads=threads))
        return path.read_bytes()

    def examples(self, dtypes: tuple[str, ...] | None = None) -> Arrays:
        """One array of each dtype and shape."""
        found: Arrays = {}
        for i, dtype in enumerate(DTYPES[name] for name in dtypes or self.golden_dtypes or self.dtypes):
            for j, shape in enumerate(self.shapes):
                n = int(np.prod(shape, dtype=np.int64))
                array = random_array(dtype, shape, 100 * i + j)
                if (self.whole_bytes and n % dtype.pack) or not (dtypes or self.golden_holds(array)):
                    continue
                found[f"t.{dtype}.{'x'.join(map(str, shape)) or 'scalar'}"] = array
        return found

    def files(self, arrays: Arrays) -> list[Arrays]:
        """Share arrays out over files: all in one, or one in each for a format of single arrays."""
        return [arrays] if self.n_tensors[1] > 1 else [{name: array} for name, array in arrays.items()]

    def small(self) -> Arrays:
        """A few small arrays, for the tests that break files."""
        dtypes = (self.golden_dtypes or self.dtypes)[:2]
        shapes = [shape for shape in ((2, 4), (4,)) if self.min_dims <= len(shape) <= self.max_dims]
        found = {f"t{i}": random_array(DTYPES[name], shapes[i % len(shapes)], i) for i, name in enumerate(dtypes)}
        return dict(list(found.items())[: self.n_tensors[1]])

    def small_file(self, path: Path) -> bytes:
        """The bytes of a small file of the official library."""
        self.golden_write(path, self.small())
        return path.read_bytes()

    def named(self, path: Path, arrays: Arrays) -> Arrays:
        """The arrays under the names that reading `path` must give them."""
        return arrays if self.keeps_names else dict(zip([path.stem], arrays.values(), strict=True))

    def survives(self, path: Path) -> bool:
        """Open a broken file and read all of it; False if it was refused. Anything but our errors is a failure."""
        try:
            tensor_map = self.load(path)
            for tensor in tensor_map.values():
                tensor.read()
                for _ in tensor.blocks(3):
                    pass
            self.check_regions(path)
        except WeighttoolsError as error:
            line = str(error)
            assert line.isprintable() and line, line
            return False
        return True

    def check_regions(self, path: Path) -> None:
        """Hold what the format says of the parts of a file: they begin within it."""
        regions, source = load(self.format_name).regions, LocalFile(path)
        for offset, length, what in regions(source) if regions else ():
            assert 0 <= offset <= source.size and length >= 0 and what.isprintable()

    # -- reading what the official library writes ------------------------------------------------------------------

    def test_reads_what_the_official_library_writes(self, tmp_path: Path) -> None:
        for i, arrays in enumerate(self.files(self.examples())):
            path = tmp_path / f"golden{i}{self.suffix}"
            self.golden_write(path, arrays)
            assert_same(self.load(path).read(), self.named(path, arrays))

    def test_opens_by_content_and_by_suffix(self, tmp_path: Path) -> None:
        path = tmp_path / f"golden{self.suffix}"
        self.small_file(path)
        tensor_map = self.load(path)
        assert tensor_map.origin.format == self.format_name
        assert tensor_map.origin.files == (str(path),)
        assert not tensor_map.origin.notes

    # -- writing ---------------------------------------------------------------------------------------------------

    def test_official_library_reads_ours(self, tmp_path: Path) -> None:
        if not self.writes:
            assert load(self.format_name).write is None
            return
        for i, arrays in enumerate(self.files(self.examples(self.dtypes))):
            path = tmp_path / f"ours{i}{self.suffix}"
            self.write(TensorMap.from_arrays(arrays), path)
            found = self.golden_read(path)
            expected = self.named(path, arrays)
            assert set(expected) <= set(found)
            for name, array in expected.items():
                assert found[name].shape == array.shape, name
                if found[name].dtype.kind != "V":
                    assert found[name].dtype == array.dtype, name
                assert found[name].tobytes() == array.tobytes(), name

    def test_round_trip(self, tmp_path: Path) -> None:
        if not self.writes:
            assert load(self.format_name).write is None
            return

        @given(self.maps())
        @at_most(100)
        def check(tensor_map: TensorMap) -> None:
            path = tmp_path / f"round{self.suffix}"
            self.write(tensor_map, path)
            found = self.load(path)
            arrays = {name: tensor.read() for name, tensor in tensor_map.items()}
            assert_same(found.read(), self.named(path, arrays))
            if self.keeps_order:
                assert len(found) < 2 or list(found) == list(tensor_map)
            if self.keeps_metadata:
                assert dict(found.metadata) == dict(tensor_map.metadata)
            if self.keeps_aliases:
                assert dict(found.aliases) == dict(tensor_map.aliases)

        check()

    def test_same_map_same_bytes(self, tmp_path: Path) -> None:
        if not self.writes:
            assert load(self.format_name).write is None
            return

        @given(self.maps())
        @at_most(10)
        def check(tensor_map: TensorMap) -> None:
            first = self.write(tensor_map, tmp_path / f"same{self.suffix}")
            backwards = dict(reversed(list(tensor_map.metadata.items())))
            again = TensorMap.from_arrays(
                {name: tensor.read() for name, tensor in tensor_map.items()}, backwards, tensor_map.aliases
            )
            assert self.write(again, tmp_path / f"same{self.suffix}", threads=2) == first
            copied = self.load(tmp_path / f"same{self.suffix}")
            if self.keeps_names:
                assert self.write(copied, tmp_path / f"copied{self.suffix}") == first

        check()

    # -- broken files ----------------------------------------------------------------------------------------------

    def test_every_truncation_is_refused(self, tmp_path: Path) -> None:
        data = self.small_file(tmp_path / f"whole{self.suffix}")
        path = tmp_path / f"cut{self.suffix}"
        for n in range(len(data) - self.trailing_slack):
            path.write_bytes(data[:n])
            assert not self.survives(path), f"cut to {n} of {len(data)} bytes"

    def test_mutations_are_refused_or_read(self, tmp_path: Path) -> None:
        data = self.small_file(tmp_path / f"whole{self.suffix}")
        path = tmp_path / f"mutant{self.suffix}"
        at = st.integers(0, len(data) - 1)
        patch = st.one_of(st.binary(max_size=8), st.sampled_from(HOSTILE_PATCHES))
        change = st.tuples(at, st.sampled_from(["set", "flip", "insert", "delete", "repeat"]), patch)

        @given(st.lists(change, min_size=1, max_size=4))
        @at_most(self.mutations)
        def check(changes: list[tuple[int, str, bytes]]) -> None:
            path.write_bytes(mutated(data, changes))
            self.survives(path)

        check()

    # -- reading in parts -------------------------------------------------------------------------------------------

    def test_blocks_of_any_size_are_the_whole(self, tmp_path: Path) -> None:
        arrays = self.files(self.examples())
        for i, part in enumerate(arrays if len(arrays) == 1 else arrays[:12]):
            path = tmp_path / f"blocks{i}{self.suffix}"
            self.golden_write(path, part)
            for tensor in self.load(path).values():
                whole = tensor.read()
                for size in (1, 3, 8, 1 << 20):
                    blocks = list(tensor.blocks(size))
                    assert all(block.ndim == 1 for block in blocks)
                    joined = np.concatenate([*blocks, np.empty(0, whole.dtype)])
                    np.testing.assert_array_equal(bits_of(joined), bits_of(whole))

    def test_threads_read_what_one_reads(self, tmp_path: Path) -> None:
        path = tmp_path / f"threads{self.suffix}"
        arrays = self.files(self.examples())[0]
        self.golden_write(path, arrays)
        tensor_map = self.load(path)
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(tensor_map[name].read) for _ in range(4) for name in tensor_map]
            found = [job.result() for job in jobs]
        serial = [tensor_map[name].read() for _ in range(4) for name in tensor_map]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, serial, strict=True))

    def test_maps_and_tensors_pickle(self, tmp_path: Path) -> None:
        path = tmp_path / f"pickle{self.suffix}"
        self.small_file(path)
        tensor_map = self.load(path)
        tensor_map.read()  # with a descriptor open
        again = pickle.loads(pickle.dumps(tensor_map))
        assert list(again) == list(tensor_map) and again.metadata == tensor_map.metadata
        assert again.origin == tensor_map.origin
        assert_same(again.read(), tensor_map.read())
        assert_same({n: pickle.loads(pickle.dumps(t)).read() for n, t in tensor_map.items()}, tensor_map.read())

    # -- cost --------------------------------------------------------------------------------------------------------

    def large_file(self, path: Path) -> int:
        """Write a tensor of `large_bytes` with the official library; return its number of elements."""
        dtype = DTYPES[(self.golden_dtypes or self.dtypes)[0]]
        array = np.zeros((self.large_bytes // (dtype.numpy.itemsize * 1024), 1024), dtype.numpy)
        self.golden_write(path, {"large": array})
        return int(array.size)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is told by Linux")
    def test_reading_by_blocks_takes_bounded_memory(self, tmp_path: Path) -> None:
        small, large = tmp_path / f"small{self.suffix}", tmp_path / f"large{self.suffix}"
        self.small_file(small)
        n_elements = self.large_file(large)
        total, taken = map(int, run_python(MEMORY.format(also=self.memory_imports), str(small), str(large)).split())
        assert total == n_elements
        assert taken < self.memory_limit

    def test_opening_loads_no_numpy(self, tmp_path: Path) -> None:
        path = tmp_path / f"light{self.suffix}"
        self.small_file(path)
        loaded = run_python(NO_NUMPY, str(path))
        if self.header_without_numpy:
            assert loaded == "[]"
        assert "torch" not in loaded
