"""What an unpickler would have run: the globals of a pickle that are no tensor plumbing, and how bad each is.

The list of what is harmless is the boundary; the list of what is dangerous only sharpens the words. A global that
is on neither is a warning: unpickling would import its module, and importing runs code.
"""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.formats.pickles import Global, Machine, Use, strangers
from weighttools.formats.torch_tensors import is_plumbing

_DANGEROUS = frozenset(
    [
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "shutil",
        "socket",
        "pty",
        "commands",
        "popen2",
        "asyncio",
        "multiprocessing",
        "concurrent",
        "threading",
        "signal",
        "ctypes",
        "_ctypes",
        "cffi",
        "importlib",
        "imp",
        "runpy",
        "pkgutil",
        "zipimport",
        "code",
        "codeop",
        "pdb",
        "bdb",
        "cProfile",
        "profile",
        "timeit",
        "trace",
        "doctest",
        "pickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "copyreg",
        "types",
        "functools",
        "_functools",
        "operator",
        "_operator",
        "itertools",
        "inspect",
        "ast",
        "gc",
        "webbrowser",
        "urllib",
        "http",
        "ftplib",
        "smtplib",
        "telnetlib",
        "poplib",
        "imaplib",
        "nntplib",
        "xmlrpc",
        "requests",
        "aiohttp",
        "httplib",
        "pip",
        "setuptools",
        "distutils",
        "ensurepip",
        "venv",
        "idlelib",
        "lib2to3",
        "tempfile",
        "io",
        "_io",
        "pathlib",
        "glob",
        "fileinput",
        "pydoc",
        "site",
        "antigravity",
        "test",
        "turtle",
        "logging",
        "builtins",
        "__builtin__",
        "numpy.testing",
        "numpy.f2py",
        "torch.jit",
        "torch.hub",
        "torch.utils",
        "torch._dynamo",
        "torch._inductor",
        "torch.serialization",
        "torch.load",
        "torch.package",
        "torch.fx",
        "torch.cuda",
        "torch.storage",
        "torch.distributed",
        "torch._C",
        "torch.ops",
        "torch.classes",
        "torch.multiprocessing",
        "torch.testing",
        "uuid",
        "sqlite3",
        "pandas.io",
        "pydoc_data",
        "readline",
        "rlcompleter",
        "bpython",
        "IPython",
    ]
)
"""Modules (and their submodules) whose functions run code, open files or connections, or reach others that do."""

_DANGEROUS_NAMES = frozenset(
    [
        "eval",
        "exec",
        "execfile",
        "compile",
        "open",
        "getattr",
        "setattr",
        "delattr",
        "__import__",
        "globals",
        "locals",
        "vars",
        "apply",
        "breakpoint",
        "input",
        "system",
        "popen",
        "spawn",
        "run",
        "call",
        "check_output",
        "Popen",
        "load",
        "loads",
        "__reduce__",
        "__getattribute__",
        "__globals__",
        "__subclasses__",
    ]
)
_KNOWN_GOOD = frozenset(
    [
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.Path",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "functools.partial",
        "copyreg._reconstructor",
        "__builtin__.object",
        "builtins.object",
    ]
)
_CONTAINER_NAMES = frozenset(
    [
        "dict",
        "list",
        "tuple",
        "set",
        "frozenset",
        "bytes",
        "bytearray",
        "complex",
        "int",
        "float",
        "str",
        "bool",
        "object",
        "slice",
    ]
)


def findings(machine: Machine) -> Iterator[Finding]:
    """Yield a finding for each global of a machine's pickles that is not tensor plumbing."""
    for found, use in strangers(machine, is_plumbing):
        severity = severity_of(found)
        action = f"would import and call {found!s:.200}" if use.n_calls else f"would import {found!s:.200}"
        yield Finding(
            severity,
            "pickle-runs-code" if severity == ERROR else "pickle-imports",
            f"unpickling {action}{_counted(use)}, named at byte {use.offset:,}",
            remedy="convert it with weighttools, which runs nothing of it, and load the result",
        )


def _counted(use: Use) -> str:
    if not use.n_calls:
        return ""
    often, much = ("time", "times")[use.n_calls != 1], ("argument", "arguments")[use.n_args != 1]
    return f" ({use.n_calls:,} {often}, {'up to ' * (use.n_calls != 1)}{use.n_args:,} {much})"


def severity_of(found: Global) -> str:
    """Return how bad it would be to import and call a global."""
    if str(found) in _KNOWN_GOOD:
        return WARNING
    if found.module in ("builtins", "__builtin__") and found.name in _CONTAINER_NAMES:
        return WARNING
    parts = found.module.split(".")
    beginnings = {".".join(parts[:n]) for n in range(1, min(len(parts), 16) + 1)}
    names = set(found.name.split("."))
    reached = "." in found.name and bool(names & _DANGEROUS)
    return ERROR if beginnings & _DANGEROUS or names & _DANGEROUS_NAMES or reached else WARNING
