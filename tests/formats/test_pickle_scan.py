"""What `check` says of pickles: whatever unpickling would call, however and wherever it is written.

The payloads are made by opcodes and harmless. Kinds: those of picklescan's and fickling's published advisories, and
the opcodes of ``pickletools``. The oracles are Python's own unpickler (what it would look up) and torch's
``weights_only`` loader (what it refuses).
"""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weighttools as wt
from tests import work as works
from tests.hostile.pickles import archive, call, glob, proto, short, text
from weighttools.core.tensormap import TensorMap


class Recorder(pickle.Unpickler):
    """Python's unpickler, which notes each name that is looked up, and gives a function that does nothing."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.names.append(f"{module}.{name}")
        made = {"__new__": lambda cls, *args, **named: dict.__new__(cls), "__init__": lambda self, *args: None}
        return type(name, (dict,), made)


def severities(path: Path) -> set[str]:
    found = wt.check(path, headers=True)["findings"]
    return {f["severity"] for f in found if f["code"].startswith(("pickle-", "broken-"))}


def codes(path: Path) -> list[str]:
    return [f["code"] for f in wt.check(path, headers=True)["findings"]]


def put(tmp_path: Path, data: bytes, name: str = "a.pkl") -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


CALLS = {
    "reduce": proto(call("nowhere.known", "make", text("x"))),
    "newobj": proto(glob("nowhere.known", "Made") + b")\x81"),
    "newobj_ex": proto(glob("nowhere.known", "Made") + b")}\x92", 4),
    "build": proto(glob("nowhere.known", "Made") + b")\x81}" + text("a") + b"K\x01sb"),
    "inst": b"(S'x'\ninowhere.known\nMade\n.",
    "obj": b"(" + glob("nowhere.known", "Made") + b"S'x'\no.",
    "stack_global": proto(short("nowhere.known") + short("make") + b"\x93)R", 4),
    "text names": b"Vnowhere.known\nVmake\n\x93)R.",
    "memo": proto(short("nowhere.known") + b"\x940" + short("make") + b"\x940h\x00h\x01\x93)R", 4),
    "protocol 0": b"cnowhere.known\nmake\n(S'x'\ntR.",
    "protocol 1": b"cnowhere.known\nmake\nq\x00(U\x01xtq\x01R.",
    "popped": proto(call("nowhere.known", "make") + b"0N"),
    "first a value": b"N0" + proto(call("nowhere.known", "make")),
    "dotted": proto(short("collections") + short("abc.sys.exit") + b"\x93)R", 4),
    "an allowed name elsewhere": proto(call("torch.utils.bottleneck.__main__", "FloatStorage")),
    "second pickle": pickle.dumps([1, 2]) + proto(call("nowhere.known", "make")),
    "third pickle": 2 * pickle.dumps({}) + b"cnowhere.known\nmake\n(tR.",
    "behind old pickles": b"(lp0\n.(lp0\nI1\na.cnowhere.known\nmake\n)R.",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_an_error_whatever_its_name(tmp_path: Path, name: str) -> None:
    data = CALLS[name]
    stream, looked_up = io.BytesIO(data), []
    while stream.tell() < len(data):  # Python's own unpickler looks up what we report
        recorder = Recorder(data[stream.tell() :])
        recorder.load()
        looked_up += recorder.names
        stream.seek(len(data) if len(looked_up) else stream.tell() + data[stream.tell() :].index(b".") + 1)
    assert looked_up
    found = wt.check(put(tmp_path, data), headers=True)["findings"]
    assert [f["severity"] for f in found if f["code"] == "pickle-runs-code"] == ["error"], found
    assert looked_up[0][:100] in found[0]["message"]


EVERYWHERE = {
    "a.pkl": CALLS["protocol 0"], "a.pickle": CALLS["reduce"], "a": CALLS["protocol 1"], "a.bin": CALLS["inst"],
    "a.pt": CALLS["second pickle"], "a.dat": CALLS["protocol 0"], "a.joblib": CALLS["text names"],
}  # fmt: skip


@pytest.mark.parametrize("name", EVERYWHERE)
def test_by_content_and_not_by_name(tmp_path: Path, name: str) -> None:
    assert "pickle-runs-code" in codes(put(tmp_path, EVERYWHERE[name], name))


@pytest.mark.parametrize("name", EVERYWHERE)
def test_in_a_directory_of_weights(tmp_path: Path, name: str) -> None:
    if "." not in name or name == "a.dat":
        return
    wt.save(tmp_path / "model.safetensors", TensorMap.from_arrays({"w": np.ones((2, 2), np.float32)}))
    put(tmp_path, EVERYWHERE[name], name)
    assert "pickle-runs-code" in codes(tmp_path)


@pytest.mark.parametrize("data", [
    b"config\nvalue\nname: x\n", b"import numpy\nfrom x import y\n", b"N. Smith wrote this.\n", b"I am a text.\n",
    b"{}\n", b"(in-package :x)\n", b"Some words\nand more\n", b"V1\n", b"class Foo:\n    pass\n", b"gpt2\n", b"]\n",
])  # fmt: skip
def test_texts_are_no_pickles(tmp_path: Path, data: bytes) -> None:
    assert not {"pickle-runs-code", "pickle-imports", "broken-pickle"} & set(codes(put(tmp_path, data, "a.txt")))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_any_protocol_are_no_finding(tmp_path: Path, protocol: int) -> None:
    for value in (["a", 1, 2.5], {"k": (1, None)}, collections.OrderedDict(a=1), {1, 2}, 1 + 2j, bytearray(b"x")):
        assert not severities(put(tmp_path, pickle.dumps(value, protocol))), value


def test_what_is_only_named_is_a_warning(tmp_path: Path) -> None:
    assert severities(put(tmp_path, proto(glob("nowhere.known", "Made")))) == {"warning"}


@pytest.mark.parametrize(
    "body",
    [
        call(
            "torch._tensor", "_rebuild_from_type_v2", glob("nowhere.known", "make") + glob("torch", "Tensor") + b"(t}"
        ),
        call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            glob("torch._tensor", "_rebuild_from_type_v2")
            + glob("torch", "Tensor")
            + b"("
            + glob("nowhere.known", "make")
            + glob("torch", "Tensor")
            + b"(t}t}",
        ),
        call("collections", "defaultdict", glob("nowhere.known", "make")),
        b"\x82\x05)R",
        b"\x82\x05",
        glob("torch", "FloatStorage") + b"}" + text("a") + b"K\x01sb",
        call("collections", "Counter") + b"}" + text("__class__") + b"K\x01sb",
        call("torch.jit._pickle", "restore_type_tag", glob("nowhere.known", "make") + text("x")) + b")R",
    ],
    ids=[
        "rebuild",
        "nested rebuild",
        "factory",
        "extension called",
        "extension",
        "class set",
        "dunder",
        "handed through",
    ],
)
def test_ways_round_the_list_are_errors(tmp_path: Path, body: bytes) -> None:
    assert "error" in severities(put(tmp_path, archive(proto(body)), "a.pt"))


def test_bytes_behind_a_pickle_are_said(tmp_path: Path) -> None:
    assert codes(put(tmp_path, pickle.dumps([1]) + b"\nnotes\n")) == ["trailing-bytes"]


# -- archives ---------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["data.pkl", "x/data.txt", "README", "deep/er.bin"])
def test_any_member_of_an_archive(tmp_path: Path, name: str, method: int) -> None:
    for data in (CALLS["reduce"], CALLS["protocol 0"], CALLS["second pickle"]):
        members = {"first.txt": b"hello", name: data}
        assert "pickle-runs-code" in codes(put(tmp_path, zipped(members, method), "a.zip")), data
        inner = zipped({"in.zip": zipped(members, method)}, method)
        assert "pickle-runs-code" in codes(put(tmp_path, inner, "a.zip"))
    objects = io.BytesIO()
    np.save(objects, np.empty(0))
    header = objects.getvalue().replace(b"<f8", b"|O ").replace(b"'|O '", b"'|O' ")
    assert "pickle-runs-code" in codes(put(tmp_path, zipped({"a.npy": header + CALLS["reduce"]}, method), "a.npz"))


@pytest.mark.parametrize("descr", ["|O", "O", "O8", "object", "[('a', 'object')]", "[('a', '|O')]"])
def test_any_word_for_objects(tmp_path: Path, descr: str) -> None:
    assert np.dtype(eval(descr) if descr[0] == "[" else descr).hasobject
    quoted = descr if descr[0] == "[" else repr(descr)
    head = f"{{'descr': {quoted}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + CALLS["reduce"]
    assert "pickle-runs-code" in codes(put(tmp_path, data, "a.npy"))
    assert "pickle-runs-code" in codes(put(tmp_path, zipped({"a.npy": data}), "a.npz"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("mangle", ["encrypted flag", "crc", "name", "cut", "descriptor"])
def test_a_mangled_archive_is_looked_into(tmp_path: Path, mangle: str, method: int) -> None:
    data = bytearray(zipped({"data.pkl": CALLS["reduce"]}, method))
    directory = data.index(b"PK\x01\x02")
    if mangle == "encrypted flag":
        data[6] |= 1
        data[directory + 8] |= 1
    elif mangle == "crc":
        data[14:18] = data[directory + 16 : directory + 20] = b"\1\2\3\4"
    elif mangle == "name":
        data[30:34] = b"DATA"
    elif mangle == "cut":
        del data[directory:]
    else:
        data[6] |= 8
        data[18:26] = bytes(8)
    found = codes(put(tmp_path, bytes(data), "a.zip"))
    assert "pickle-runs-code" in found


def test_what_is_not_looked_into_is_named(tmp_path: Path) -> None:
    for head in (b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08\x00", bytes(257) + b"ustar\x0000"):
        assert "not-looked-into" in codes(put(tmp_path, zipped({"inner": head + bytes(300)}), "a.zip"))


def test_numbers_that_look_like_opcodes_are_no_pickle(tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(0)
    firsts = [int.from_bytes(bytes([0x80, 2, 0, 0x3F]), "little"), *(int(n) for n in rng.integers(0, 1 << 31, 2000))]
    tensors = {str(i): torch.tensor([n] * 3, dtype=torch.int32) for i, n in enumerate(firsts)}
    torch.save(tensors, tmp_path / "a.pt")
    assert not severities(tmp_path / "a.pt")


# -- what torch itself allows -----------------------------------------------------------------------------------------


def allowed() -> dict[str, Any]:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "state dict": model.state_dict(),
        "lightning": {
            "epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.4.0", "state_dict": model.state_dict(),
            "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best": 1.0}},
            "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [], "hyper_parameters": {"lr": 1e-3},
        },
        "optimizer": optimizer.state_dict(),
        "kinds": [torch.nn.Parameter(torch.ones(2)), torch.nn.Buffer(torch.ones(2)), torch.Size([1]),
                  torch.device("cpu"), torch.bfloat16, torch.strided, collections.Counter("ab"), {1}, 1j, bytearray(2)],
        "sparse": torch.eye(3).to_sparse(), "generator": torch.get_rng_state(),
    }  # fmt: skip


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["state dict", "lightning", "optimizer", "kinds", "sparse", "generator"])
def test_what_weights_only_loads_is_no_finding(tmp_path: Path, name: str, is_zip: bool) -> None:
    import torch

    torch.save(allowed()[name], tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    torch.load(tmp_path / "a.pt", weights_only=True)
    assert not severities(tmp_path / "a.pt")


def test_every_name_that_weights_only_allows_is_no_finding(tmp_path: Path) -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    for whole in _get_allowed_globals():
        module, _, name = whole.rpartition(".")
        assert not severities(put(tmp_path, archive(proto(glob(module, name))), "a.pt")), whole


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(2), np.ones(2), np.array([1, "a"], object)], ids=str)
def test_numpy_values_are_no_finding(tmp_path: Path, value: Any) -> None:
    import torch

    torch.save({"x": value, "d": collections.defaultdict(list, a=[1])}, tmp_path / "a.pt")
    assert not severities(tmp_path / "a.pt")


def test_a_class_that_is_made_is_an_error_as_for_torch(tmp_path: Path) -> None:
    import torch

    for value in (argparse.Namespace(a=1), Path("/x"), torch.nn.Linear(2, 2)):
        for is_zip in (True, False):
            torch.save({"w": torch.ones(2), "x": value}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
            with pytest.raises(pickle.UnpicklingError):
                torch.load(tmp_path / "a.pt", weights_only=True)
            assert "error" in severities(tmp_path / "a.pt"), value


def test_many_names_are_summed_up(tmp_path: Path) -> None:
    body = b"(" + b"".join(call("nowhere", f"f{i}") for i in range(500)) + b"t"
    found = codes(put(tmp_path, proto(body)))
    assert 10 < len(found) < 100


RUNS = b"cos\nsystem\nX\x02\x00\x00\x00:;\x85R."
ODD = [  # what CPython's unpickler takes; nothing of it makes what follows less of a pickle
    b"", b"I0x10\n0", b"I010\n0", b"I-0o17\n0", b"I5\0x\n0", b"I\0\n0", b"L0x10L\n0", b"L0b1\n0", b"I1_0\n0", b"F1.5\0x\n0",
    b"\x8b" + struct.pack("<I", 600) + b"\1" * 600 + b"0", b"\x8a\xff" + b"\1" * 255 + b"0",
    b"]K\x01aK\x00K\x02s0", b"]K\x01a(K\xffe0", b"K\x01(e0", b"K\x01(u0", b"cos\nenviron\nX\x01\0\0\0aX\x01\0\0\0bs0",
    b"csys\nargv\nK\x01a0", b"\x96" + struct.pack("<Q", 2) + b"abK\x00K\x02s0", b"V" + b"x" * (1 << 20) + b"\n0",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("start", [b"\x80\x02", b""])
@pytest.mark.parametrize("before", [b"", pickle.dumps({"a": 1}, 2)])
def test_what_pythons_unpickler_takes_hides_no_call(
    tmp_path: Path, before: bytes, start: bytes, odd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr("os.system", called.append)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setenv("a", "")
    stream = io.BytesIO(before + start + odd + RUNS)
    for _ in range(2 if before else 1):
        pickle.load(stream)
    assert called == [":;"]
    assert "error" in severities(put(tmp_path, before + start + odd + RUNS))


@pytest.mark.parametrize("behind", [b"\x80\x02\x8bxxxx", b"\x80\x05", b"cos\nsystem\n\xff", b"Vx\n0cos\nsystem\nRR"])
def test_a_broken_pickle_behind_a_pickle_is_an_error(tmp_path: Path, behind: bytes) -> None:
    assert "broken-pickle" in codes(put(tmp_path, pickle.dumps({"a": 1}, 2) + behind))


# -- how much is done and said ------------------------------------------------------------------------------------------


def test_many_deflated_object_arrays_are_one_line(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([b"x"] * 8_000, dtype=object), allow_pickle=True)
    data = zipped({f"a{i}.npy": stream.getvalue() for i in range(500)}, zipfile.ZIP_DEFLATED)
    path = put(tmp_path, data, "a.npz")
    with works.counted() as work:
        found = [finding for finding in wt.check(path, headers=True)["findings"] if finding["severity"] == "error"]
    assert len(found) == 1 and "more members are not looked into either" in found[0]["message"]
    assert work.calls < 14 * works.CALLS


def test_findings_of_many_members_are_summed_up(tmp_path: Path) -> None:
    members = {f"{i}.pkl": b"\x80\x02\xff" for i in range(300)} | {
        f"x{i}.pkl": proto(call("os", "f")) for i in range(300)
    }
    found = wt.check(put(tmp_path, zipped(members), "a.zip"), headers=True)["findings"]
    assert len([f for f in found if f["code"] == "broken-pickle"]) == 11
    assert len([f for f in found if f["code"] == "pickle-runs-code"]) == 101
    assert {"and 290 more of this kind", "and 200 more of this kind"} <= {f["message"] for f in found}


def test_a_pickle_of_ever_new_names_is_not_followed_to_its_end(tmp_path: Path) -> None:
    body = b"(" + b"".join(glob(f"os{i}", "b") + b")R" for i in range(60_000)) + b"l"
    path = put(
        tmp_path, zipped({"archive/data.pkl": proto(body), "archive/version": b"3"}, zipfile.ZIP_DEFLATED), "a.pt"
    )
    with works.counted() as work:
        found = codes(path)
    assert "broken-pickle" in found and "pickle-runs-code" in found
    assert work.calls < 2 * works.CALLS


def test_what_does_not_fit_the_allowance_is_never_passed_over_in_silence(tmp_path: Path) -> None:
    """Members with names that say nothing, behind one that uses the allowance up."""
    members = {
        "a.npy": b"\x93NUMPY" + bytes(2),
        "zeros.pkl": b"\x80\x02" + b"N0" * 3_000_000 + b"N.",
        "b": proto(call("os", "f")),
    }
    assert "unreadable" in codes(put(tmp_path, zipped(members, zipfile.ZIP_DEFLATED), "a.zip"))
