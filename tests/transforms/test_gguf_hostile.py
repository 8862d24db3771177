"""Files beside a model, and metadata, that say nonsense: one error of ours, or a result, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.transforms.test_gguf_llama_cpp import byte_level, fast, sentencepiece
from weighttools.core.budgets import MAX_PIECE, MAX_TOKENS
from weighttools.errors import CorruptFileError, WeighttoolsError
from weighttools.families.gguf.rope import divisors
from weighttools.families.gguf.settings import ROWS, flattened, settings_of
from weighttools.families.gguf.special import carried_tokenizer
from weighttools.families.gguf.tokenizer_files import tokenizer_files
from weighttools.io.home import LocalHome

JUNK = st.sampled_from(
    [None, True, -1, 0, 3, 10**30, 1.5, float("nan"), "", "▁", "x" * 70, [], [[]], {}, {"id": []}, [1, "a"], [None]]
)
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8,
    "intermediate_size": 64, "max_position_embeddings": 256, "vocab_size": 320, "eos_token_id": [2],
    "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 16, "rope_theta": 10000.0},
    "layer_types": ["full_attention"], "query_pre_attn_scalar": 8, "text_config": {"head_dim": 8},
}  # fmt: skip


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all that is in a JSON value, of long lists to the first few."""
    keys = list(value)[:12] if isinstance(value, dict) else range(min(4, len(value))) if isinstance(value, list) else []
    return [before, *(place for key in keys for place in places(value[key], (*before, key)))]


def spoilt(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    """The value with something else in one place."""
    if not place:
        return junk
    found = copy.deepcopy(value)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    return found


@pytest.fixture(scope="module", params=["llama-bpe", "spm"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    tokenizer = fast(sentencepiece() if request.param == "spm" else byte_level("llama-bpe"), bos=True)
    home = tmp_path_factory.mktemp("home")
    tokenizer.save_pretrained(home)
    return home, {name: json.loads((home / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")}


@given(st.data())
def test_files_beside_a_model_are_errors_or_metadata(files: tuple[Path, dict[str, Any]], data: st.DataObject) -> None:
    home, whole = files
    name = data.draw(st.sampled_from(sorted(whole)))
    value = spoilt(whole[name], data.draw(st.sampled_from(places(whole[name]))), data.draw(JUNK))
    config = spoilt(CONFIG, data.draw(st.sampled_from(places(CONFIG)[1:])), data.draw(JUNK))
    for file, content in {**whole, name: value}.items():
        (home / file).write_text(json.dumps(content))
    try:
        found, _ = carried_tokenizer(LocalHome(str(home)), config, 330)
    except WeighttoolsError:
        return
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == 330


@given(st.sampled_from(sorted(ROWS)), st.sampled_from(places(CONFIG)[1:]), JUNK)
def test_configurations_are_errors_or_settings(architecture: str, place: tuple[Any, ...], junk: Any) -> None:
    config = spoilt(CONFIG, place, junk)
    try:
        found = settings_of(config, architecture)
        divisors(flattened(config), found)
    except WeighttoolsError:
        return
    assert all(isinstance(value, (bool, int, float, str)) for value in found.values())


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "factor": 2.0, "original_max_position_embeddings": 64, **more}}


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4}
NUMBERS: list[tuple[str, dict[str, Any], str]] = [
    ("beta_fast", rope("yarn", beta_fast=1e300), "a float32 number"),
    ("beta_slow", rope("yarn", beta_slow=10**400), "a float32 number"),
    ("factor", rope("linear", factor=1e-320), "a float32 number above 0"),
    ("attention_factor", rope("longrope", **FACTORS, attention_factor=1e300), "a float32 number"),
    ("long_factor", rope("longrope", **FACTORS | {"long_factor": [10**400] * 4}), "a float32 number above 0"),
    ("short_factor", rope("longrope", **FACTORS | {"short_factor": [1e300] * 4}), "a float32 number above 0"),
    ("rope_theta", {"rope_theta": 0}, "a float32 number above 0"),
    ("rope_theta", {"rope_theta": 1e300}, "a float32 number above 0"),
    ("rms_norm_eps", {"rms_norm_eps": float("inf")}, "a float32 number"),
    ("num_hidden_layers", {"num_hidden_layers": -5}, "a whole number of 32 bits, from 0"),
    ("num_attention_heads", {"num_attention_heads": 4.5}, "a whole number of 32 bits, from 0"),
    ("max_position_embeddings", {"max_position_embeddings": 10**38}, "a whole number of 32 bits, from 0"),
]


@pytest.mark.parametrize(("key", "entries", "expected"), NUMBERS, ids=[key for key, _, _ in NUMBERS])
def test_numbers_that_gguf_cannot_hold_are_refused(key: str, entries: dict[str, Any], expected: str) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "rope_parameters"}
    config |= {"rope_theta": 10000.0, "hidden_act": "silu", "rms_norm_eps": 1e-6, **entries}
    with pytest.raises(WeighttoolsError, match=rf"config.json: {key} is .{{1,61}}; expected {expected}$"):
        divisors(flattened(config), settings_of(config, "phi3" if "longrope" in str(entries) else "llama"))


def test_a_factor_that_is_a_whole_number_is_taken_as_said() -> None:
    """As by transformers, whose longrope takes ``attention_factor`` whatever its type."""
    config = {**CONFIG, "hidden_act": "silu", **rope("longrope", **FACTORS, attention_factor=2, rope_theta=1e4)}
    assert settings_of(config, "phi3")["rope.scaling.attn_factor"] == 2.0
    plain = PretrainedConfig(max_position_embeddings=256, hidden_size=32, num_attention_heads=4,
                             rope_parameters=config["rope_parameters"])  # fmt: skip
    assert ROPE_INIT_FUNCTIONS["longrope"](plain, "cpu")[1] == 2


def test_a_special_token_beyond_the_vocabulary_is_refused(files: tuple[Path, dict[str, Any]]) -> None:
    home, whole = files
    for file, content in whole.items():
        (home / file).write_text(json.dumps(content))
    with pytest.raises(CorruptFileError, match="config.json's eos_token_id is 1099511627776; expected below 330, the"):
        carried_tokenizer(LocalHome(str(home)), {**CONFIG, "eos_token_id": 2**40}, 330)


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer", "kind", "hidden_act", "rope_type"])
def test_messages_are_no_longer_than_a_line(files: tuple[Path, dict[str, Any]], part: str) -> None:
    home, whole = files
    content, long = copy.deepcopy(whole["tokenizer.json"]), [{"type": "X" * 99 + "\x1b"}] * 40_000
    if part == "kind":
        content["model"]["type"] = long
    elif part.endswith("izer"):
        key = "normalizers" if part == "normalizer" else "pretokenizers"
        content[part] = {"type": "Sequence", key: [*long, {"type": "ByteLevel"}]}
    (home / "tokenizer.json").write_text(json.dumps(content))
    rotary = rope("y" * 10_000) if part == "rope_type" else {}
    config = {**CONFIG, **rotary, "hidden_act": long if part == "hidden_act" else "silu"}
    with pytest.raises(WeighttoolsError) as caught:
        settings_of(config, "llama")
        carried_tokenizer(LocalHome(str(home)), config, 330)
    assert len(str(caught.value).removeprefix(str(home))) < 700


METADATA: dict[str, Any] = {
    "general.architecture": "llama", "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b", "ab"], "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.scores": [0.0] * 6, "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1],
    "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": "x", "tokenizer.chat_templates": ["y"],
    "tokenizer.chat_template.y": "z", "llama.context_length": 8,
}  # fmt: skip


@given(st.sampled_from(["llama", "gpt2", "bert"]), st.sampled_from(places(METADATA)[1:]), JUNK)
def test_metadata_are_errors_or_files(kind: str, place: tuple[Any, ...], junk: Any) -> None:
    metadata = spoilt({**METADATA, "tokenizer.ggml.model": kind}, place, junk)
    try:
        found = tokenizer_files(metadata)
    except WeighttoolsError:
        return
    assert all(json.loads(content) for content in found.values())


def test_what_would_cost_too_much_is_refused(tmp_path: Path) -> None:
    long = {**METADATA, "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b", "a" * (MAX_PIECE + 1)]}
    with pytest.raises(CorruptFileError, match="where 512 are the most"):
        tokenizer_files(long)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptFileError, match="rows"):
        carried_tokenizer(LocalHome(str(tmp_path)), {}, MAX_TOKENS + 1)
