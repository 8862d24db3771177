"""What a tensor is, told by its name, its rank and its siblings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weighttools.core.tensormap import TensorMap
from weighttools.families.parameters import parameter
from weighttools.families.role_types import Role
from weighttools.families.roles import aside
from weighttools.transforms import layout_tables as tables
from weighttools.transforms.layout_names import Named, names_of

Shape = tuple[int, ...]

RECURRENT = "a recurrent or fused attention layer, whose gates and biases differ between frameworks"
"""Why such a tensor is refused: no order of axes makes it what another framework has."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a tensor is taken for: a rule, or "" if that cannot be known; why; whether only because it is usual."""

    rule: str
    why: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """What guesses stand on: the frameworks, all names taken apart, and each module's tensors.

    Parameters
    ----------
    source, target
        Frameworks.
    named
        Names taken apart, aliases too.
    modules
        Module path to its tensors' shapes by leaf.
    integers
        Names of tensors that are no floating ones.
    aside
        What tensors are that no layer elsewhere has: an optimizer's, and scales of a training in float8.
    """

    source: str
    target: str
    named: Mapping[str, Named]
    modules: Mapping[tuple[str, ...], Mapping[str, Shape]]
    integers: frozenset[str]
    aside: Mapping[str, str]

    @classmethod
    def of(cls, tensor_map: TensorMap, source: str, target: str) -> Ground:
        """Take a map's names apart."""
        names = [*tensor_map, *tensor_map.aliases]
        named = names_of(tensor_map, source)
        modules: dict[tuple[str, ...], dict[str, Shape]] = {}
        for name in names:
            modules.setdefault(named[name].module, {})[named[name].leaf] = tensor_map[name].shape
        integers = frozenset(name for name in names if tensor_map[name].dtype.kind not in ("float", "complex"))
        told = ((name, _aside(name, source, tensor_map)) for name in names)
        return cls(source, target, named, modules, integers, {name: why for name, why in told if why})

    def siblings(self, named: Named) -> Mapping[str, Shape]:
        """Return the shapes of the tensors of the same module, by leaf."""
        return self.modules[named.module]

    def shape(self, named: Named) -> Shape:
        """Return a tensor's shape."""
        return self.modules[named.module][named.leaf]

    def n_bias(self, named: Named) -> int | None:
        """Return the length of the bias beside a tensor, if there is one and it is a vector."""
        bias = self.siblings(named).get("bias")
        return bias[0] if bias is not None and len(bias) == 1 else None


def _aside(name: str, source: str, tensor_map: TensorMap) -> str | None:
    found = aside(name, tensor_map[name].spec, tensor_map)
    if found is not None and found.role is Role.STATE:
        return "optimizer state, which another framework's optimizer cannot take up"
    if found is not None and found.role is Role.SCALE and source == "keras":  # the kernel is no integer: see `refuse`
        return "what Keras's training in float8 keeps of a layer, which layers elsewhere do not have"
    return None


def guess(ground: Ground, named: Named) -> Guess:
    """Say what a tensor is.

    Where the name's last part is of no rule, vectors, scalars and integers stay as they are: they have no axes to
    exchange.
    """
    if named.name in ground.aside:
        return Guess("drop", ground.aside[named.name])
    if _is_recurrent(ground, named):
        return Guess("", RECURRENT)
    found = _LEAVES[ground.source].get(named.leaf)
    if found is None:
        return _without_rule(ground, named)
    return Guess(found, f"it is called {named.leaf}") if isinstance(found, str) else found(ground, named)


def _without_rule(ground: Ground, named: Named) -> Guess:
    """Say what becomes of a tensor whose name's last part no rule has."""
    if named.module[-1:] == ("vars",) and named.name not in ground.integers:
        return Guess("", "a numbered variable of a layer whose variables are not known")
    if len(ground.shape(named)) < 2 or named.name in ground.integers:
        return Guess("keep", "no rule has its name, and it has no axes that differ")
    return Guess("", f"{ground.source} layers have no {named.leaf!r} of {len(ground.shape(named))} axes")


def _is_recurrent(ground: Ground, named: Named) -> bool:
    """Whether a tensor is a recurrent layer's; a Keras path goes through its cell, whatever the layer is called."""
    places = (named.leaf, "/".join(named.module), *([named.name] if ground.source == "keras" else []))
    return any(tables.RECURRENT.search(place) for place in places)


def _weight(ground: Ground, named: Named) -> Guess:
    """A torch or MLX ``weight``, by its rank."""
    rank = len(ground.shape(named))
    return {1: _scale, 2: _matrix}.get(rank, _convolution if 3 <= rank <= 5 else _of_odd_rank)(ground, named)


def _of_odd_rank(ground: Ground, named: Named) -> Guess:
    return Guess("", f"a {named.leaf} of shape {ground.shape(named)}")


def _scale(ground: Ground, named: Named) -> Guess:
    siblings = ground.siblings(named)
    if "running_mean" in siblings:
        return Guess("norm", "it has running statistics beside it")
    if _is(named, Role.NORM):
        return Guess("norm", f"its layer is called {named.layer}")
    if siblings.get("bias") == ground.shape(named):
        return Guess("norm", "a vector with a bias of the same length")
    return Guess("", "a vector `weight` without a bias: a norm's scale, or a PReLU's slope?")


def _matrix(ground: Ground, named: Named) -> Guess:
    """A two-dimensional ``weight``: Linear, Embedding, or Hugging Face's Conv1D, which is (in, out)."""
    (n_out, n_in), bias = ground.shape(named), ground.n_bias(named)
    if bias is None:
        return _matrix_by_name(named)
    if ground.source == "torch" and tables.GPT2.search(named.layer):
        return _gpt2(ground, named)
    if bias == n_out:
        return Guess("linear", "its bias has the length of its first axis")
    if bias == n_in and ground.source == "torch":
        return Guess("linear_in_out", "its bias has the length of its last axis")
    return Guess("", f"its bias has {bias} elements, its shape is {(n_out, n_in)}")


def _matrix_by_name(named: Named) -> Guess:
    embedding, linear = _is(named, Role.EMBEDDING), tables.LINEAR.search(named.layer) is not None
    if embedding == linear or (linear and "emb" in named.layer):  # embed_out: the name says both, so neither for sure
        return Guess("", "a two-dimensional `weight` without a bias: Linear or Embedding?")
    return Guess("embedding" if embedding else "linear", f"its layer is called {named.layer}")


def _is(named: Named, role: Role) -> bool:
    """Whether a parameter has a role, by the names of its modules."""
    return parameter(".".join((*named.module, named.leaf)), ()).role is role


def _gpt2(ground: Ground, named: Named) -> Guess:
    """GPT-2's layer names: (in, out) in Hugging Face's, (out, in) elsewhere; the ones that are not square tell."""
    verdicts = set()
    for module, leaves in ground.modules.items():
        weight, bias = leaves.get("weight", ()), leaves.get("bias", ())
        if module and tables.GPT2.search(module[-1]) and len(weight) == 2 and len(bias) == 1 and weight[0] != weight[1]:
            verdicts.add("linear" if bias[0] == weight[0] else "linear_in_out" if bias[0] == weight[1] else "")
    if len(verdicts) == 1 and "" not in verdicts:
        return Guess(verdicts.pop(), "so the biases of the layers called c_attn, c_proj and c_fc say")
    return Guess("", "GPT-2's layer names, and the biases do not say whether they are (in, out)")


def _convolution(ground: Ground, named: Named) -> Guess:
    """A ``weight`` of 3 to 5 axes. In torch the first is the output, or the input of a transposed convolution."""
    shape, bias = ground.shape(named), ground.n_bias(named)
    n = len(shape) - 2
    transposed = tables.TRANSPOSED.search(named.layer) is not None
    n_out, other = shape[0], shape[1] if ground.source == "torch" else shape[0]
    if bias is not None and bias not in (n_out, other):
        return Guess("", f"its bias has {bias} elements, its shape is {shape}")
    if bias is not None and n_out != other and transposed != (bias == other):
        if transposed:
            return Guess("", f"its name says transposed, its bias of {bias} elements does not")
        return Guess(f"conv_transpose{n}d", "its bias has the length of its second axis")
    if transposed:
        return Guess(f"conv_transpose{n}d", f"its layer is called {named.layer}")
    narrow = shape[1] == 1 if ground.source == "torch" else shape[-1] == 1
    if narrow and ground.target == "keras" and n_out > 1:
        return _depthwise(named, n)
    said = bias is not None and n_out != other
    why = "its bias has the length of its first axis" if said else "its rank; nothing says that it is transposed"
    return Guess(f"conv{n}d", why, assumed=not said and "conv" not in named.layer)


def _depthwise(named: Named, n: int) -> Guess:
    """One input to each output: depthwise, or an ordinary convolution of one channel; Keras stores them differently."""
    path = "/".join(named.module)
    if n < 3 and tables.DEPTHWISE.search(path):
        return Guess(f"depthwise{n}d:1", "its name says depthwise; a depth multiplier of 1 is assumed", assumed=True)
    return Guess("", f"one input to each output: conv{n}d of a single channel, or depthwise{min(n, 2)}d?")


def _torch_bias(ground: Ground, named: Named) -> Guess:
    siblings = ground.siblings(named)
    weight = siblings.get("weight")
    if len(ground.shape(named)) != 1:
        return Guess("", f"a bias of shape {ground.shape(named)}")
    if "running_mean" in siblings or (weight is not None and len(weight) == 1):
        return Guess("norm_bias", "it stands beside a norm's scale or statistics")
    if weight is None and _is(Named(named.name, named.module, "weight"), Role.NORM):
        return Guess("norm_bias", f"its layer is called {named.layer}")
    return Guess("bias", "it is called bias")


def _kernel(ground: Ground, named: Named) -> Guess:
    """A Keras or Flax ``kernel``, by its rank."""
    shape, bias = ground.shape(named), ground.siblings(named).get("bias")
    n = len(shape) - 2
    if "recurrent_kernel" in ground.siblings(named):
        return Guess("", RECURRENT)
    if bias is not None and len(bias) != 1:
        return Guess("", f"a kernel with a bias of shape {bias}: attention or einsum?")
    if not 0 <= n <= 3 or (n == 1 and tables.ATTENTION.search(named.layer)):
        return Guess("", f"a kernel of {len(shape)} axes: attention or einsum?")
    n_bias = None if bias is None else bias[0]
    return _kernel_of_convolution(ground, named, n, n_bias) if n else _kernel_matrix(shape, n_bias)


def _kernel_matrix(shape: Shape, bias: int | None) -> Guess:
    if bias in (None, shape[1]):
        return Guess("linear", "a matrix called kernel")
    return Guess("", f"its bias has {bias} elements, its shape is {shape}")


def _kernel_of_convolution(ground: Ground, named: Named, n: int, bias: int | None) -> Guess:
    shape, path = ground.shape(named), "/".join(named.module)
    (n_in, n_out), keras = shape[-2:], ground.source == "keras"
    if tables.TRANSPOSED.search(path):
        return Guess(f"conv_transpose{n}d", "its name says transposed")
    if keras and n < 3 and tables.DEPTHWISE.search(path):
        agrees = bias in (None, n_in * n_out)
        return Guess(f"depthwise{n}d:{n_out}" if agrees else "", f"its name says depthwise, its bias is {bias}")
    if bias not in (None, n_out):
        return Guess("", f"its bias has {bias} elements, its shape is {shape}: transposed or depthwise?")
    if not keras and n_in == 1 and n_out > 1 and ground.target == "keras":
        return _depthwise(named, n)
    if bias is None and keras and n_out == 1 and n_in > 1:
        return Guess("", f"one output to each input: conv{n}d with a single filter, or depthwise{min(n, 2)}d?")
    why = "its rank; nothing says that it is transposed" if bias is None else "its bias has the length of its last axis"
    return Guess(f"conv{n}d", why, assumed=bias is None and "conv" not in path.lower())


def _depthwise_kernel(ground: Ground, named: Named) -> Guess:
    shape = ground.shape(named)
    if "pointwise_kernel" in ground.siblings(named) or len(shape) not in (3, 4):
        return Guess("", "a separable convolution, which is two layers elsewhere")
    return Guess(f"depthwise{len(shape) - 2}d:{shape[-1]}", "it is called depthwise_kernel")


def _separable(ground: Ground, named: Named) -> Guess:
    return Guess("", "a separable convolution, which is two layers elsewhere")


def _flax_bias(ground: Ground, named: Named) -> Guess:
    siblings = ground.siblings(named)
    if len(ground.shape(named)) != 1:
        return Guess("", f"a bias of shape {ground.shape(named)}: attention or einsum?")
    norm = "scale" in siblings or "mean" in siblings
    return Guess("norm_bias", "it stands beside a norm's scale") if norm else Guess("bias", "it is called bias")


def _keras_bias(ground: Ground, named: Named) -> Guess:
    if len(ground.shape(named)) != 1:
        return Guess("", f"a bias of shape {ground.shape(named)}: attention, einsum or a recurrent layer?")
    return Guess("bias", "it is called bias")


Told = Callable[[Ground, Named], Guess]

_TORCH: dict[str, str | Told] = {
    "weight": _weight,
    "bias": _torch_bias,
    "running_mean": "mean",
    "running_var": "variance",
    "num_batches_tracked": "count",
}
_KERAS: dict[str, str | Told] = {
    "kernel": _kernel,
    "bias": _keras_bias,
    "gamma": "norm",
    "beta": "norm_bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
    "embeddings": "embedding",
    "depthwise_kernel": _depthwise_kernel,
    "pointwise_kernel": _separable,
}
_FLAX: dict[str, str | Told] = {
    "kernel": _kernel,
    "bias": _flax_bias,
    "scale": "norm",
    "mean": "mean",
    "var": "variance",
    "embedding": "embedding",
}
_LEAVES = {"torch": _TORCH, "mlx": _TORCH, "keras": _KERAS, "flax": _FLAX}
