"""Rows of families against transformers, peft and each other: each row says all, or None where that is on purpose."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import peft.utils.constants
import pytest
import torch
import transformers

from tests.families.test_shapes import CONFIGS
from tests.formats.gguf_golden import golden_write
from tests.test_imports import RUN, loaded
from weighttools.families.model_family import DecoderStyle, EncoderParts, ModelFamily
from weighttools.families.models import FAMILIES, gguf_families
from weighttools.families.shapes import always

NOT_KNOWN = {
    "class_name": {"gemma3"},
    "function": {"smollm3", "olmo2", "deberta-v2", "mpnet", "vit"},
    "head": {"deberta-v2", "mpnet", "vit"},
    "adapted": {"mpnet"},
    "gguf": {
        "smollm3", "olmo2", "roberta", "xlm-roberta", "camembert", "electra", "albert", "distilbert", "deberta-v2",
        "mpnet", "vit",
    },
}  # fmt: skip
"""What is None on purpose, by field."""
ROWS = [pytest.param(row, id=kind) for kind, row in FAMILIES.items()]
RUN_HERE = [pytest.param(row, id=kind) for kind, row in FAMILIES.items() if row.function and row.class_name]
IDS = np.random.default_rng(0).integers(2, 50, (2, 7))


def stems(names: Any) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def test_what_is_not_known_is_none_on_purpose() -> None:
    found = {field: {kind for kind, row in FAMILIES.items() if getattr(row, field) is None} for field in NOT_KNOWN}
    assert found == NOT_KNOWN
    others = set(ModelFamily._fields) - set(NOT_KNOWN) - {"language_class"}
    assert not [(kind, field) for kind, row in FAMILIES.items() for field in others if getattr(row, field) is None]


@pytest.mark.parametrize("row", ROWS)
def test_classes_and_prefixes_are_those_of_transformers(row: ModelFamily) -> None:
    config = transformers.AutoConfig.for_model(row.model_type)
    assert config.model_type == row.model_type
    if row.class_name is not None:
        assert type(config).__name__ == f"{row.class_name}Config"
        base = getattr(transformers, f"{row.class_name.removesuffix('Text')}PreTrainedModel")
        assert row.prefix == f"{base.base_model_prefix}." and hasattr(transformers, row.plain_class)


def theirs(config: Any, key: str) -> Any:
    """What a configuration of transformers takes for an entry of config.json that is not said."""
    if key == "hidden_activation" and not hasattr(config, key):  # as older versions called it
        return config.hidden_act
    if key in ("rope_theta", "rope_local_base_freq"):
        rules = config.rope_parameters
        which = "sliding_attention" if key == "rope_local_base_freq" else "full_attention"
        return rules.get(which, rules)["rope_theta"]
    return getattr(config, key)


@pytest.mark.parametrize("row", ROWS)
def test_defaults_are_those_of_transformers(row: ModelFamily) -> None:
    config = transformers.AutoConfig.for_model(row.model_type)
    config = config.get_text_config() if row.class_name is None else config
    if row.function is not None and row.function.how == DecoderStyle("said"):
        config = type(config)(use_sliding_window=True)
    said = {key: theirs(config, key) for key in row.defaults if key != "sliding_window" or config.sliding_window}
    assert said.items() <= row.defaults.items()


@pytest.mark.parametrize("row", ROWS)
def test_the_usual_adapters_are_those_of_peft(row: ModelFamily) -> None:
    known = peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(row.model_type)
    assert known is None or list(row.adapted or ()) == known
    modules = {stem.rpartition(".")[2] for stem in stems(row.tensors.body)}
    assert set(row.adapted or ()) <= modules


@pytest.mark.parametrize("row", ROWS)
def test_parts_styles_and_heads_are_those_of_the_table_of_tensors(row: ModelFamily) -> None:
    body, how = row.tensors.body, row.function.how if row.function else None
    assert row.tensors.anchor in body
    if isinstance(how, EncoderParts):
        parts = (*how.qkv, how.attended, how.attention_norm, how.up, how.down, how.norm)
        named = {f"{how.layer}.{part}" for part in parts} | {how.widened, how.pooler} - {""}
        assert named <= stems(body)
    if isinstance(how, DecoderStyle):
        assert how.post_norms == ("layers.{}.pre_feedforward_layernorm.weight" in body)
        assert how.head_norms == ("layers.{}.self_attn.q_norm.weight" in body)
    for name in row.function.spares if row.function else ():
        assert name in body
    for begin in row.function.skips if row.function else ():
        assert any(name.startswith(begin) for name in body)
    if row.head is not None:
        dense = row.head.dense.format("") or row.head.out
        assert f"{row.head.out}.weight" in row.tensors.heads
        assert {f"{dense}.weight"} <= {*body, *row.tensors.heads}


@pytest.mark.parametrize("row", [p for p in ROWS if FAMILIES[str(p.id)].gguf])
def test_gguf_has_a_name_for_every_tensor_that_all_models_of_a_family_have(row: ModelFamily) -> None:
    assert row.gguf is not None
    ours, gguf = zip(*row.gguf.pairs, strict=True)
    assert len(set(ours)) == len(set(gguf)) == len(ours)
    inner = row.prefix if ours[0].startswith(row.prefix) else ""
    needed = {f"{inner}{stem}" for stem in stems(name for name, one in row.tensors.body.items() if one.when is always)}
    heads = {row.gguf.head[0].removesuffix(".weight")} if row.gguf.head else {"pooler.dense"}
    assert set(ours) - heads == needed
    assert gguf_families()[row.gguf.architecture].class_name is not None


def outputs(module: Any) -> np.ndarray:
    with torch.no_grad():
        found = module.eval()(input_ids=torch.tensor(IDS))
    kept: np.ndarray = (found.last_hidden_state if "last_hidden_state" in found else found.logits).numpy()
    return kept


def bare(value: Any, defaults: Any) -> dict[str, Any]:
    aside = {*defaults, "rope_parameters"}
    return {key: one for key, one in value.items() if key not in aside}


@pytest.mark.parametrize("row", RUN_HERE)
def test_what_config_json_does_not_say_is_computed_as_transformers_does(row: ModelFamily) -> None:
    from weighttools.train import models

    torch.manual_seed(0)
    unsaid = {*row.defaults, "layer_types"} - {"pad_token_id"}  # which must be one of the few tokens here
    made = CONFIGS[row.model_type]()
    config = type(made).from_dict(bare(made.to_dict(), {*unsaid, "attention_bias"}))
    auto = transformers.AutoModel if row.kind == "encoder" else transformers.AutoModelForCausalLM
    module = auto.from_config(config, attn_implementation="eager").double()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.02 * torch.randn_like(tensor)
    p = {name: tensor.detach().numpy() for name, tensor in module.named_parameters()}
    said = bare(config.to_dict(), unsaid)
    expected = outputs(module)
    assert np.abs(models.from_config(said, p)(p, IDS) - expected).max() < 2e-6 * np.abs(expected).max()


def test_a_window_that_phi3_does_not_name_is_none() -> None:
    from weighttools.train import models

    config = {key: value for key, value in CONFIGS["phi3"]().to_dict().items() if key != "sliding_window"}
    assert transformers.Phi3Config().sliding_window is None
    architecture: Any = models.from_config(config, ["model.embed_tokens.weight"])
    assert set(architecture.body.keywords["how"].windows) == {None}


def test_every_module_of_families_is_in_the_table() -> None:
    from weighttools.families import models

    here = {path.stem for path in Path(str(models.__file__)).parent.glob("*.py")} - {"__init__"}
    rows = {name: import_module(f"{models.__name__}.{name}").FAMILIES for name in here}
    assert {name: tuple(row.model_type for row in found) for name, found in rows.items()} == models._MODULES


def test_a_check_loads_the_module_of_its_family_only(tmp_path: Path) -> None:
    transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"]()).save_pretrained(tmp_path / "m")
    modules = loaded(RUN, tmp_path, "check", "--headers", tmp_path / "m")
    begin = "weighttools.families.models."
    assert {name.removeprefix(begin) for name in modules if name.startswith(begin)} == {"qwen", "llama"}


def test_a_gguf_file_becomes_a_directory_without_training_code(tmp_path: Path) -> None:
    arrays = {"token_embd.weight": np.zeros((4, 8), np.float32), "output_norm.weight": np.zeros(8, np.float32)}
    golden_write(tmp_path / "a.gguf", arrays, "llama", llama__block_count=2)
    modules = loaded(RUN, tmp_path, "convert", tmp_path / "a.gguf", tmp_path / "out", "--names", "hf")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["num_hidden_layers"] == 2
    assert "weighttools.families.gguf.configuration" in modules
    assert not [name for name in modules if name.startswith("weighttools.train")]


def test_biases_that_every_model_of_a_family_has_are_needed() -> None:
    from weighttools.train import models

    module = transformers.AutoModelForCausalLM.from_config(CONFIGS["qwen2"]())
    names = [name for name in module.state_dict() if not name.endswith("q_proj.bias")]
    report = models.from_config(CONFIGS["qwen2"]().to_dict(), names).report(names)
    assert report.missing == tuple(f"model.layers.{i}.self_attn.q_proj.bias" for i in range(3))
    plain = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama plain"]()).state_dict()
    bare = [name for name in plain if not name.endswith(".bias")]
    assert not models.from_config(CONFIGS["llama plain"]().to_dict(), bare).report(bare).missing
