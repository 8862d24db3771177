"""What stands in PyTorch files beside plain tensors: nothing of it may vanish without a word."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weighttools as wt
from tests.formats.test_pytorch import saved
from tests.formats.torch_arrays import flat
from tests.hostile.pickles import archive, call, glob, proto, state, tensor, text
from tests.strategies import assert_same
from weighttools.errors import UnsafeFileError, UnsupportedError, WeighttoolsError

Pair = namedtuple("Pair", "left right")


# -- small values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_small_values_are_shown_and_given(inside, tmp_path: Path, legacy: bool) -> None:
    values = {
        "epoch": 3, "lr": 0.5, "done": True, "name": "run 1", "nothing": None,
        "f4": np.float32(0.1), "f2": np.float16(1.5), "f8": np.float64(-2.0), "i8": np.int64(-7), "u1": np.uint8(200),
        "b1": np.bool_(True),
    }  # fmt: skip
    path = saved(tmp_path, {"w": torch.ones(2), **values, "opt": {"rate": np.float64(0.25)}}, legacy=legacy)
    found = wt.open(path)
    assert list(found) == ["w"]
    assert found.origin.values == {
        **{k: getattr(v, "item", lambda v=v: v)() for k, v in values.items()},
        "opt.rate": 0.25,
    }
    assert any(note.startswith("12 values that are no tensors are left out") for note in found.origin.notes)
    assert wt.inspect(path)["values"]["epoch"] == 3
    assert "epoch: 3" in inside("inspect", path).out
    assert inside("get", path, "epoch").out == "epoch: 3\n"
    assert json.loads(inside("get", path, "f4", "--json").out)["values"] == np.float32(0.1).item()
    assert wt.get(path, "lr") == 0.5
    assert inside("get", path, "epoch", "-o", tmp_path / "a.npy").code == 2
    missed = inside("get", path, "epochs")
    assert missed.code == 2 and "near names: epoch" in missed.err


def test_big_endian_scalars_and_values_without_numbers_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    scalars = {"w": np.ones(2), "be": np.array([258], ">i2")[0], "day": np.datetime64("2020-01-01"), "z": 1 + 2j}
    path.write_bytes(pickle.dumps(scalars, 4))
    found = wt.open(path)
    assert found.origin.values == {"be": 258}
    assert any(
        "3 values that are no tensors are left out of other files (in be, day, z)" in note
        for note in found.origin.notes
    )


def test_a_device_and_a_dtype_and_a_storage_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="TypedStorage"):
        storage = torch.ones(3).storage()
        path = saved(tmp_path, {"w": torch.ones(2), "d": torch.device("cpu"), "t": torch.float16, "s": storage})
    notes = wt.open(path).origin.notes
    assert any("2 values that are no tensors are left out of other files (in d, t)" in note for note in notes)
    assert "left out: s (a storage that no tensor shows)" in notes


def test_values_are_bounded(inside, tmp_path: Path) -> None:
    many = {str(i): i for i in range(5000)}
    found = wt.open(
        saved(tmp_path, {"words": many, "w": torch.ones(1), "epoch": 1, "long": "x" * 1000, "big": 10**1000})
    )
    assert len(found.origin.values) == 1001 and found.origin.values["epoch"] == 1
    assert any(note.startswith("5,003 values") for note in found.origin.notes)
    assert len(inside("inspect", found.origin.path).out.splitlines()) < 40


# -- keys -----------------------------------------------------------------------------------------------------------


def test_tuple_keys_become_dotted_names(tmp_path: Path) -> None:
    made = {
        ("layer", 3): 1, ("layer", 4): 2, ("a", ("b", 0)): 3, torch.float16: 4, np.int64(5): 5, frozenset({"f"}): 6,
        10**30: 7,
    }  # fmt: skip
    found = wt.open(saved(tmp_path, {key: torch.ones(n) for key, n in made.items()}))
    names = ["layer.3", "layer.4", "a.b.0", "torch.float16", "5", "f", hex(10**30)]
    assert {name: t.shape for name, t in found.items()} == {
        name: (n,) for name, n in zip(names, made.values(), strict=True)
    }


def test_tuples_that_unfold_without_measure_are_read_at_once(tmp_path: Path) -> None:
    key: Any = ("a",)
    for _ in range(60):
        key = (key, key)
    path = tmp_path / "a.pt"  # a key's hash would take for ever: the pickle is made of parts
    doubling = b"(" + text("a") + b"t" + b"".join(b"q\x01h\x01\x86" for _ in range(60))
    path.write_bytes(archive(proto(b"}(" + doubling + tensor() + b"u")))
    assert len(wt.open(path)) == 1


# -- objects --------------------------------------------------------------------------------------------------------


def test_tensors_in_the_arguments_or_the_state_of_objects_are_read(tmp_path: Path) -> None:
    class Kept:
        def __getstate__(self) -> Any:
            return [torch.ones(4)]

    globals()["Kept"] = Kept
    Kept.__qualname__ = "Kept"
    path = saved(tmp_path, {"pair": Pair(torch.ones(2), torch.ones(3)), "kept": Kept()})
    assert {name: t.shape for name, t in wt.open(path).items()} == {
        "pair.0": (2,),
        "pair.1": (3,),
        "kept.state.0": (4,),
    }


@pytest.mark.filterwarnings("ignore")
def test_a_frozen_script_keeps_its_weights(tmp_path: Path) -> None:
    """torch.jit.freeze makes constants of parameters; `code_with_constants` is torch's own account of them."""
    plain = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 4)).eval()
    torch.jit.freeze(torch.jit.script(plain)).save(tmp_path / "frozen.pt")
    theirs = [t for _, t in torch.jit.load(tmp_path / "frozen.pt").code_with_constants[1].const_mapping.items()]
    found = wt.open(tmp_path / "frozen.pt")
    assert_same(found.read(), flat({f"constants.{i}": tensor for i, tensor in enumerate(theirs)}))
    assert len(found) == 4 and any("4 constants of its code are read" in note for note in found.origin.notes)
    assert not any("holds no tensors" in note or "left out" in note for note in found.origin.notes)
    inputs = torch.ones(1, 3)
    arrays = {name: torch.from_numpy(a) for name, a in found.read().items()}
    first = torch.relu(inputs @ arrays["constants.0"].T + arrays["constants.1"])
    torch.testing.assert_close(first @ arrays["constants.2"].T + arrays["constants.3"], plain(inputs))


def test_constants_that_are_a_payload_do_not_cost_the_parameters(tmp_path: Path) -> None:
    evil = proto(call("os", "system", text("true")))
    (tmp_path / "a.pt").write_bytes(archive(state(tensor()), **{"archive/constants.pkl": evil}))
    found = wt.open(tmp_path / "a.pt")
    assert list(found) == ["w"] and any("constants of its code" in n and "os.system" in n for n in found.origin.notes)


def test_shards_and_directories_hand_on_values_and_calls(tmp_path: Path) -> None:
    evil = call("os", "system", text("true"))
    (tmp_path / "pytorch_model.bin").write_bytes(
        archive(proto(b"}(" + text("evil") + evil + text("epoch") + b"K\x05" + text("w") + tensor() + b"u"))
    )
    record = wt.inspect(tmp_path)
    assert record["values"] == {"epoch": 5} and record["foreign_globals"][0]["name"] == "os.system"


# -- quantised ------------------------------------------------------------------------------------------------------


def quantized() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(5, 7, 9, generator=random)
    scales = torch.rand(9, generator=random, dtype=torch.float64) / 10 + 1e-3
    zeros = torch.randint(0, 5, (9,), generator=random)
    wide = torch.randint(-(2**31), 2**31 - 1, (1000,), generator=random, dtype=torch.int64).to(torch.int32)
    by_tensor = torch.quantize_per_tensor(values, 0.0371234, 3, torch.qint8)
    floats = torch.quantize_per_channel(values, scales[:7].float(), zeros[:7].float() / 3, 1, torch.quint8)
    return {
        "int8": by_tensor,
        "uint8": torch.quantize_per_tensor(values, 0.02, 128, torch.quint8),
        "int32": torch._make_per_tensor_quantized_tensor(wide, 0.001 / 3, 17),
        "turned": by_tensor.permute(2, 0, 1),
        "part": by_tensor[1:, 2],
        **{
            f"axis {axis} {dtype}": torch.quantize_per_channel(values, scales[:n], zeros[:n], axis, dtype)
            for axis, n in enumerate((5, 7, 9))
            for dtype in (torch.qint8, torch.quint8, torch.qint32)
        },
        "floats": floats,
        "empty": torch.quantize_per_tensor(torch.empty(0, 3), 0.1, 0, torch.qint8),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
def test_quantised_tensors_are_what_torch_dequantizes(tmp_path: Path, legacy: bool) -> None:
    tensors = quantized()
    path = saved(tmp_path, tensors, legacy=legacy)
    found = wt.open(path)
    theirs = {name: t.dequantize().numpy() for name, t in tensors.items()}
    assert_same(found.read(), theirs)
    for name, array in theirs.items():  # any run of blocks
        blocks = [np.empty(0, np.float32), *found[name].blocks(11)]
        np.testing.assert_array_equal(np.concatenate(blocks), array.ravel(), strict=True)
    assert found["int8"].spec.encoding == "qint8" and found["int8"].stored_bytes == 315
    assert any("quantised tensors read as float32" in note and "int8, uint8" in note for note in found.origin.notes)
    wt.convert(path, tmp_path / "a.safetensors")
    assert_same(wt.open(tmp_path / "a.safetensors").read(), theirs)


@pytest.mark.filterwarnings("ignore")
def test_a_dynamically_quantised_model_keeps_its_weights(tmp_path: Path) -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    model = torch.ao.quantization.quantize_dynamic(plain, {torch.nn.Linear}, dtype=torch.qint8)
    found = wt.open(saved(tmp_path, model.state_dict()))
    for layer in (0, 2):
        weight = found[f"{layer}._packed_params._packed_params.0"].read()
        np.testing.assert_array_equal(weight, model[layer].weight().dequantize().numpy())


@pytest.mark.filterwarnings("ignore")
def test_packed_elements_are_named_and_an_error_where_nothing_else_is_left(tmp_path: Path) -> None:
    values = torch.randn(4, 8)
    packed = torch.quantize_per_channel(values, torch.ones(4) / 9, torch.zeros(4), 0, torch.quint4x2)
    notes = wt.open(saved(tmp_path, {"w": torch.ones(1), "packed": packed})).origin.notes
    assert any(note.startswith("left out: packed (a quantised tensor of a QUInt4x2Storage") for note in notes)
    with pytest.raises(UnsupportedError, match="holds no tensor that can be read: packed "):
        wt.open(saved(tmp_path, {"packed": packed}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
def test_any_change_of_a_quantised_file_is_an_answer_or_one_line(tmp_path: Path, legacy: bool) -> None:
    small = {name: t for name, t in quantized().items() if name in ("int8", "axis 1 torch.quint8", "floats")}
    plain = saved(tmp_path, small, legacy=legacy)
    pickled = plain.read_bytes()
    random = np.random.default_rng(0)
    begin = pickled.index(b"_rebuild_qtensor") - 60
    for at in random.integers(begin, begin + 1500, 300).tolist():
        changed = bytearray(pickled)
        changed[at] = int(random.integers(0, 256))
        (tmp_path / "changed.pt").write_bytes(changed)
        with contextlib.suppress(WeighttoolsError):
            wt.open(tmp_path / "changed.pt").read()


@pytest.mark.parametrize(
    "parameters", ["scheme alone", "a scale of text", "an axis too far", "complex scales", "no list"]
)
def test_quantised_parameters_that_do_not_fit_are_refused(tmp_path: Path, parameters: str) -> None:
    storage = b"(" + text("storage") + glob("torch", "QInt8Storage") + text("0") + text("cpu") + b"K\x08tQ"
    channel, whole = glob("torch", "per_channel_affine"), glob("torch", "per_tensor_affine")
    numbers = b"](" + b"K\x01" * 2 + b"e"
    made = {
        "scheme alone": whole + b"\x85",
        "a scale of text": whole + text("x") + b"K\x00\x87",
        "an axis too far": b"(" + channel + numbers + numbers + b"K\x05t",
        "complex scales": b"(" + channel + text("ab") + numbers + b"K\x00t",
        "no list": b"(" + channel + b"N" + numbers + b"K\x00t",
    }[parameters]
    arguments = b"(" + storage + b"K\x00" + b"K\x02K\x04\x86" + b"K\x04K\x01\x86" + made + b"\x89Nt"
    data = proto(b"}" + text("w") + glob("torch._utils", "_rebuild_qtensor") + arguments + b"Rs")
    (tmp_path / "a.pt").write_bytes(archive(data))
    with pytest.raises(WeighttoolsError, match="quantised"):
        wt.open(tmp_path / "a.pt")


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    state = {"w": torch.ones(2), **{f"s{i}": torch.eye(3).to_sparse() for i in range(7)}, "text": np.array(["x"])}
    notes = wt.open(saved(tmp_path, state)).origin.notes
    assert "left out: s0, s1, s2, s3, s4 and 2 more (a sparse tensor)" in notes
    assert any(note.startswith("left out: text (has the type '<U1'") for note in notes)
    with pytest.raises(UnsupportedError, match=r"can be read: s \(a sparse tensor\)"):
        wt.open(saved(tmp_path, {"s": torch.eye(3).to_sparse()}))


# -- what a loader would run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "stats", "params", "convert"])
def test_a_payload_without_a_tensor_is_refused(inside, tmp_path: Path, command: str) -> None:
    path = tmp_path / "evil.pt"
    target = [tmp_path / "a.safetensors"] if command == "convert" else []
    beside = b"}(" + text("epoch") + b"K\x05" + text("evil") + call("os", "system", text("true")) + b"u"
    for name, data in (
        ("os.system", archive(proto(call("os", "system", text("true"))))),
        ("os.system", proto(call("os", "system", text("true")))),
        ("os.system", archive(proto(beside))),
        ("_osx_support._read_output", archive(proto(call("_osx_support", "_read_output", text("true"))))),
    ):
        path.write_bytes(data)
        ran = inside(command, path, *target)
        assert ran.code == 2 and f"holds no tensors, and unpickling it would call {name}" in ran.err
    assert "_read_output" in inside("check", path).out
    path.write_bytes(archive(proto(call("os", "system", text("true")))))
    with pytest.raises(UnsafeFileError, match="os.system"):
        wt.open(path)


def test_what_would_run_is_in_the_report_itself(inside, tmp_path: Path) -> None:
    evil = call("os", "system", text("true"))
    path = tmp_path / "mixed.pt"
    path.write_bytes(archive(proto(b"}(" + text("evil") + evil + text("w") + tensor() + b"u")))
    assert "unpickling  would call os.system (1 time)" in inside("inspect", path).out
    (entry,) = wt.inspect(path)["foreign_globals"]
    assert entry["name"] == "os.system" and entry["n_calls"] == 1
    path.write_bytes(archive(state(tensor())))
    assert wt.inspect(path)["foreign_globals"] == []
