"""Optimisers: chains of small transforms, applied in place, piece by piece, on all threads.

>>> params = {"fc.weight": np.ones((2, 2), np.float32)}
>>> optimizer = adamw(lr=0.1, weight_decay=0.01)
>>> state = optimizer.init(params)
>>> optimizer.step(params, {"fc.weight": np.ones((2, 2), np.float32)}, state)["lr"]
0.1
>>> round(float(params["fc.weight"][0, 0]), 4)
0.899

An `Optimizer` is a description and never changes; all that changes is in `params` and in the `State`, plain arrays
``{slot: {name: array}}`` and a step number, so that training can stop and continue to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from weighttools.core.patterns import not_found
from weighttools.errors import SpecError
from weighttools.train.autograd.gradients import Array
from weighttools.train.optim import fused, matrices, transforms
from weighttools.train.optim.groups import Rule, decays, describe, is_hidden_matrix
from weighttools.train.optim.quantised import QuantisedAdam
from weighttools.train.optim.schedules import Schedule
from weighttools.train.optim.transforms import ParameterRun, Step, Transform
from weighttools.train.parallel import BLOCK, scratch, spread
from weighttools.transforms import initializer_ranges as ranges

Rate = float | Callable[[int], float]
Chain = tuple[Transform, ...]


@dataclass(slots=True)
class State:
    """What an optimiser remembers: the updates made, and for each slot an array a parameter."""

    step: int = 0
    slots: dict[str, dict[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A chain of transforms and how its result is applied: ``p = shrink(p * (1 - lr * weight_decay) - lr * update)``.

    Parameters
    ----------
    chain
        The stages, in order.
    lr
        The learning rate, or a schedule.
    weight_decay
        Decoupled decay, for the parameters that `rule` names (Loshchilov and Hutter, arXiv:1711.05101).
    rule
        Says by name and array whether a parameter decays or is penalised; norms, biases and embeddings do not.
    rates
        Each parameter's share of the learning rate; 1 where it is not named.
    proximal_l1
        Soft threshold ``lr * proximal_l1`` after the step, which makes exact zeros, for the parameters that decay.
    others, is_main
        The chain for parameters that `is_main` does not name, with the share `others_rate` of the rate.
    """

    chain: Chain
    lr: Rate = 1e-3
    weight_decay: float = 0.0
    rule: Rule = decays
    rates: Mapping[str, float] = field(default_factory=dict)
    proximal_l1: float = 0.0
    others: Chain = ()
    is_main: Rule | None = None
    others_rate: float = 1.0

    def __post_init__(self) -> None:
        numbers = ("weight_decay", "proximal_l1", "others_rate")
        ranges.amounts("the optimizer", **{name: getattr(self, name) for name in numbers})
        if not isinstance(self.rates, Mapping):
            fact = f"rates {self.rates!r}"
            raise SpecError(fact, subject="the optimizer", expected="shares of the learning rate by name")
        for name, share in self.rates.items():
            ranges.amounts(name, share_of_the_learning_rate=share)
        if not callable(self.lr):
            ranges.amounts("the optimizer", learning_rate=self.lr)
        ranges.plain(self)

    def after(self, *first: Transform) -> Optimizer:
        """Return the optimiser with stages before its own, such as ``ClipNorm(1.0)``."""
        return replace(self, chain=(*first, *self.chain), others=(*first, *self.others) if self.others else ())

    def with_steps(self, n_steps: int) -> Optimizer:
        """Return the optimiser with its schedule told how many updates there will be."""
        return replace(self, lr=self.lr.with_steps(n_steps)) if isinstance(self.lr, Schedule) else self

    def init(self, params: Mapping[str, Array]) -> State:
        """Return the state before the first step: zeros.

        Raises
        ------
        TensorNotFoundError
            `rates` names none of the parameters; some of its names may be of parameters that do not learn.
        SpecError
            A stage cannot work on a parameter, or two keep the same state.
        """
        if self.rates and self.rates.keys().isdisjoint(params):
            raise not_found(next(iter(self.rates)), list(params)).about("the optimizer's rates")
        state = State()
        for name, p in params.items():
            for stage in self._chain(name, p):
                for slot, shape in stage.slots(p).items():
                    arrays = state.slots.setdefault(slot, {})
                    if name in arrays:
                        raise SpecError(f"two stages keep {slot!r}", subject="the chain", remedy="use one of them")
                    arrays[name] = np.zeros(shape, stage.dtypes.get(slot, p.dtype))
        return state

    def step(
        self, params: Mapping[str, Array], grads: Mapping[str, Array], state: State, norm: float | None = None
    ) -> dict[str, float]:
        """Update the parameters that have a gradient, and the state, in place.

        Parameters
        ----------
        params, grads
            By name, of equal shapes and dtypes.
        state
            What `init` returned.
        norm
            The gradients' joint 2-norm, if it is known; a stage that clips by it then does not look again.

        Returns
        -------
        dict
            ``lr``, and ``grad_norm``, the gradients' joint 2-norm, if a stage clips by it.

        Raises
        ------
        SpecError
            A gradient does not fit its parameter, or a parameter is read-only or not contiguous; nothing has changed.
        TensorNotFoundError
            A gradient's name is no parameter's, or was none when the state was made.
        """
        lr = float(self.lr(state.step) if callable(self.lr) else self.lr)
        ranges.amounts("the schedule", learning_rate=lr)
        step = Step(state.step + 1, grads, norm)
        commons = {stage: stage.begin(step) for stage in (*self.chain, *self.others)}
        jobs: list[tuple[Any, ...]] = []
        sweep = fused.sweep(grads)
        for name, grad in grads.items():
            _check(name, params, grad)
            jobs += self._jobs(name, params[name], grad, state, lr, commons, sweep)
        state.step = step.number
        spread(_call, jobs)
        norms = [commons[stage] for stage in self.chain if isinstance(stage, transforms.ClipNorm)]
        return {"lr": lr} | ({"grad_norm": norms[0]} if norms else {})

    def describe(self, params: Mapping[str, Array]) -> str:
        """Return the decay groups and rates as lines to print before training."""
        penalties = [stage for stage in self.chain if isinstance(stage, transforms.Penalty)]
        amounts = {
            "decay": self.weight_decay,
            "L2": sum(stage.l2 for stage in penalties),
            "L1": sum(stage.l1 for stage in penalties),
            "proximal L1": self.proximal_l1,
        }
        words = ", ".join(f"{name} {amount:g}" for name, amount in amounts.items() if amount)
        return describe(params, words or "decay 0", self.rule, self.rates)

    def _chain(self, name: str, p: Array) -> Chain:
        return self.chain if self.is_main is None or self.is_main(name, p) else self.others

    def _jobs(
        self,
        name: str,
        p: Array,
        grad: Array,
        state: State,
        lr: float,
        commons: Mapping[Transform, Any],
        sweep: Callable[..., None] | None,
    ) -> Iterator[tuple[Any, ...]]:
        chain, is_decayed = self._chain(name, p), self.rule(name, p)
        rate = lr * float(self.rates.get(name, 1.0)) * (self.others_rate if chain is not self.chain else 1.0)
        stages = [(stage, commons[stage]) for stage in chain] or [(transforms.Scale(), None)]
        slots = {slot: _kept(state, slot, name) for stage in chain for slot in stage.slots(p)}
        ends = (1 - rate * self.weight_decay, rate * self.proximal_l1) if is_decayed else (1.0, 0.0)
        if p.size and any(stage.whole for stage in chain):
            yield _run, stages, rate, ends, p, grad, slots, is_decayed
            return
        flat_p, flat_grad, flat_slots = p.reshape(-1), grad.reshape(-1), {k: v.reshape(-1) for k, v in slots.items()}
        run: Callable[..., None] = functools.partial(_run, is_decayed=is_decayed)
        strides = {slot: n for stage in chain for slot, n in stage.strides.items()}
        if sweep is not None and fused.fits(chain, p, ends[1]):
            run = functools.partial(fused.run, sweep)
        for i in range(0, p.size, BLOCK):
            at = slice(i, i + BLOCK)
            part = {k: v[i // n : -(-(i + BLOCK) // n)] for k, v in flat_slots.items() for n in (strides.get(k, 1),)}
            yield run, stages, rate, ends, flat_p[at], flat_grad[at], part


def _kept(state: State, slot: str, name: str) -> Array:
    arrays = state.slots.get(slot, {})
    if name not in arrays:
        raise not_found(name, list(arrays)).about(f"the optimizer's state {slot!r}")
    return arrays[name]


def _check(name: str, params: Mapping[str, Array], grad: Array) -> None:
    if name not in params:
        raise not_found(name, list(params)).about("the gradients")
    p = params[name]
    if p.shape != grad.shape or p.dtype != grad.dtype:
        fact = f"a gradient {grad.dtype} {grad.shape} for a parameter {p.dtype} {p.shape}"
        raise SpecError(fact, subject=name, expected="the same")
    if not (p.flags.c_contiguous and p.flags.writeable):
        raise SpecError("the parameter is read-only or not contiguous", subject=name, remedy="copy it first")


def _call(f: Callable[..., None], *args: Any) -> None:
    f(*args)


def _run(
    stages: fused.Stages,
    rate: float,
    ends: tuple[float, float],
    p: Array,
    u: Array,
    slots: Mapping[str, Array],
    is_decayed: bool,
) -> None:
    """Send one piece through the chain and apply the result."""
    out, spare = scratch(p.shape, 2, p.dtype)
    piece = ParameterRun(p, slots, spare, is_decayed)
    for i, (stage, common) in enumerate(stages, 1):
        u = stage.kernel(u, out, piece, common, rate if i == len(stages) else 1.0)
    shrink, threshold = ends
    if shrink != 1:
        p *= shrink
    p -= u
    if threshold:  # sign(p) max(|p| - threshold, 0)
        p -= np.clip(p, -threshold, threshold, out=out)


def sgd(lr: Rate = 1e-2, *, momentum: float = 0.0, nesterov: bool = False, l2: float = 0.0, **rest: Any) -> Optimizer:
    """Return stochastic gradient descent; `l2` is the coupled penalty that torch calls weight_decay."""
    last: Transform = transforms.Momentum(momentum, nesterov) if momentum or nesterov else transforms.Scale()
    return Optimizer((*_penalty(l2), last), lr, **rest)


def adam(
    lr: Rate = 1e-3, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, l2: float = 0.0, **rest: Any
) -> Optimizer:
    """Return Adam; `l2` is the coupled penalty."""
    return Optimizer((*_penalty(l2), transforms.Adam(betas, eps)), lr, **rest)


def adamw(
    lr: Rate = 1e-3,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    state: str = "full",
    **rest: Any,
) -> Optimizer:
    """Return Adam with decoupled weight decay; `state` ``"8bit"`` keeps 2 bytes a parameter instead of 8."""
    stages: dict[str, Callable[..., Transform]] = {"full": transforms.Adam, "8bit": QuantisedAdam}
    if state not in list(stages):
        raise SpecError(f"state {state!r}", subject="adamw", expected="'full' or '8bit'")
    return Optimizer((stages[state](betas, eps),), lr, weight_decay, **rest)


def adagrad(lr: Rate = 1e-2, *, eps: float = 1e-10, l2: float = 0.0, **rest: Any) -> Optimizer:
    """Return Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011)."""
    return Optimizer((*_penalty(l2), transforms.RootMeanSquare(None, eps)), lr, **rest)


def rmsprop(
    lr: Rate = 1e-2, *, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, l2: float = 0.0, **rest: Any
) -> Optimizer:
    """Return RMSprop (Tieleman and Hinton, Coursera lecture 6.5, 2012)."""
    last = (transforms.Momentum(momentum),) if momentum else ()
    return Optimizer((*_penalty(l2), transforms.RootMeanSquare(alpha, eps), *last), lr, **rest)


def lion(
    lr: Rate = 1e-4, *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, **rest: Any
) -> Optimizer:
    """Return Lion, whose rate should be 3 to 10 times smaller than AdamW's."""
    return Optimizer((transforms.Lion(betas),), lr, weight_decay, **rest)


def adafactor(lr: Rate = 1e-2, *, weight_decay: float = 0.0, clip: float = 1.0, **rest: Any) -> Optimizer:
    """Return Adafactor, whose state is a row and a column a matrix."""
    return Optimizer((matrices.Adafactor(clip=clip),), lr, weight_decay, **rest)


def muon(
    lr: Rate = 1e-3,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    match_adam: bool = False,
    others_rate: float = 1.0,
    **rest: Any,
) -> Optimizer:
    """Return Muon for the matrices between hidden layers, and Adam, at `others_rate` times the rate, for the others."""
    main: dict[str, Any] = {"is_main": is_hidden_matrix, "others": (transforms.Adam(),), "others_rate": others_rate}
    stage = matrices.Muon(momentum, nesterov, match_adam=match_adam)
    return Optimizer((stage,), lr, weight_decay, **{**main, **rest})


def _penalty(l2: float) -> Chain:
    return (transforms.Penalty(l2=l2),) if l2 else ()
