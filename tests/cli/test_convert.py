"""``weighttools convert`` by its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.conftest import TINY


def good(ran) -> str:
    assert ran.code == 0, ran
    return ran.out


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in found.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in wanted.items()
    }


def test_there_and_back_is_byte_identical(inside, tiny: Path, tmp_path: Path) -> None:
    """The fixture is the official writer's, so the way back gives the official writer's bytes."""
    good(inside("convert", tiny, tmp_path / "a.npz"))
    with np.load(tmp_path / "a.npz") as archive:
        assert same({k: archive[k] for k in archive.files if k in TINY}, TINY)
    good(inside("convert", tmp_path / "a.npz", tmp_path / "b.safetensors"))
    assert (tmp_path / "b.safetensors").read_bytes() == tiny.read_bytes()
    good(inside("convert", tmp_path / "b.safetensors", tmp_path / "dir"))
    good(inside("convert", tmp_path / "dir", tmp_path / "c.safetensors"))
    assert (tmp_path / "c.safetensors").read_bytes() == tiny.read_bytes()


def test_report(inside, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    ran = inside("convert", tiny, target, "--dtype", "float16")
    assert ran == (0, f"wrote {target}: safetensors, 3 tensors, 2 cast, 38 B\n", "")
    record = json.loads(good(inside("convert", tiny, target, "--dtype", "float16", "--force", "--json")))
    assert record["schema"] == "weighttools.convert/1"
    assert (record["src"], record["dst"], record["format"]) == (str(tiny), str(target), "safetensors")
    assert (record["written"], record["n_tensors"], record["n_cast"], record["stored_bytes"]) == (True, 3, 2, 38)


def test_dtype(inside, make, tmp_path: Path) -> None:
    values = np.array([1.00390625, 70000.0, -0.0, np.nan, np.inf, 1e-40, 3.0], np.float32)
    arrays = {"norm.weight": values, "fc.weight": values.astype(np.float64), "n": np.arange(3), "m": np.array([True])}
    path, target = make(arrays), tmp_path / "o.safetensors"
    good(inside("convert", path, target, "--dtype", "bfloat16", "--keep-dtype", "*norm*"))
    found = load_file(target)
    assert same({k: found[k] for k in ("norm.weight", "n", "m")}, {k: arrays[k] for k in ("norm.weight", "n", "m")})
    assert found["fc.weight"].tobytes() == values.astype(ml_dtypes.bfloat16).tobytes()
    good(inside("convert", path, target, "--dtype", "float16", "--force", "-i", "norm.weight"))
    with np.errstate(over="ignore"):
        assert load_file(target)["norm.weight"].tobytes() == values.astype(np.float16).tobytes()


def test_saturate(inside, make, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = np.array([1e6, -1e6, 448, 464.1, np.nan, 0.1], np.float32)
    path = make({"w": values})
    for option, check in {"--saturate": True, "": False}.items():
        target = tmp_path / f"o{option}.safetensors"
        good(inside("convert", path, target, "--dtype", "float8_e4m3fn", *([option] if option else [])))
        with safe_open(target, "pt") as file:
            found = file.get_tensor("w").view(torch.uint8)
        theirs = torch.from_numpy(values).clamp(-448, 448) if check else torch.from_numpy(values)
        if check:
            assert torch.equal(found, theirs.to(torch.float8_e4m3fn).view(torch.uint8))
        else:
            assert found.numpy().tobytes() == values.astype(ml_dtypes.float8_e4m3fn).tobytes()


@pytest.fixture
def six(make) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    arrays = {f"l.{i}": rng.standard_normal(250).astype(np.float32) for i in range(6)}
    return make(arrays, format="pt"), arrays


def test_shards(inside, six, tmp_path: Path) -> None:
    """The split is huggingface_hub's, and the official library reads each part."""
    source, arrays = six
    target = tmp_path / "sharded"
    good(inside("convert", source, target, "--max-shard-size", "2KB"))
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 6000
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    found = {}
    for name, file in index["weight_map"].items():
        with safe_open(target / file, "np") as shard:
            assert shard.metadata() == {"format": "pt"}
            found[name] = shard.get_tensor(name)
    assert same(found, arrays)
    record = json.loads(good(inside("inspect", target, "--json")))
    assert record["kind"] == "checkpoint in 3 shards" and record["n_elements"] == 1500
    single = tmp_path / "single"
    good(inside("convert", target, single, "--single"))
    assert [p.name for p in single.iterdir()] == ["model.safetensors"]
    assert (single / "model.safetensors").read_bytes() == source.read_bytes()
    good(inside("convert", target / "model.safetensors.index.json", tmp_path / "one.safetensors"))
    assert (tmp_path / "one.safetensors").read_bytes() == source.read_bytes()


def test_stale_shards_go(inside, six, tmp_path: Path) -> None:
    target = tmp_path / "d"
    good(inside("convert", six[0], target, "--max-shard-size", "1KB"))
    (target / "README.md").write_text("mine")
    good(inside("convert", six[0], target, "--max-shard-size", "4KB", "--force"))
    assert sorted(p.name for p in target.iterdir()) == [
        "README.md", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]  # fmt: skip


def test_other_models_of_a_directory_stay(inside, six, tmp_path: Path) -> None:
    target = tmp_path / "d"
    good(inside("convert", six[0], target, "--max-shard-size", "1KB"))
    shutil.copy(six[0], target / "other.safetensors")
    shutil.copy(six[0], target / "diffusion_pytorch_model.safetensors")
    good(inside("convert", target / "other.safetensors", target, "--force"))
    assert sorted(p.name for p in target.iterdir()) == [
        "diffusion_pytorch_model.safetensors", "model.safetensors", "other.safetensors",
    ]  # fmt: skip
    ran = inside("convert", target / "diffusion_pytorch_model.safetensors", target, "--force")
    assert ran.code == 0 and "model.safetensors is another model's" in ran.err


def test_a_shard_does_not_take_the_place_of_its_model(inside, six, tmp_path: Path) -> None:
    target = tmp_path / "d"
    good(inside("convert", six[0], target, "--max-shard-size", "1KB"))
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    shard = min(target.glob("*.safetensors"))
    ran = inside("convert", shard, target, "--force")
    assert ran.code == 2 and "is a part of the model that would be replaced" in ran.err and ran.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_dry_run(inside, six, tmp_path: Path) -> None:
    target = tmp_path / "d"
    out = good(inside("convert", six[0], target, "--max-shard-size", "2KB", "--dry-run", "--dtype", "float16"))
    assert not target.exists()
    assert out.startswith(f"would write {target}: huggingface, 6 tensors, 6 cast, 3 kB")
    assert out.count(".safetensors: 4 tensors") == 1 and out.count(".safetensors: 2 tensors") == 1
    assert "planned peak memory for values: " in out
    record = json.loads(good(inside("convert", six[0], target, "--dry-run", "--json")))
    assert record["written"] is False and record["planned_peak_bytes"] > 0


@pytest.mark.parametrize(
    ("options", "dst", "said"),
    [
        (["--max-shard-size", "2KB"], "x.npz", "--max-shard-size"),
        (["--max-shard-size", "2KB", "--single"], "d", "exclude each other"),
        (["--max-shard-size", "lots"], "d", "'lots' is no size"),
        (["--max-shard-size", "0"], "d", "is no size"),
        (["--dtype", "float33"], "x.npz", "float33"),
        (["--dtype", "int8"], "x.npz", "int8"),
        (["--keep-dtype", "*"], "x.npz", "--dtype"),
        (["--to", "npz"], "d/", "npz"),
        (["--to", "nonsense"], "x.npz", "nonsense"),
        ([], "x.weights", "--to"),
        ([], "x.npy", "holds one array"),
    ],
)
def test_refused_before_anything_is_written(inside, tiny, tmp_path: Path, options, dst: str, said: str) -> None:
    before = set(tmp_path.iterdir())
    ran = inside("convert", tiny, f"{tmp_path}/{dst}", *options)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1, ran
    assert set(tmp_path.iterdir()) == before


def test_losses_are_said(inside, tiny: Path, tmp_path: Path) -> None:
    ran = inside("convert", tiny, tmp_path / "x.npy", "-i", "steps")
    assert ran.code == 0 and "NPY holds no metadata: format will be lost" in ran.err
    assert "note" not in ran.out


@pytest.mark.parametrize("to", ["safetensors", "npz"])
def test_through_pipes(run_cli, tiny: Path, tmp_path: Path, to: str) -> None:
    """``convert x - | convert - y``: standard output holds nothing but the file."""
    piped = run_cli("convert", tiny, "-", "--to", to, text=False)
    assert (piped.code, piped.err) == (0, b"")
    back = run_cli("convert", "-", tmp_path / "back.safetensors", input=piped.out, text=False)
    assert back.code == 0, back
    assert (tmp_path / "back.safetensors").read_bytes() == tiny.read_bytes()
    listed = run_cli("inspect", "-", "--json", input=piped.out, text=False)
    assert json.loads(listed.out)["n_elements"] == 16


@pytest.mark.parametrize("to", ["safetensors", "npz"])
def test_redirected_is_as_piped(run_cli, tiny: Path, tmp_path: Path, to: str) -> None:
    """Whatever stands in a file that is appended to stays, and nothing is left over behind the new."""
    piped = run_cli("convert", tiny, "-", "--to", to, text=False).out
    file = tmp_path / "out"
    for before, mode in {b"": "wb", b"before": "ab"}.items():
        file.write_bytes(before)
        with open(file, mode) as stdout:
            assert run_cli("convert", tiny, "-", "--to", to, capture_output=False, stdout=stdout).code == 0
        assert file.read_bytes() == before + piped


def test_stdin_file_is_read_by_position(run_cli, tiny: Path, tmp_path: Path) -> None:
    with open(tiny, "rb") as stdin:
        assert run_cli("get", "-", "steps", stdin=stdin).out == "steps: int64, 1\n[7]\n"


def test_wrong_suffix_is_said(inside, tiny: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "weights.npz"
    wrong.write_bytes(tiny.read_bytes())
    ran = inside("inspect", wrong)
    assert ran.code == 0 and "named .npz, but its content is safetensors" in ran.err


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        (["b=c"], {"a.weight": "a.weight", "b": "c", "b.bias": "c.bias", "tied": "tied"}),
        (["a.=", "b=x=y"], {"a.weight": "weight", "b": "x=y", "b.bias": "x=y.bias", "tied": "tied"}),
        (["b.bias=b.bias", "=model."], {"a.weight": "model.a.weight", "b": "model.b", "b.bias": "b.bias", "tied": "model.tied"}),
        ([r"re:(\w+)\.(\w+)=\2.\1"], {"a.weight": "weight.a", "b": "b", "b.bias": "bias.b", "tied": "tied"}),
        (["tied=other"], {"a.weight": "a.weight", "b": "b", "b.bias": "b.bias", "tied": "other"}),
    ],
)  # fmt: skip
def test_rename(inside, make, tmp_path: Path, rules: list[str], wanted: dict[str, str]) -> None:
    arrays = {"a.weight": np.arange(6.0).reshape(2, 3), "b": np.arange(2), "b.bias": np.ones(3, np.float16)}
    path = make(arrays, tied="b")
    words = [word for rule in rules for word in ("--rename", rule)]
    good(inside("convert", path, tmp_path / "o.safetensors", *words))
    assert same(load_file(tmp_path / "o.safetensors"), {wanted[name]: array for name, array in arrays.items()})
    with safe_open(tmp_path / "o.safetensors", "np") as file:
        assert file.metadata() == {wanted["tied"]: wanted["b"]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("a", "is no rule"),
        ("=", "is no rule"),
        ("c=d", "matches no tensor"),
        ("re:(=b", "no regular expression"),
        (r"re:a=\2", "no regular expression"),
        (r"re:a=\g<x", "no regular expression"),
        ("a.weight=b", "two tensors would be called 'b'"),
        ("re:.+=x", "two tensors would be called 'x'"),
    ],
)
def test_rules_that_do_not_fit(inside, make, tmp_path: Path, rule: str, message: str) -> None:
    path = make({"a.weight": np.ones(2), "b": np.ones(3)})
    ran = inside("convert", path, tmp_path / "o.npz", "--rename", rule)
    assert (ran.code, ran.out) == (2, "") and len(ran.err.splitlines()) == 1 and message in ran.err
    assert not (tmp_path / "o.npz").exists()


def linked(home: Path, place: Path, to: str) -> Path:
    """A checkpoint whose files are links: `home` holds them, `place` the links, each to `to` and the file's name."""
    home.mkdir(parents=True)
    place.mkdir(parents=True)
    save_file({"w": np.ones(4, np.float32)}, home / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (home / name).write_text(f'{{"{name}": 1}}')
    for path in home.iterdir():
        (place / path.name).symlink_to(f"{to}{path.name}")
    return place


COMPANIONS = ("config.json", "tokenizer.json")


def test_links_of_a_cache_are_copied_as_what_they_lead_to(run_cli, tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    place = linked(cache / "blobs", cache / "snapshots" / "abc", "../../blobs/")
    ran = run_cli("convert", place, tmp_path / "out")
    assert ran.code == 0 and ran.err == "weighttools: note: copied with the weights: config.json, tokenizer.json\n"
    for name in COMPANIONS:
        found = tmp_path / "out" / name
        assert not found.is_symlink() and found.read_bytes() == (cache / "blobs" / name).read_bytes()


def test_links_that_leave_the_directory_are_not_copied_and_named(run_cli, tmp_path: Path) -> None:
    place = linked(tmp_path / "elsewhere", tmp_path / "model", f"{tmp_path}/elsewhere/")
    (place / "more").symlink_to(tmp_path / "elsewhere")
    ran = run_cli("convert", place, tmp_path / "out")
    assert ran.code == 0 and [p.name for p in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    why = "a link that leaves its directory"
    listed = ", ".join(f"{name} ({why})" for name in sorted((*COMPANIONS, "more")))
    line = f"weighttools: note: not copied with the weights: {listed}; copy what is needed yourself"
    assert ran.err.splitlines().count(line) == 1
    again = run_cli("convert", place, place, "--force")
    assert again.code == 0 and "not copied" not in again.err, "what the target has already is not missing"
    assert all((place / name).is_symlink() for name in COMPANIONS)
