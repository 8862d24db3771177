"""Generated tokens against transformers' own generate, and what sampling leaves against its warpers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tests.train.models.test_models import CONFIGS, arrays, is_encoder, reference
from weighttools import train
from weighttools.errors import SpecError, UnsupportedError
from weighttools.train import models
from weighttools.train.generation import Sampling, _scorer, stream

PROMPT = np.array([[7, 3, 9, 12], [4, 4, 30, 2]])
DECODERS = [kind for kind in CONFIGS if not is_encoder(kind)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()


def loaded(kind: str) -> tuple[models.Architecture, dict[str, np.ndarray]]:
    p = arrays(reference(kind))
    return models.from_config(CONFIGS[kind].to_dict(), p), p


@pytest.mark.parametrize("kind", DECODERS)
def test_greedy_tokens_are_those_of_transformers(kind: str) -> None:
    model, p = loaded(kind)
    settings = transformers.GenerationConfig(max_new_tokens=10, min_new_tokens=10, do_sample=False, pad_token_id=0)
    module = reference(kind)
    module.generation_config.eos_token_id = module.config.eos_token_id = None
    theirs = module.generate(torch.tensor(PROMPT), attention_mask=torch.ones(2, 4).long(), generation_config=settings)
    for cache in (True, False):
        found = train.generate(model, p, PROMPT, 10, cache=cache)
        assert found.tolist() == theirs.tolist()
    assert train.generate(model, p, PROMPT[0], 10).tolist() == theirs[0].tolist()


@pytest.mark.parametrize("kind", DECODERS)
def test_long_prompts_run_in_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, p = loaded(kind)
    ids = np.random.default_rng(0).integers(1, 30, (2, 11))
    whole = model(p, ids)[:, -1]
    widths: list[int] = []
    real = models.Architecture.hidden

    def hidden(self: Any, params: Any, inputs: Any, **options: Any) -> Any:
        widths.append(inputs.shape[1])
        return real(self, params, inputs, **options)

    monkeypatch.setattr("weighttools.train.generation.PROMPT_BLOCK", 4)
    monkeypatch.setattr(models.Architecture, "hidden", hidden)
    scores = _scorer(model, p, ids, True)(None)
    assert widths == [4, 4, 3] and np.abs(scores - whole).max() < 1e-5


def test_a_text_ends_at_a_stop_token() -> None:
    model, p = loaded("gpt2")
    free = train.generate(model, p, PROMPT, 8)
    stop = int(free[0, 6])
    found = train.generate(model, p, PROMPT, 8, stop=[stop])
    for row, whole in zip(found, free, strict=True):
        new = whole[4:].tolist()
        n = new.index(stop) + 1 if stop in new else len(new)
        assert row[4 : 4 + n].tolist() == new[:n] and set(row[4 + n :].tolist()) <= {stop}
    alone = train.generate(model, p, PROMPT[0], 8, stop=[stop])
    assert alone.tolist() == free[0, : 4 + free[0, 4:].tolist().index(stop) + 1].tolist()
    assert train.generate(model, p, PROMPT, 0).tolist() == PROMPT.tolist()


def test_samples_are_determined_by_the_seed() -> None:
    model, p = loaded("llama")
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9}
    first = train.generate(model, p, PROMPT, 12, seed=1, **options)
    assert first.tolist() == train.generate(model, p, PROMPT, 12, seed=1, **options).tolist()
    assert first.tolist() == train.generate(model, p, PROMPT, 12, seed=1, cache=False, **options).tolist()
    assert first.tolist() != train.generate(model, p, PROMPT, 12, seed=2, **options).tolist()


@given(st.integers(0, 10**6), st.floats(0.05, 5), st.floats(0.05, 1), st.integers(0, 12))
def test_probabilities_are_those_of_transformers(seed: int, temperature: float, top_p: float, top_k: int) -> None:
    scores = 3 * np.random.default_rng(seed).standard_normal((2, 10))
    x = transformers.TemperatureLogitsWarper(temperature)(None, torch.tensor(scores))
    if top_k:
        x = transformers.TopKLogitsWarper(top_k)(None, x)
    if top_p < 1:
        x = transformers.TopPLogitsWarper(top_p)(None, x)
    found = Sampling(temperature, top_p, top_k).probabilities(scores)
    assert np.abs(found - x.softmax(-1).numpy()).max() < 1e-12


def test_samples_follow_the_probabilities() -> None:
    scores = np.log(np.tile([0.5, 0.2, 0.2, 0.1], (20_000, 1)))
    found = Sampling(1.0).choose(scores, np.random.default_rng(0))
    shares = np.bincount(found, minlength=4) / len(found)
    assert np.abs(shares - [0.5, 0.2, 0.2, 0.1]).max() < 4 * 0.5 / np.sqrt(len(found))


def test_any_function_of_ids_can_write() -> None:
    def following(p: Any, ids: Any) -> Any:
        return np.eye(5)[(ids + 1) % 5]

    assert train.generate(following, {}, [2], 4).tolist() == [2, 3, 4, 0, 1]
    assert [t.tolist() for t in stream(following, {}, [[0], [3]], 2)] == [[1, 4], [2, 0]]


def test_a_model_writes_with_its_own_arrays_or_others(tmp_path: Path) -> None:
    reference("llama").save_pretrained(tmp_path)
    model = train.model(tmp_path)
    expected = train.generate(model.architecture, model.params, PROMPT, 6)
    assert np.array_equal(train.generate(model, None, PROMPT, 6), expected)
    assert np.array_equal(train.generate(model, ids=PROMPT, max_new_tokens=6), expected)
    assert np.array_equal(train.generate(train.Model(model.run, model.params), None, PROMPT, 6), expected)
    tuned = train.lora(model, r=2)
    assert np.array_equal(train.generate(tuned, None, PROMPT, 6), expected)
    others = {name: array + np.float32(0.2) for name, array in tuned.params.items()}
    merged = train.merge_lora(model.origin, train.load_lora(model, train.adapter_of(replace(tuned, params=others))))
    changed = train.generate(tuned, others, PROMPT, 6)
    assert np.array_equal(changed, train.generate(model, merged.read(), PROMPT, 6))
    assert not np.array_equal(changed, expected)


def test_what_a_model_cannot_write_is_one_line(tmp_path: Path) -> None:
    reference("llama").save_pretrained(tmp_path)
    model = train.model(tmp_path)
    with pytest.raises(SpecError, match=r"params are ndarray; .*None for those of a model: generate\(model, None, ids"):
        train.generate(model, PROMPT, 6)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="params are NoneType"):
        train.generate(model.architecture, None, PROMPT)
    with pytest.raises(SpecError, match="a batch is ndarray; .*give generate the model itself"):
        train.generate(model.run, model.params, PROMPT)
    with pytest.raises(UnsupportedError, match="those of a Classifier, not the next token's"):
        train.generate(train.model(tmp_path, train.Classifier(2)), None, PROMPT)
    with pytest.raises(SpecError, match="ids are"):
        train.generate(model)


@pytest.mark.parametrize("ids", [[], [[]], [1.5], [[[1]]]])
def test_prompts_that_are_none_are_refused(ids: Any) -> None:
    with pytest.raises(SpecError, match="ids are"):
        train.generate(lambda p, ids: ids, {}, ids)


def test_what_cannot_be_done_is_refused() -> None:
    model, p = loaded("bert")
    with pytest.raises(UnsupportedError, match="bert is no decoder"):
        train.generate(model, p, PROMPT)
    with pytest.raises(SpecError, match="are NaN"):
        train.generate(lambda p, ids: np.full((1, 1, 3), np.nan), {}, [1])
    for score in (np.inf, -np.inf):
        with pytest.raises(SpecError, match="are infinite"):
            train.generate(lambda p, ids: np.full((1, 1, 3), score), {}, [1])  # noqa: B023
    for options in (
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": 5e-324},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
    ):
        with pytest.raises(SpecError):
            train.generate(lambda p, ids: ids, {}, [1], **options)
    model, p = loaded("gpt2")
    with pytest.raises(
        SpecError, match=r"wpe\.weight: .*the table has 16 rows.*fewer tokens follow \(max_new_tokens\)"
    ):
        train.generate(model, p, PROMPT, 20)


@pytest.mark.parametrize("value", [np.inf, 3e38])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_overflow_are_told_by_the_scores_alone(value: float, temperature: float) -> None:
    """NumPy's warnings are errors here."""
    model, p = loaded("llama")
    names = [name for name in p if name.endswith(("q_proj.weight", "norm.weight"))]
    broken = p | {name: np.full_like(p[name], value) for name in names}
    with pytest.raises(SpecError, match="the scores of the next token are (NaN|infinite)"):
        train.generate(model, broken, PROMPT, 3, temperature=temperature)


def test_tokens_that_must_not_come_may_have_no_score() -> None:
    scores = np.array([[-np.inf, 0, -np.inf]])
    for temperature in (0.0, 1e-6, 1.0):
        assert Sampling(temperature).choose(scores, np.random.default_rng(0)).tolist() == [1]


def test_the_lowest_temperature_takes_the_likeliest() -> None:
    scores = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32) * np.float32(1e37)
    found = Sampling(1e-6).choose(scores, np.random.default_rng(0))
    assert found.tolist() == scores.argmax(1).tolist()
