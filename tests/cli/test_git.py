"""``weighttools git-setup``: what git itself then shows, and that it can be undone to the byte."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import clean_environment
from weighttools.io.attributes import put_block, take_block


class Repository:
    """A repository of its own, with nothing of the user's configuration."""

    def __init__(self, home: Path) -> None:
        self.home, self.place = home, home / "a repository"
        self.place.mkdir()
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "a@b.c")
        self.git("config", "user.name", "n")

    def git(self, *args: str) -> str:
        environment = clean_environment(self.home, GIT_CONFIG_NOSYSTEM="1")
        done = subprocess.run(["git", *args], cwd=self.place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def save(self, name: str, **arrays: Any) -> None:
        save_file(arrays, self.place / name, metadata={"format": "pt"})

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")

    def files(self) -> dict[str, bytes]:
        paths = [self.place / ".git" / "config", self.place / ".git" / "info" / "attributes", self.home / ".gitconfig"]
        return {str(path): path.read_bytes() for path in paths if path.exists()}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.save("my model.safetensors", w=np.ones(3), same=np.zeros(2))
    made.commit()
    return made


def test_git_shows_the_table_and_text(repository: Repository, run_cli: Callable[..., Any]) -> None:
    done = run_cli("git-setup", cwd=repository.place)
    assert done.code == 0 and "*.safetensors" in done.out, done
    repository.save("my model.safetensors", w=np.array([1.0, 2.0, 1.0]), same=np.zeros(2))
    shown = repository.git("diff")
    assert shown.startswith("weighttools diff my model.safetensors\n1 of 2 tensors changed (1 of 5 elements)\n"), shown
    repository.save("new.safetensors", v=np.ones(2))
    repository.git("add", "-A")
    assert "added:\n  metadata format: pt\n  v  float64  2  " in repository.git("diff", "--cached")
    repository.commit()
    text = repository.git("log", "-1", "-p", "--textconv", "--no-ext-diff")
    assert "-w  float64  3  " in text and "+w  float64  3  " in text and " same  float64  2  " in text


def test_what_cannot_be_read_stops_nothing(repository: Repository, run_cli: Callable[..., Any]) -> None:
    run_cli("git-setup", cwd=repository.place)
    (repository.place / "my model.safetensors").write_bytes(b"\xff" * 20)
    repository.save("z.safetensors", v=np.ones(2))
    repository.git("add", "z.safetensors")
    shown = repository.git("diff", "HEAD")
    assert "not shown: " in shown and "added:" in shown and "Traceback" not in shown
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (repository.place / "my model.safetensors").write_text(pointer)
    assert "pointer of Git LFS" in repository.git("diff")


@pytest.mark.parametrize("scope", [(), ("--global",)])
@pytest.mark.parametrize("attributes", [None, b"", b"*.txt text\n", b"*.txt text"])
def test_it_is_undone_to_the_byte(
    repository: Repository, run_cli: Callable[..., Any], scope: tuple[str, ...], attributes: bytes | None
) -> None:
    home = repository.home / "home"
    place = repository.place / ".git" / "info" / "attributes"
    if scope:
        place = home / ".config" / "git" / "attributes"
        place.parent.mkdir(parents=True)
        (home / ".gitconfig").write_text("[diff]\n\talgorithm = patience\n")
    if attributes is None:
        place.unlink(missing_ok=True)
    else:
        place.write_bytes(attributes)
    before = (repository.files(), place.exists())
    for _ in range(2):
        assert run_cli("git-setup", *scope, cwd=repository.place).code == 0
    assert place.read_bytes().count(b"begin weighttools") == 1 and b"*.gguf diff=weighttools" in place.read_bytes()
    done = run_cli("git-setup", "--remove", *scope, cwd=repository.place)
    assert done.code == 0 and (repository.files(), place.exists()) == before
    assert "nothing" in run_cli("git-setup", "--remove", *scope, cwd=repository.place).out


def test_outside_a_repository_it_is_one_line(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    done = run_cli("git-setup", cwd=tmp_path, env={"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)})
    assert done.code == 2 and done.err.count("\n") == 1 and "--global" in done.err


def test_lines_put_in_meanwhile_stay(tmp_path: Path) -> None:
    path = tmp_path / "attributes"
    put_block(path, ["a"])
    path.write_bytes(b"first\n" + path.read_bytes() + b"last\n")
    put_block(path, ["b"])
    assert b"first\nlast\n# begin weighttools" in path.read_bytes() and take_block(path)
    assert path.read_bytes() == b"first\nlast\n"


def test_files_in_conflict_stop_nothing(repository: Repository, run_cli: Callable[..., Any]) -> None:
    run_cli("git-setup", cwd=repository.place)
    for branch, value in (("theirs", 2.0), ("main", 3.0)):
        repository.git("checkout", "-q", *(["-b"] if branch != "main" else []), branch)
        repository.save("my model.safetensors", w=np.full(3, value))
        repository.commit()
    environment = clean_environment(repository.home, GIT_CONFIG_NOSYSTEM="1")
    merged = subprocess.run(
        ["git", "merge", "-q", "theirs"], cwd=repository.place, env=environment, capture_output=True
    )
    assert merged.returncode == 1
    repository.save("z.safetensors", v=np.ones(2))
    repository.git("add", "z.safetensors")
    for options in (["--cached"], ["--ours"], ["--base"]):
        shown = repository.git("diff", *options)
        assert "weighttools diff my model.safetensors\nnot shown: it is in conflict" in shown, options
    assert "weighttools diff z.safetensors\nadded:" in repository.git("diff", "--cached")


def test_a_renamed_file_has_both_names(repository: Repository, run_cli: Callable[..., Any]) -> None:
    run_cli("git-setup", cwd=repository.place)
    repository.git("mv", "my model.safetensors", "new.safetensors")
    assert repository.git("diff", "--cached", "-M").startswith(
        "weighttools diff my model.safetensors -> new.safetensors"
    )


def test_settings_of_the_user_stay(repository: Repository, run_cli: Callable[..., Any]) -> None:
    config = repository.place / ".git" / "config"
    repository.git("config", "diff.weighttools.cachetextconv", "true")
    before = config.read_bytes()
    assert run_cli("git-setup", cwd=repository.place).code == 0
    assert run_cli("git-setup", "--remove", cwd=repository.place).code == 0
    assert config.read_bytes() == before
    repository.git("config", "diff.weighttools.command", "mine")
    before = config.read_bytes()
    done = run_cli("git-setup", cwd=repository.place)
    assert done.code == 2 and "diff.weighttools.command" in done.err and done.err.count("\n") == 1
    run_cli("git-setup", "--remove", cwd=repository.place)
    assert config.read_bytes() == before
