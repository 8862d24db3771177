"""What an unpickler would have run: the globals of a pickle that are no tensor plumbing, and how bad each is.

The list of what is harmless is the boundary: a weight file calls nothing but what rebuilds tensors and plain
containers, so any other call is an error, whatever its name. What is only named is a warning (unpickling would import
its module, and importing runs code), or an error where the list of what is dangerous knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from weighttools.core.budgets import MOST_NAMED
from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.objects import Global
from weighttools.formats.pickles.stack import Use
from weighttools.formats.torch.plumbing import is_plumbing

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


def findings(machine: Machine, scripted: bool = False) -> Iterator[Finding]:
    """Yield a finding for each global of a machine's pickles that is not tensor plumbing, and for each act beside.

    Parameters
    ----------
    machine
        It has run.
    scripted
        Whether the pickles are a TorchScript archive's, whose own classes are named ``__torch__``.
    """
    for act, offset in machine.acts.items():
        yield _finding(ERROR, f"unpickling would {act}, at byte {offset:,}")
    by_way = next((str(found) for found in machine.globals if str(found) in _CALLS_WHAT_IT_IS_GIVEN), None)
    rest: Counter[str] = Counter()
    n_listed = 0
    for found, use in machine.globals.items():
        if _is_harmless(found, scripted):
            continue
        severity, action = _judged(found, use, by_way)
        if n_listed == MOST_NAMED:
            rest[severity] += 1
            continue
        n_listed += 1
        yield _finding(severity, f"unpickling would {action}{_counted(use)}, named at byte {use.offset:,}")
    for severity, n in sorted(rest.items()):
        yield _finding(severity, f"unpickling would import{' or call' * (severity == ERROR)} {n:,} more names")


def _finding(severity: str, fact: str) -> Finding:
    code = "pickle-runs-code" if severity == ERROR else "pickle-imports"
    return Finding(severity, code, fact, remedy=_REMEDY)


_REMEDY = "convert it with weighttools, which runs nothing of it, and load the result"


def _is_harmless(found: Global, scripted: bool) -> bool:
    return is_plumbing(found) and (scripted or not found.module.startswith("__torch__"))


def _judged(found: Global, use: Use, by_way: str | None) -> tuple[str, str]:
    """Return how bad a use of a stranger is, and what it is; allowed is only to name it, and that is a warning."""
    if use.n_calls:
        return ERROR, f"import and call {found!s:.200}"
    if use.n_handed:
        return ERROR, f"import {found!s:.200} and hand it to a call"
    if by_way:
        return ERROR, f"import {found!s:.200}, which {by_way} may call"
    return severity_of(found), f"import {found!s:.200}"


_CALLS_WHAT_IT_IS_GIVEN = frozenset(
    f"{module}.{name}"
    for module in ("torch._tensor", "torch.tensor")
    for name in ("_rebuild_from_type", "_rebuild_from_type_v2")
) | {"torch._utils._rebuild_wrapper_subclass", "torch.nested._internal.nested_tensor._rebuild_njt"}
"""Functions that rebuild tensors by calling what lies among their arguments."""


def _counted(use: Use) -> str:
    if not use.n_calls:
        return ""
    often, much = ("time", "times")[use.n_calls != 1], ("argument", "arguments")[use.n_args != 1]
    return f" ({use.n_calls:,} {often}, {'up to ' * (use.n_calls != 1)}{use.n_args:,} {much})"


def severity_of(found: Global) -> str:
    """Return how bad it would be to import a global: an error where what is dangerous is named."""
    if found.module == "copyreg" and found.name.startswith("extension "):
        return ERROR  # what a number of the registry stands for, the file does not tell
    if str(found) in _KNOWN_GOOD:
        return WARNING
    if found.module in ("builtins", "__builtin__") and found.name in _CONTAINER_NAMES:
        return WARNING
    parts = found.module.split(".")
    beginnings = {".".join(parts[:n]) for n in range(1, min(len(parts), 16) + 1)}
    names = set(found.name.split("."))
    reached = "." in found.name and bool(names & _DANGEROUS)
    return ERROR if beginnings & _DANGEROUS or names & _DANGEROUS_NAMES or reached else WARNING
