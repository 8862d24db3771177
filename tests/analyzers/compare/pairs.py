"""Randomised pairs of checkpoints of which the true causes are known, made by the tools that people use.

Each maker takes a generator and gives a `Case`: weights before and after, other checkpoints, and what is true of them.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from tests.analyzers.compare.nets import VOCABULARY, Layer, Net, State, net, state, train

Evidence = Mapping[str, Any]
Holds = Callable[[Evidence], bool]

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


class Case(NamedTuple):
    """A pair, and what is true of it.

    Parameters
    ----------
    before, after, others
        Weights by name.
    expected
        Codes of causes that show, each with what must hold of its evidence.
    allowed
        Codes that may be told of as well, because they are true too; `test_explanations` holds each against the values.
    """

    before: State
    after: State
    expected: Mapping[str, Holds] = MappingProxyType({})
    allowed: frozenset[str] = frozenset({"frozen"})
    others: Sequence[State] = ()


def near(key: str, value: float, relative: float = 1e-3) -> Holds:
    """Return what holds where an evidence's figure is near a value."""
    return lambda evidence: abs(evidence[key] - value) <= relative * abs(value)


def equal(**wanted: Any) -> Holds:
    """Return what holds where evidence has these values."""
    return lambda evidence: all(evidence[key] == value for key, value in wanted.items())


def optimizer(draw: random.Random) -> Callable[[Any], torch.optim.Optimizer]:
    """Return one of torch's optimizers, without weight decay."""
    return draw.choice(
        [
            partial(torch.optim.SGD, lr=draw.uniform(0.01, 0.3)),
            partial(torch.optim.SGD, lr=draw.uniform(0.01, 0.1), momentum=0.9),
            partial(torch.optim.AdamW, lr=10 ** draw.uniform(-4, -2), weight_decay=0.0),
            partial(torch.optim.RMSprop, lr=10 ** draw.uniform(-4, -2.5)),
        ]
    )


def width(draw: random.Random) -> int:
    return draw.choice([32, 48, 64, 96])


# -- what is to be named ----------------------------------------------------------------------------------------------


def lora(draw: random.Random) -> Case:
    """A LoRA merged by peft."""
    import peft

    rank = draw.choice([1, 2, 4, 8, 16, 32, 64])
    model = net(max(32, 4 * rank), 1 if rank == 64 else 2, draw.choice([F32, F32, BF16, F16]))
    before = state(model)
    targets = draw.sample(["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], draw.randint(1, 4))
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=rank, lora_alpha=draw.choice([8, 16, 2 * rank]), target_modules=targets)
    )
    share = 10 ** draw.uniform(-1.3, -0.3)
    with torch.no_grad():
        for module in adapted.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                factor = module.lora_B["default"].weight
                factor.normal_()
                made = module.get_delta_weight("default").float()
                factor *= float(share * module.base_layer.weight.float().norm() / made.norm())
    after = state(adapted.merge_and_unload())
    slack = 0 if model.norm.weight.dtype == F32 else 1

    def holds(e: Evidence) -> bool:
        return abs(e["rank"] - rank) <= slack and set(e["modules"]) == set(targets) and e["is_alone"]

    return Case(before, after, {"low-rank": holds})


def decay(draw: random.Random) -> Case:
    """Steps of decoupled weight decay without gradients, of all weights or of matrices alone."""
    dtype = draw.choice([F32, F32, BF16, F16])
    model = net(width(draw), dtype=dtype)
    before = state(model)
    loss = 10 ** draw.uniform(-3, -1) if dtype == F32 else draw.uniform(0.03, 0.3)
    n_steps = draw.choice([1, 1, 10, 100]) if dtype == F32 else 1
    parameters = [p for p in model.parameters() if p.ndim > 1 or draw.random() < 0.5]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    made = (
        torch.optim.AdamW(parameters, lr=0.1, weight_decay=loss / 0.1)
        if draw.random() < 0.5 and dtype != F16  # whose epsilon is 0 in float16
        else torch.optim.SGD(parameters, lr=0.1, weight_decay=loss / 0.1)
    )
    for _ in range(n_steps):
        made.step()
    factor = (1 - loss) ** n_steps
    return Case(
        before,
        state(model),
        {"uniform-shrink": lambda e: abs(e["factor"] - factor) <= 2e-3 * (1 - factor) + (0 if dtype == F32 else 2e-3)},
    )


def pruned(draw: random.Random) -> Case:
    """Pruned by torch.nn.utils.prune: by magnitude in each tensor or in all, at random, rows or columns."""
    model = net(width(draw), dtype=draw.choice([F32, BF16, F16]))
    before = state(model)
    share = draw.uniform(0.1, 0.9)
    kind = draw.choice(["local", "global", "random", "rows", "columns"])
    linears = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "proj" in n]
    if kind == "global":
        prune.global_unstructured([(m, "weight") for m in linears], prune.L1Unstructured, amount=share)
    for module in linears:
        if kind == "local":
            prune.l1_unstructured(module, "weight", share)
        elif kind == "random":
            prune.random_unstructured(module, "weight", share)
        elif kind != "global":
            prune.ln_structured(module, "weight", share, 2, 0 if kind == "rows" else 1)
        prune.remove(module, "weight")
    pattern = {"local": "magnitude", "global": "magnitude", "random": "unstructured"}.get(kind, kind)
    is_global = {"global": True, "local": False}
    return Case(
        before, state(model),
        {"sparsity": lambda e: (e["pattern"], e["kept"]) == (pattern, "same") and e.get("is_global", None) in (is_global.get(kind), None)},
    )  # fmt: skip


def patterned(draw: random.Random) -> Case:
    """N:M sparsity, of the greatest magnitudes."""
    model = net(width(draw), dtype=draw.choice([F32, BF16, F16]))
    before = state(model)
    n, m = draw.choice([(2, 4), (4, 8), (1, 4)])
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "proj.weight" in name:
                groups = p.view(-1, m)
                groups.scatter_(1, groups.abs().topk(m - n, dim=1, largest=False).indices, 0.0)
    return Case(before, state(model), {"sparsity": equal(pattern=f"{n}:{m}", kept="same")})


def decayed_and_pruned(draw: random.Random) -> Case:
    """Weights shrunk by a factor and then pruned."""
    model = net(width(draw))
    before = state(model)
    factor = draw.uniform(0.5, 0.99)
    with torch.no_grad():
        for p in model.parameters():
            p *= factor
    for module in [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "proj" in n]:
        prune.l1_unstructured(module, "weight", draw.uniform(0.2, 0.8))
        prune.remove(module, "weight")
    holds = lambda e: e["kept"] == "scaled" and abs(e["factor"] - factor) < 1e-4  # noqa: E731
    return Case(before, state(model), {"sparsity": holds, "uniform-shrink": near("factor", factor, 1e-4)})


def without_heads(draw: random.Random) -> Case:
    """Heads of attention set to 0: rows of the inputs, columns of the output."""
    before = state(net(64))
    size, after = draw.choice([8, 16]), {}
    heads = draw.sample(range(64 // size), draw.randint(1, 3))
    gone = torch.cat([torch.arange(head * size, (head + 1) * size) for head in heads])
    for name, tensor in before.items():
        after[name] = tensor.clone()
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            after[name][gone] = 0
        if name.endswith("o_proj.weight"):
            after[name][:, gone] = 0
    holds = lambda e: e["pattern"] in ("rows", "columns") and e["run"] % size == 0  # noqa: E731
    return Case(before, after, {"sparsity": holds})


def pruned_and_rounded(draw: random.Random) -> Case:
    """Weights pruned and stored in a narrower dtype."""
    before = state(net(width(draw)))
    narrow, name = draw.choice([(BF16, "bfloat16"), (F16, "float16")])
    after = {}
    for key, tensor in before.items():
        kept = tensor.abs() > tensor.abs().quantile(0.5) if tensor.ndim > 1 else tensor.abs() >= 0
        after[key] = (tensor * kept).to(narrow)
    return Case(before, after, {"sparsity": equal(kept=f"rounded to {name}"), "rounded": equal(dtype=name)})


def soup(draw: random.Random) -> Case:
    """A weighted mean of two fine-tunes, by torch."""
    dtype = draw.choice([F32, BF16, F16])
    model = net(width(draw), dtype=F32)
    sides = [copy.deepcopy(model), copy.deepcopy(model)]
    for side in sides:
        train(side, 3, 64, partial(torch.optim.AdamW, lr=0.05))
    a, c = (state(side.to(dtype)) for side in sides)
    weight = draw.choice([0.5, draw.uniform(0.15, 0.85)])
    after = {name: (1 - weight) * a[name] + weight * c[name] for name in a}
    return Case(a, after, {"soup": lambda e: abs(e["weight_before"] - 1 + weight) < 2e-3}, others=[c])


def moving_average(draw: random.Random) -> Case:
    """A step of an exponential moving average, by torch."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = net(width(draw))
    decay = draw.choice([0.9, 0.95, 0.99, 0.999])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.update_parameters(model)
    before = state(average.module)
    train(model, 3, 64, partial(torch.optim.AdamW, lr=0.02))
    average.update_parameters(model)
    return Case(
        before, state(average.module), {"moving-average": near("weight_before", decay, 1e-4)}, others=[state(model)]
    )


def souped_of_three(draw: random.Random) -> Case:
    """A mean of three."""
    model = net(width(draw))
    sides = [copy.deepcopy(model) for _ in range(3)]
    for side in sides:
        train(side, 2, 64, partial(torch.optim.AdamW, lr=0.05))
    a, b, c = map(state, sides)
    after = {name: (a[name] + b[name] + c[name]) / 3 for name in a}
    return Case(a, after, {"soup": near("weight_before", 1 / 3)}, others=[b, c])


def rounded(draw: random.Random) -> Case:
    """Stored in a narrower dtype, and perhaps read back."""
    name = draw.choice(["bfloat16", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
    narrow = getattr(torch, name)
    before = state(net(width(draw)))
    back = draw.random() < 0.5
    after = {key: tensor.to(narrow).to(F32) if back else tensor.to(narrow) for key, tensor in before.items()}
    return Case(before, after, {"rounded": equal(dtype=name, n_tensors=len(before))})


def quantized(draw: random.Random) -> Case:
    """Quantised and dequantised: by torch for each tensor or row, by gguf in blocks."""
    before = state(net(draw.choice([64, 96, 128])))
    kind = draw.choice(["tensor", "row", "q8_0", "q4_0", "group of 32"])
    bits = {"q8_0": 8, "q4_0": 4}.get(kind) or draw.choice([4, 8])
    after = {name: _quantized(t, kind, bits) if "proj.weight" in name else t for name, t in before.items()}
    return Case(before, after, {"quantized": lambda e: e["bits"] == bits and e["scheme"] in (kind, "group of 32")})


def _quantized(weight: torch.Tensor, kind: str, bits: int) -> torch.Tensor:
    most = 2 ** (bits - 1) - 1
    if kind in ("q8_0", "q4_0"):
        from gguf import GGMLQuantizationType, quants

        of = GGMLQuantizationType[kind.upper()]
        return torch.from_numpy(quants.dequantize(quants.quantize(weight.numpy(), of), of))
    if kind == "tensor":
        scale = float(weight.abs().max()) / most
        return torch.fake_quantize_per_tensor_affine(weight, scale, 0, -most - 1, most)
    rows = weight if kind == "row" else weight.view(-1, 32)
    scales = rows.abs().amax(dim=1) / most
    zeros = torch.zeros(len(rows), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(rows, scales, zeros, 0, -most - 1, most).view_as(weight)


def noisy(draw: random.Random) -> Case:
    """Normal noise added, of one strength or of one share of each tensor's."""
    dtype = draw.choice([F32, F32, F16])
    model = net(draw.choice([64, 96, 128]), dtype=dtype)
    before = state(model)
    std, is_relative = 10 ** draw.uniform(-2.5, -1.3), draw.random() < 0.5
    with torch.no_grad():
        for p in model.parameters():
            strength = std * float(p.float().norm()) / p.numel() ** 0.5 * 10 if is_relative else std
            p += (strength * torch.randn(p.shape)).to(dtype)
    key = "relative" if is_relative else "std"
    return Case(before, state(model), {"noise": near(key, 10 * std if is_relative else std, 0.05)})


def frozen(draw: random.Random) -> Case:
    """Fine-tuned with some modules frozen."""
    model = net(width(draw), draw.randint(2, 5), draw.choice([F32, BF16]))
    n = draw.randint(1, len(model.layers) - 1)
    for module in [model.embed_tokens, *model.layers[:n]]:
        module.requires_grad_(False)
    before = state(model)
    train(model, draw.randint(4, 8), 256, partial(torch.optim.AdamW, lr=0.01))
    wanted = {"embed_tokens", f"layers.{'0' if n == 1 else f'[0-{n - 1}]'}"}
    return Case(before, state(model), {"frozen": lambda e: set(e["unchanged"]) == wanted}, ROWS_AND_RANKS)


def only_some(draw: random.Random) -> Case:
    """Fine-tuned in norms, biases or the head alone."""
    kind = draw.choice(["norms", "biases", "head"])
    is_it = {
        "norms": lambda n: "norm" in n,
        "biases": lambda n: n.endswith("bias"),
        "head": lambda n: n.startswith("lm_head"),
    }[kind]
    model = net(width(draw), dtype=draw.choice([F32, BF16]))
    for name, p in model.named_parameters():
        p.requires_grad_(is_it(name))
    before = state(model)
    train(model, 5, 256, partial(torch.optim.AdamW, lr=0.02))
    return Case(before, state(model), {f"only-{kind}": lambda e: True}, frozenset({"low-rank", "rows-trained"}))


def appended(draw: random.Random) -> Case:
    """Rows appended to the embedding and the head, and the others perhaps trained on."""
    model = net(width(draw), dtype=draw.choice([F32, BF16]))
    before = state(model)
    if trained := draw.random() < 0.4:
        train(model, 4, 256, partial(torch.optim.AdamW, lr=0.003))
    after = state(model)
    n = draw.randint(1, 40)
    for name in ("embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        kept = after[name]
        after[name] = torch.cat([kept, 0.05 * torch.randn(n, *kept.shape[1:]).to(kept.dtype)])
    holds = lambda e: e["n_rows_after"] - e["n_rows_before"] == n and (e["n_changed_rows"] > 0) == trained  # noqa: E731
    return Case(before, after, {"rows-appended": holds}, ROWS_AND_RANKS | {"only-embeddings"})


def trained_rows(draw: random.Random) -> Case:
    """Some tokens' rows trained alone."""
    model = net(width(draw), dtype=draw.choice([F32, BF16]))
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("embed_tokens"))
    before = state(model)
    tokens = draw.sample(range(VOCABULARY), draw.randint(1, 20))
    train(model, 3, 256, partial(torch.optim.SGD, lr=1.0), tokens)
    holds = equal(n_changed_rows=len(tokens), n_rows=VOCABULARY)
    return Case(before, state(model), {"rows-trained": holds, "only-embeddings": lambda e: True})


# -- what is not, or not by these names -------------------------------------------------------------------------------

ROWS_AND_RANKS = frozenset({"frozen", "low-rank", "rows-trained"})
"""What is true of many fine-tunes: a gradient's rank is at most the number of tokens, and rows of others stay."""


def finetuned(draw: random.Random) -> Case:
    """Nothing but steps of an optimizer."""
    model = net(width(draw), dtype=draw.choice([F32, F32, BF16]))
    before = state(model)
    train(model, draw.randint(1, 8), draw.choice([8, 64, 256]), optimizer(draw))
    return Case(before, state(model), {}, ROWS_AND_RANKS)


def finetuned_beside_another(draw: random.Random) -> Case:
    """Two fine-tunes, neither of them made of the other."""
    case = finetuned(draw)
    model = net(case.before["norm.weight"].numel())
    model.load_state_dict({name: tensor.float() for name, tensor in case.before.items()})
    train(model, 2, 64, optimizer(draw))
    return case._replace(others=[state(model)])


def made_anew(draw: random.Random) -> Case:
    """Two nets that have nothing to do with each other."""
    size, dtype = width(draw), draw.choice([F32, BF16, F16])
    return Case(state(net(size, dtype=dtype)), state(net(size, dtype=dtype)))


def permuted(draw: random.Random) -> Case:
    """Hidden units in another order."""
    model = net(width(draw))
    before = state(model)
    after = dict(before)
    for name in before:
        if "up_proj" in name:
            order = torch.randperm(len(before[name]))
            after[name] = before[name][order]
            if name.endswith("weight"):
                down = name.replace("up_proj", "down_proj")
                after[down] = before[down][:, order]
    return Case(before, after)


def clipped(draw: random.Random) -> Case:
    """Values clipped."""
    before = state(net(width(draw)))
    after = {
        name: tensor.clamp(-float(b), float(b)) for name, tensor in before.items() for b in [tensor.abs().max() * 0.8]
    }
    return Case(before, after)


def rank_too_high(draw: random.Random) -> Case:
    """A product of factors that are no longer thin."""
    before = state(net(64))
    after = dict(before)
    for name, tensor in before.items():
        if "proj.weight" in name:
            inner = draw.choice([32, 48, 64])
            after[name] = tensor + 0.01 * torch.randn(len(tensor), inner) @ torch.randn(inner, tensor.shape[1])
    return Case(before, after)


def uneven_noise(draw: random.Random) -> Case:
    """A change with no structure but in its strength, or that is not normal."""
    before = state(net(64))
    after = {}
    is_uniform = draw.random() < 0.5
    for name, tensor in before.items():
        drawn = 2 * torch.rand_like(tensor) - 1 if is_uniform else torch.randn_like(tensor) * draw.uniform(0.5, 2)
        after[name] = tensor + 0.01 * drawn
    return Case(before, after)


def scaled_and_tuned(draw: random.Random) -> Case:
    """Fine-tuned with weight decay: the factor is hidden by the steps."""
    model = net(width(draw))
    before = state(model)
    train(model, draw.randint(2, 6), 256, partial(torch.optim.AdamW, lr=0.01, weight_decay=draw.uniform(0.01, 0.5)))
    return Case(before, state(model), {}, ROWS_AND_RANKS)


def tuned_in_the_mask(draw: random.Random) -> Case:
    """Pruned, and then fine-tuned with the mask held: zeros were added, and the rest changed."""
    model = net(width(draw))
    before = state(model)
    linears = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "proj" in n]
    for module in linears:
        prune.l1_unstructured(module, "weight", draw.uniform(0.4, 0.8))
    train(model, 4, 256, partial(torch.optim.AdamW, lr=0.003))
    for module in linears:
        prune.remove(module, "weight")
    after = {name: tensor for name, tensor in state(model).items() if name in before}
    return Case(before, {name: after[name] for name in before}, {"sparsity": equal(kept="changed")}, ROWS_AND_RANKS)


def nudged(draw: random.Random) -> Case:
    """Fine-tuned in bfloat16 by steps so small that most elements stay, or move to the next number."""
    model = net(width(draw), dtype=BF16)
    before = state(model)
    train(
        model, draw.randint(1, 4), draw.choice([64, 256]), partial(torch.optim.AdamW, lr=10 ** draw.uniform(-4.5, -3))
    )
    return Case(before, state(model), {}, ROWS_AND_RANKS)


def dora(draw: random.Random) -> Case:
    """A DoRA merged by peft: columns are scaled as well, so the change has no low rank."""
    import peft

    model = net(64)
    before = state(model)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
            if "magnitude" in name:
                p *= 1 + 0.2 * torch.rand_like(p)
    return Case(before, state(adapted.merge_and_unload()))


def flipped(draw: random.Random) -> Case:
    """Hidden units with their signs changed."""
    before = state(net(64))
    after = dict(before)
    for name in before:
        if "v_proj.weight" in name:
            signs = torch.sign(torch.randn(64, 1))
            after[name] = before[name] * signs
            after[name.replace("v_proj", "o_proj")] = before[name.replace("v_proj", "o_proj")] * signs.T
    return Case(before, after)


def folded(draw: random.Random) -> Case:
    """A norm's scale moved into the layers that follow."""
    before = state(net(64))
    after = dict(before)
    for name in before:
        if name.endswith("norm.weight") and "layers" in name:
            after[name] = torch.ones_like(before[name])
            for to in ("q_proj", "k_proj", "v_proj"):
                to = name.replace("norm", to)
                after[to] = before[to] * before[name]
    return Case(before, after)


def retrained_in_half(draw: random.Random) -> Case:
    """Fine-tuned, and kept in a narrower dtype."""
    case = finetuned(draw)
    narrow = draw.choice([BF16, F16])
    return case._replace(after={name: tensor.to(narrow) for name, tensor in case.after.items()})


def lora_and_rounded(draw: random.Random) -> Case:
    """A LoRA merged in float32 and kept in bfloat16."""
    case = lora(draw)
    while case.before["norm.weight"].dtype != F32:
        case = lora(draw)
    after = {name: t.to(BF16) if "proj.weight" in name else t for name, t in case.after.items()}
    return Case(case.before, after, {"low-rank": lambda e: True}, frozenset({"frozen", "rounded"}))


def decayed_and_rounded(draw: random.Random) -> Case:
    """Shrunk in float32 and kept in bfloat16."""
    before, factor = state(net(width(draw))), draw.uniform(0.5, 0.97)
    after = {name: (tensor * factor).to(BF16) for name, tensor in before.items()}
    return Case(before, after, {"uniform-shrink": near("factor", factor, 2e-3)})


def zeroed(draw: random.Random) -> Case:
    """Modules set to 0, as some heads are before they are trained."""
    before = state(net(64))
    after = {
        name: torch.zeros_like(t) if "lm_head" in name or "layers.1.o_proj" in name else t for name, t in before.items()
    }
    return Case(before, after, {}, frozenset({"frozen", "sparsity"}))


MAKERS: tuple[Callable[[random.Random], Case], ...] = (
    lora, lora, lora, decay, decay, pruned, pruned, patterned, decayed_and_pruned, pruned_and_rounded, soup,
    moving_average, souped_of_three, rounded, rounded, quantized, quantized, noisy, frozen, only_some, appended,
    trained_rows, finetuned, finetuned, finetuned_beside_another, made_anew, permuted, clipped, rank_too_high,
    uneven_noise, scaled_and_tuned, tuned_in_the_mask, nudged, dora, flipped, folded, retrained_in_half,
    lora_and_rounded, decayed_and_rounded, zeroed, without_heads,
)  # fmt: skip


def made(number: int) -> tuple[str, Case]:
    """Return the pair of a number: the maker by turns, everything else by chance that the number alone decides."""
    maker = MAKERS[number % len(MAKERS)]
    torch.manual_seed(number)
    np.random.seed(number)
    return maker.__name__, maker(random.Random(number))


__all__ = ["MAKERS", "Case", "Layer", "Net", "made"]
