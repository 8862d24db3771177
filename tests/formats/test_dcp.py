"""Distributed checkpoints whose metadata list many chunks: the work is counted. PyTorch's own classes write them."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weighttools as wt
from weighttools.errors import CorruptFileError, UnsafeFileError
from weighttools.formats.torch import dcp as reading

torch = pytest.importorskip("torch")


def write(directory: Path, boxes: list[tuple[tuple[int, ...], tuple[int, ...]]], whole: Any, names: int = 1) -> Path:
    """Write a tensor as these boxes (offsets, sizes), each distinct content once; `names` tensors share the chunks."""
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    directory.mkdir(exist_ok=True)
    stream, known, places, tensors = io.BytesIO(), {}, {}, {}
    for offsets, sizes in boxes:
        part = whole[tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))].clone()
        key = part.numpy().tobytes(), sizes
        if key not in known:
            begin = stream.tell()
            torch.save(part, stream)
            known[key] = _StorageInfo("__0_0.distcp", begin, stream.tell() - begin)
        for i in range(names):
            places[md.MetadataIndex(f"w{i}", torch.Size(offsets))] = known[key]
    chunks = [md.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in boxes]
    for i in range(names):
        tensors[f"w{i}"] = md.TensorStorageMetadata(md.TensorProperties(torch.float32), whole.shape, chunks)
    (directory / "__0_0.distcp").write_bytes(stream.getvalue())
    (directory / ".metadata").write_bytes(pickle.dumps(md.Metadata(tensors, None, places)))
    return directory


def grid(shape: tuple[int, ...], side: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    steps = [range(0, n, s) for n, s in zip(shape, side, strict=True)]
    return [
        (at, tuple(min(s, n - o) for o, s, n in zip(at, side, shape, strict=True))) for at in itertools.product(*steps)
    ]


PINWHEEL = [((0, 0), (2, 4)), ((0, 4), (4, 2)), ((2, 0), (4, 2)), ((4, 2), (2, 4)), ((2, 2), (2, 2))]


@pytest.mark.parametrize(
    ("shape", "boxes"),
    [
        ((7, 5), grid((7, 5), (3, 2))),
        ((4, 5, 6), grid((4, 5, 6), (2, 5, 4))),
        ((3, 4, 5, 2), grid((3, 4, 5, 2), (3, 2, 2, 1))),
        ((1, 40), grid((1, 40), (1, 7))),
        ((6, 6), PINWHEEL),
    ],
)
def test_tensors_of_boxes_are_those_that_were_saved(shape: tuple[int, ...], boxes: Any, tmp_path: Path) -> None:
    whole = torch.randn(shape)
    found = wt.open(write(tmp_path / "c", boxes, whole))["w0"]
    np.testing.assert_array_equal(found.read(), whole.numpy())
    for n in (1, 3, 11):
        np.testing.assert_array_equal(np.concatenate(list(found.blocks(n))), whole.numpy().ravel())
    np.testing.assert_array_equal(found[1:, ..., -1:] if shape[0] > 1 else found[:, 3:9], whole.numpy()[1:, ..., -1:] if shape[0] > 1 else whole.numpy()[:, 3:9])  # fmt: skip


def test_a_row_of_thousands_of_chunks_is_read_in_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One header is parsed for chunks that lie in one place, and each chunk is read once, not searched for each run."""
    opened, filled = [0], [0]
    chunk, fill = reading._read_chunk, reading.Tiled._fill

    def counted_chunk(*args: Any) -> Any:
        opened[0] += 1
        return chunk(*args)

    def counted_fill(*args: Any) -> None:
        filled[0] += 1
        fill(*args)

    monkeypatch.setattr(reading, "_read_chunk", counted_chunk)
    monkeypatch.setattr(reading.Tiled, "_fill", counted_fill)
    whole = torch.ones(2, 3000)
    found = wt.open(write(tmp_path / "c", grid((2, 3000), (1, 1)), whole))["w0"]
    np.testing.assert_array_equal(found.read(), whole.numpy())
    assert (opened[0], filled[0]) == (1, 6000)


def test_boxes_that_overlap_are_refused(tmp_path: Path) -> None:
    boxes = [*PINWHEEL[:-1], ((1, 2), (2, 2))]  # as many elements as there are, one place twice
    with pytest.raises(CorruptFileError, match="tile"):
        wt.open(write(tmp_path / "c", boxes, torch.randn(6, 6)))


def test_tensors_that_name_the_same_chunks_for_ever_are_refused(tmp_path: Path) -> None:
    whole = torch.ones(1 << 16)
    assert len(wt.open(write(tmp_path / "few", [((0,), (1 << 16,))], whole, names=4))) == 4
    with pytest.raises(UnsafeFileError, match=r"its tensors show 104,857,600 bytes of files that hold"):
        wt.open(write(tmp_path / "many", [((0,), (1 << 16,))], whole, names=400))
