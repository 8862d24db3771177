"""No hostile pickle runs, imports or exhausts anything: it opens, or is refused in one line."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes  # loaded here, so that what a hostile file loads shows
import pytest

import weighttools as wt
from tests.formats.conformance import run_python
from tests.hostile.pickles import MARKER, archive, call, corpus, glob, payloads, proto, state, tensor, text
from tests.thorough import amount
from tests.work import bounded
from weighttools.errors import WeighttoolsError

CORPUS = corpus(MARKER)
LONG = ("deep", "marks", "laughs", "callee is a deep")  # hundreds of thousands of opcodes, the same in each wrapping
MEMORY_LIMIT = 300 << 20
CALLS = 3_000_000  # for some 300 kB of opcodes, well within the 2 s that a small file may take
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
assert ml_dtypes

CHILD = """
import sys
import weighttools as wt, weighttools.verbs.open
from weighttools.errors import WeighttoolsError
import numpy, ml_dtypes, zipfile, difflib, zlib, pickletools
sys.setrecursionlimit(500)
def attempt(path):
    for action in (wt.inspect, wt.check, lambda p: [t.read() for t in wt.open(p).values()]):
        try:
            action(path)
        except WeighttoolsError as error:
            assert str(error).isprintable()
for path in sys.argv[2:]:
    attempt(path)  # once, so that what the package itself imports is there
before = set(sys.modules)
for path in sys.argv[2:]:
    attempt(path)
assert set(sys.modules) == before, set(sys.modules) - before
assert not {"torch", "runpy", "timeit", "pdb", "this", "antigravity", "webbrowser"} & set(sys.modules)
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10)
"""


def files() -> dict[str, bytes]:
    """All of the corpus; in the quick run, what is long in one wrapping only."""
    return {
        title: data
        for title, data in CORPUS.items()
        if amount(title.startswith("bare: ") or not title.partition(": ")[2].startswith(LONG), True)
    }


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not any(MARKER in path.name for path in [*tmp_path.parent.rglob("*"), *Path.cwd().iterdir()])


def test_nothing_runs_and_nothing_is_imported(cwd: Path) -> None:
    for title, data in files().items():
        path = cwd / "hostile.pt"
        path.write_bytes(data)
        known = set(sys.modules)
        with bounded(CALLS):
            try:
                found = wt.open(path)
                for tensor in found.values():
                    assert tensor.n_elements < 1 << 26
                    tensor.read()
            except WeighttoolsError as error:
                assert str(error).isprintable() and len(str(error)) < 2000, title
        fresh = {name for name in set(sys.modules) - known if not name.startswith("weighttools.")}
        assert fresh <= {"difflib"}, f"{title}: {fresh}"
        with bounded(2 * CALLS):
            wt.check(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is told by Linux")
def test_a_fresh_process_imports_nothing_and_stays_small(cwd: Path) -> None:
    paths = []
    for i, content in enumerate(files().values()):
        paths.append(cwd / f"{i}.pt")
        paths[-1].write_bytes(content)
    assert int(run_python(CHILD, "-", *map(str, paths))) < MEMORY_LIMIT


@pytest.mark.parametrize("name, data", list(payloads(MARKER)), ids=lambda v: v if isinstance(v, str) else "")
def test_check_reports_what_would_have_run(cwd: Path, name: str, data: bytes) -> None:
    (cwd / "a.pt").write_bytes(archive(data))
    findings = wt.check(cwd / "a.pt")["findings"]
    assert findings, name
    if any(word in name for word in ("os.", "eval", "exec", "subprocess", "runpy", "pickle.", "torch.jit")):
        assert any(finding["severity"] == "error" for finding in findings), findings


def test_check_is_silent_on_what_torch_writes(cwd: Path) -> None:
    import torch

    torch.save({"w": torch.ones(2), "h": torch.ones(2).bfloat16(), "u": torch.ones(2).to(torch.uint16)}, cwd / "a.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), cwd / "b.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pt", "b.pt"):  # what is said of values and dtypes is not about pickles
        codes = {finding["code"] for finding in wt.check(cwd / name)["findings"]}
        assert codes <= {"constant", "mixed-dtypes"}, codes


def test_payloads_are_live(cwd: Path) -> None:
    """The corpus tests something: Python's own unpickler runs the plainest of them."""
    pickle.loads(proto(call("os", "mkdir", text(str(cwd / "live")))))
    assert (cwd / "live").exists()


def test_good_neighbours_of_hostile_entries_are_read(cwd: Path) -> None:
    evil = call("os", "system", text(f"touch {MARKER}"))
    (cwd / "mixed.pt").write_bytes(archive(proto(b"}(" + text("evil") + evil + text("w") + tensor() + b"u")))
    found = wt.open(cwd / "mixed.pt")
    assert list(found) == ["w"] and any("os.system" in note for note in found.origin.notes)
    (cwd / "listed.pt").write_bytes(archive(state(glob("os", "system"))))
    assert wt.check(cwd / "listed.pt")["findings"][0]["severity"] == "error"


def test_the_command_exits_1_on_what_is_dangerous_and_0_on_what_is_not(cwd: Path) -> None:
    (cwd / "bad.pt").write_bytes(archive(state(call("os", "system", text(f"touch {MARKER}")))))
    (cwd / "good.pt").write_bytes(archive(state(tensor())))
    code = "import sys, weighttools.cli.main as m; sys.argv = ['weighttools', 'check', *{}]; m.run()"
    assert run_python(code.format(["--headers", str(cwd / "good.pt")])).endswith("nothing found")
    bad = subprocess.run([sys.executable, "-m", "weighttools", "check", "bad.pt", "--json"], cwd=cwd, env=ENVIRONMENT)
    assert bad.returncode == 1
    record = wt.check(cwd / "bad.pt")
    assert record["schema"] == "weighttools.check/1"
    assert [f["code"] for f in record["findings"]] == ["pickle-runs-code"]
    assert set(record["findings"][0]) == {"severity", "code", "tensor", "message", "remedy"}
