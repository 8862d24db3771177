"""Adapters that peft made: merged as peft merges them, and refused where factors alone do not say the change."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import weighttools as wt
from weighttools.errors import CorruptFileError, SourceError, SpecError, UnsupportedError
from weighttools.write.adapters import merge_lora, open_adapter

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own


def gpt2(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0, **options
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


class Net(torch.nn.Module):
    """Convolutions, an embedding, a square and another matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 6)
        self.square = torch.nn.Linear(6, 6)
        self.conv = torch.nn.Conv2d(4, 5, (3, 2))
        self.point = torch.nn.Conv2d(5, 3, 1)
        self.out = torch.nn.Linear(6, 4)


def net() -> Any:
    torch.manual_seed(0)
    return Net().eval()


def state(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "llama": (llama, {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]}),
    "rslora": (llama, {"r": 4, "lora_alpha": 7, "use_rslora": True, "target_modules": "all-linear"}),
    "conv1d": (gpt2, {"r": 3, "target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "square": (gpt2, {"r": 3, "target_modules": ["attn.c_proj"]}),
    "patterns": (
        llama,
        {
            "r": 4,
            "target_modules": ["q_proj", "k_proj", "v_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 6},
            "alpha_pattern": {
                "^model.layers.0.self_attn.q_proj": 3,
                "k_proj": 5,
                "model\\.layers\\.1\\.self_attn\\.v_proj": 11,
            },
        },
    ),
    "expressions": (
        llama,
        {
            "r": 4,
            "target_modules": ["q_proj", "k_proj", "v_proj"],
            "rank_pattern": {
                r".*\.layers\.1\..*(q_proj|k_proj)$": 2,
                r"layers\.[0-9]+\.self_attn\.v_proj": 6,
                "q_proj": 3,
            },
            "alpha_pattern": {
                "^q_proj": 100,
                r"self_attn\.(q|k)_proj": 5,
                r"model\.layers\.\d{1,2}\..*v_proj": 11,
                "v_proj": 50,
            },
        },
    ),
    "whole": (llama, {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    "biases": (gpt2, {"r": 2, "target_modules": ["c_attn"], "bias": "lora_only"}),
    "all kinds": (net, {"r": 2, "target_modules": ["table", "square", "conv", "point", "out"]}),
}


def made(case: str, home: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Save an adapter with random factors; return the base's arrays and peft's model."""
    make, options = CASES[case]
    module = peft.get_peft_model(make(), peft.LoraConfig(**options)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "lora_" in name or "modules_to_save" in name or (p.requires_grad and "bias" in name):
                p += 0.3 * torch.randn_like(p)
    module.save_pretrained(home)
    return state(make()), module


@pytest.mark.parametrize("case", CASES)
def test_merged_as_peft_merges(case: str, tmp_path: Path) -> None:
    base, module = made(case, tmp_path)
    merged = merge_lora(wt.TensorMap.from_arrays(base), tmp_path)
    expected = state(module.merge_and_unload())
    found = merged.read()
    assert found.keys() == expected.keys()
    changed = {n for n in base if expected[n].tobytes() != base[n].tobytes()}
    assert changed == {n for n in base if found[n].tobytes() != base[n].tobytes()}
    assert set(merged.report["names"]) | set(merged.report["replaced"]) == changed
    for name in base:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("case", ["llama", "conv1d"])
def test_rounded_once(case: str, dtype: str, tmp_path: Path) -> None:
    """The result is the float64 sum, rounded to nearest: at most half a unit in the last place off."""
    values, module = made(case, tmp_path)
    of = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    base = {n: a.astype(of) for n, a in values.items()}
    merged = merge_lora(wt.TensorMap.from_arrays(base), tmp_path)
    factors = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for name in merged.report["names"]:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (factors[f"{stem}.lora_{side}.weight"].astype(np.float64) for side in "AB")
        delta = config["lora_alpha"] / config["r"] * (b @ a)
        exact = base[name].astype(np.float64) + (delta.T if case == "conv1d" else delta)
        found = merged[name].read()
        assert found.dtype == of
        limits = ml_dtypes.finfo(of)  # a unit in the last place is at most this:
        step = np.maximum(float(limits.eps) * np.abs(exact), float(limits.smallest_subnormal))
        assert (np.abs(found.astype(np.float64) - exact) <= 0.5 * step + 1e-15).all()
    del module


def test_merged_in_blocks_of_any_size(tmp_path: Path) -> None:
    base, _ = made("conv1d", tmp_path)
    tensor = merge_lora(wt.TensorMap.from_arrays(base), tmp_path)["transformer.h.0.attn.c_attn.weight"]
    whole = tensor.read().reshape(-1)
    for start, stop in ((0, 1), (71, 73), (5, 600), (whole.size - 1, whole.size), (3, 3)):
        np.testing.assert_array_equal(tensor.reader(start, stop), whole[start:stop])


def plain(home: Path, a: np.ndarray, b: np.ndarray, **config: Any) -> Path:
    """An adapter of one module, q."""
    home.mkdir(exist_ok=True)
    pair = {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.weight": b}
    save_file(pair, home / "adapter_model.safetensors")
    (home / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": len(a), "lora_alpha": len(a), **config})
    )
    return home


FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


@given(st.data(), st.lists(st.integers(0, 5), min_size=2, max_size=4), st.integers(1, 3), st.integers(0, 99))
def test_any_shape_and_dtype(tmp_path_factory: Any, data: Any, shape: list[int], rank: int, seed: int) -> None:
    """Merged is the float64 sum, whatever the shapes, blocks, dtypes, and NaN, Inf and signs of the base."""
    rng, (n_out, *rest) = np.random.default_rng(seed), shape
    dtype, of = (data.draw(st.sampled_from(FLOATS)) for _ in range(2))
    a = rng.standard_normal((rank, *rest)).astype(of)
    b = rng.standard_normal((n_out, rank, *([1] * (len(rest) - 1)))).astype(of)
    base = rng.standard_normal(shape).astype(dtype)
    if base.size > 3:
        base.reshape(-1)[:4] = np.nan, np.inf, -np.inf, -0.0
    adapter = plain(tmp_path_factory.mktemp("any"), a, b)
    tensor = merge_lora(wt.TensorMap.from_arrays({"q.weight": base}), adapter)["q.weight"]
    change = np.einsum("or,r...->o...", b.astype(np.float64).reshape(n_out, rank), a.astype(np.float64))
    exact = (base.astype(np.float64) + change).reshape(shape)
    step = data.draw(st.integers(1, max(1, base.size)))
    found = np.concatenate(
        [tensor.reader(i, min(base.size, i + step)) for i in range(0, base.size, step)] or [tensor.read().reshape(-1)]
    )
    assert found.dtype == base.dtype and found.size == base.size
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype(np.float64).reshape(shape), exact, rtol=0.51 * eps + 1e-15, atol=1e-7)


@pytest.mark.parametrize(
    ("taken", "put"),
    [("transformer.", ""), ("", "wrapped."), ("", "model.inner."), ("transformer.h.", "")],
)
def test_bases_under_other_prefixes(taken: str, put: str, tmp_path: Path) -> None:
    base, module = made("conv1d", tmp_path)
    expected = state(module.merge_and_unload())
    other = {put + n.removeprefix(taken): a for n, a in base.items()}
    found = merge_lora(wt.TensorMap.from_arrays(other), tmp_path).read()
    for name, array in expected.items():
        np.testing.assert_allclose(found[put + name.removeprefix(taken)], array, rtol=3e-6, atol=3e-6)


def test_a_head_that_the_base_does_not_have_is_added(tmp_path: Path) -> None:
    base, _ = made("whole", tmp_path)
    head = base.pop("lm_head.weight")
    merged = merge_lora(wt.TensorMap.from_arrays(base), tmp_path)
    assert merged.report["added"] == ["lm_head.weight"] and merged["lm_head.weight"].shape == head.shape
    assert merged.report["replaced"] == sorted(n for n in base if n.endswith("norm.weight"))  # as peft matches "norm"


def test_a_head_that_was_tied_is_parted(tmp_path: Path) -> None:
    base, module = made("whole", tmp_path)
    table = "model.embed_tokens.weight"
    tied = wt.TensorMap.from_arrays(
        {n: a for n, a in base.items() if n != "lm_head.weight"}, aliases={"lm_head.weight": table}
    )
    merged = merge_lora(tied, tmp_path)
    assert not merged.aliases and "no longer tied" in merged.origin.notes[-1]
    expected = state(module.merge_and_unload())
    assert np.array_equal(merged["lm_head.weight"].read(), expected["lm_head.weight"])
    assert np.array_equal(merged[table].read(), base[table])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    base, _ = made("llama", tmp_path)
    name = "model.layers.1.self_attn.q_proj.weight"
    with pytest.raises(SpecError, match=r"changes 'model.layers.1.self_attn.q_proj', which the base does not have"):
        merge_lora(wt.TensorMap.from_arrays({n: a for n, a in base.items() if n != name}), tmp_path)
    with pytest.raises(
        SpecError, match=r"q_proj.weight: factors \(3, 24\) and \(24, 3\) do not fit a weight \(24, 23\)"
    ):
        merge_lora(wt.TensorMap.from_arrays({**base, name: base[name][:, 1:]}), tmp_path)
    with pytest.raises(SpecError, match="cannot be added to int8"):
        merge_lora(wt.TensorMap.from_arrays({**base, name: base[name].astype(np.int8)}), tmp_path)
    with pytest.raises(SpecError, match="cannot be added to float8_e4m3fn"):
        merge_lora(wt.TensorMap.from_arrays({**base, name: base[name].astype(ml_dtypes.float8_e4m3fn)}), tmp_path)
    tied = wt.TensorMap.from_arrays({n: a for n, a in base.items() if n != name}, aliases={name: "lm_head.weight"})
    with pytest.raises(SpecError, match="tied to another tensor"):
        merge_lora(tied, tmp_path)
    whole, _ = made("whole", tmp_path / "whole")
    with pytest.raises(SpecError, match=r"brings 'lm_head.weight' of shape \(50, 24\); the base's is \(51, 24\)"):
        merge_lora(
            wt.TensorMap.from_arrays({**whole, "lm_head.weight": np.zeros((51, 24), np.float32)}), tmp_path / "whole"
        )


def test_a_square_weight_among_both_kinds_is_not_guessed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = {"a.weight": (4, 6), "b.weight": (6, 4), "c.weight": (5, 5)}
    factors = {"a": (4, 6), "b": (4, 6), "c": (5, 5)}  # b lies turned
    tensors = {}
    for module, (n_out, n_in) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.standard_normal((2, n_in))
        tensors[f"base_model.model.{module}.lora_B.weight"] = rng.standard_normal((n_out, 2))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    arrays = {n: np.zeros(s) for n, s in base.items()}
    with pytest.raises(SpecError, match=r"'c.weight' is square"):
        merge_lora(wt.TensorMap.from_arrays(arrays), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "an adapter of type 'IA3'"),
        ({"use_dora": True}, "asks for use_dora"),
        ({"trainable_token_indices": [1]}, "asks for trainable_token_indices"),
        ({"something_new": {"x": 1}}, "asks for something_new"),
        ({"init_lora_weights": "pissa_niter_4"}, "moves the base's weights too"),
        ({"init_lora_weights": "olora"}, "moves the base's weights too"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1"),
        *[({"r": r}, f"r is {r!r}") for r in (0, -4, 10**12, "x", None, float("nan"), 4.5, True)],
        ({"r": 8}, "has factors of rank 3, and adapter_config.json says r = 8"),
        ({"r": 8, "rank_pattern": {"q_proj": 3}}, "down_proj' has factors of rank 3"),
        ({"rank_pattern": [3]}, "rank_pattern is [3]"),
        ({"rank_pattern": {"q_proj": -3}}, "rank_pattern is {'q_proj': -3}"),
        ({"use_rslora": "x"}, "use_rslora is 'x'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"layers_to_transform": [7]}, "no factor is of such a layer"),
        ({"layers_to_transform": "x"}, "layers_to_transform is 'x'"),
        ({"lora_dropout": "much"}, "lora_dropout is 'much'"),
        ({"lora_dropout": 1}, "lora_dropout is 1"),
        ({"target_modules": 5}, "target_modules is 5"),
        ({"modules_to_save": [["a"]]}, "modules_to_save is [['a']]"),
        ({"alpha_pattern": [1]}, "alpha_pattern is [1]"),
        ({"alpha_pattern": {"(?=q)q_proj": 2}}, "alpha_pattern's regular expression '(?=q)q_proj' has (?="),
        ({"alpha_pattern": {"(q_proj": 2}}, "alpha_pattern's regular expression '(q_proj' is none"),
        ({"rank_pattern": {"(a|a)*(v|q)_proj": 2}}, "has factors of rank 3, and adapter_config.json says r = "),
        ({"alpha_pattern": {"q_proj": {}}}, "lora_alpha is {}"),
    ],
)
def test_configurations_that_are_not_plain_lora(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made("llama", tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises((UnsupportedError, CorruptFileError), match=re.escape(message)):
        open_adapter(tmp_path)


@pytest.mark.parametrize("kind", ["pissa", "dora"])
def test_what_peft_itself_saves_of_other_kinds(kind: str, tmp_path: Path) -> None:
    options = {"pissa": {"init_lora_weights": "pissa"}, "dora": {"use_dora": True}}[kind]
    module = peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj"], **options))
    module.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError):
        open_adapter(tmp_path)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ({"x.weight": (2, 2)}, UnsupportedError, "holds no LoRA factors"),
        ({"q.lora_A.weight": (2, 4)}, CorruptFileError, "'q' has one factor without the other"),
        (
            {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2), "q.lora_magnitude_vector": (4,)},
            UnsupportedError,
            "lora_magnitude_vector",
        ),
        (
            {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2), "q.lora_B.bias": (4,)},
            UnsupportedError,
            r"lora_B\.bias",
        ),
        ({"q.lora_A.weight": (), "q.lora_B.weight": (4, 2)}, SpecError, "do not fit"),
        ({"q.lora_A.weight": (0, 4), "q.lora_B.weight": (4, 0)}, SpecError, "do not fit"),
        ({"q.lora_A.weight": (3, 4), "q.lora_B.weight": (4, 2)}, SpecError, "do not fit"),
        ({"q.lora_A.weight": (2, 4, 1), "q.lora_B.weight": (4, 2, 1, 2)}, SpecError, "do not fit"),
    ],
)
def test_tensors_that_are_not_plain_lora(names: dict[str, Any], error: Any, message: str, tmp_path: Path) -> None:
    save_file(
        {f"base_model.model.{n}": np.ones(s, np.float32) for n, s in names.items()},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')
    base = wt.TensorMap.from_arrays({"q.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(error, match=message):
        merge_lora(base, tmp_path)


def test_what_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no adapter"):
        open_adapter(tmp_path)
    save_file({"q.lora_A.weight": np.ones((1, 2), np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SourceError, match="adapter_config.json"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(CorruptFileError, match="not a JSON object"):
        open_adapter(tmp_path)


def test_an_alpha_is_needed_and_ranks_of_regular_expressions_are_held(tmp_path: Path) -> None:
    home = plain(tmp_path, np.ones((2, 4)), np.ones((4, 2)), r=8, rank_pattern={"(q|v)": 2})
    assert [update.rank for update in open_adapter(home).updates.values()] == [2]
    home = plain(tmp_path / "other", np.ones((2, 4)), np.ones((4, 2)), r=2, rank_pattern={"(q|v)": 3})
    with pytest.raises(CorruptFileError, match="says r = 3"):
        open_adapter(home)
    (home / "adapter_config.json").write_text('{"r": 2}')
    with pytest.raises(CorruptFileError, match="has no lora_alpha"):
        open_adapter(home)


def test_a_tensor_that_belongs_to_nothing_is_refused(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    home = plain(tmp_path / "a", np.ones((2, 4)), np.ones((4, 2)))
    file = home / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.stray.weight": np.ones(3)}, file)
    save_file({"q.weight": np.ones((4, 4))}, tmp_path / "base.safetensors")
    args = ("merge-adapter", tmp_path / "base.safetensors", home, "-o", tmp_path / "out.safetensors")
    ran = run_cli(*args)
    assert ran.code == 2 and "'stray.weight'" in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out.safetensors").exists()
    plain(home, np.ones((2, 4)), np.ones((4, 2)), modules_to_save=["stray"])
    save_file({**load_file(file), "base_model.model.stray.weight": np.ones(3)}, file)
    assert run_cli(*args).code == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_factors_that_are_not_finite_are_refused(value: float, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    home = plain(tmp_path / "a", np.ones((2, 4)), np.array([[1.0, 1]] * 3 + [[1, value]]))
    save_file({"q.weight": np.ones((4, 4))}, tmp_path / "base.safetensors")
    ran = run_cli("merge-adapter", tmp_path / "base.safetensors", home, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2 and "lora_B of 'q.weight' holds NaN or Inf" in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_a_result_that_overflows_is_told(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    home = plain(tmp_path / "a", np.ones((2, 4)), np.ones((4, 2)), lora_alpha=1e30)
    factors = load_file(home / "adapter_model.safetensors")
    more = {name.replace("q.", "p."): array for name, array in factors.items()}
    save_file({**factors, **more}, home / "adapter_model.safetensors")
    arrays = {name: np.ones((4, 4), np.float16) for name in ("p.weight", "q.weight")}
    save_file(arrays, tmp_path / "base.safetensors")
    ran = run_cli("merge-adapter", tmp_path / "base.safetensors", home, "-o", tmp_path / "out.safetensors")
    assert ran.code == 0, ran.err
    line = "not finite: 32 elements in 2 changed tensors (0 NaN, 32 Inf), first in p.weight"
    assert f"weighttools: note: {line}\n" in ran.err


def test_no_such_directory(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    save_file({"q.weight": np.ones((4, 4))}, tmp_path / "base.safetensors")
    none = tmp_path / "nowhere"
    ran = run_cli("merge-adapter", tmp_path / "base.safetensors", none, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2 and f"{none}: does not exist" in ran.err and len(ran.err.splitlines()) == 1


def test_names_of_megabytes_cost_no_time(tmp_path: Path) -> None:
    """Prefixes are tried up to a bound, and a name's dots are not walked through."""
    long = "a." * 20_000 + "q"
    save_file(
        {f"{long}.lora_A.weight": np.ones((1, 2), np.float32), f"{long}.lora_B.weight": np.ones((2, 1), np.float32)},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')
    with pytest.raises(SpecError, match="which the base does not have"):
        merge_lora(wt.TensorMap.from_arrays({"q.weight": np.ones((2, 2), np.float32)}), tmp_path)


def test_the_command(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    base, module = made("llama", tmp_path / "adapter")
    save_file(base, tmp_path / "base.safetensors", metadata={"format": "pt"})
    args = ("merge-adapter", tmp_path / "base.safetensors", tmp_path / "adapter", "-o", tmp_path / "merged.safetensors")
    planned = run_cli(*args, "--dry-run")
    assert planned.code == 0 and "would have changed 4 of 21 tensors" in planned.out
    assert not (tmp_path / "merged.safetensors").exists()
    record = json.loads(run_cli(*args, "--json").out)
    assert record["schema"] == "weighttools.merge-adapter/1" and record["written"]
    assert record["transforms"][0]["n_changed"] == 4 and record["transforms"][0]["ranks"] == [3]
    expected = state(module.merge_and_unload())
    found = load_file(tmp_path / "merged.safetensors")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=3e-6, atol=3e-6)
    again = run_cli(*args)
    assert again.code == 2 and "--force" in again.err and len(again.err.splitlines()) == 1
    assert run_cli(*args, "--force").code == 0
    wrong = run_cli("merge-adapter", tmp_path / "adapter", tmp_path / "adapter", "-o", tmp_path / "x.safetensors")
    assert wrong.code == 2 and "which the base does not have" in wrong.err and not (tmp_path / "x.safetensors").exists()


def test_merged_directories_load_in_transformers(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    _, module = made("conv1d", tmp_path / "adapter")
    gpt2().save_pretrained(tmp_path / "base")
    ran = run_cli("merge-adapter", tmp_path / "base", tmp_path / "adapter", "-o", tmp_path / "merged")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "gpt2"
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    ids = torch.arange(12).reshape(2, 6)
    assert torch.allclose(loaded(ids).logits, module(ids).logits, atol=1e-4)


def test_adapters_of_bin_files(tmp_path: Path) -> None:
    base, module = made("llama", tmp_path / "new")
    torch.save(
        {n: torch.tensor(a) for n, a in load_file(tmp_path / "new" / "adapter_model.safetensors").items()},
        tmp_path / "adapter_model.bin",
    )
    shutil.copy(tmp_path / "new" / "adapter_config.json", tmp_path)
    found = merge_lora(wt.TensorMap.from_arrays(base), tmp_path).read()
    for name, array in state(module.merge_and_unload()).items():
        np.testing.assert_allclose(found[name], array, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(
    "layers",
    [
        [torch.nn.Conv1d(8, 8, 4, groups=8), torch.nn.Conv1d(8, 4, 1)],
        [torch.nn.Conv2d(8, 8, 3, groups=2), torch.nn.Conv2d(8, 4, 1)],
    ],
    ids=["depthwise", "grouped"],
)
def test_grouped_convolutions_are_recognised_and_not_merged(layers: list[Any], run_cli: Any, tmp_path: Path) -> None:
    """peft cannot merge them either: the change reaches over all groups."""
    net = torch.nn.Sequential(*layers)
    save_file({n: p.detach().numpy().copy() for n, p in net.state_dict().items()}, tmp_path / "base.safetensors")
    with pytest.warns(UserWarning, match="groups > 1"):
        module = peft.get_peft_model(net, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["0", "1"]))
    module.save_pretrained(tmp_path / "adapter")
    with pytest.raises(NotImplementedError):
        module.merge_and_unload()
    args = (tmp_path / "base.safetensors", tmp_path / "adapter")
    ran = run_cli("merge-adapter", *args, "-o", tmp_path / "out.safetensors")
    groups = layers[0].groups
    assert ran.code == 2 and f"a convolution of {groups} groups" in ran.err and len(ran.err.splitlines()) == 1
    findings = wt.check(args[1], base=args[0], headers=True)["findings"]
    assert {(f["severity"], f["code"]) for f in findings} == {("note", "adapter-grouped")}


class Experts(torch.nn.Module):
    """Fused experts beside a plain layer."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.q_proj, self.experts = torch.nn.Linear(6, 6), torch.nn.Module()
        self.experts.gate_up_proj = torch.nn.Parameter(torch.ones(3, 6, inner))
        self.experts.down_proj = torch.nn.Parameter(torch.ones(3, inner, 6))


@pytest.mark.parametrize("parameters", [["experts.gate_up_proj"], ["experts.gate_up_proj", "experts.down_proj"]])
def test_a_parameter_under_a_name_of_three_axes_is_found_in_the_base(parameters: list[str], tmp_path: Path) -> None:
    base, other = Experts(8), Experts(9)
    for name, net in (("base", base), ("other", other)):
        save_file({n: p.detach().numpy().copy() for n, p in net.state_dict().items()}, tmp_path / f"{name}.safetensors")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], target_parameters=parameters)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    findings = wt.check(tmp_path / "adapter", base=tmp_path / "base.safetensors", headers=True)["findings"]
    assert {f["severity"] for f in findings} <= {"note"}, findings
    findings = wt.check(tmp_path / "adapter", base=tmp_path / "other.safetensors", headers=True)["findings"]
    assert {f["code"] for f in findings if f["severity"] == "error"} == {"adapter-shape"}
    assert "gate_up_proj' (3 x 6 x 9)" in findings[0]["message"]


FOREIGN: dict[str, tuple[dict[str, tuple[int, ...]], str, str]] = {
    "kohya": ({"lora_unet_a.lora_down.weight": (2, 6), "lora_unet_a.lora_up.weight": (8, 2), "lora_unet_a.alpha": ()}, "warning", "kohya"),
    "locon": ({"lora_unet_c.lora_mid.weight": (2, 2, 3, 3)}, "warning", "kohya"),
    "loha": ({f"lora_te_x.hada_w{i}_{s}": (4, 2) for i in (1, 2) for s in "ab"}, "warning", "LoHa"),
    "lokr": ({"lora_te_y.lokr_w1": (2, 2), "lora_te_y.lokr_w2_a": (4, 2)}, "warning", "LoKr"),
    "early diffusers": ({"unet.x.processor.to_q_lora.down.weight": (2, 6)}, "warning", "early diffusers"),
    "diffusers": ({"unet.q.lora_A.weight": (2, 6), "unet.q.lora_B.weight": (8, 2)}, "warning", "diffusers"),
    "differences": ({"diffusion_model.n.diff": (8,)}, "warning", "differences"),
    "ia3": ({"base_model.model.k.ia3_l": (8, 1)}, "warning", "IA3"),
    "nothing": ({"a.weight": (8, 6)}, "warning", "no LoRA factors"),
    "magnitudes": (
        {"base_model.model.a.lora_A.weight": (2, 6), "base_model.model.a.lora_B.weight": (8, 2), "base_model.model.a.lora_magnitude_vector": (8,)},
        "note", "magnitudes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_check_says_what_it_does_not_hold_against_the_base(kind: str, run_cli: Any, tmp_path: Path) -> None:
    shapes, severity, said = FOREIGN[kind]
    save_file({"model.a.weight": np.ones((8, 6)), "a.weight": np.ones((8, 6))}, tmp_path / "base.safetensors")
    file = tmp_path / "adapter.safetensors"
    save_file({name: np.ones(shape) for name, shape in shapes.items()}, file, {"format": "pt"})
    config = tmp_path / "adapter_config.json"
    config.write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    findings = wt.check(file, base=tmp_path / "base.safetensors", headers=True)["findings"]
    config.unlink()
    assert [(f["severity"], f["code"]) for f in findings] == [(severity, "adapter-unchecked")], findings
    assert said in findings[0]["message"]
    ran = run_cli("merge-adapter", tmp_path / "base.safetensors", file, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2 and len(ran.err.splitlines()) == 1
    if kind != "nothing":
        assert "peft's layout" in ran.err or "adapter_config.json" in ran.err


def test_diffusers_names_are_found_behind_another_prefix(tmp_path: Path) -> None:
    save_file({"model.diffusion_model.a.weight": np.ones((8, 6))}, tmp_path / "base.safetensors")
    file = tmp_path / "adapter.safetensors"
    for n_in, codes in ((6, set()), (5, {"adapter-shape"})):
        factors = {"transformer.a.lora_A.weight": np.ones((2, n_in)), "transformer.a.lora_B.weight": np.ones((8, 2))}
        save_file(factors, file, {"format": "pt"})
        findings = wt.check(file, base=tmp_path / "base.safetensors", headers=True)["findings"]
        assert {f["code"] for f in findings} == codes


def test_a_whole_tensor_of_another_shape_is_found(tmp_path: Path) -> None:
    save_file({"a.weight": np.ones((8, 6)), "score.weight": np.ones((3, 6))}, tmp_path / "base.safetensors")
    home = plain(tmp_path / "a", np.ones((2, 6)), np.ones((8, 2)), modules_to_save=["score"])
    file = home / "adapter_model.safetensors"
    factors = {f"base_model.model.a.lora_{s}.weight": np.ones(n) for s, n in (("A", (2, 6)), ("B", (8, 2)))}
    save_file({**factors, "base_model.model.score.weight": np.ones((4, 6))}, file, {"format": "pt"})
    findings = wt.check(home, base=tmp_path / "base.safetensors", headers=True)["findings"]
    assert [f["code"] for f in findings] == ["adapter-shape"] and "takes the place" in findings[0]["message"]
