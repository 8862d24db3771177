"""From a checkpoint to a model that can be trained: its function, its arrays in float32, and a head.

>>> from weighttools import train
>>> train.Classifier(n_classes=4, init="he_normal").n_outputs
4
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, few
from weighttools.train.autograd.gradients import Array
from weighttools.train.checkpoints.heads import Classifier, Embedder, Head, HeadLayers, Regressor, drawn, form_of
from weighttools.train.checkpoints.pooling import POOLINGS, ends, pad_of, pooled
from weighttools.train.checkpoints.stored import stored_names
from weighttools.train.data.batches import Batch
from weighttools.train.data.tokens import Base
from weighttools.train.models.architecture import BUFFERS, whole
from weighttools.train.models.files import described, floats, of
from weighttools.train.models.stack import Layer
from weighttools.train.ops import dropout
from weighttools.train.tasks.classification import Classification
from weighttools.train.tasks.model import Model
from weighttools.train.tasks.regression import LanguageModel, Regression
from weighttools.train.tasks.task import Task, wanted

CONFIG = "config.json"
OURS = "weighttools"
"""The key of config.json under which stands what no other reader knows: the pooling."""


@dataclass(frozen=True, slots=True)
class Loaded(Model):
    """A model of a checkpoint.

    Parameters
    ----------
    architecture
        Its function, in parts.
    config
        config.json as it was read; empty without one.
    head
        What its outputs are; None for a language model, and for a model of arrays with its own output layer.
    """

    architecture: Any = None
    config: Mapping[str, Any] = field(default_factory=dict)
    head: Head | None = None

    def task(self, **options: Any) -> Task:
        """Return what its outputs are trained for, with options of `Classification`, `Regression`, `LanguageModel`.

        Raises
        ------
        SpecError
            There is no head that says so.
        """
        if isinstance(self.head, Classifier):
            return Classification(self.head.n_classes, names=self.head.names, **options)
        if isinstance(self.head, Regressor):
            return Regression(**options)
        if self.head is None and getattr(self.architecture, "kind", None) == "decoder":
            return LanguageModel(**options)
        raise SpecError("the model has no head that says what to learn", expected="train.model(base, head)")


def model(
    base: Base,
    head: Head | None = None,
    *,
    activation: str | None = None,
    padding: str | int | None = None,
    stride: int | Sequence[int] | None = None,
    pool: str | None = None,
    flatten: bool | None = None,
    pad_id: int | None = None,
    recompute: bool = False,
    dtype: Any = np.float32,
) -> Loaded:
    """Load a checkpoint to be trained.

    Parameters
    ----------
    base
        The checkpoint: a path, a directory, or an open map. Its config.json says what its function is; without one
        the shapes do, for a plain stack of layers.
    head
        What its outputs shall be. None: the head that the file has; else, of a decoder, the next token's scores, and
        of an encoder, the mean of the states.
    activation
        What stands between the layers of a plain stack; None: what the file says, else ReLU.
    padding, stride, pool, flatten
        Of a convolutional net, whose weights do not tell. Padding: ``"valid"``, ``"same"`` (half the window) or how
        many zeros on every side. Stride: of all convolutions, or one for each. Pooling over windows of 2: ``"each"`` or
        ``"last"`` (maxima after each convolution or the last), ``"mean-each"``, ``"mean-last"``, ``"none"``. Flatten:
        True, or False where the mean over all places is what the linear layers see. None: what the file says, else
        stride 1 and what makes the inputs' size fit; the notes say what is assumed.
    pad_id
        Of a decoder's head: the token that fills texts up where config.json names none. transformers takes the state
        of a text's last token that is another; without such a token it takes the last, of one text at a time.
    recompute
        Keep only what goes into each layer, and compute the layer again on the way back: less memory, more time.
    dtype
        What to compute in: float32, or float64.

    Returns
    -------
    Loaded
        With the arrays that the function uses, by the file's names, a tied one once, and notes on what is missing,
        not used, of the wrong shape, or new.

    Raises
    ------
    UnsupportedError
        No function is known for it; the line tells how to write one.
    SpecError
        A tensor is missing, or is not to be trained as it is stored.
    """
    from weighttools.formats.opening import open as open_checkpoint

    origin, config = described(base if isinstance(base, TensorMap) else open_checkpoint(base))
    geometry = {"padding": padding, "stride": stride, "pool": pool, "flatten": flatten}
    architecture = of(origin, config, activation, **geometry)
    if architecture.kind in SEQUENCES:
        return _sequences(origin, config, architecture, head, recompute, dtype, pad_id)
    return _arrays(origin, config, architecture, head, dtype)


SEQUENCES = ("encoder", "decoder")
"""Kinds of architecture that take tokens; the others take arrays."""


@dataclass(frozen=True, slots=True)
class Scores:
    """``run(params, batch)`` of a model of texts with a head; padded batches are packed, for padding costs time.

    Parameters
    ----------
    architecture
        What gives the states.
    layers
        What makes scores of them.
    ties
        Names that the function asks for, and the names that the arrays have.
    options
        For the architecture's body.
    pad_id
        Of a decoder: the token that is not a text's last one for the head, wherever it stands.
    """

    architecture: Any
    layers: HeadLayers
    ties: Mapping[str, str]
    options: Mapping[str, Any]
    pad_id: int | None = None

    def __call__(self, params: Mapping[str, Any], batch: Batch) -> Any:
        p = whole(params, self.ties)
        ids, lengths, segments = packed(batch)
        extra = {} if segments is None or self.architecture.kind != "encoder" else {"segments": segments}
        x = self.architecture.hidden(p, ids, lengths=lengths.tolist(), **self.options, **extra)
        state = pooled(x, lengths, self.layers.form.pooling, ends(ids, lengths, self.pad_id))
        return self.layers(p, state, batch.get("seed"))


@dataclass(frozen=True, slots=True)
class NextToken:
    """``run(params, batch)`` of a language model: logits (batch, positions, vocabulary); parameters as `Scores`'."""

    architecture: Any
    ties: Mapping[str, str]
    options: Mapping[str, Any]

    def __call__(self, params: Mapping[str, Any], batch: Batch) -> Any:
        return self.architecture(whole(params, self.ties), _ids(batch), batch.get("mask"), **self.options)


def _ids(batch: Batch) -> Any:
    if not isinstance(batch, Mapping):
        fact, remedy = (
            f"a batch is {type(batch).__name__}",
            "give generate the model itself: generate(model, None, ids)",
        )
        raise SpecError(fact, subject="run", expected='a mapping with "ids"', remedy=remedy)
    return wanted(batch, "a model of texts", "ids")


def packed(batch: Batch) -> tuple[Array, Array, Array | None]:
    """Return a batch's real tokens end to end, each text's number of them, and the tokens' types if there are any."""
    ids, mask, segments = _ids(batch), batch.get("mask"), batch.get("segments")
    if mask is None:
        kinds = None if segments is None else segments.reshape(-1)
        return ids.reshape(-1), np.full(len(ids), ids.shape[1], np.int64), kinds
    real = np.asarray(mask, bool)
    return ids[real], real.sum(1), None if segments is None else segments[real]


def _sequences(
    origin: TensorMap, config: Mapping[str, Any], architecture: Any, head: Head | None, recompute: bool, dtype: Any,
    pad_id: int | None,
) -> Loaded:  # fmt: skip
    report = architecture.checked([*origin, *origin.aliases])
    options = {"recompute": True} if recompute else {}
    chosen = head if head is not None else head_of(origin, config, architecture)
    if chosen is None:
        ties, params = _read(origin, report.used, dtype)
        run = NextToken(architecture, ties, options)
        note = f"{architecture.family}: {report}"
        return Loaded(run, params, origin, (), (note,), architecture.tied(ties), config, None)
    if pad_id is not None and architecture.kind == "decoder" and pad_of(config, architecture.family) is None:
        config = {**config, "pad_token_id": pad_id}
    return _with_head(origin, config, architecture, chosen, options, dtype)


def _with_head(
    origin: TensorMap, config: Mapping[str, Any], architecture: Any, head: Head, options: Mapping[str, Any], dtype: Any
) -> Loaded:
    form, is_scored = form_of(architecture.family, architecture.kind, head.pooling), not isinstance(head, Embedder)
    layers = HeadLayers(form, architecture.prefix, head.dropout, is_scored, getattr(head, "normalized", False))
    shapes = layers.shapes(architecture.size, 0 if isinstance(head, Embedder) else head.n_outputs)
    body = [n for n in architecture.report([*origin, *origin.aliases]).used if not _TOP.search(n)]
    fits = {n: s for n, s in shapes.items() if n in origin and origin[n].shape == s}
    misfits = {n: s for n, s in shapes.items() if n in origin and n not in fits}
    ties, params = _read(origin, [*body, *fits], dtype)
    fresh = (
        {} if isinstance(head, Embedder) else {n: _fresh(head, n, s, dtype) for n, s in shapes.items() if n not in fits}
    )
    notes = [_told(origin, architecture, {*body, *fits}), *_misfits(origin, misfits), *_new(fresh, head)]
    pad_id = pad_of(config, architecture.family) if architecture.kind == "decoder" else None
    run = Scores(architecture, layers, ties, options, pad_id)
    return Loaded(run, params | fresh, origin, tuple(fresh), tuple(notes), architecture.tied(ties), config, head)


@dataclass(frozen=True, slots=True)
class Features:
    """``run(params, batch)`` of a model of arrays: the outputs (batch, n) of ``inputs``; a single one is (batch,)."""

    architecture: Any
    dropout: float = 0.0

    def __call__(self, params: Mapping[str, Any], batch: Batch) -> Any:
        x = self.architecture.hidden(params, wanted(batch, "a model of arrays", "inputs"))
        if self.dropout and "seed" in batch:
            x = dropout(x, rate=self.dropout, seed=batch["seed"])
        return self.architecture.output(params, x)


def _arrays(origin: TensorMap, config: Mapping[str, Any], architecture: Any, head: Head | None, dtype: Any) -> Loaded:
    """Load a plain stack; a head takes the place of its last layer, under that layer's names."""
    if isinstance(head, Embedder) or (head is not None and head.pooling is not None):
        raise SpecError("a model of arrays has nothing to pool", subject="head", expected="a classifier or a regressor")
    last: Layer = architecture.output.__self__
    shapes: dict[str, tuple[int, ...]] = {}
    if head is not None:
        n = head.n_outputs
        shapes[last.weight] = (n, last.n_in) if last.layout == "torch" else (last.n_in, n)
        shapes |= {last.bias: (n,)} if last.bias else {}
    misfits = {name: shape for name, shape in shapes.items() if origin[name].shape != shape}
    if replaced := sorted({*origin.aliases, *origin.aliases.values()} & misfits.keys()):
        remedy = "write the file out with tied='copy' (`weighttools convert --tied copy`) first"
        raise SpecError("a head cannot replace a layer that is tied to another", subject=replaced[0], remedy=remedy)
    ties, params = _read(origin, [n for n in architecture.required if n not in misfits], dtype)
    fresh = {n: drawn(head, n, s, last.layout).astype(dtype) for n, s in misfits.items()} if head is not None else {}
    told = [_told(origin, architecture, {*architecture.required}), *_assumed(architecture)]
    notes = [*told, *_misfits(origin, misfits), *_new(fresh, head)]
    tied = architecture.tied(ties)
    run = Features(tied, head.dropout if head else 0.0)
    return Loaded(
        run,
        params | fresh,
        origin,
        tuple(fresh),
        tuple(notes),
        tied,
        config,
        head if head is not None else _array_head(last, origin, None),
    )


def _array_head(last: Layer, origin: TensorMap, task: str | None) -> Head | None:
    names = stored_names(origin)
    if last.n_out > 1 and (task == "classify" or (task is None and len(names) == last.n_out)):
        return Classifier(last.n_out, names=names if len(names) == last.n_out else tuple(map(str, range(last.n_out))))
    return Regressor(last.n_out) if task is not None else None


_TOP = re.compile(r"(?:^|\.)(?:lm_head|pooler)(?:\.|$)")
"""What stands on the body, and gives way to a head."""


def head_of(origin: TensorMap, config: Mapping[str, Any], architecture: Any, task: str | None = None) -> Head | None:
    """Return the head that a checkpoint has.

    A classifier's or a regressor's, by its tensors; else None of a decoder, and the states' mean of an encoder. A
    plain stack's last layer is what `task` (``"classify"``, ``"regress"``) takes it for.

    Raises
    ------
    SpecError
        The pooling that config.json names is not known.
    """
    if architecture.kind not in SEQUENCES:
        return _array_head(architecture.output.__self__, origin, task)
    ours = config.get(OURS)
    pooling = ours.get("pooling") if isinstance(ours, Mapping) else None
    if pooling not in (None, *POOLINGS):
        raise SpecError(f"the pooling {pooling!r}", subject=CONFIG, expected=f"one of {', '.join(POOLINGS)}")
    out = f"{form_of(architecture.family, architecture.kind, pooling).out}.weight"
    if out not in origin:
        return None if architecture.kind == "decoder" else Embedder()
    n = origin[out].shape[0] if origin[out].shape else 0
    if n == 1 or config.get("problem_type") == "regression":
        return Regressor(n, pooling=pooling)
    return Classifier(n, pooling=pooling, names=class_names_of(config, n))


def task_of_head(origin: TensorMap, config: Mapping[str, Any], architecture: Any) -> str | None:
    """Return what a model of texts is for: ``"classify"`` or ``"regress"``, None where it has no head and names none.

    The file's own head decides; where it has none, the class that config.json names (``architectures``).
    """
    if architecture.kind not in SEQUENCES:
        return None
    head = head_of(origin, config, architecture)
    if isinstance(head, Classifier | Regressor):
        return "classify" if isinstance(head, Classifier) else "regress"
    named = config.get("architectures")
    if not isinstance(named, list) or not any(str(name).endswith("ForSequenceClassification") for name in named):
        return None
    return "regress" if config.get("problem_type") == "regression" else "classify"


def class_names_of(config: Mapping[str, Any], n: int) -> tuple[str, ...]:
    """Return the classes' names as config.json has them (``id2label``), else their numbers."""
    table = config.get("id2label")
    table = table if isinstance(table, Mapping) else {}
    names = tuple(str(table.get(str(i), i)) for i in range(n))
    if len(set(names)) < n or all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return tuple(map(str, range(n)))
    return names


def _read(origin: TensorMap, names: Iterable[str], dtype: Any) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the ties among `names`, and the arrays, a tied one once."""
    wanted = list(names)
    ties = {name: origin.aliases[name] for name in wanted if name in origin.aliases}
    kept = dict.fromkeys(ties.get(name, name) for name in wanted)
    return ties, {name: floats(origin, name, dtype) for name in kept}


def _fresh(head: Classifier | Regressor, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    return drawn(head, name, shape).astype(dtype, copy=False)


def _told(origin: TensorMap, architecture: Any, used: set[str]) -> str:
    stored = {origin.aliases.get(name, name) for name in used}
    rest = [n for n in origin if n not in stored and not BUFFERS.fullmatch(n)]
    said = f"{architecture.family}: {len(used):,} tensors used"
    return f"{said}; {len(rest):,} not used: {few(rest)}" if rest else said


def _assumed(architecture: Any) -> list[str]:
    listed = "; ".join(architecture.assumed)
    return [f"assumed, as no file says: {listed} (train.model takes others)"] if listed else []


def _misfits(origin: TensorMap, misfits: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [f"{n} is {_by(origin[n].shape)} in the file, and {_by(s)} is wanted" for n, s in misfits.items()]


def _new(fresh: Mapping[str, Array], head: Head | None) -> list[str]:
    if not fresh or head is None or isinstance(head, Embedder):
        return []
    how = head.init if isinstance(head.init, str) else head.init.distribution
    listed = ", ".join(f"{name} ({_by(array.shape)})" for name, array in fresh.items())
    return [f"new, weights by {how} with seed {head.seed}, biases 0: {listed}"]


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a scalar"
