"""Low-rank adapters: train a few thousand weights beside a frozen model, save them as PEFT does, load PEFT's.

>>> import numpy as np
>>> from weighttools.train import linear
>>> from weighttools.train.model import Model
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
from typing import Any

import numpy as np

from weighttools import adapters
from weighttools.adapters import WRAPPER, Adapter, open_adapter
from weighttools.core import patterns
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, TensorNotFoundError
from weighttools.opening import PathLike
from weighttools.train.batches import Batch
from weighttools.train.groups import is_hidden_matrix
from weighttools.train.init import he_uniform
from weighttools.train.low_rank import LowRank, Seed
from weighttools.train.model import Model, Run
from weighttools.train.tape import Array
from weighttools.transforms.low_rank import Update

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
class Place:
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
    places: tuple[Place, ...]
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
    model: Model,
    *,
    r: int = 8,
    alpha: float = 16,
    targets: str | Sequence[str] | None = None,
    dropout: float = 0.0,
    rslora: bool = False,
    also: Sequence[str] = (),
    fan_in_fan_out: bool | None = None,
    seed: int = 0,
) -> Model:
    """Return a model of which only low-rank factors are trained: ``W + alpha / r * B A`` with W frozen.

    Parameters
    ----------
    model
        Any model whose function uses its matrices in `linear` (as ``transpose(w)`` where a file has (in, out)).
        Its arrays are shared, not copied, and not changed.
    r, alpha
        The rank, and what the change is multiplied by, over r.
    targets
        Patterns of the weights to adapt; ``"all-linear"`` for all matrices between hidden layers. By default the
        queries and values, as `TARGETS` finds them.
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
        A pattern matches no matrix of the model.
    SpecError
        A number is out of range.
    """
    _check(r, alpha, dropout)
    names = _targets(model, targets)
    whole = _whole(model, also, names)
    flags = {name: _is_conv1d(name) if fan_in_fan_out is None else fan_in_fan_out for name in names}
    scale = alpha / (math.sqrt(r) if rslora else r)
    places = tuple(_place(name, scale, flags[name]) for name in names)
    config = _config(r, alpha, dropout, rslora, names, whole, any(flags.values()), model.origin)
    params: dict[str, Array] = {}
    for place in places:
        params |= _begun(place, model.params[place.name], r, seed)
    return _model(model, places, whole, config, params, seed)


def load_lora(model: Model, adapter: Adapter | PathLike, *, seed: int = 0) -> Model:
    """Return a model with an adapter that peft, or `save_lora`, has saved: to use it, or to train it further.

    Raises
    ------
    SpecError
        The adapter does not fit the model.
    """
    found = adapter if isinstance(adapter, Adapter) else open_adapter(adapter)
    ties = model.origin.aliases if model.origin is not None else ()
    parts = adapters.placed(found, {name: array.shape for name, array in model.params.items()}, ties)
    if parts.added:
        raise SpecError(
            f"the adapter brings {min(parts.added)!r}, which the model does not have",
            subject=found.path or None,
            remedy="load the model with that head first",
        )
    updates = {name: parts.updates[name] for name in model.params if name in parts.updates}
    places = tuple(_place(name, update.scale, update.is_turned) for name, update in updates.items())
    dtypes = {name: array.dtype for name, array in model.params.items()}
    params: dict[str, Array] = {}
    for place, update in zip(places, updates.values(), strict=True):
        a, b = update.a.read(), update.b.read()
        params |= {place.a: a.astype(dtypes[place.name]), place.b: b.astype(dtypes[place.name])}
    whole = {name: WRAPPER + name for name in parts.whole}
    params |= {whole[name]: tensor.read().astype(dtypes[name]) for name, tensor in parts.whole.items()}
    return _model(model, places, whole, found.config, params, seed)


def _model(
    model: Model,
    places: tuple[Place, ...],
    whole: Mapping[str, str],
    config: Mapping[str, Any],
    params: dict[str, Array],
    seed: int,
) -> Model:
    frozen = {name: array for name, array in model.params.items() if name not in whole}
    params |= {peft: model.params[name].copy() for name, peft in whole.items() if peft not in params}
    n = sum(array.size for array in params.values())
    share = n / max(1, sum(array.size for array in model.params.values()))
    note = f"LoRA: {len(places):,} weights adapted, {len(whole):,} trained whole, {n:,} parameters ({share:.3%})"
    run = Adapted(model.run, frozen, places, whole, config, seed)
    empty = TensorMap({}, {"format": "pt"})
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
            return patterns.chosen(matrices, row)
        except TensorNotFoundError:
            continue
    raise TensorNotFoundError(
        "no weight has a usual name of queries and values",
        expected="; ".join(", ".join(row) for row in TARGETS[:4]),
        remedy=f"give targets, patterns of names such as {next(iter(matrices), '*.weight')!r}, or 'all-linear'",
    )


def _matched(model: Model, matrices: Iterable[str], targets: Sequence[str]) -> list[str]:
    if not targets:
        raise SpecError("no targets to adapt", expected="patterns of weights' names")
    try:
        return patterns.chosen(matrices, targets)
    except TensorNotFoundError as error:
        ties = model.origin.aliases if model.origin is not None else {}
        tied = next((n for n in ties if any(_hits(n, pattern) for pattern in targets)), None)
        if tied is not None:
            error.remedy = f"{tied} is tied to {ties[tied]}, whose change would change both"
        raise


def _hits(name: str, pattern: str) -> bool:
    try:
        return bool(patterns.matching([name], [pattern]))
    except TensorNotFoundError:
        return False


def _whole(model: Model, also: Sequence[str], adapted: Sequence[str]) -> dict[str, str]:
    """Return the arrays to train whole, by name: peft's name."""
    chosen = patterns.matching(model.params, also) if also else set()
    names = [name for name in model.params if name in chosen or name in model.added]
    if twice := set(names) & set(adapted):
        raise SpecError(f"{min(twice)!r} would be adapted and trained whole", expected="one of both")
    return {name: WRAPPER + name for name in names}


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _is_conv1d(name: str) -> bool:
    return _module(name).rpartition(".")[2] in _CONV1D


def _place(name: str, scale: float, is_turned: bool) -> Place:
    stem = WRAPPER + _module(name)
    return Place(name, f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", scale, is_turned)


def _begun(place: Place, weight: Array, r: int, seed: int) -> dict[str, Array]:
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
        "target_modules": [_module(name) for name in names],
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


def adapter_of(model: Model) -> Adapter:
    """Return a model's adapter as `open_adapter` would: its present arrays, not copied."""
    run, held = adapted(model), TensorMap.from_arrays(model.params)
    updates = {_module(p.name): Update(held[p.a], held[p.b], p.scale, p.is_turned) for p in run.places}
    return Adapter(updates, {name: held[peft] for name, peft in run.whole.items()}, run.config)


def save_lora(
    path: PathLike, model: Model, *, prefix: str = "", task_type: str | None = None, force: bool = False
) -> None:
    """Save a model's adapter as peft does: a directory with adapter_model.safetensors and adapter_config.json.

    Parameters
    ----------
    model
        One that `lora` or `load_lora` made; a result's `model`.
    prefix
        What peft's model has before the file's names: ``"transformer."`` for GPT-2's own files in GPT2LMHeadModel.
    task_type
        peft's word for the task, such as ``"CAUSAL_LM"``, for its Auto classes.

    Raises
    ------
    SourceError
        The directory exists and is not empty and `force` is not given, or cannot be written.
    """
    run = adapted(model)
    names = {name: WRAPPER + prefix + name.removeprefix(WRAPPER) for name in model.params}
    arrays = {names[name]: array for name, array in model.params.items()}
    config = {**run.config, "target_modules": [prefix + m for m in _listed(run.config.get("target_modules"))]}
    if prefix and run.config.get("modules_to_save"):
        config["modules_to_save"] = [prefix + m for m in _listed(run.config["modules_to_save"])]
    if task_type is not None:
        config["task_type"] = task_type
    adapters.save_adapter(path, TensorMap.from_arrays(arrays), config, force=force)


def _listed(modules: Any) -> list[str]:
    return [modules] if isinstance(modules, str) else list(modules or ())


def merge_lora(base: TensorMap, adapter: Model | Adapter | PathLike) -> TensorMap:
    """Return a base with an adapter's changes added to its weights, lazily; see `weighttools.adapters.merge_lora`.

    Parameters
    ----------
    base
        The checkpoint that the model was loaded from.
    adapter
        A trained model, an open adapter, or a directory.
    """
    return adapters.merge_lora(base, adapter_of(adapter) if isinstance(adapter, Model) else adapter)
