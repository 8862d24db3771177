"""What a tensor is to its model, and what says so: every verb, the analyzers and training ask here.

A name says most; some say nothing alone (`weight_v` is a buffer beside `weight_orig`, a weight beside `weight_g`), so
the names that stand beside it can be given. What cannot be a parameter, by its name or dtype, is told first (`aside`);
that works on a family's words as well as on a name. What kind of parameter it is needs the name (`parameters`).

>>> from weighttools.core.dtypes import DTYPES
>>> spec = Spec(DTYPES["float32"], (8, 8))
>>> [tell_role(name, spec).role for name in ("h.0.attn.c_attn.weight", "wte.weight")], tell_role("g.weight_g", spec).why
([<Role.WEIGHT: 'weight'>, <Role.EMBEDDING: 'embedding'>], "weight norm's magnitude of 'weight'")
"""

from __future__ import annotations

import re

from weighttools.core.spec import Spec
from weighttools.families import role_names as names
from weighttools.families.role_types import Beside, NameParts, Role, Told


def tell_role(name: str, spec: Spec, beside: Beside | None = None) -> Told:
    """Say what a tensor is.

    Parameters
    ----------
    name
        Its name.
    spec
        Its dtype and shape: integers are no parameters, a causal mask is square.
    beside
        The names of the map it lies in. Without them a name that would need a neighbour is taken by itself.
    """
    from weighttools.families.parameters import parameter  # its expressions take longer to compile than a look takes

    return aside(name, spec, beside) or parameter(name, spec.shape, beside)


# -- what is no parameter ---------------------------------------------------------------------------------------------


def aside(name: str, spec: Spec, beside: Beside | None = None) -> Told | None:
    """Say what a tensor is that is no parameter, or return None for a parameter.

    Parameters
    ----------
    name
        A name, or a family's words.
    spec, beside
        As for `tell_role`.
    """
    at = NameParts.of(name, beside)
    found = (
        _state(at, spec) or _statistic(at) or _vector(at, spec) or _scale(at, spec) or _mask(at, spec) or _buffer(at)
    )  # the dtype comes last: a name says more
    if found is None and spec.dtype.kind not in ("float", "complex"):
        found = Told(Role.BUFFER, f"its dtype is {spec.dtype.name}")
    return found


def needs_neighbours(words: str) -> bool:
    """Whether what a name or words mean depends on what stands beside them, so that a family may hold several roles."""
    if ".parametrizations." in words:
        return True
    leaf = NameParts.of(words, None).leaf
    is_of = leaf.endswith(("_u", "_v", "_g", "_mask"))
    is_beside = leaf in names.BESIDE_STATISTICS or leaf in names.BESIDE_SCALES or leaf in ("alpha", "betas")
    return is_of or is_beside or ("/vars/" in words and names.KERAS_NUMBERED.search(words) is not None)


def _state(at: NameParts, spec: Spec) -> Told | None:
    if at.leaf in names.SLOTS:
        return Told(Role.STATE, f"{at.leaf} is what an optimizer keeps of a parameter")
    if ("optim" in at.name or "opt_state" in at.name) and (found := names.OPTIMIZER.search(at.name)):
        return Told(Role.STATE, f"it lies under {found[0].strip('./')}")
    begin = names.TRAINING.match(at.name) or (None if spec.shape else names.TRAINING_SCALARS.match(at.name))
    if begin:
        return Told(Role.STATE, f"it lies under {begin[0].strip('./')}, which is of training")
    if not at.stem and not spec.shape and spec.dtype.is_float and names.TRAINING_FIGURES.fullmatch(at.name):
        return Told(Role.STATE, "a number outside all modules, called as a training's figures are")
    return None


def _statistic(at: NameParts) -> Told | None:
    if at.leaf in names.STATISTICS:
        return Told(Role.STATISTIC, f"it is called {at.leaf}")
    if at.name.startswith(names.FLAX_STATISTICS):
        return Told(Role.STATISTIC, "it lies under batch_stats")
    partners = names.BESIDE_STATISTICS.get(at.leaf, ())
    if at.has(*partners):
        return Told(Role.STATISTIC, f"{at.leaf} with {' or '.join(partners)} beside it")
    if "/vars/" in at.name and (found := names.KERAS_NUMBERED.search(at.name)):
        return _keras_variable(at, found)
    return None


def _keras_variable(at: NameParts, found: re.Match[str]) -> Told | None:
    """A numbered variable of Keras's normalisations: of BatchNormalization the last two are statistics."""
    if found["spectral"]:
        return Told(Role.VECTOR, "SpectralNormalization's own: the vector, and its layer's kernel once more")
    if found["all"]:
        return Told(Role.STATISTIC, "a variable of Keras's Normalization")
    number = found["number"]
    second_next = chr(ord(number) + 2)
    is_last = not at.has(second_next) if at.beside is not None else number in "23cd"
    return Told(Role.STATISTIC, "one of the last two variables of Keras's BatchNormalization") if is_last else None


def _vector(at: NameParts, spec: Spec) -> Told | None:
    """Spectral norm's u and v; the v of weight norm has the weight's axes, and a g beside it."""
    if names.PARAMETRIZED_VECTOR.search(at.name) or at.leaf in names.KERAS_VECTORS:
        return Told(Role.VECTOR, "a vector of spectral norm's power iteration")
    found = names.SPECTRAL.fullmatch(at.leaf)
    if found is None or (at.leaf.endswith("_v") and at.has(f"{found['of']}_g") and len(spec.shape) > 1):
        return None
    if at.has(f"{found['of']}_orig", f"{found['of']}_bar") or (at.beside is None and at.leaf == "weight_u"):
        return Told(Role.VECTOR, f"spectral norm's vector, beside the original of {found['of']!r}")
    return None


def _scale(at: NameParts, spec: Spec) -> Told | None:
    if spec.dtype.name == "float8_e8m0fnu":
        return Told(Role.SCALE, "its dtype holds powers of two only")
    if names.SCALES.fullmatch(at.leaf):
        return Told(Role.SCALE, f"{at.leaf} is what quantised values are multiplied by or moved by")
    partners = names.BESIDE_SCALES.get(at.leaf, ())
    return Told(Role.SCALE, f"{at.leaf} with {' or '.join(partners)} beside it") if at.has(*partners) else None


def _mask(at: NameParts, spec: Spec) -> Told | None:
    if at.leaf in names.MASKS:
        return Told(Role.MASK, f"it is called {at.leaf}")
    found = names.MASK_OF.fullmatch(at.leaf)
    if found and at.has(f"{found['of']}_orig"):
        return Told(Role.MASK, f"pruning's mask, beside the original of {found['of']!r}")
    shape = spec.shape
    is_square = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    if is_square and names.ATTENTION.search(at.name):
        return Told(Role.MASK, "an attention's bias of shape (1, 1, n, n) is its causal mask")
    return None


def _buffer(at: NameParts) -> Told | None:
    if at.leaf in names.BUFFERS or at.leaf.rstrip("0123456789") in names.BUFFERS:
        return Told(Role.BUFFER, f"it is called {at.leaf}")
    if names.ORTHOGONAL_BASE.search(at.name):
        return Told(Role.BUFFER, "the base of an orthogonal parametrisation")
    if at.name.endswith(names.GGUF_ROPE):
        return Told(Role.BUFFER, "a table of rotary frequencies")
    if at.leaf == "alpha" and at.has(*names.FACTORS):
        return Told(Role.BUFFER, "alpha with an adapter's factors beside it is their strength")
    if at.leaf == "betas" and at.has("alphas_cumprod"):
        return Told(Role.BUFFER, "betas with alphas_cumprod beside it are a schedule of noise")
    return None
