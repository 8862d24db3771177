"""PyTorch files against torch itself."""

from __future__ import annotations

import argparse
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st

import weighttools as wt
from tests.formats.conformance import Arrays, FormatConformance
from tests.formats.torch_arrays import flat, from_torch, to_torch
from tests.strategies import assert_same
from weighttools.core.tensormap import TensorMap
from weighttools.errors import CorruptFileError, SpecError, UnknownFormatError, UnsafeFileError, UnsupportedError

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "float8_e8m0fnu", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64",
    "bool", "complex64", "complex128",
)  # fmt: skip


class TestPytorchZip(FormatConformance):
    format_name, suffix = "pytorch", ".pt"
    dtypes = DTYPES
    keeps_metadata = False
    header_without_numpy = True

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        torch.save({name: to_torch(array) for name, array in arrays.items()}, path)

    def golden_read(self, path: Path) -> Arrays:
        return flat(torch.load(path, weights_only=True))


class TestPytorchLegacy(TestPytorchZip):
    suffix = ".pth"

    def golden_write(self, path: Path, arrays: Arrays) -> None:
        tensors = {name: to_torch(array) for name, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=False)


def saved(tmp_path: Path, value: Any, name: str = "saved.pt", legacy: bool = False) -> Path:
    path = tmp_path / name
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def rezipped(source: Path, target: Path, change: Any, **settings: Any) -> Path:
    """Copy a zip, each member through ``change(name, content) -> (name, content) or None``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **settings) as new:
        for name in old.namelist():
            if (changed := change(name, old.read(name))) is not None:
                new.writestr(*changed)
    return target


# -- views ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@given(data=st.data())
def test_views_read_as_torch_reads_them(tmp_path_factory: pytest.TempPathFactory, legacy: bool, data: Any) -> None:
    base = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    view = base.permute(data.draw(st.permutations(range(4))))
    for axis in range(4):
        start = data.draw(st.integers(0, view.shape[axis]))
        step = data.draw(st.integers(1, 3))
        view = view[(*[slice(None)] * axis, slice(start, None, step))]
    path = saved(tmp_path_factory.mktemp("views"), {"v": view, "base": base}, legacy=legacy)
    found = wt.open(path)
    assert_same(found.read(aliases=True), flat({"v": view, "base": base}))
    assert_same(
        {"v": np.concatenate([*found["v"].blocks(7), np.empty(0, np.float32)])}, {"v": found["v"].read().ravel()}
    )


def test_ties_are_aliases_and_are_written_as_shared_storage(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    state = {"embed": weight, "head": weight, "part": weight[1:], "turned": weight.t(), "other": weight.clone()}
    tensor_map = wt.open(saved(tmp_path, state))
    assert dict(tensor_map.aliases) == {"head": "embed"}
    assert_same(tensor_map.read(aliases=True), flat(state))
    assert any("overlap" in note for note in tensor_map.origin.notes)
    wt.save(tmp_path / "again.pt", tensor_map)
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert again["embed"].data_ptr() == again["head"].data_ptr()
    assert_same(flat(again), flat(state))


def test_an_expanded_tensor_and_conjugates(tmp_path: Path) -> None:
    z = torch.tensor([1 + 2j, -0.0 - 1j])
    for state in ({"row": torch.ones(1, 3).expand(4, 3), "conj": z.conj(), "plain": z}, {"neg": z.conj().imag}):
        assert_same(wt.open(saved(tmp_path, state)).read(aliases=True), flat(state))


def test_float4_counts_elements(tmp_path: Path) -> None:
    packed = torch.arange(6, dtype=torch.uint8).reshape(2, 3).view(torch.float4_e2m1fn_x2)
    tensor_map = wt.open(saved(tmp_path, {"w": packed}))
    assert tensor_map["w"].shape == (2, 6) and tensor_map["w"].dtype.name == "float4_e2m1fn"
    assert tensor_map["w"].read().view(np.uint8).ravel().tolist() == [0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    wt.save(tmp_path / "again.pt", tensor_map)
    again = torch.load(tmp_path / "again.pt", weights_only=True)["w"]
    assert again.dtype == packed.dtype and torch.equal(again.view(torch.uint8), packed.view(torch.uint8))


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_rezipped_archives_and_big_endian_storages(tmp_path: Path, kind: int) -> None:
    state = {"w": torch.arange(6.0).reshape(2, 3), "t": torch.arange(6.0).reshape(2, 3).t(), "i": torch.arange(3)}

    def big(name: str, content: bytes) -> tuple[str, bytes]:
        if "/data/" in name:
            width = 8 if name.endswith("2") else 4
            content = np.frombuffer(content, f"u{width}").byteswap().tobytes()
        return name, b"big" if name.endswith("byteorder") else content

    plain = saved(tmp_path, state)
    same = rezipped(plain, tmp_path / "same.pt", lambda n, c: (n.replace("saved/", "other/"), c), compression=kind)
    assert_same(wt.open(same).read(), flat(state))
    assert_same(wt.open(rezipped(plain, tmp_path / "big.pt", big, compression=kind)).read(), flat(state))


# -- containers, wrappers, roots -----------------------------------------------------------------------------------


def training(model: torch.nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": torch.tensor(0.5)}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint_counts_optimizer_state_apart(tmp_path: Path, legacy: bool) -> None:
    model = torch.nn.Linear(3, 2)
    path = saved(tmp_path, training(model), legacy=legacy)
    tensor_map = wt.open(path)
    slots = [f"optimizer.state.{i}.{slot}" for i in (0, 1) for slot in ("step", "exp_avg", "exp_avg_sq")]
    assert list(tensor_map) == ["weight", "bias", *slots, "best"]
    assert any("'model'" in note and "optimizer" in note for note in tensor_map.origin.notes)
    assert wt.params(path)["n_parameters"] == sum(p.numel() for p in model.parameters())
    assert wt.inspect(path)["kind"] == "training state"
    assert list(wt.open(path, root="model")) == ["weight", "bias"]
    assert list(wt.open(path, root="optimizer.state.0")) == ["step", "exp_avg", "exp_avg_sq"]
    assert "model.weight" in wt.open(path, root=".")
    with pytest.raises(SpecError, match=r"no tensor lies under 'modell'.*model, optimizer"):
        wt.open(path, root="modell")


def test_an_optimizers_own_file(tmp_path: Path) -> None:
    path = saved(tmp_path, training(torch.nn.Linear(3, 2))["optimizer"])
    assert next(iter(wt.open(path))) == "optimizer.state.0.step"
    assert wt.inspect(path)["kind"] == "optimizer state" and wt.params(path)["n_parameters"] == 0


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module", "ema", "params_ema", "net"])
def test_wrappers_are_taken_off_and_said(tmp_path: Path, wrapper: str) -> None:
    state = OrderedDict(w=torch.ones(2), b=torch.zeros(1))
    tensor_map = wt.open(saved(tmp_path, {wrapper: state, "epoch": 1}))
    assert_same(tensor_map.read(), flat(state))
    assert any(repr(wrapper) in note for note in tensor_map.origin.notes)


def test_two_sets_of_weights_keep_their_prefixes(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}})
    assert list(wt.open(path)) == ["model.w", "ema.w"]
    assert any("--root" in note for note in wt.open(path).origin.notes)
    assert wt.get(path, "w", root="ema").tolist() == [0, 0]


def test_lists_integers_and_prefixes(tmp_path: Path) -> None:
    state = {0: torch.ones(1), "list": [torch.zeros(2), (torch.ones(3), 4)], b"x": {1: torch.ones(1)}}
    assert list(wt.open(saved(tmp_path, state))) == ["0", "list.0", "list.1.0", "x.1"]
    dp = wt.open(saved(tmp_path, {"module.w": torch.ones(1)}))
    assert list(dp) == ["module.w"] and "DataParallel" in dp.origin.notes[0]


def test_a_pickled_module_and_a_lone_tensor(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for legacy in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # torch could not find a source
            path = saved(tmp_path, model, legacy=legacy)
        found = wt.open(path)
        assert_same(found.read(), flat(model.state_dict()))
        assert any("Sequential" in note for note in found.origin.notes)
    assert list(wt.open(saved(tmp_path, torch.ones(3)))) == ["tensor"]


def test_torchscript_parameters_by_attribute_path(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # torch deprecates it; files remain
        torch.jit.script(model).save(tmp_path / "script.pt")
    found = wt.open(tmp_path / "script.pt")
    assert_same(found.read(), flat(model.state_dict()))
    assert any("TorchScript" in note for note in found.origin.notes)


def test_files_without_tensors_say_what_they_hold(tmp_path: Path) -> None:
    found = wt.open(saved(tmp_path, argparse.Namespace(lr=0.1, model="bert"), "training_args.bin", legacy=True))
    assert len(found) == 0
    assert any("argparse.Namespace" in note for note in found.origin.notes)
    assert any("2 entries (lr, model)" in note for note in found.origin.notes)
    assert len(wt.open(saved(tmp_path, {"last_epoch": 3}, "scheduler.pt"))) == 0


def test_what_is_not_read_is_left_out_and_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="experimental"):
        torch.zeros(2, dtype=torch.complex32)  # warns once in a process
    state = {
        "w": torch.ones(2),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "half": torch.zeros(2, dtype=torch.complex32),
    }
    found = wt.open(saved(tmp_path, state))
    assert list(found) == ["w"]
    text = " ".join(found.origin.notes)
    assert all(word in text for word in ("sparse", "meta", "complex32"))


def test_cuda_storages_are_read(tmp_path: Path) -> None:
    plain = saved(tmp_path, {"w": torch.ones(2)})
    moved = rezipped(plain, tmp_path / "cuda.pt", lambda n, c: (n, c.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0")))
    assert wt.open(moved)["w"].read().tolist() == [1, 1]


def test_numpy_arrays_in_a_bare_pickle(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))}
    held = np.array({"net": [arrays["a"], arrays["f"]]}, dtype=object)
    for protocol in range(2, 6):
        path = tmp_path / f"arrays{protocol}.pt"
        path.write_bytes(pickle.dumps({**arrays, "held": held}, protocol))
        found = wt.open(path).read()
        for name, of in (("a", "a"), ("f", "f"), ("held.0.net.0", "a"), ("held.0.net.1", "f")):
            np.testing.assert_array_equal(found[name], arrays[of])


# -- writing --------------------------------------------------------------------------------------------------------


def test_writing_says_what_it_loses_and_refuses_what_torch_lacks(tmp_path: Path) -> None:
    tensor_map = TensorMap.from_arrays({"w": np.ones(2, np.float32)}, {"format": "pt", "author": "me"})
    record = wt.save(tmp_path / "a.pt", tensor_map)
    assert any("author" in note and "format" not in note for note in record["notes"])
    import ml_dtypes

    with pytest.raises(UnsupportedError, match="torch has no dtype float6_e2m3fn"):
        wt.save(tmp_path / "b.pt", TensorMap.from_arrays({"w": np.zeros(4, ml_dtypes.float6_e2m3fn)}))
    with pytest.raises(SpecError, match="odd"):
        wt.save(tmp_path / "b.pt", TensorMap.from_arrays({"w": np.zeros((2, 3), ml_dtypes.float4_e2m1fn)}))
    assert not (tmp_path / "b.pt").exists()


def test_torch_maps_what_we_write(tmp_path: Path) -> None:
    arrays = {f"t{i}": np.random.default_rng(i).random((i, 7)).astype(np.float32) for i in range(9)}
    wt.save(tmp_path / "a.pt", TensorMap.from_arrays(arrays))
    assert_same(flat(torch.load(tmp_path / "a.pt", weights_only=True, mmap=True)), arrays)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        assert {"archive/data.pkl", "archive/version", "archive/byteorder"} <= set(archive.namelist())
    assert all(t.stored is not None and t.stored.offset % 64 == 0 for t in wt.open(tmp_path / "a.pt").values())


# -- directories -------------------------------------------------------------------------------------------------------


def sharded(directory: Path, suffix: str = ".bin") -> dict[str, torch.Tensor]:
    tied = torch.randn(3, 2)
    shards = [{"embed": tied, "head": tied}, {"layer.weight": torch.randn(2, 2).t()}]
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        name = f"pytorch_model-{i:05d}-of-00002{suffix}"
        torch.save(shard, directory / name)
        weight_map |= dict.fromkeys(shard, name)
    import json

    index = {"metadata": {"total_size": 40}, "weight_map": weight_map}
    (directory / f"pytorch_model{suffix}.index.json").write_text(json.dumps(index))
    return {name: held for shard in shards for name, held in shard.items()}


def test_sharded_bin_files_follow_their_index(tmp_path: Path) -> None:
    state = sharded(tmp_path)
    for place in (tmp_path, tmp_path / "pytorch_model.bin.index.json"):
        found = wt.open(place)
        assert_same(found.read(aliases=True), flat(state))
        assert dict(found.aliases) == {"head": "embed"} and found.origin.format == "pytorch"
        assert not found.origin.notes
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(OSError, match="no such file"):
        wt.open(tmp_path)


def test_a_directory_prefers_safetensors_and_passes_over_training_args(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    torch.save({"lr": 1}, tmp_path / "training_args.bin")
    assert wt.open(tmp_path).origin.format == "pytorch"
    wt.save(tmp_path / "model.safetensors", TensorMap.from_arrays({"s": np.ones(1)}))
    assert list(wt.open(tmp_path)) == ["s"]


def test_distributed_checkpoints(tmp_path: Path) -> None:
    state = {"model": {"w": torch.randn(4, 3), "h": torch.ones(3, dtype=torch.bfloat16), "s": torch.tensor(2)}, "n": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # no process group is started
        dcp.save(state, checkpoint_id=tmp_path / "dcp")
    found = wt.open(tmp_path / "dcp")
    assert_same(found.read(), {f"model.{name}": held for name, held in flat(state["model"]).items()})
    assert "left out: n (an entry that is no tensor)" in found.origin.notes
    wt.convert(tmp_path / "dcp", tmp_path / "a.safetensors")
    assert_same(wt.open(tmp_path / "a.safetensors").read(), found.read())


@pytest.mark.parametrize("cuts", [[(0, 2), (2, 4)], [(0, 4)]])
@pytest.mark.parametrize("columns", [[(0, 3)], [(0, 1), (1, 3)]])
def test_chunks_of_a_distributed_tensor_are_joined(tmp_path: Path, cuts: Any, columns: Any) -> None:
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    whole = torch.arange(12.0).reshape(4, 3)
    chunks, places, stream = [], {}, io.BytesIO()
    for top, bottom in reversed(cuts):
        for left, right in columns:
            begin = stream.tell()
            part = io.BytesIO()
            torch.save(whole[top:bottom, left:right].clone(), part)
            stream.write(part.getvalue())
            offsets = torch.Size((top, left))
            chunks.append(md.ChunkStorageMetadata(offsets, torch.Size((bottom - top, right - left))))
            places[md.MetadataIndex("w", offsets)] = _StorageInfo("__0_0.distcp", begin, stream.tell() - begin)
    tensor = md.TensorStorageMetadata(md.TensorProperties(torch.float32), whole.shape, chunks)
    (tmp_path / "__0_0.distcp").write_bytes(stream.getvalue())
    (tmp_path / ".metadata").write_bytes(pickle.dumps(md.Metadata({"w": tensor}, None, places)))
    found = wt.open(tmp_path)["w"]
    np.testing.assert_array_equal(found.read(), whole.numpy())
    np.testing.assert_array_equal(np.concatenate(list(found.blocks(5))), whole.numpy().ravel())
    tensor.chunks.pop()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(md.Metadata({"w": tensor}, None, places)))
    with pytest.raises(CorruptFileError, match="tile"):
        wt.open(tmp_path)


@pytest.mark.parametrize("name", ["../w.distcp", "/w.distcp", "a/../../w.distcp", "", "link"])
def test_chunks_of_a_distributed_tensor_are_read_from_their_directory_only(tmp_path: Path, name: str) -> None:
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    directory, offsets = tmp_path / "dcp", torch.Size((0,))
    directory.mkdir()
    torch.save(torch.ones(2), tmp_path / "w.distcp")
    (directory / "link").symlink_to(tmp_path / "w.distcp")
    n_bytes = (tmp_path / "w.distcp").stat().st_size
    chunk = md.ChunkStorageMetadata(offsets, torch.Size((2,)))
    tensor = md.TensorStorageMetadata(md.TensorProperties(torch.float32), torch.Size((2,)), [chunk])
    places = {md.MetadataIndex("w", offsets): _StorageInfo(name, 0, n_bytes)}
    (directory / ".metadata").write_bytes(pickle.dumps(md.Metadata({"w": tensor}, None, places)))
    with pytest.raises(UnsafeFileError, match="names the file|leaves its directory"):
        wt.open(directory)


# -- plainly wrong ------------------------------------------------------------------------------------------------


def test_refusals_say_what_it_is(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(UnknownFormatError, match="tar archive"):
        wt.open(tmp_path / "old.pth")
    plain = saved(tmp_path, {"w": torch.ones(2)})
    two = rezipped(plain, tmp_path / "two.pt", lambda n, c: (n, c))
    with zipfile.ZipFile(two, "a") as archive:
        archive.writestr("evil/data.pkl", b"\x80\x02N.")
    with pytest.raises(UnsafeFileError, match=r"one data\.pkl"):
        wt.open(two)
    lost = rezipped(plain, tmp_path / "lost.pt", lambda n, c: None if "/data/" in n else (n, c))
    with pytest.raises(CorruptFileError, match="no storage '0'"):
        wt.open(lost)
    short = rezipped(plain, tmp_path / "short.pt", lambda n, c: (n, c[:4] if "/data/" in n else c))
    with pytest.raises(CorruptFileError, match="4 bytes long; expected 8"):
        wt.open(short)
    whole = saved(tmp_path, {"w": torch.ones(100)}, legacy=True).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-50])
    with pytest.raises(CorruptFileError, match="50 bytes are missing"):
        wt.open(tmp_path / "cut.pt")


def test_wrong_suffixes_are_read_by_content(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.ones(2)}, "model.safetensors")
    found = wt.open(path)
    assert list(found) == ["w"] and "its content is pytorch" in found.origin.notes[-1]
    assert from_torch(torch.ones(2)).tolist() == found["w"].read().tolist()


# -- fixtures: what torch 2.13 wrote stays readable ------------------------------------------------------------------

FIXTURES = Path(__file__).parents[2] / "fixtures" / "pytorch"


@pytest.mark.parametrize("name", ["state.pt", "legacy.pth"])
def test_fixtures_equal_torch(name: str) -> None:
    found = wt.open(FIXTURES / name)
    assert_same(found.read(aliases=True), flat(torch.load(FIXTURES / name, weights_only=True)))
    assert dict(found.aliases) == {"fc.tied": "fc.weight"}


def test_fixture_of_a_training_run_and_a_script() -> None:
    theirs = torch.load(FIXTURES / "training.ckpt", weights_only=True)["model"]
    assert_same(wt.open(FIXTURES / "training.ckpt", root="model").read(), flat(theirs))
    assert_same(wt.open(FIXTURES / "script.pt").read(), flat(theirs))


def test_object_arrays_in_npy_files_are_read_as_data(tmp_path: Path) -> None:
    held = {"net": [np.arange(6.0).reshape(2, 3), np.ones(2, np.float32)]}
    np.save(tmp_path / "a.npy", np.array(held, dtype=object), allow_pickle=True)
    assert_same(wt.open(tmp_path / "a.npy").read(), {f"net.{i}": array for i, array in enumerate(held["net"])})
