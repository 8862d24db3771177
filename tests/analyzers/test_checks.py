"""Checks of headers and values: damage made by NumPy, torch's own files, and configurations as transformers writes them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import weighttools as wt
from tests.conftest import ROOT
from weighttools.core.codes import CODES
from weighttools.verbs.check import codes

RNG = np.random.default_rng(7)


def normal(*shape: int, scale: float = 0.05) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def found(path: Path, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Findings by code."""
    by_code: dict[str, list[dict[str, Any]]] = {}
    for finding in wt.check(path, **settings)["findings"]:
        by_code.setdefault(finding["code"], []).append(finding)
    return by_code


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays as a checkpoint that has its ``format: pt``."""

    def write(arrays: dict[str, Any], name: str = "model.safetensors", **json_files: Any) -> Path:
        for stem, content in json_files.items():
            (tmp_path / f"{stem}.json").write_text(json.dumps(content))
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / name, {"format": "pt"})
        return tmp_path / name

    return write


def test_a_sound_file_gives_nothing(file) -> None:
    path = file({f"layers.{i}.weight": normal(48, 32) for i in range(6)} | {"head.bias": normal(48)})
    assert wt.check(path)["findings"] == []


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
def test_nan_and_inf_at_the_right_index(file, dtype: str) -> None:
    """Far into the second block of a tensor, in every dtype that has them."""
    values = np.ones((700, 500), np.float32) * np.linspace(0.5, 1, 500, dtype=np.float32)
    values[611, 3], values[699, 499], values[550, 7] = np.nan, np.nan, -np.inf
    report = found(file({"w": torch.from_numpy(values).to(getattr(torch, dtype)).view(torch.uint8).numpy().view(
        getattr(ml_dtypes, dtype, dtype)).reshape(700, 500) if dtype != "float64" else values.astype(dtype)}))  # fmt: skip
    [nan], [inf] = report["nan"], report["inf"]
    assert (nan["severity"], inf["severity"], nan["tensor"]) == ("error", "error", "w")
    assert "2 of 350,000" in nan["message"] and "[611, 3]" in nan["message"]
    assert "1 of 350,000" in inf["message"] and "[550, 7]" in inf["message"]


def test_inf_in_a_mask_is_a_note(file) -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    assert [f["severity"] for f in found(file({"attn.causal_mask": mask}))["inf"]] == ["note"]


def test_constants(file) -> None:
    report = found(
        file(
            {
                "a.weight": np.zeros((4, 5), np.float32),
                "b.bias": np.zeros(7, np.float32),
                "c.weight": np.full((3, 3), 2.5, np.float32),
                "norm.weight": np.ones(6, np.float32),
                "one": np.float32(0),
                "empty": np.zeros((0, 4), np.float32),
                "ids": np.zeros((4, 4), np.int64),
            }
        )
    )
    assert {f["tensor"]: f["severity"] for f in report["all-zero"]} == {"a.weight": "warning", "b.bias": "note"}
    assert {f["tensor"]: f["severity"] for f in report["constant"]} == {"c.weight": "warning", "norm.weight": "note"}
    assert "dead-rows" not in report and "duplicate" not in report


def test_negative_zero_rows_are_dead(file) -> None:
    dead, table = normal(40, 30), normal(40, 30)
    dead[[3, 17]] = -0.0
    table[0] = 0
    alive = normal(40, 30)
    alive[5, :-1] = 0
    report = found(file({"fc.weight": dead, "embed_tokens.weight": table, "ok.weight": alive}))["dead-rows"]
    assert {f["tensor"]: f["severity"] for f in report} == {"fc.weight": "warning", "embed_tokens.weight": "note"}
    assert "2 of 40 rows" in next(f["message"] for f in report if f["tensor"] == "fc.weight")


def test_dead_rows_across_blocks(file) -> None:
    wide = normal(9, 100_000)
    wide[4] = 0
    [finding] = found(file({"w": wide}))["dead-rows"]
    assert "1 of 9 rows" in finding["message"] and "row 4" in finding["message"]


def test_large_values(file) -> None:
    arrays = {f"layers.{i}.fc.weight": normal(20, 30) for i in range(6)}
    arrays["layers.3.fc.weight"] = normal(20, 30, scale=5.0)
    report = found(file({**arrays, "alone.weight": normal(20, 20, scale=1e6)}))["large-values"]
    assert sorted(f["tensor"] for f in report) == ["alone.weight", "layers.3.fc.weight"]


@pytest.mark.parametrize(
    ("dtype", "bits", "top"),
    [("float32", "u4", 30), ("bfloat16", "u2", 14), ("float16", "u2", 14), ("float64", "u8", 62)],
)
@pytest.mark.parametrize("n", [64, 3000, 300_001])
def test_a_flipped_bit_is_found(file, dtype: str, bits: str, top: int, n: int) -> None:
    values = normal(n).astype(getattr(ml_dtypes, dtype, dtype))
    at = int(np.argmax(np.abs(values.astype(np.float64))))
    values.view(bits)[at] ^= np.array(1 << top, bits)
    report = found(file({"fc.weight": values, "sound.weight": normal(n).astype(values.dtype)}))
    [finding] = report["outlier-exponent"]
    assert finding["tensor"] == "fc.weight" and f"[{at}]" in finding["message"]
    assert finding["severity"] == ("warning" if dtype == "float16" else "error")


def test_heavy_tails_are_no_flipped_bits(file) -> None:
    arrays = {f"t{i}.weight": (RNG.standard_t(1.5, 20_000) * 0.01).astype(np.float32) for i in range(10)}
    spread = (RNG.choice([-1, 1], 5000) * 2.0 ** RNG.uniform(-40, 3, 5000)).astype(np.float32)
    assert "outlier-exponent" not in found(file({**arrays, "log.weight": spread}))


def test_duplicates_are_equal_bytes_of_one_shape(file) -> None:
    one = normal(300, 1000)
    almost = one.copy()
    almost[-1, -1] = np.nextafter(almost[-1, -1], np.float32(1))
    report = found(file({"a": one, "b": one, "c": almost, "d": one.reshape(1000, 300), "e": one.view(np.int32)}))
    [finding] = report["duplicate"]
    assert finding["tensor"] == "a" and "'b'" in finding["message"] and "1,200,000 bytes" in finding["message"]


def test_tied_tensors_of_torch(tmp_path: Path) -> None:
    weight = torch.randn(30, 20)
    torch.save({"embed.weight": weight, "head.weight": weight}, tmp_path / "a.pt")
    report = found(tmp_path / "a.pt")
    assert len(report["tied"]) == 1 and "duplicate" not in report


def test_mixed_dtypes(file) -> None:
    arrays = {f"layers.{i}.fc.weight": normal(8, 8).astype(ml_dtypes.bfloat16) for i in range(4)}
    norms = {f"layers.{i}.norm.weight": normal(8) for i in range(4)}
    assert [f["severity"] for f in found(file(arrays | norms))["mixed-dtypes"]] == ["note"]
    arrays["layers.2.fc.weight"] = normal(8, 8)
    [finding] = found(file(arrays | norms))["mixed-dtypes"]
    assert finding["severity"] == "warning" and "bfloat16 (3 tensors), float32 (1 tensors)" in finding["message"]


def test_missing_format(tmp_path: Path) -> None:
    save_file({"w": normal(4, 4)}, tmp_path / "model.safetensors")
    assert [f["severity"] for f in found(tmp_path / "model.safetensors")["no-format"]] == ["note"]
    (tmp_path / "config.json").write_text("{}")
    assert [f["severity"] for f in found(tmp_path)["no-format"]] == ["warning"]


def saved_model(kind: str, home: Path) -> Path:
    """A tiny model saved by transformers."""
    import transformers as t

    configs = {
        "llama": lambda: t.LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        "bert": lambda: t.BertConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=32,
        ),
        "gpt2": lambda: t.GPT2Config(
            vocab_size=50, n_embd=16, n_layer=3, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=1
        ),
    }
    config = configs[kind]()
    models = {"llama": t.LlamaForCausalLM, "bert": t.BertModel, "gpt2": t.GPT2LMHeadModel}
    models[kind](config).save_pretrained(home)
    return home


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_config_against_shapes(kind: str, tmp_path: Path) -> None:
    home = saved_model(kind, tmp_path / kind)
    assert not {"config-shape", "config-layers"} & set(found(home))
    config = json.loads((home / "config.json").read_text())
    width, layers = ("n_embd", "n_layer") if kind == "gpt2" else ("hidden_size", "num_hidden_layers")
    for key, code in ((width, "config-shape"), ("vocab_size", "config-shape"), (layers, "config-layers")):
        (home / "config.json").write_text(json.dumps({**config, key: config[key] + 4}))
        assert found(home)[code][0]["severity"] == "error", key
    for broken in ("{", '{"model_type": ["llama"]}', '{"model_type": "llama", "hidden_size": "x", "head_dim": -1}'):
        (home / "config.json").write_text(broken)
        assert set(found(home)) <= {"broken-config", "all-zero", "constant", "tied", "no-format", "dead-rows"}


def test_tokenizer_against_embedding(file) -> None:
    embedding = {"model.embed_tokens.weight": normal(10, 4)}
    vocabulary = {f"t{i}": i for i in range(9)}

    def codes_of(**tokenizer: Any) -> set[str]:
        return set(found(file(embedding, tokenizer=tokenizer)))

    assert codes_of(model={"vocab": vocabulary}, added_tokens=[{"id": 9, "content": "x"}]) == set()
    assert codes_of(model={"vocab": vocabulary}, added_tokens=[{"id": 10, "content": "x"}]) == {"tokenizer-larger"}
    assert codes_of(model={"vocab": vocabulary}) == {"tokenizer-smaller"}
    assert codes_of(model={"vocab": [["a", -1.0]] * 11}) == {"tokenizer-larger"}
    assert codes_of(model=3, added_tokens={"id": 1}) == set()


def test_headers_reads_no_values(file) -> None:
    path = file({"w": np.full((4, 4), np.nan, np.float32)})
    assert "nan" in found(path) and found(path, headers=True) == {}


def test_include_chooses_the_values_that_are_read(file) -> None:
    path = file({"a": np.full((4, 4), np.nan, np.float32), "b": normal(4, 4)})
    assert "nan" in found(path, include=["a"]) and "nan" not in found(path, include=["b"])


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")  # peft calls what transformers renamed
def test_adapter_against_base(tmp_path: Path) -> None:
    """An adapter saved by peft fits its base, and no other."""
    import peft
    import transformers as t

    home = saved_model("gpt2", tmp_path / "base")
    model = t.GPT2LMHeadModel.from_pretrained(home)
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    assert not {"adapter-target", "adapter-shape"} & set(found(adapter, base=home))
    other = saved_model("llama", tmp_path / "other")
    assert {f["severity"] for f in found(adapter, base=other)["adapter-target"]} == {"error"}


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_adapter_against_its_configuration(tmp_path: Path) -> None:
    """Another rank than the configuration's does not load in peft either; ranks of some modules' own do."""
    import peft
    import transformers as t

    home, place = saved_model("gpt2", tmp_path / "base"), tmp_path / "adapter"
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, rank_pattern={"c_fc": 2, r"h\.0\.attn.*": 3}
    )
    peft.get_peft_model(t.GPT2LMHeadModel.from_pretrained(home), config).save_pretrained(place)
    assert not [code for code in found(place, base=home) if code.startswith("adapter")]
    text = json.loads((place / "adapter_config.json").read_text())
    (place / "adapter_config.json").write_text(json.dumps(text | {"rank_pattern": {"c_fc": 16}}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(t.GPT2LMHeadModel.from_pretrained(home), place)
    report = found(place, base=home)["adapter-rank"]
    assert {f["severity"] for f in report} == {"error"}
    assert any("r = 16" in f["message"] and "have rank 2" in f["message"] for f in report)
    assert any("r = 4" in f["message"] and "have rank 3" in f["message"] for f in report)
    (place / "adapter_config.json").unlink()
    assert [f["severity"] for f in found(place, base=home)["adapter-config"]] == ["warning"]


def test_special_tokens_beyond_the_embedding(file, tmp_path: Path) -> None:
    import transformers as t

    path = file({"model.embed_tokens.weight": normal(100, 8)}, "model.safetensors")
    home = path.parent
    t.GenerationConfig(bos_token_id=1, eos_token_id=[99, 2], pad_token_id=0).save_pretrained(home)
    t.LlamaConfig(vocab_size=100, bos_token_id=1, eos_token_id=99, pad_token_id=-1).save_pretrained(home)
    assert "token-id" not in found(path)
    t.GenerationConfig(bos_token_id=1, eos_token_id=[2, 100], pad_token_id=32000).save_pretrained(home)
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps(config | {"eos_token_id": 151645}))
    report = found(path)["token-id"]
    assert {f["severity"] for f in report} == {"error"}
    told = [" ".join(f["message"].split()[:4]) for f in report]
    assert told == [
        "config.json says eos_token_id 151,645,",
        "generation_config.json says eos_token_id 100,",
        "generation_config.json says pad_token_id 32,000,",
    ]


def test_names_that_do_not_line_up_are_named(file) -> None:
    a = file({"x.weight": normal(2, 3), "odd": normal(5), "same": normal(2), "turned": normal(3, 4)}, "a.safetensors")
    b = file({"x.weight": normal(2, 3), "other": normal(7), "same": normal(2), "turned": normal(4, 3)}, "b.safetensors")
    (finding,) = found(a, against=b)["names-differ"]
    assert "only here: odd; only there: other; of other shapes: turned" in finding["message"]


def test_adapter_shapes(file, tmp_path: Path) -> None:
    base = file(
        {"model.q.weight": normal(6, 8), "model.k.weight": normal(6, 8), "model.v.weight": normal(6, 8)},
        "base.safetensors",
    )
    prefix = "base_model.model.model."
    adapter = file(
        {
            f"{prefix}q.lora_A.weight": normal(2, 8),
            f"{prefix}q.lora_B.weight": normal(6, 2),
            f"{prefix}k.lora_A.weight": normal(2, 8),
            f"{prefix}k.lora_B.weight": normal(6, 3),
            f"{prefix}v.lora_A.weight": normal(2, 7),
            f"{prefix}v.lora_B.weight": normal(6, 2),
        },
        "adapter.safetensors",
    )
    report = found(adapter, base=base, headers=True)
    assert [f["tensor"] for f in report["adapter-shape"]] == [f"{prefix}k.lora_A.weight", f"{prefix}v.lora_A.weight"]
    alone = file({f"{prefix}q.lora_A.weight": normal(2, 8)}, "alone.safetensors")
    assert "adapter-shape" in found(alone, base=base, headers=True)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("module.", ""), ("", "bert."), ("module.model.", "bert."), ("a.b.", "c.")]
)
def test_against_finds_the_renaming(file, ours: str, theirs: str) -> None:
    names = ["embed.weight", *(f"layer.{i}.{part}.weight" for i in range(12) for part in "qkv")]
    arrays = {name: normal(4, 3) for name in names}
    mine = file({ours + n: a for n, a in arrays.items()}, "a.safetensors")
    other = file({theirs + n: a for n, a in arrays.items()} | {"extra.weight": normal(2, 2)}, "b.safetensors")
    record = wt.check(mine, against=other, headers=True)
    [rule] = record["against"]["rename"]
    assert (rule["src"], rule["dst"], rule["n_names"]) == (ours, theirs, len(names))
    assert record["against"]["renamed"] == {ours + n: theirs + n for n in names}
    assert record["against"]["only_there"] == ["extra.weight"] and record["against"]["only_here"] == []
    import re

    assert {re.sub(rule["pattern"], rule["replacement"], ours + n) for n in names} == {theirs + n for n in names}


def test_against_itself_and_two_rules(file) -> None:
    arrays = {f"enc.{i}.w": normal(3, 4) for i in range(5)} | {f"dec.{i}.w": normal(3, 5) for i in range(4)}
    mine = file(arrays, "a.safetensors")
    same = wt.check(mine, against=mine, headers=True)
    assert same["findings"] == [] and same["against"]["n_same"] == 9
    swapped = {n.replace("enc.", "encoder.").replace("dec.", "decoder."): a for n, a in arrays.items()}
    record = wt.check(mine, against=file(swapped, "b.safetensors"), headers=True)
    assert {(r["src"], r["dst"]) for r in record["against"]["rename"]} == {("enc.", "encoder."), ("dec.", "decoder.")}


def test_every_code_is_explained() -> None:
    """Each code that the package writes is in the table, and each of the table is written somewhere."""
    written: set[str] = set()
    for path in (ROOT / "weighttools").rglob("*.py"):
        if path.name != "codes.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            written |= {
                n.value
                for n in ast.walk(tree)
                if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in CODES
            }
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", "") == "Finding"
                    and len(node.args) > 1
                    and isinstance(node.args[1], ast.Constant)
                ):
                    assert node.args[1].value in CODES, f"{path}: {node.args[1].value}"
    assert written == set(CODES)
    assert [row["code"] for row in codes()] == list(CODES) and all(row["meaning"] and row["remedy"] for row in codes())
