"""Which framework a map comes from, told by its names, its metadata and the shapes of its convolutions."""

from __future__ import annotations

from collections import Counter

from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, option
from weighttools.transforms import layout_tables as tables
from weighttools.transforms.layout_names import COLLECTIONS
from weighttools.transforms.layout_roles import Shape

_FORMATS = {
    "pytorch": "torch",
    "pt": "torch",
    "keras": "keras",
    "tf": "keras",
    "flax": "flax",
    "mlx": "mlx",
}
_OWN = {
    "keras": ("gamma", "beta", "moving_mean", "moving_variance", "embeddings", "depthwise_kernel", "recurrent_kernel"),
    "flax": ("scale", "embedding", "mean", "var"),
}


def detect(tensor_map: TensorMap) -> tuple[str, list[str]]:
    """Find out which framework a map comes from, and what says so.

    Raises
    ------
    SpecError
        Nothing does, or two frameworks are as likely.
    """
    leaves = Counter(name.replace(".", "/").rpartition("/")[2].removesuffix(":0") for name in tensor_map)
    n_weights, n_kernels = leaves["weight"] + leaves["running_mean"], leaves["kernel"]
    own = {framework: sum(leaves[leaf] for leaf in mine) for framework, mine in _OWN.items()}
    own["flax"] += sum(name.split("/")[0] in COLLECTIONS for name in tensor_map)
    own["keras"] += sum("/vars/" in name for name in tensor_map)
    others = n_kernels + max(own.values())
    if n_weights == others:
        raise _unknown(f"{n_weights} tensors are called weight, {others} as Keras or Flax call theirs")
    said = _said(tensor_map)
    if n_weights > others:
        return _torch_or_mlx(tensor_map, said, f"{n_weights:,} tensors are called weight or running_mean")
    if said and said[0] in ("keras", "flax"):
        return said[0], [said[1]]
    if own["keras"] != own["flax"]:
        best = max(own, key=lambda framework: own[framework])
        return best, [f"{own[best]:,} names are as {best.title()} gives them"]
    raise _unknown("kernels alone do not tell Keras from Flax")


def _said(tensor_map: TensorMap) -> tuple[str, str] | None:
    """What the file's metadata or format says of its framework."""
    told = tensor_map.metadata.get("format")
    if isinstance(told, str) and told in _FORMATS:
        return _FORMATS[told], f"the metadata says format {told}"
    versions = [key for key in tensor_map.metadata if "keras" in key]
    if versions:
        return "keras", f"the metadata has {versions[0]}"
    kind = tensor_map.origin.format
    return (_FORMATS[kind], f"the file is {kind}") if kind in _FORMATS else None


def _torch_or_mlx(tensor_map: TensorMap, said: tuple[str, str] | None, evidence: str) -> tuple[str, list[str]]:
    """Tell torch from MLX, which differ in convolutions only: channels second, or last."""
    if said and said[0] in ("torch", "mlx"):
        return said[0], [evidence, said[1]]
    votes = Counter(_vote(tensor_map[name].shape) for name in tensor_map if name.endswith("weight"))
    if "num_batches_tracked" in {name.rpartition(".")[2] for name in tensor_map}:
        return "torch", [evidence, "num_batches_tracked is torch's"]
    if not any(votes[key] for key in ("torch", "mlx", "either")):
        return "torch", [evidence, "no convolution, so torch and MLX are the same"]
    if votes["torch"] and not votes["mlx"]:
        return "torch", [evidence, f"{votes['torch']:,} convolutions have their channels second"]
    if votes["mlx"] and not votes["torch"]:
        return "mlx", [evidence, f"{votes['mlx']:,} convolutions have their channels last"]
    raise _unknown("the convolutions do not tell torch from MLX")


def _vote(shape: Shape) -> str:
    """Which framework a convolution's shape speaks for: windows are square, as a rule, and differ from channels."""
    if len(shape) not in (3, 4, 5):
        return ""
    if len(shape) == 3:
        return "either"
    last_square, middle_square = len(set(shape[2:])) == 1, len(set(shape[1:-1])) == 1
    if last_square == middle_square:
        return "either"
    return "torch" if last_square else "mlx"


def _unknown(fact: str) -> SpecError:
    return SpecError(
        f"the source's layout cannot be told: {fact}",
        remedy=f"say it: {option('layout_from')} {'|'.join(tables.FRAMEWORKS)}",
    )
