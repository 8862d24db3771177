"""``prune``, ``decay``, ``clip``, ``scale``, ``noise``, ``average``: reports, plans, refusals, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

NORMAL = np.random.default_rng(0).standard_normal


@pytest.fixture
def model(make) -> tuple[Path, dict[str, np.ndarray]]:
    arrays = {
        "embed.weight": NORMAL((6, 8), np.float32), "l.0.fc.weight": NORMAL((8, 8), np.float32),
        "l.0.fc.bias": NORMAL(8, np.float32), "l.1.fc.weight": NORMAL((8, 8), np.float32), "n": np.arange(3),
    }  # fmt: skip
    return make(arrays, "model.safetensors", format="pt"), arrays


def good(ran) -> str:
    assert ran.code == 0, ran
    return ran.out


def test_prune_tells_what_it_did(inside, model, tmp_path: Path) -> None:
    path, arrays = model
    target, masks = tmp_path / "p.safetensors", tmp_path / "m.npz"
    out = good(inside("prune", path, "-o", target, "--sparsity", "0.25", "--mask-out", masks))
    lines = out.splitlines()
    assert lines[0] == "pruned 2 of 5 tensors" and lines[4] == f"wrote {target}: safetensors, 5 tensors, 760 B"
    assert sorted(lines[1:4]) == [
        "  left alone: 1 embeddings",
        "  left alone: 1 integers, booleans and complex numbers",
        "  left alone: 1 norms and biases (fewer than two dimensions, or named so)",
    ]
    assert "sparsity: 25.0000% of the pruned tensors (32 of 128 are 0)" in out
    assert "as it is 760 B" in out and "bitmask and values 664 B" in out  # 760 + 2 * (8 + 8) - 32 * 4
    found = load_file(target)
    with np.load(masks) as archive, safe_open(target, "np") as file:
        assert sorted(k for k in archive.files if "weighttools" not in k) == ["l.0.fc.weight", "l.1.fc.weight"]
        assert file.metadata() == {"format": "pt"}
        for name in ("l.0.fc.weight", "l.1.fc.weight"):
            assert archive[name].dtype == bool
            assert found[name].tobytes() == np.where(archive[name], arrays[name], np.float32(0)).tobytes()
    for name in ("embed.weight", "l.0.fc.bias", "n"):
        assert found[name].tobytes() == arrays[name].tobytes()


@pytest.mark.parametrize("target", ["p.safetensors", "p"])
@pytest.mark.parametrize("masks", ["m.npz", "m"])
@pytest.mark.parametrize("is_foreign", [False, True])
def test_who_loses_the_masks_name_leaves_no_output(
    target: str, masks: str, is_foreign: bool, inside, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes the name of the masks at the last moment; what took the output's name since is left."""
    from weighttools.io import directory, sink

    path, place = model[0], tmp_path / "place"
    place.mkdir()

    def racing(real):
        def placed(temporary: Path, final: Path, subject: object) -> None:
            if final.name == masks:
                assert (place / target).exists(), "the output comes just before the masks"
                if is_foreign:
                    (place / target).rename(tmp_path / "away")
                    (place / target).write_text("mine")
                final.write_text("theirs")
            real(temporary, final, subject)

        return placed

    monkeypatch.setattr(sink, "place_file", racing(sink.place_file))
    monkeypatch.setattr(directory, "place_directory", racing(directory.place_directory))
    ran = inside("prune", path, "-o", place / target, "--sparsity", "0.5", "--mask-out", place / masks)
    assert ran.code == 2 and "appeared while" in ran.err
    assert {p.name: p.read_text() for p in place.iterdir()} == {
        masks: "theirs",
        **({target: "mine"} if is_foreign else {}),
    }


def test_masks_replace_neither_the_source_nor_the_output(inside, model, tmp_path: Path) -> None:
    path, target = model[0], tmp_path / "d"
    before = path.read_bytes()
    for masks, said in (
        (path, "is read too"),
        (target, "is the output too"),
        (target / "model.safetensors", "written"),
    ):
        target.mkdir(exist_ok=True)
        ran = inside("prune", path, "-o", target, "--sparsity", "0.5", "--mask-out", masks, "--force")
        assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran.err
    assert path.read_bytes() == before and not list(target.iterdir())


def test_json(inside, model, tmp_path: Path) -> None:
    target = tmp_path / "p.safetensors"
    record = json.loads(good(inside("prune", model[0], "-o", target, "--sparsity", "0.5", "--json")))
    assert record["schema"] == "weighttools.prune/1" and record["written"] and record["dst"] == str(target)
    done = record["transforms"][-1]
    assert (done["by"], done["scope"], done["n_pruned"], done["n_zero"], done["n_elements"]) == (
        "magnitude", "global", 64, 64, 128,
    )  # fmt: skip
    arrays = load_file(target)
    assert done["tensors"]["l.0.fc.weight"]["n_zero"] == int((arrays["l.0.fc.weight"] == 0).sum())
    assert record["sizes"]["bitmask_bytes"] == 760 + 2 * (8 + 8) - 64 * 4
    assert record["sizes"]["gzip_sample_bytes"] == record["sizes"]["raw_bytes"] == 760


COMMANDS = {
    "prune": ["--sparsity", "0.5"],
    "decay": ["--rate", "0.1"],
    "clip": ["--value", "0.5"],
    "scale": ["--by", "2"],
    "noise": ["--std", "0.1"],
}


DRY = {
    **{command: [command, "SRC", *options] for command, options in COMMANDS.items()},
    "prune rows": ["prune", "SRC", "--structure", "rows", "--sparsity", "0.5"],
    "2:4": ["prune", "SRC", "--nm", "2:4"],
    "random": ["prune", "SRC", "--random", "--sparsity", "0.5"],
    "clip norm": ["clip", "SRC", "--norm", "1"],
    "init": ["init", "SRC", "--method", "orthogonal"],
    "average": ["average", "SRC", "SRC"],
}


@pytest.mark.parametrize("name", DRY)
def test_dry_run_writes_nothing(inside, model, tmp_path: Path, name: str) -> None:
    target, before = tmp_path / "p.safetensors", sorted(tmp_path.iterdir())
    words = [model[0] if word == "SRC" else word for word in DRY[name]]
    out = good(inside(*words, "-o", target, "--dry-run"))
    assert f"would write {target}: safetensors, 5 tensors, 760 B" in out and "would have" in out
    record = json.loads(good(inside(*words, "-o", target, "--dry-run", "--json")))
    assert not record["written"] and record["stored_bytes"] == 760 and record["transforms"]
    assert 8 << 20 <= record["planned_peak_bytes"] < 200e6 and "planned peak memory" in out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_patterns_force_and_other_formats(inside, model, tmp_path: Path, command: str) -> None:
    path, arrays = model
    target = tmp_path / "p.npz"
    good(inside(command, path, "-o", target, *COMMANDS[command], "-i", "l.*", "-x", "*.0.*"))
    with np.load(target) as archive:
        changed = {name for name in arrays if archive[name].tobytes() != arrays[name].tobytes()}
    assert changed == {"l.1.fc.weight"}
    old = target.read_bytes()
    ran = inside(command, path, "-o", target, *COMMANDS[command])
    assert ran.code == 2 and len(ran.err.splitlines()) == 1 and target.read_bytes() == old
    good(inside(command, path, "-o", target, *COMMANDS[command], "--force"))
    assert target.read_bytes() != old


def test_a_directory_keeps_its_companions(inside, model, tmp_path: Path) -> None:
    source, target = tmp_path / "model", tmp_path / "pruned"
    good(inside("convert", model[0], source, "--max-shard-size", "300"))
    (source / "config.json").write_text("{}")
    good(inside("prune", source, "-o", target, "--sparsity", "0.5", "--max-shard-size", "300"))
    assert (target / "config.json").exists() and len(list(target.glob("model-*.safetensors"))) > 1


def test_values_that_are_not_finite_are_told(inside, make, tmp_path: Path) -> None:
    array = NORMAL((4, 4), np.float32)
    array[0, 0], array[1, 1], array[2, 2] = np.nan, np.inf, -np.inf
    path = make({"fc.weight": array})
    for command, options in COMMANDS.items():
        ran = inside(command, path, "-o", tmp_path / f"{command}.safetensors", *options)
        good(ran)
        assert "not finite: 3 elements in 1 changed tensor (1 NaN, 2 Inf), first in fc.weight\n" in ran.err
        found = load_file(tmp_path / f"{command}.safetensors")["fc.weight"]
        odd = ~np.isfinite(array)
        assert found[odd].tobytes() == array[odd].tobytes()


def test_average(inside, make, tmp_path: Path) -> None:
    paths = [make({"w": np.full(3, k, np.float32), "n": np.array([k])}, f"{k}.safetensors") for k in (1, 2, 6)]
    target = tmp_path / "mean.safetensors"
    out = good(inside("average", *paths, "-o", target))
    assert "averaged 1 of 2 tensors" in out and "left alone: 1 copied from the first" in out
    assert load_file(target)["w"].tolist() == [3, 3, 3] and load_file(target)["n"].tolist() == [1]
    good(inside("average", *paths, "-o", target, "--force", "--weights", "0,1,3"))
    assert load_file(target)["w"].tolist() == [5, 5, 5]
    good(inside("average", *paths, "-o", target, "--force", "--ema", "0.5"))
    assert load_file(target)["w"].tolist() == [3.75] * 3


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("prune", ["--sparsity", "1.5"], "--sparsity 1.5 is out of range"),
        ("prune", ["--sparsity", "nan"], "out of range"),
        ("prune", ["--sparsity", "half"], "--sparsity"),
        ("prune", ["--sparsity", "0.5", "-i", "nothing*"], "matches no tensor"),
        ("prune", ["--sparsity", "0.5", "-i", "*bias"], "--include-all"),
        ("prune", ["--nm", "2:3"], "not whole groups of 3"),
        ("prune", ["--random", "--sparsity", "0.5", "--seed", "x"], "--seed"),
        ("prune", ["--random", "--sparsity", "0.5", "--seed", "-1"], "--seed -1"),
        ("prune", [], "one of --sparsity and --threshold"),
        ("prune", ["--sparsity", "0.5", "--mask-out", "-"], "--mask-out"),
        ("prune", ["--sparsity", "0.5", "--mask-out", "x.nosuchformat"], "nosuchformat"),
        ("prune", ["--sparsity", "0.5", "--mask-out", "nowhere/m.npz"], "nowhere does not exist"),
        ("prune", ["--sparsity", "0.5", "--mask-out", "/dev/null.npz/x.npz"], "/dev/null.npz"),
        ("prune", ["--sparsity", "0.5", "--store", "zip"], "--store"),
        ("prune", ["--sparsity", "0.5", "--store", "bitmask", "--to", "npz"], "--store bitmask for safetensors"),
        ("prune", ["--threshold", "nan"], "--threshold nan"),
        ("init", ["--seed", "0.5"], "--seed"),
        ("init", ["--method", "melt"], "no initialiser"),
        ("prune", ["--structure", "heads", "--n-heads", "3", "--sparsity", "0.5"], "no tensor has heads"),
        ("decay", [], "nothing decays"),
        ("decay", ["--rate", "2"], "change sign"),
        ("clip", [], "--value and --norm"),
        ("scale", [], "--by"),
        ("scale", ["--by", "inf"], "--by inf"),
        ("noise", ["--std", "1", "--seed", "1.5"], "--seed"),
        ("average", [], "two or more"),
        ("average", ["--weights", "1,x"], "--weights"),
    ],
)
def test_bad_input_is_one_line(inside, model, tmp_path: Path, command: str, options: list[str], message: str) -> None:
    before = sorted(tmp_path.iterdir())
    ran = inside(command, model[0], "-o", tmp_path / "p.safetensors", *options)
    assert (ran.code, ran.out) == (2, "") and len(ran.err.splitlines()) == 1 and message in ran.err
    assert sorted(tmp_path.iterdir()) == before
