"""Machine code that numba made, kept in the user's cache and loaded by llvmlite alone.

Importing numba and its first call take most of a second and over 100 MB, every time; loading what it once compiled
takes a tenth of either. A file of the cache is for one machine, one llvmlite and one text of the loops, all of which
are in its name; it begins with its digest, is the user's own, and is made anew where anything about it is not so.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

_DIGEST_BYTES = 32
_KEPT_ALIVE: list[Any] = []


class MachineCode(NamedTuple):
    """Machine code of one function, which refers to nothing but itself: its symbol, and an object file."""

    symbol: str
    data: bytes


class Loops(NamedTuple):
    """Loops that numba compiles.

    Parameters
    ----------
    name
        What the file in the cache is called by.
    texts
        The modules that hold them, and what they are made of: another text is other code.
    arguments
        Their types, as ctypes has them.
    """

    name: str
    texts: tuple[Path, ...]
    arguments: tuple[Any, ...]


def function(loops: Loops, make: Callable[[], MachineCode]) -> Callable[..., Any] | None:
    """Return a kernel, which takes addresses; None where only numba itself can run it.

    Parameters
    ----------
    loops
        Which.
    make
        Makes the code, if the cache has none.
    """
    if sys.platform != "linux":  # elsewhere loading object files so has not been tried
        return None
    try:
        llvm = import_module("llvmlite.binding")
        path = _directory() / f"{loops.name}-{_key(llvm, loops.texts)}.bin"
        found = _kept(path)
        if found is None:  # where the cache cannot be written, numba's own may be
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = make()
            _keep(path, found)
        return _loaded(llvm, found, loops.arguments)
    except (ImportError, AttributeError, ValueError, RuntimeError, OSError):  # numba's insides are not promised
        return None


def _directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weighttools" / "kernels"


def _key(llvm: Any, texts: tuple[Path, ...]) -> str:
    """Return what the code depends on, as a digest."""
    text = b"".join(path.read_bytes() for path in texts)
    version = import_module("llvmlite").__version__
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return hashlib.sha256(repr((text, version, machine)).encode()).hexdigest()[:24]


def _kept(path: Path) -> MachineCode | None:
    """Return the code in a file: digest, symbol and newline, object file; None where there is none, or another's."""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.getuid() or info.st_mode & 0o022:
                return None
            content = file.read()
    except OSError:
        return None
    digest, rest = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(rest).digest() != digest:
        return None
    symbol, _, data = rest.partition(b"\n")
    return MachineCode(symbol.decode(), data)


def _keep(path: Path, code: MachineCode) -> None:
    """Write the code, at once and whole."""
    rest = code.symbol.encode() + b"\n" + code.data
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(hashlib.sha256(rest).digest() + rest)
    os.replace(file.name, path)


_NO_DESTRUCTOR = "define void @NRT_MemInfo_call_dtor(ptr %info) { ret void }"
"""What numba calls to free an array: here all arrays are views of memory that is not its own."""


def stripped(symbol: str, text: str) -> MachineCode:
    """Return machine code of one function of a module in LLVM's language, and of what it calls.

    Raises
    ------
    ValueError
        It refers to something outside.
    """
    llvm = import_module("llvmlite.binding")
    module, machine = llvm.parse_assembly(text), _machine(llvm)
    module.link_in(llvm.parse_assembly(_NO_DESTRUCTOR))
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration and item.name != symbol:
            item.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    outside = [item.name for item in module.functions if item.is_declaration and not item.name.startswith("llvm.")]
    if outside:
        raise ValueError(f"{symbol} refers to {', '.join(outside)}")
    return MachineCode(symbol, machine.emit_object(module))


def _machine(llvm: Any) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    how = {"cpu": llvm.get_host_cpu_name(), "features": features, "opt": 3, "jit": True}
    return llvm.Target.from_default_triple().create_target_machine(**how)


def _loaded(llvm: Any, code: MachineCode, arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """Link the code into this process."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(llvm))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.data))
    engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    if not address:
        raise ValueError(f"there is no {code.symbol} in the code")
    _KEPT_ALIVE.append(engine)
    raw = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *arguments)(address)
    result, error = ctypes.c_void_p(), ctypes.c_void_p()  # numba's first two arguments; neither is used here
    places = ctypes.byref(result), ctypes.byref(error)
    return lambda *values: raw(*places, *values)
