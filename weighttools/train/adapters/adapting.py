"""Adapters of trained models to files and back: saved as PEFT's, loaded, merged into the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError
from weighttools.formats.opening import PathLike
from weighttools.train.adapters.lora import Adapted, adapted, module_of, place_of, with_factors
from weighttools.train.autograd.gradients import Array
from weighttools.train.tasks.model import Model
from weighttools.transforms.low_rank import Update
from weighttools.write import adapters
from weighttools.write.adapters import WRAPPER, Adapter, open_adapter

M = TypeVar("M", bound=Model)


def load_lora(model: M, adapter: Adapter | PathLike, *, seed: int = 0) -> M:
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
    if both := set(parts.updates) & set(parts.whole):
        raise SpecError(f"the adapter replaces {min(both)!r} and changes it", subject=found.path or None)
    updates = {name: parts.updates[name] for name in model.params if name in parts.updates}
    places = tuple(place_of(name, update.scale, update.is_turned) for name, update in updates.items())
    dtypes = {name: array.dtype for name, array in model.params.items()}
    params: dict[str, Array] = {}
    for place, update in zip(places, updates.values(), strict=True):
        a, b = update.a.read(), update.b.read()
        params |= {place.a: a.astype(dtypes[place.name]), place.b: b.astype(dtypes[place.name])}
    whole = {name: WRAPPER + name for name in parts.whole}
    params |= {whole[name]: tensor.read().astype(dtypes[name]) for name, tensor in parts.whole.items()}
    return with_factors(model, places, whole, found.config, params, seed)


def adapter_of(model: Model) -> Adapter:
    """Return a model's adapter as `open_adapter` would: its present arrays, not copied."""
    run, held = adapted(model), TensorMap.from_arrays(model.params)
    updates = {module_of(p.name): Update(held[p.a], held[p.b], p.scale, p.is_turned) for p in run.places}
    return Adapter(updates, {name: held[peft] for name, peft in run.whole.items()}, run.config)


HEADS = ("classifier", "lm_head", "pre_classifier", "score")
"""Where the names of what stands on a model's body begin, which no prefix goes before."""


def peft_name(name: str, prefix: str) -> str:
    """Return a module's or a trained array's name as peft has it where `prefix` goes before the body's names."""
    wrapper = WRAPPER if name.startswith(WRAPPER) else ""
    bare = name.removeprefix(WRAPPER)
    return name if bare.partition(".")[0] in HEADS else f"{wrapper}{prefix}{bare}"


def peft_config(model: Model, prefix: str = "", task_type: str | None = None) -> dict[str, Any]:
    """Return a model's adapter_config.json; parameters as `save_lora`'s."""
    config = dict(adapted(model).config)
    for key in ("target_modules", "modules_to_save"):
        config[key] = [peft_name(module, prefix) for module in _listed(config.get(key))] or None
    if task_type == "SEQ_CLS":
        return config | _head_config(adapted(model), config["modules_to_save"] or [])
    return config if task_type is None else {**config, "task_type": task_type}


def _head_config(run: Adapted, saved: list[str]) -> dict[str, Any]:
    """Return what a classifier's adapter_config.json says of its head.

    For this task peft replaces the modules of a head by what the file has, each as a whole: so all of RoBERTa's
    ``classifier`` is one of them, not its layers; and where a head's tensors are not in the file, as those of one that
    was not trained, the task stays unsaid: only then does peft leave the base's in their place.
    """
    if any(name.partition(".")[0] in HEADS for name in run.frozen if name not in run.whole):
        return {}
    roots = (name.partition(".")[0] if name.partition(".")[0] in HEADS else name for name in saved)
    return {"task_type": "SEQ_CLS", "modules_to_save": list(dict.fromkeys(roots)) or None}


def save_lora(
    path: PathLike, model: Model, *, prefix: str = "", task_type: str | None = None, force: bool = False
) -> None:
    """Save a model's adapter as peft does: a directory with adapter_model.safetensors and adapter_config.json.

    Parameters
    ----------
    model
        One that `lora` or `load_lora` made; a result's `model`.
    prefix
        What peft's model has before the file's names, but for a head's: ``"transformer."`` for GPT-2's own files in
        GPT2LMHeadModel, ``"bert."`` for a BertModel's in BertForSequenceClassification.
    task_type
        peft's word for the task, such as ``"CAUSAL_LM"``, for its Auto classes. ``"SEQ_CLS"`` stays unsaid where the
        head was not trained: peft would look for it in the file.

    Raises
    ------
    SourceError
        The directory exists and is not empty and `force` is not given, or cannot be written.
    """
    config = peft_config(model, prefix, task_type)
    arrays = {peft_name(name, prefix): array for name, array in model.params.items()}
    adapters.save_adapter(path, TensorMap.from_arrays(arrays), config, force=force)


def _listed(modules: Any) -> list[str]:
    return [modules] if isinstance(modules, str) else list(modules or ())


def merge_lora(base: TensorMap, adapter: Model | Adapter | PathLike) -> TensorMap:
    """Return a base with an adapter's changes added to its weights, lazily; see `write.adapters.merge_lora`.

    Parameters
    ----------
    base
        The checkpoint that the model was loaded from.
    adapter
        A trained model, an open adapter, or a directory.
    """
    return adapters.merge_lora(base, adapter_of(adapter) if isinstance(adapter, Model) else adapter)


def merged(base: Model, tuned: Model, metadata: Mapping[str, str]) -> TensorMap:
    """Return the checkpoint of a model with the change of an adapter, trained beside it, added.

    Parameters
    ----------
    base, tuned
        The model, and what `lora` made of it. Quantised weights that are changed become plain ones.
    metadata
        More entries for the file.
    """
    from weighttools.transforms.dequantize import decoded

    origin = base.origin if base.origin is not None else TensorMap.from_arrays(base.params)
    changed = {place.name: decoded(origin[place.name]) for place in adapted(tuned).places}
    plain = origin.replace(tensors={**dict(origin.items()), **changed}, metadata={**origin.metadata, **metadata})
    return merge_lora(plain, tuned)
