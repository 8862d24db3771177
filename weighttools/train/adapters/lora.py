"""Low-rank adapters: train a few thousand weights beside a frozen model, save them as PEFT does, load PEFT's.

>>> import numpy as np
>>> from weighttools.train.ops import linear
>>> from weighttools.train.tasks.model import Model
>>> base = Model(lambda p, batch: linear(batch["inputs"], p["q_proj.weight"]), {"q_proj.weight": np.eye(4)})
>>> tuned = lora(base, r=2, targets="*q_proj*")
>>> {name: array.shape for name, array in tuned.params.items()}
{'base_model.model.q_proj.lora_A.weight': (2, 4), 'base_model.model.q_proj.lora_B.weight': (4, 2)}
>>> batch = {"inputs": np.ones((1, 4))}
>>> bool((tuned.run(tuned.params, batch) == base.run(base.params, batch)).all())  # B begins as zeros
True

References
----------
Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from weighttools.core import patterns
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.train.adapters.low_rank import LowRank, Seed
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.batches import Batch
from weighttools.train.optim.groups import is_hidden_matrix
from weighttools.train.tasks.model import Model, Run
from weighttools.transforms.initializers import he_uniform
from weighttools.write import adapters
from weighttools.write.adapters import WRAPPER

M = TypeVar("M", bound=Model)

ALL_LINEAR = "all-linear"
TARGETS = (
    ("*q_proj.weight", "*v_proj.weight"),
    ("*.query.weight", "*.value.weight"),
    ("*.q_lin.weight", "*.v_lin.weight"),
    ("*c_attn.weight",),
    ("*query_key_value.weight",),
    ("*qkv_proj.weight",),
    ("*Wqkv.weight",),
)
"""What is adapted unless told otherwise: the first row of which the model has every pattern (as peft's table)."""
_CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")
"""Modules of GPT-2 that store (in, out)."""


@dataclass(frozen=True, slots=True)
class AdaptedWeight:
    """An adapted weight: its name, the names of its factors among the trained arrays, and how it is changed."""

    name: str
    a: str
    b: str
    scale: float
    is_turned: bool


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """A model's function with some of its weights changed by low-rank factors; what `Model.run` of `lora` is.

    Parameters
    ----------
    run
        The model's own function.
    frozen
        Its arrays, which are not trained.
    places
        The weights that are changed.
    whole
        Arrays that are trained as they are, by their names in the model: peft's name.
    config
        adapter_config.json.
    seed
        Of the dropout.
    """

    run: Run
    frozen: Mapping[str, Array]
    places: tuple[AdaptedWeight, ...]
    whole: Mapping[str, str]
    config: Mapping[str, Any]
    seed: int = 0

    def __call__(self, params: Mapping[str, Any], batch: Batch) -> Any:
        """Return the model's outputs with the factors and whole arrays in `params`."""
        return self.run(self.weights(params, batch.get("seed")), batch)

    def weights(self, params: Mapping[str, Any], seed: Seed = None) -> dict[str, Any]:
        """Return what the model's own function takes: its arrays by name, low-rank ones where they are adapted."""
        found: dict[str, Any] = {**self.frozen, **{name: params[peft] for name, peft in self.whole.items()}}
        rate = float(self.config.get("lora_dropout") or 0)
        for i, place in enumerate(self.places):
            a, b, base = params[place.a], params[place.b], self.frozen[place.name]
            of = None if seed is None else (*seed, self.seed, i)
            found[place.name] = LowRank(base, a, b, place.scale, place.is_turned, rate, of, place.name)
        return found


def lora(
    model: M,
    *,
    r: int = 8,
    alpha: float = 16,
    targets: str | Sequence[str] | None = None,
    dropout: float = 0.0,
    rslora: bool = False,
    also: Sequence[str] = (),
    fan_in_fan_out: bool | None = None,
    seed: int = 0,
) -> M:
    """Return a model of which only low-rank factors are trained: ``W + alpha / r * B A`` with W frozen.

    Parameters
    ----------
    model
        Any model whose function uses its matrices in `linear` (as ``transpose(w)`` where a file has (in, out)).
        Its arrays are shared, not copied, and not changed.
    r, alpha
        The rank, and what the change is multiplied by, over r.
    targets
        The weights to adapt: modules' names or their ends after a dot, as peft has them (``"q_proj"``), patterns of
        weights' names (``"*layers.1*q_proj*"``), or ``"all-linear"`` for all matrices between hidden layers. By default
        the queries and values, as `TARGETS` finds them.
    dropout
        The share of each adapter's inputs that is dropped where the batch has a ``seed``, as in `fit`'s updates; a run
        that is resumed drops the same.
    rslora
        Divide alpha by sqrt(r) instead (Kalajdzievski, arXiv:2312.03732).
    also
        Patterns of arrays to train whole, such as a head; arrays new to the checkpoint always are.
    fan_in_fan_out
        Whether the file stores these weights as (in, out); by default those called as GPT-2's Conv1D are.
    seed
        Of A, which begins uniform between ``-1 / sqrt(in)`` and ``1 / sqrt(in)`` (B begins as zeros), and of the
        dropout.

    Raises
    ------
    TensorNotFoundError
        A name or a pattern matches no matrix of the model.
    SpecError
        A number is out of range.
    """
    _check(r, alpha, dropout)
    names = _targets(model, targets)
    whole = _whole(model, also, names)
    flags = {name: _is_conv1d(name) if fan_in_fan_out is None else fan_in_fan_out for name in names}
    scale = alpha / (math.sqrt(r) if rslora else r)
    places = tuple(place_of(name, scale, flags[name]) for name in names)
    config = _config(r, alpha, dropout, rslora, names, whole, any(flags.values()), model.origin)
    params: dict[str, Array] = {}
    for place in places:
        params |= _begun(place, model.params[place.name], r, seed)
    return with_factors(model, places, whole, config, params, seed)


def with_factors(
    model: M,
    places: tuple[AdaptedWeight, ...],
    whole: Mapping[str, str],
    config: Mapping[str, Any],
    params: dict[str, Array],
    seed: int,
) -> M:
    """Return a model whose trained arrays are `params`, beside the frozen ones that are not in `whole`."""
    frozen = {name: array for name, array in model.params.items() if name not in whole}
    params |= {peft: model.params[name].copy() for name, peft in whole.items() if peft not in params}
    n = sum(array.size for array in params.values())
    share = n / max(1, sum(array.size for array in model.params.values()))
    note = f"LoRA: {len(places):,} weights adapted, {len(whole):,} trained whole, {n:,} parameters ({share:.3%})"
    run = Adapted(model.run, frozen, places, whole, config, seed)
    empty = TensorMap({}, {"format": "pt"}, origin=Origin(files=(adapters.WEIGHTS[0],)))
    return replace(model, run=run, params=params, origin=empty, added=tuple(params), notes=(*model.notes, note))


def _check(r: int, alpha: float, dropout: float) -> None:
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise SpecError(f"a rank of {r!r}", expected="an integer of 1 or more")
    if not math.isfinite(alpha) or not 0 <= dropout < 1:
        raise SpecError(f"alpha {alpha} and dropout {dropout}", expected="a finite alpha, and 0 <= dropout < 1")


def _targets(model: Model, targets: str | Sequence[str] | None) -> list[str]:
    """Return the names of the matrices to adapt, in the model's order."""
    matrices = {name: array for name, array in model.params.items() if array.ndim == 2}
    if targets == ALL_LINEAR:
        chosen = [name for name, array in matrices.items() if is_hidden_matrix(name, array) and name not in model.added]
        if not chosen:
            raise TensorNotFoundError("the model has no matrix between hidden layers", expected="one to adapt")
        return chosen
    if targets is not None:
        return _matched(model, matrices, [targets] if isinstance(targets, str) else targets)
    for row in TARGETS:
        try:
            return patterns.matching_names(matrices, row)
        except TensorNotFoundError:
            continue
    raise TensorNotFoundError(
        "no weight has a usual name of queries and values",
        expected="; ".join(", ".join(row) for row in TARGETS[:4]),
        remedy=f"give targets, patterns of names such as {next(iter(matrices), '*.weight')!r}, or 'all-linear'",
    )


def _matched(model: Model, matrices: Iterable[str], targets: Sequence[str]) -> list[str]:
    if not targets:
        raise SpecError("no targets to adapt", expected="modules or patterns of weights' names")
    known = list(matrices)
    try:
        found = {name for target in targets for name in _of_target(known, target)}
    except TensorNotFoundError as error:
        ties = model.origin.aliases if model.origin is not None else {}
        tied = next((n for n in ties if any(_hits(n, target) for target in targets)), None)
        if tied is not None:
            error.remedy = f"{tied} is tied to {ties[tied]}, whose change would change both"
        raise
    return [name for name in known if name in found]


def _of_target(names: Sequence[str], target: str) -> set[str]:
    """Return the weights of the modules that a target names, as peft finds them; else those that match its pattern."""
    return {n for n in names if f".{module_of(n)}".endswith(f".{target}")} or patterns.matching(names, [target])


def _hits(name: str, target: str) -> bool:
    try:
        return bool(_of_target([name], target))
    except TensorNotFoundError:
        return False


def _whole(model: Model, also: Sequence[str], adapted: Sequence[str]) -> dict[str, str]:
    """Return the arrays to train whole, by name: peft's name."""
    chosen = patterns.matching(model.params, also) if also else set()
    names = [name for name in model.params if name in chosen or name in model.added]
    if twice := set(names) & set(adapted):
        raise SpecError(f"{min(twice)!r} would be adapted and trained whole", expected="one of both")
    return {name: WRAPPER + name for name in names}


def module_of(name: str) -> str:
    """Return the module that a weight is of."""
    return name.removesuffix(".weight")


def _is_conv1d(name: str) -> bool:
    return module_of(name).rpartition(".")[2] in _CONV1D


def place_of(name: str, scale: float, is_turned: bool) -> AdaptedWeight:
    """Return the place of a weight, its factors called as peft calls them."""
    stem = WRAPPER + module_of(name)
    return AdaptedWeight(name, f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", scale, is_turned)


def _begun(place: AdaptedWeight, weight: Array, r: int, seed: int) -> dict[str, Array]:
    """Return the factors before the first step: A as torch's Kaiming uniform with a = sqrt(5), B zeros."""
    n_out, n_in = weight.shape[::-1] if place.is_turned else weight.shape
    rule = he_uniform(gain=1 / math.sqrt(3))  # bounds 1 / sqrt(in)
    a = rule.draw((r, n_in), seed=seed, name=place.a, dtype=weight.dtype)
    return {place.a: a, place.b: np.zeros((n_out, r), weight.dtype)}


def _config(
    r: int,
    alpha: float,
    dropout: float,
    rslora: bool,
    names: Sequence[str],
    whole: Iterable[str],
    is_turned: bool,
    origin: TensorMap | None,
) -> dict[str, Any]:
    """Return adapter_config.json as peft reads it."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": (origin.origin.path or None) if origin is not None else None,
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rslora,
        "fan_in_fan_out": is_turned,
        "target_modules": [module_of(name) for name in names],
        "modules_to_save": list(dict.fromkeys(name.rpartition(".")[0] for name in whole)) or None,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def adapted(model: Model) -> Adapted:
    """Return the function of a model that `lora` or `load_lora` made.

    Raises
    ------
    SpecError
        It is of another kind.
    """
    if not isinstance(model.run, Adapted):
        raise SpecError("the model has no adapter", expected="one that train.lora or train.load_lora made")
    return model.run


def weights_of(model: Model) -> Mapping[str, Any]:
    """Return what a model's own function takes, for `generate` and the like: with an adapter, low-rank weights."""
    return model.run.weights(model.params) if isinstance(model.run, Adapted) else model.params
