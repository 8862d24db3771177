"""Architectures against transformers: outputs, and every tensor's gradient against torch autograd in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import weighttools as wt
from weighttools.errors import SpecError, TensorNotFoundError, UnsupportedError
from weighttools.train import losses, models, value_and_grad
from weighttools.train.models.decoding import windowed

IDS = np.random.default_rng(0).integers(2, 50, (3, 7))  # 0 and 1 pad: torch gives such a row no gradient
MASK = np.arange(7) < np.array([[7], [5], [6]])  # a window of 3 sees a real token from everywhere
ENCODER = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}
DECODER = {**ENCODER, "num_key_value_heads": 2}
GEMMA = {**DECODER, "head_dim": 8, "pad_token_id": 0}
YARN = {"rope_type": "yarn", "rope_theta": 1e3, "factor": 4.0, "original_max_position_embeddings": 8}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
T = transformers
CONFIGS: dict[str, Any] = {
    "bert": T.BertConfig(**ENCODER),
    "roberta": T.RobertaConfig(**ENCODER, pad_token_id=1, max_position_embeddings=20, type_vocab_size=1),
    "xlm-roberta": T.XLMRobertaConfig(**ENCODER, pad_token_id=1, max_position_embeddings=20, hidden_act="relu"),
    "distilbert": T.DistilBertConfig(vocab_size=50, dim=24, n_layers=2, n_heads=4, hidden_dim=40),
    "electra": T.ElectraConfig(**ENCODER, embedding_size=12),
    "albert": T.AlbertConfig(**{**ENCODER, "num_hidden_layers": 4}, embedding_size=12, num_hidden_groups=2, inner_group_num=2),
    "gpt2": T.GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16),
    "llama": T.LlamaConfig(**DECODER, attention_bias=True, mlp_bias=True),
    "llama linear": T.LlamaConfig(**DECODER, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}),
    "llama llama3": T.LlamaConfig(**DECODER, rope_parameters=LLAMA3),
    "llama yarn": T.LlamaConfig(**{**DECODER, "num_attention_heads": 2}, rope_parameters=YARN),
    "llama partial": T.LlamaConfig(**DECODER, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    "mistral": T.MistralConfig(**DECODER, sliding_window=3, head_dim=8),
    "mistral whole": T.MistralConfig(**DECODER, sliding_window=None),
    "qwen2": T.Qwen2Config(
        **DECODER, tie_word_embeddings=True, sliding_window=3,
        rope_parameters={"rope_theta": 500.0, "rope_type": "default"},
    ),
    "qwen2 windows": T.Qwen2Config(**DECODER, use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "qwen3": T.Qwen3Config(**DECODER, head_dim=8),
    "gemma": T.GemmaConfig(**GEMMA),
    "gemma2": T.Gemma2Config(**GEMMA, query_pre_attn_scalar=16, sliding_window=3, attn_logit_softcapping=5.0, final_logit_softcapping=2.0),
    "gemma3_text": T.Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=16, **SLIDING),
    "phi3": T.Phi3Config(**DECODER, pad_token_id=0, sliding_window=3, eos_token_id=1),
    "phi3 partial": T.Phi3Config(**DECODER, pad_token_id=0, eos_token_id=1, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.67}),
}  # fmt: skip


def is_encoder(kind: str) -> bool:
    return models.FAMILIES[CONFIGS[kind].model_type].kind == "encoder"


def reference(kind: str) -> Any:
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[kind])
    config._attn_implementation = "eager"
    make = transformers.AutoModel if is_encoder(kind) else transformers.AutoModelForCausalLM
    options = {"add_pooling_layer": False} if kind in ("bert", "roberta", "xlm-roberta", "albert") else {}
    module = make.from_config(config, **options).eval()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += 0.1 * torch.randn_like(tensor)  # no zero biases, no norms of ones
    return module


def outputs(module: Any) -> torch.Tensor:
    result = module(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long())
    return result.last_hidden_state if "last_hidden_state" in result else result.logits


def gradients(module: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
    module.zero_grad()
    (outputs(module) * torch.tensor(weights).to(module.dtype)).sum().backward()
    return {name: p.grad.double().numpy() for name, p in module.named_parameters()}


def arrays(module: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def errors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Each tensor's relative error, with a floor from the global norm: a key bias has a gradient of exactly zero."""
    floor = 1e-3 * max(np.linalg.norm(g) for g in expected.values())
    return {n: float(np.linalg.norm(found[n] - g) / max(np.linalg.norm(g), floor)) for n, g in expected.items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_outputs_and_gradients_are_those_of_transformers(kind: str) -> None:
    module = reference(kind)
    exact = copy.deepcopy(module).double()
    p = arrays(module)
    run = models.from_config(CONFIGS[kind].to_dict(), p)
    weights = np.random.default_rng(1).standard_normal((*IDS.shape, outputs(exact).shape[-1])) * MASK[..., None]

    def scalar(p: Any, weights: Any) -> Any:
        return (run(p, IDS, MASK) * weights).sum()

    truth = gradients(exact, weights)
    p64 = {n: a.astype(np.float64) for n, a in p.items()}
    y = run(p64, IDS, MASK)
    assert np.abs(y - outputs(exact).detach().numpy())[MASK].max() < 2e-6  # rotary angles are float32 in transformers
    _, in64 = value_and_grad(scalar, p64, weights)
    assert max(errors(in64, truth).values()) < 2e-6
    _, in32 = value_and_grad(scalar, p, weights.astype(np.float32))
    assert {g.dtype for g in in32.values()} == {np.dtype(np.float32)} and in32.keys() == truth.keys()
    theirs = max(errors(gradients(module, weights), truth).values())
    assert max(errors(in32, truth).values()) <= 3 * theirs


@pytest.mark.thorough
def test_gradients_through_gpt2_of_its_real_depth_and_width_are_as_good_as_those_of_torch() -> None:
    """Of the thorough run: 86 million weights; the quick one has the gradients of a small one."""
    torch.manual_seed(0)
    config = T.GPT2Config(vocab_size=2048, attn_implementation="eager")
    module = T.GPT2LMHeadModel(config).eval()
    ids = np.random.default_rng(0).integers(0, 2048, (1, 24))
    p = arrays(module)
    run = models.from_config(config.to_dict(), p)
    _, ours = value_and_grad(lambda p: losses.cross_entropy(run(p, ids)[:, :-1], target=ids[:, 1:]), p)

    def torch_gradients(module: Any) -> dict[str, np.ndarray]:
        module.zero_grad()
        z = module(torch.tensor(ids)).logits[0, :-1]
        torch.nn.functional.cross_entropy(z, torch.tensor(ids[0, 1:])).backward()
        return {name: p.grad.double().numpy() for name, p in module.named_parameters()}

    in32 = torch_gradients(module)
    truth = torch_gradients(module.double())
    assert len(ours) == len(truth) == 148
    assert max(errors(ours, truth).values()) <= min(3 * max(errors(in32, truth).values()), 1e-5)


class Recorder(dict[str, Any]):
    """Arrays by name, and which of them were asked for."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        super().__init__(arrays)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.seen |= {name} & self.keys()
        return super().get(name, default)


def with_head(kind: str) -> tuple[models.Architecture, dict[str, np.ndarray]]:
    p = {n: a.astype(np.float64) for n, a in arrays(reference(kind)).items()}
    return models.from_config(CONFIGS[kind].to_dict(), p), p


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_report_names_what_the_function_reads(kind: str) -> None:
    model, p = with_head(kind)
    recorder = Recorder(p)
    model(recorder, IDS, MASK)
    extra = {"cls.weight": np.zeros(1), "embeddings.position_ids": np.zeros(1)}
    found = model.checked([*p, *extra])
    assert set(found.used) == recorder.seen == set(p) and found.unexpected == ("cls.weight",)
    assert {*model.required} <= {*p} and len({*model.required}) == len(model.required)
    with pytest.raises(SpecError, match=r"which are missing; it does not understand moe\.gate\.weight"):
        model.checked([*model.required[:1], "moe.gate.weight"])
    del recorder[model.required[-1]]
    with pytest.raises(TensorNotFoundError, match="the model needs this tensor"):
        model(recorder, IDS, MASK)


@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_sequences_are_the_same_as_padded_ones(kind: str) -> None:
    model, p = with_head(kind)
    padded = np.where(MASK, IDS, 1) if "roberta" in kind else IDS
    weights = np.random.default_rng(1).standard_normal(model(p, padded, MASK).shape) * MASK[..., None]

    def in_pack(p: Any) -> Any:
        return (model(p, IDS[MASK], lengths=MASK.sum(1).tolist()) * weights[MASK]).sum()

    def in_rows(p: Any) -> Any:
        return (model(p, padded, MASK) * weights).sum()

    packed = model(p, IDS[MASK], lengths=MASK.sum(1).tolist())
    assert np.abs(packed - model(p, padded, MASK)[MASK]).max() < 1e-12
    (y, grads), (y2, expected) = value_and_grad(in_pack, p), value_and_grad(in_rows, p)
    assert abs(y - y2) < 1e-9 and grads.keys() == expected.keys()
    assert max(errors(grads, expected).values()) < 1e-10


@pytest.mark.parametrize("lengths", [[1, 3, 4, 9], [2, 3], [5], [12, 1]])
@pytest.mark.parametrize("is_trained", [(True, True, True), (True, False, False), (False, False, True)])
def test_attention_of_packed_windows_is_that_of_torch(lengths: list[int], is_trained: tuple[bool, ...]) -> None:
    rng, n = np.random.default_rng(0), sum(lengths)
    q, k, v = rng.standard_normal((n, 4, 6)), rng.standard_normal((n, 2, 6)), rng.standard_normal((n, 2, 5))
    weights = rng.standard_normal((n, 4, 5))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    i, j = np.arange(n)[:, None], np.arange(n)
    seen = torch.tensor((owner[:, None] == owner) & (j <= i) & (j > i - 3))
    there = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    heads = [there[0].transpose(0, 1), *(x.transpose(0, 1).repeat_interleave(2, 0) for x in there[1:])]
    y = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=seen, scale=0.3).transpose(0, 1)
    (y * torch.tensor(weights)).sum().backward()
    here = dict(zip("qkv", (q, k, v), strict=True))
    trained = {name for name, is_one in zip(here, is_trained, strict=True) if is_one}

    def run(p: Any) -> Any:
        return windowed(p["q"], p["k"], p["v"], lengths=lengths, window=3, scale=0.3)

    assert np.abs(run(here) - y.detach().numpy()).max() < 1e-12
    _, grads = value_and_grad(lambda p: (run(p) * weights).sum(), here, train=trained)
    assert grads.keys() == trained
    for name, tensor in zip(here, there, strict=True):
        assert name not in grads or np.abs(grads[name] - tensor.grad.numpy()).max() < 1e-12


@pytest.mark.parametrize("kind", CONFIGS)
def test_layers_computed_again_give_the_same_gradients(kind: str) -> None:
    model, p = with_head(kind)
    weights = np.random.default_rng(1).standard_normal(model(p, IDS, MASK).shape)

    def scalar(p: Any, recompute: bool) -> Any:
        return (model(p, IDS, MASK, recompute=recompute) * weights).sum()

    kept, again = (value_and_grad(scalar, p, recompute=flag) for flag in (False, True))
    assert kept[0] == again[0] and kept[1].keys() == again[1].keys()
    assert max(errors(again[1], kept[1]).values()) < 1e-12


@pytest.mark.parametrize("kind", [k for k in CONFIGS if not is_encoder(k)])
def test_a_cache_changes_nothing(kind: str) -> None:
    model, p = with_head(kind)
    whole, cache, parts = model(p, IDS, MASK), models.Cache(), []
    for start, stop in ((0, 3), (3, 4), (4, 5), (5, 7)):
        parts.append(model(p, IDS[:, start:stop], MASK[:, :stop], cache=cache))
        assert cache.length == stop
    assert np.abs(np.concatenate(parts, 1) - whole)[MASK].max() < 1e-12
    with pytest.raises(SpecError, match="the cache holds 3 sequences"):
        model(p, IDS[:1, :1], cache=cache)
    with pytest.raises(SpecError, match="train without a cache"):
        value_and_grad(lambda p: model(p, IDS, cache=models.Cache()).sum(), p)


@pytest.mark.parametrize(
    ("kind", "ids", "said"),
    [
        (
            "bert",
            np.zeros((1, 600), int),
            "embeddings.position_embeddings.weight: rows 0 to 599 .* 512 rows.*cut texts",
        ),
        ("gpt2", np.zeros((1, 17), int), "transformer.wpe.weight: rows 0 to 16 .* 16 rows.*cut texts"),
        ("llama", np.array([[50]]), "model.embed_tokens.weight: rows 50 to 50 .* 50 rows.*own tokenizer"),
    ],
)
def test_tokens_and_positions_beyond_the_tables_are_named(kind: str, ids: np.ndarray, said: str) -> None:
    p = arrays(reference(kind))
    with pytest.raises(SpecError, match=said):
        models.from_config(CONFIGS[kind].to_dict(), p)(p, ids)


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_the_files_own_pooler_is_that_of_transformers(kind: str) -> None:
    module = transformers.AutoModel.from_config(CONFIGS[kind]).eval().double()
    p = arrays(module)
    model = models.from_config(CONFIGS[kind].to_dict(), p)
    assert model.pooler is not None and model.checked(p).unexpected == ()
    theirs = module(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long()).pooler_output
    assert np.abs(model.pooler(p, model.hidden(p, IDS, MASK)) - theirs.detach().numpy()).max() < 1e-9


@pytest.mark.parametrize("kind", CONFIGS)
def test_hidden_states_are_those_before_the_output_layer(kind: str) -> None:
    model, p = with_head(kind)
    x = model.hidden(p, IDS, MASK)
    assert x.shape == (*IDS.shape, model.size) and model.n_layers == CONFIGS[kind].num_hidden_layers
    assert (model.kind == "encoder") == (model.output is None)
    theirs = transformers.AutoModel.from_config(CONFIGS[kind]).eval().double()
    theirs.load_state_dict(
        {
            n: torch.tensor(a)
            for n, a in ((n.removeprefix(model.prefix), a) for n, a in p.items())
            if "lm_head" not in n
        },
        strict=False,
    )
    expected = theirs(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long()).last_hidden_state
    assert np.abs(x - expected.detach().numpy())[MASK].max() < 2e-6


def test_means_are_over_real_tokens() -> None:
    x = np.random.default_rng(0).standard_normal((3, 7, 2))
    assert np.allclose(models.mean_pool(x, MASK)[1], x[1, :5].mean(0), atol=1e-15)
    assert np.allclose(models.mean_pool(x), x.mean(1), atol=1e-15)


def test_checkpoints_of_unknown_kinds_say_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="write one over the file's names: a"):
        models.from_config({"model_type": "mystery"}, ["a"])
    old = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    assert models.from_config(old, ["bert.embeddings.word_embeddings.weight"]).family == "bert"
    assert models.from_config({"n_layer": 1, "n_head": 1, "n_embd": 8}, ["wte.weight"]).family == "gpt2"
    with pytest.raises(UnsupportedError, match="model_type None"):
        models.from_config(old, ["embeddings.word_embeddings.weight"])
    with pytest.raises(SpecError, match=r"wte\.weight"):
        models.from_config({"model_type": "gpt2", "n_layer": 1, "n_head": 1}, ["a"])
    with pytest.raises(SpecError, match="num_hidden_layers"):
        models.from_config({"model_type": "bert"}, ["embeddings.word_embeddings.weight"])


def test_an_mlp_of_one_layer_is_a_weighted_sum() -> None:
    p = wt.TensorMap.from_arrays({"fc.weight": np.ones((1, 3), np.float32), "fc.bias": np.full(1, 0.5, np.float32)})
    values = {name: tensor.read() for name, tensor in p.items()}
    assert models.mlp(values, np.array([[1, 2, 3]], np.float32), layers=["fc"]).tolist() == [[6.5]]
    assert losses.mse(models.mlp(values, np.eye(3, dtype=np.float32), layers=["fc"]), target=np.full((3, 1), 1.5)) == 0


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, UnsupportedError, "rope_type is 'dynamic'"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            SpecError,
            "'yarn' lacks 'original_max_position",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
            UnsupportedError,
            "partial_rotary_factor is 0.5 with scaled",
        ),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, SpecError, "factor is '2'"),
        ({"rope_parameters": 3}, SpecError, "rope_parameters is 3"),
        ({"num_attention_heads": 0}, SpecError, "num_attention_heads is 0; expected"),
        ({"num_hidden_layers": 10**9}, SpecError, "num_hidden_layers is 1000000000"),
        ({"rms_norm_eps": "tiny"}, SpecError, "rms_norm_eps is 'tiny'"),
        ({"hidden_act": "mish"}, UnsupportedError, "activation 'mish'"),
        ({"hidden_size": None}, SpecError, "lacks hidden_size"),
    ],
)
def test_what_the_functions_do_not_do_is_refused(settings: dict[str, Any], error: Any, said: str) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    assert models.from_config(config, ["model.embed_tokens.weight"]).kind == "decoder"
    with pytest.raises(error, match=said):
        models.from_config({**config, **settings}, ["model.embed_tokens.weight"])
