"""The function of a plain stack of layers, found from the names and shapes of its tensors alone."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weighttools.errors import SpecError
from weighttools.train.models.architecture import BUFFERS, Architecture
from weighttools.train.models.config import unknown
from weighttools.train.models.settings import ACTIVATIONS
from weighttools.train.models.stack import Layer, Layout, features

Shape = tuple[int, ...]

_NAME = re.compile(
    r"(?P<stem>.*?)(?P<leaf>weights?|kernel|vars/0|coefs?_?|[wW]|bias(?:es)?|vars/1|intercepts?_?|b)"
    r"(?P<number>[._]?\d*)(?::0)?"
)
_OTHER = re.compile(r"(.*/)?(optimizer|optimizer_weights|top_level_model_weights|seed_generator)/.*")
"""What Keras files hold beside a model's weights."""
_LAYOUTS: Mapping[str, Layout] = {"weight": "torch", "kernel": "keras", "vars/0": "keras"}
"""By the last part of a weight's name; other names do not tell."""
_BIASES = ("b", "bias", "biases", "vars/1", "intercept", "intercepts", "intercept_", "intercepts_")
_MOST, _FEW = 256, 8


def from_shapes(
    specs: Mapping[str, Any],
    *,
    order: Sequence[str] | None = None,
    activation: str | Callable[[Any], Any] | None = None,
    layout: Layout | None = None,
    padding: str | int | None = None,
    stride: int | Sequence[int] | None = None,
    pool: str | None = None,
    flatten: bool | None = None,
) -> Architecture:
    """Return the function of a chain of layers: a regression, an MLP, or a small convolutional net.

    Parameters
    ----------
    specs
        Tensor names to shapes, or to whatever has a ``shape``.
    order
        The weights' names, first to last, where the shapes fit in more than one order.
    activation
        What stands between the layers; files do not say, and None takes ReLU. After the last there is none.
    layout
        ``"torch"`` (out, in) or ``"keras"`` (in, out), where neither names nor shapes tell.
    padding, stride, pool, flatten
        Of a convolutional net, as `stack.Geometry` has them. None: what makes an input's size come to the features of
        the first weighted sum, with a stride of 1 and maxima; what is taken for granted is in ``assumed``.

    Returns
    -------
    Architecture
        Of kind ``"mlp"`` or ``"cnn"``: a function of arrays (batch, features), (batch, channels, \\*space), or
        (batch, \\*space, channels) for Keras's layout.

    Raises
    ------
    UnsupportedError
        Tensors that are part of no such chain: it names them, and how to write a function.
    SpecError
        The shapes do not fit, or in several orders.

    Examples
    --------
    >>> net = from_shapes({"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)})
    >>> net.kind, net.size, net.n_layers
    ('mlp', 8, 2)
    """
    shapes = {name: tuple(getattr(spec, "shape", spec)) for name, spec in specs.items() if not _is_counter(spec)}
    layers = _ordered(_layers(shapes, layout), list(shapes), order)
    convolutions = [layer for layer in layers if layer.window]
    sums = layers[len(convolutions) :]
    between = "relu" if activation is None else activation
    act = ACTIVATIONS.get(between) if isinstance(between, str) else between
    if act is None:
        raise SpecError(f"activation {between!r}", expected=", ".join(ACTIVATIONS))
    steps = stride if stride is None or isinstance(stride, int) else tuple(stride)
    said = {"padding": padding, "stride": steps, "pool": pool, "flatten": flatten}
    _check_said(said, bool(convolutions))
    kind, last = "cnn" if convolutions else "mlp", sums[-1]
    return Architecture(
        family=kind,
        kind=kind,
        prefix="",
        size=last.n_in,
        n_layers=len(layers),
        body=functools.partial(_body, convolutions=convolutions, sums=sums, activation=act, said=said),
        output=last.sum,
        pooler=None,
        required=tuple(n for layer in layers for n in (layer.weight, layer.bias) if n),
        optional=(),
        assumed=(*_assumed_activation(activation, layers), *(_assumed_geometry(said) if convolutions else ())),
    )


def _assumed_activation(activation: Any, layers: Sequence[Layer]) -> list[str]:
    return ["relu between the layers"] if activation is None and len(layers) > 1 else []


def _assumed_geometry(said: Mapping[str, Any]) -> list[str]:
    words = {"padding": "padding", "pool": "pooling (maxima of 2)", "flatten": "flattening"}
    fitted = [word for name, word in words.items() if said[name] is None]
    found = [] if said["stride"] is not None else ["stride 1"]
    return [*found, f"{', '.join(fitted)} by the size of the inputs"] if fitted else found


def _is_counter(spec: Any) -> bool:
    """Whether a tensor is one integer, such as a number of steps, which no layer uses."""
    if getattr(spec, "shape", None) != ():
        return False
    return not getattr(spec.dtype, "is_float", getattr(spec.dtype, "kind", "") == "f")


def _body(p: Mapping[str, Any], x: Any, mask: Any = None, **options: Any) -> Any:
    return features(p, x, **options)


def _check_said(said: Mapping[str, Any], has_convolutions: bool) -> None:
    if not has_convolutions and (given := [name for name, value in said.items() if value is not None]):
        raise SpecError(f"{given[0]} {said[given[0]]!r}", expected="a net with convolutions")
    for name, (is_known, expected) in _KNOWN.items():
        if said[name] is not None and not is_known(said[name]):
            raise SpecError(f"{name} {said[name]!r}", expected=expected)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_strides(value: Any) -> bool:
    return all(_is_count(one, 1) for one in (value if isinstance(value, tuple) else (value,)))


_POOLS = ("none", "each", "last", "mean-each", "mean-last")
_KNOWN: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "padding": (lambda value: value in ("valid", "same") or _is_count(value, 0), "'valid', 'same' or a number"),
    "stride": (_are_strides, "a number of 1 or more, or one for each convolution"),
    "pool": (lambda value: value in _POOLS, ", ".join(map(repr, _POOLS))),
    "flatten": (lambda value: isinstance(value, bool), "True, False"),
}
"""What may be said of a convolutional net, and how it is told."""


def _layers(shapes: Mapping[str, Shape], layout: Layout | None) -> list[Layer]:
    """Pair weights and biases by name. What is neither is an error."""
    weights: dict[tuple[str, str], str] = {}
    biases: dict[tuple[str, str], str] = {}
    strange = []
    for name, shape in shapes.items():
        found = _NAME.fullmatch(name)
        if BUFFERS.fullmatch(name) or _OTHER.fullmatch(name):
            continue
        is_bias = found is not None and found["leaf"] in _BIASES
        if found is None or 0 in shape or (len(shape) != 1 if is_bias else not 2 <= len(shape) <= 4):
            strange.append(name)
        else:
            (biases if is_bias else weights)[found["stem"], found["number"]] = name
    strange += [name for key, name in biases.items() if key not in weights]
    if strange or not weights or len(weights) > _MOST:
        what = f"tensors not understood: {', '.join(strange[:3])}" if strange else f"{len(weights)} weights"
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        expected = "weights and their biases only, and config.json of a known family otherwise"
        raise unknown(f"no chain of layers: {what}{more}", list(shapes), _norm(strange) or expected)
    return [_layer(shapes, name, biases.get(key), layout) for key, name in weights.items()]


def _norm(names: Sequence[str]) -> str:
    """Return what a batch norm computes, if the names are of one: no file says its eps, nor where it stands."""
    means = (name for name in names if name.endswith(".running_mean"))
    stem = next((name.removesuffix("running_mean") for name in means), None)
    if stem is None:
        return ""
    mean, variance, weight, bias = (f"p['{stem}{end}']" for end in ("running_mean", "running_var", "weight", "bias"))
    return f"no batch norm, which is (x - {mean}) / sqrt({variance} + eps) * {weight} + {bias} for each channel"


def _layer(shapes: Mapping[str, Shape], weight: str, bias: str | None, layout: Layout | None) -> Layer:
    shape, n_bias = shapes[weight], shapes[bias][0] if bias else None
    found = _NAME.fullmatch(weight)
    assert found is not None
    known = layout or _LAYOUTS.get(found["leaf"])
    if known is None:  # then the bias has to tell
        fits: list[Layout] = [one for one in ("torch", "keras") if n_bias == _sizes(shape, one)[1]]
        if len(fits) != 1:
            raise SpecError(
                f"{'×'.join(map(str, shape))} may be (out, in) or (in, out)", subject=weight, remedy="say which layout"
            )
        known = fits[0]
    n_in, n_out, window = _sizes(shape, known)
    if n_bias not in (None, n_out):
        raise SpecError(f"a bias of {n_bias}", subject=bias, expected=f"{n_out}, as {weight} gives in {known}'s layout")
    return Layer(weight, bias, n_in, n_out, window, known)


def _sizes(shape: Shape, layout: Layout) -> tuple[int, int, Shape]:
    """Return what goes in, what comes out, and the window."""
    return (shape[1], shape[0], shape[2:]) if layout == "torch" else (shape[-2], shape[-1], shape[:-2])


def _ordered(layers: list[Layer], names: list[str], order: Sequence[str] | None) -> list[Layer]:
    """Return the layers from input to output."""
    if order is not None:
        by_name = {layer.weight: layer for layer in layers}
        if sorted(order) != sorted(by_name):
            raise SpecError("order names other weights than the file has", expected=", ".join(by_name))
        return _chained([by_name[name] for name in order])
    natural = sorted(layers, key=_natural)
    stems = {(bool(layer.window), re.sub(r"_?\d+", "", layer.weight)) for layer in layers}
    if len(stems) == len({layer.window == () for layer in layers}) and _is_chain(natural):
        return natural  # the names differ in their numbers only
    if names != sorted(names) and _is_chain(layers):
        return layers  # the file has an order of its own
    found = list(itertools.islice(_chains(layers), 2))
    if len(found) == 2:
        listed = ", ".join(layer.weight for layer in layers)
        raise SpecError("the layers fit in more than one order", subject=listed, remedy="say order=[…]")
    return found[0] if found else _chained(layers)


def _natural(layer: Layer) -> tuple[bool, list[Any]]:
    """Return a key that sorts convolutions first, and then numbers in names as numbers."""
    return not layer.window, [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", layer.weight)]


def _fits(a: Layer, b: Layer) -> bool:
    """Return whether `b` may follow `a`: the places of an image may become features."""
    if a.window and not b.window:
        return b.n_in % a.n_out == 0
    return a.n_out == b.n_in and len(a.window) == len(b.window)


def _is_chain(layers: Sequence[Layer]) -> bool:
    return not layers[-1].window and all(_fits(a, b) for a, b in itertools.pairwise(layers))


def _chained(layers: list[Layer]) -> list[Layer]:
    for a, b in itertools.pairwise(layers):
        if not _fits(a, b):
            raise SpecError(
                f"{a.weight} gives {a.n_out}, and {b.weight} takes {b.n_in}",
                remedy="say order=[…], or write a function",
            )
    if layers[-1].window:
        raise SpecError("no weighted sum at the end", subject=layers[-1].weight, remedy="write a function")
    return layers


def _chains(layers: list[Layer]) -> Iterator[list[Layer]]:
    """Yield every order in which the layers fit; of many layers only whether there is more than one."""
    if len(layers) > _FEW:
        kinds = {(layer.n_in, layer.n_out, layer.window) for layer in layers}
        yield from [layers] * (1 + (len(kinds) < len(layers))) if _is_chain(layers) else []
        return

    def grown(chain: list[Layer]) -> Iterator[list[Layer]]:
        rest = [layer for layer in layers if layer not in chain]
        if not rest and _is_chain(chain):
            yield chain
        for layer in rest:
            if not chain or _fits(chain[-1], layer):
                yield from grown([*chain, layer])

    yield from grown([])
