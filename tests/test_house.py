"""The rules of the house, held by a test each."""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import subprocess
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from weighttools.cli.main import ALIASES, COMMANDS, main

PACKAGE = ROOT / "weighttools"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
Function = ast.FunctionDef | ast.AsyncFunctionDef

ALLOWED = {
    "weighttools", "tests", "fixtures", "benchmarks", "examples", ".ci", ".github", ".git", ".gitignore",
    ".gitattributes",
    "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CONTRIBUTING.md", "DEVELOPERS.md", "CITATION.cff",
}  # fmt: skip
# Made by tools, and never checked in.
MADE = {
    ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", ".coverage", ".venv", "venv",
    "dist", "build", "__pycache__",
}  # fmt: skip


def functions() -> list[tuple[str, Function]]:
    return [
        (f"{path.relative_to(ROOT)}:{node.name}", node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]


def body_lines(node: Function) -> int:
    """Lines of a function's body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_are_small() -> None:
    sizes = {name: body_lines(node) for name, node in functions()}
    assert statistics.quantiles(sizes.values(), n=10)[-1] <= 20
    assert {name: n for name, n in sizes.items() if n > 45} == {}


def test_modules_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: n for name, n in sizes.items() if n > 400} == {}


def test_no_drawer_for_everything() -> None:
    assert not [path for path in MODULES if re.fullmatch(r"_?(utils?|helpers?|misc|common)\.py", path.name)]


def test_nothing_prints() -> None:
    """Output goes through ``cli/output.py``; only ``cli/exits.py`` tells of errors by itself."""
    printing = {
        str(path.relative_to(PACKAGE))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    }
    assert printing <= {"cli/exits.py", "formats/hdf5/listing.py"}  # the latter answers its parent process


def dotted(path: Path) -> str:
    """Return a module's name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module, names: set[str]) -> set[str]:
    """Return which modules of `names` a module imports, within functions too; what only type checkers read is left out."""
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in hidden and node.module:
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in names else node.module for name in whole.values()}
        elif isinstance(node, ast.Import) and id(node) not in hidden:
            found |= {alias.name for alias in node.names}
    return found & names


def test_no_modules_import_one_another_in_a_circle() -> None:
    """A module that is imported within a function counts: what two modules need of each other lies below both."""
    names = {dotted(path) for path in MODULES}
    graph = {dotted(path): imported(tree, names) - {dotted(path)} for path, tree in TREES.items()}
    while leaves := {name for name, needed in graph.items() if not needed}:  # take away, again and again, the lowest
        graph = {name: needed - leaves for name, needed in graph.items() if name not in leaves}
    while roots := graph.keys() - {name for needed in graph.values() for name in needed}:  # and what none imports
        graph = {name: needed for name, needed in graph.items() if name not in roots}
    assert graph == {}


KNOW_PATHS = ("weighttools.io", "weighttools.formats")
"""What may ask the system about an origin: bytes in and out, and the readers that find a directory's weights."""


def tainted(scope: ast.AST) -> list[str]:
    """Return calls of os, os.path or pathlib on an origin's path, or on a name that holds one, within a function."""
    held = {
        target.id
        for node in ast.walk(scope)
        if isinstance(node, (ast.Assign, ast.NamedExpr)) and re.search(r"\borigin\.path\b", ast.unparse(node.value))
        if not isinstance(node.value, ast.Compare)
        for ends in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(ends)
        if isinstance(target, ast.Name)
    }
    asking = re.compile(r"(os|os\.path|Path|PurePath|shutil|open|read_json|LocalFile|companion)\b")
    origins = re.compile("|".join([r"\borigin\.path\b", *(rf"\b{name}\b" for name in held)]))
    return [
        ast.unparse(node)
        for node in ast.walk(scope)
        if isinstance(node, ast.Call)
        and asking.match(ast.unparse(node.func))
        and "fspath" not in ast.unparse(node.func)
        if any(origins.search(ast.unparse(argument)) for argument in node.args)
    ]


def test_nothing_but_a_home_asks_about_an_origins_path() -> None:
    """Weights that lie behind a URL are one more class of homes, and no work in the rooms above."""
    above = {path: tree for path, tree in TREES.items() if not dotted(path).startswith(KNOW_PATHS)}
    found = {
        f"{path.relative_to(ROOT)}:{node.name}": asked
        for path, tree in above.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and (asked := tainted(node))
    }
    assert found == {}
    links = {"companion", "names_in", "leaves", "is_inside", "inside", "dangles"}
    assert {
        dotted(path): names
        for path, tree in above.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("weighttools.io")
        if (names := links & {alias.name for alias in node.names})
    } == {}


def test_no_two_public_classes_share_a_name() -> None:
    """One name, one thing: in a message, in a trace and in a search."""
    places: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(dotted(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def public(tree: ast.Module) -> list[ast.ClassDef | Function]:
    """Public functions and classes, and the public methods of such classes."""
    found: list[ast.ClassDef | Function] = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, *Function.__args__)) and not node.name.startswith("_"):
            found.append(node)
    return found


def test_everything_public_is_explained() -> None:
    bare = [str(path.relative_to(ROOT)) for path, tree in TREES.items() if not ast.get_docstring(tree)]
    bare += [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path, tree in TREES.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert bare == []


def test_no_test_asserts_how_long_something_took() -> None:
    """A busy machine is slow: work is bounded by counts (`tests/work.py`) and memory, time belongs to benchmarks."""
    clock = re.compile(r"assert[^\n]*(?:process_time|perf_counter|monotonic|time\.time)\(\) -")
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__).resolve()]
    timed = [path for path in tests if clock.search(path.read_text(encoding="utf-8"))]
    assert not timed


def test_nothing_evaluates_what_it_reads() -> None:
    """No eval, exec, unpickling or loading of code, anywhere in the package.

    The conformance suites, which no command loads, unpickle what they have pickled themselves.
    """
    banned = {"eval", "exec", "compile", "__import__"}
    names = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned
    }
    imported = {
        f"{path.relative_to(ROOT)}:{alias.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if path.name != "testing.py"
        if {alias.name, getattr(node, "module", None)} & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    }
    assert names | imported == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_exist_and_show_examples(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    assert command.help and "Examples:" in command.help and f"weighttools {name}" in command.help
    assert COMMANDS[name][1] and len(COMMANDS[name][1]) < 70
    module, _, function = COMMANDS[name][0].partition(":")
    assert getattr(importlib.import_module(module), function) is command
    unexplained = [p.opts for p in command.params if isinstance(p, click.Option) and not p.help]
    assert unexplained == []


def test_aliases_name_commands() -> None:
    assert set(ALIASES.values()) <= set(COMMANDS) and not set(ALIASES) & set(COMMANDS)


def tracked() -> list[Path]:
    """The files of the repository; of an unpacked archive, all that are not made by tools."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not MADE & set(p.relative_to(ROOT).parts)]


def test_the_top_is_tidy() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} - ALLOWED == set()


# Written apart, so that this file does not hold what it looks for.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "anaconda" + ".org", "npmjs" + ".org")
PLACES = re.compile(r"(?<![\w.~$}-])/(?:root|work|tmp/w|home/\w+)/")


def test_nothing_names_a_registry_or_this_machine() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # binary
        found += [f"{path.relative_to(ROOT)}: {host}" for host in HOSTS if host in text]
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in PLACES.finditer(text)]
    assert found == []
