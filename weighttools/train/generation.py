"""Writing on: the tokens that a decoder finds likely after others, one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weighttools.errors import SpecError, UnsupportedError
from weighttools.train.adapters.lora import weights_of
from weighttools.train.autograd.gradients import Array
from weighttools.train.models import Architecture, Cache
from weighttools.train.parallel import threads_for
from weighttools.train.tasks.model import Model

LEAST_TEMPERATURE = 1e-6
"""Divided by less, scores overflow in the end; by this, what is not likeliest is as good as impossible."""
PROMPT_BLOCK = 256
"""Positions of a prompt that run at once: scores of attention are so many rows, and not the prompt's square."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from its scores.

    Parameters
    ----------
    temperature
        Scores are divided by it; 0 takes the likeliest token always.
    top_p
        Only the likeliest tokens that together reach this probability are left.
    top_k
        Only so many of the likeliest tokens are left; 0 leaves all.

    Raises
    ------
    SpecError
        A number is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature < 1e30:
            expected = f"0, which takes the likeliest token always, or {LEAST_TEMPERATURE:g} or more"
            raise SpecError(f"temperature {self.temperature}", expected=expected)
        if not 0 < self.top_p <= 1:
            raise SpecError(f"top_p {self.top_p}", expected="above 0, and 1 at most")
        if self.top_k < 0:
            raise SpecError(f"top_k {self.top_k}", expected="0 or more")

    def probabilities(self, scores: Array) -> Array:
        """Return probabilities (batch, vocabulary) in float64 of scores of that shape; the temperature is not 0.

        References
        ----------
        Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv:1904.09751 (top-p).
        """
        z: Array = scores.astype(np.float64) / self.temperature
        if 0 < self.top_k < z.shape[1]:
            z[z < np.partition(z, -self.top_k)[:, [-self.top_k]]] = -np.inf
        p: Array = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        if self.top_p < 1:
            order = np.argsort(-p, axis=1, kind="stable")
            ordered = np.take_along_axis(p, order, 1)
            ordered[ordered.cumsum(1) - ordered >= self.top_p] = 0
            np.put_along_axis(p, order, ordered, 1)
            p /= p.sum(1, keepdims=True)
        return p

    def choose(self, scores: Array, rng: np.random.Generator) -> Array:
        """Return a token for every row of `scores` (batch, vocabulary): (batch,) integers.

        Raises
        ------
        SpecError
            A text's scores are NaN or infinite; single ones may be minus infinity, for tokens that must not come.
        """
        best = scores.max(1)
        if not np.isfinite(best).all():
            what = "NaN" if np.isnan(best).any() else "infinite"
            remedy = "try `weighttools check` on the weights"
            raise SpecError(f"the scores of the next token are {what}", remedy=remedy)
        if self.temperature == 0:
            return np.asarray(scores.argmax(1))
        reached = self.probabilities(scores).cumsum(1)
        drawn = rng.random(len(reached)) * reached[:, -1]
        return np.array([np.searchsorted(row, u, "right") for row, u in zip(reached, drawn, strict=True)])


def generate(
    run: Model | Architecture | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    ids: Any = None,
    max_new_tokens: int = 50,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    stop: Collection[int] = (),
    cache: bool = True,
) -> Array:
    """Return `ids` with the tokens that the model writes after them.

    Parameters
    ----------
    run
        A language model, as `train.model` loads it and `train.lora` changes it; a decoder from `models`; or any
        ``f(params, ids) -> scores`` (batch, positions, vocabulary), which has no cache.
    params
        Its arrays by name; None for those of a model: ``generate(model, None, ids)``, ``generate(model, ids=ids)``.
    ids
        Tokens (positions,), or (batch, positions) of texts of one length.
    max_new_tokens
        At most so many are added.
    temperature, top_p, top_k
        As `Sampling` has them.
    seed
        Determines what is sampled.
    stop
        A text ends at one of these tokens, which is kept; others of the batch go on, and its row is filled with it.
    cache
        Keep keys and values, so that a token costs one position and not all of them again.

    Raises
    ------
    SpecError
        `params` are none, `ids` are no whole numbers or none at all, the seed is negative, or the scores are NaN.
    UnsupportedError
        The model is no decoder, or has a head of another task.
    """
    run, params = _function(run, params)
    start = np.asarray(ids)
    chosen = Sampling(temperature, top_p, top_k)
    with threads_for(arrays_of(params)):
        new = list(stream(run, params, start, max_new_tokens, sampling=chosen, seed=seed, stop=stop, cache=cache))
    if not new:
        return start
    added = np.stack(new, 1)
    return np.concatenate([start, added.reshape(*start.shape[:-1], -1)], -1)


def stream(
    run: Model | Architecture | Callable[..., Any],
    params: Mapping[str, Any] | None = None,
    ids: Any = None,
    max_new_tokens: int = 50,
    *,
    sampling: Sampling = Sampling(),  # frozen
    seed: int = 0,
    stop: Collection[int] = (),
    cache: bool = True,
) -> Iterator[Array]:
    """Yield the next token of every text, (batch,), as soon as it is chosen; parameters as those of `generate`."""
    run, params = _function(run, params)
    rows = _rows(ids)
    scores = _scorer(run, params, rows, cache)
    if seed < 0:
        raise SpecError(f"seed {seed}", expected="0 or more")
    rng, stops = np.random.default_rng(seed), np.array(sorted(stop), np.int64)
    last, ended = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    for step in itertools.count():
        if step >= max_new_tokens or ended.all():
            return
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is seen in the scores
            found = sampling.choose(scores(None if step == 0 else last), rng)
        last = np.where(ended, last, found)
        ended |= np.isin(last, stops)
        yield last


def _function(run: Any, params: Any) -> tuple[Any, Any]:
    """Return what gives the scores, and its arrays: a model's own where none are given."""
    if not isinstance(params, Mapping) and (params is not None or not isinstance(run, Model)):
        expected = "arrays by name, or None for those of a model: generate(model, None, ids)"
        raise SpecError(f"params are {type(params).__name__}", subject="generate", expected=expected)
    return function_of(run, params) if isinstance(run, Model) else (run, params)


def function_of(run: Model, params: Mapping[str, Any] | None = None) -> tuple[Any, Mapping[str, Any]]:
    """Return what gives the scores of the next token, and its arrays: the model's own where none are given.

    Raises
    ------
    UnsupportedError
        The model has a head of another task.
    """
    model = run if params is None else replace(run, params=dict(params))
    if head := getattr(model, "head", None):
        fact = f"the model's outputs are those of a {type(head).__name__}, not the next token's scores"
        raise UnsupportedError(fact, expected="a decoder without a head")
    if (architecture := getattr(model, "architecture", None)) is None:
        return lambda p, ids: model.run(p, {"ids": ids}), model.params
    return architecture, weights_of(model)


def arrays_of(params: Mapping[str, Any]) -> list[Array]:
    """Return what of `params` is plain arrays, and no low-rank weight."""
    return [array for array in params.values() if isinstance(array, np.ndarray)]


def _rows(ids: Any) -> Array:
    found = np.asarray(ids)
    rows = found[None] if found.ndim == 1 else found
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "iu":
        what = f"{found.dtype} of shape {found.shape}"
        raise SpecError(f"ids are {what}", expected="whole numbers, (positions,) or (batch, positions), one at least")
    return rows.astype(np.int64)


def _scorer(run: Any, params: Mapping[str, Any], rows: Array, cached: bool) -> Callable[[Any], Array]:
    """Return a function that takes the token chosen last (None at first), and gives the scores of the next."""
    if isinstance(run, Architecture) and (run.kind != "decoder" or run.output is None):
        raise UnsupportedError(f"{run.family} is no decoder, and writes no text", expected="a decoder, such as Llama")
    is_cached, seen = cached and isinstance(run, Architecture), Cache()
    texts = [rows]

    def scores(last: Any) -> Array:
        new = rows if last is None else last[:, None]
        if last is not None and not is_cached:
            texts[0] = new = np.concatenate([texts[0], new], 1)
        if not isinstance(run, Architecture):
            return np.asarray(run(params, new))[:, -1]
        assert run.output is not None
        x = _in_blocks(run, params, new, seen) if is_cached else run.hidden(params, new)
        return np.asarray(run.output(params, x[:, -1]))

    return scores


def _in_blocks(run: Architecture, params: Mapping[str, Any], new: Array, seen: Cache) -> Any:
    """Run new tokens through the cache, some at a time, and return the last block's hidden states."""
    starts = range(0, new.shape[1], PROMPT_BLOCK)
    return [run.hidden(params, new[:, start : start + PROMPT_BLOCK], cache=seen)[:, -1:] for start in starts][-1]
