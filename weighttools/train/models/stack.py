"""Plain stacks of layers: weighted sums, and convolutions before them, with activations between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from weighttools.errors import SpecError
from weighttools.train.models.scope import Scope
from weighttools.train.ops import avg_pool, conv, linear, max_pool, mean, relu, transpose

Layout = Literal["torch", "keras"]
"""How kernels lie: torch (out, in, *window), Keras (*window, in, out)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A weighted sum, or a convolution where the window has axes.

    Parameters
    ----------
    weight, bias
        Their names; the bias may be None.
    n_in, n_out
        Features, or channels.
    window
        Sizes of a convolution's window.
    layout
        How the weight lies.
    """

    weight: str
    bias: str | None
    n_in: int
    n_out: int
    window: tuple[int, ...]
    layout: Layout

    def kernel(self, p: Mapping[str, Any]) -> Any:
        """Return the weight as torch lays it out."""
        w = Scope(p)[self.weight]
        if self.layout == "torch":
            return w
        return transpose(w, axes=(w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))

    def sum(self, p: Mapping[str, Any], x: Any) -> Any:
        """Return the weighted sum of the last axis."""
        return linear(x, self.kernel(p), *self._bias(p))

    def convolution(self, p: Mapping[str, Any], x: Any, padding: tuple[int, ...], stride: int) -> Any:
        """Return the convolution of (batch, channels, \\*space)."""
        return conv(x, self.kernel(p), *self._bias(p), padding=padding, stride=stride)

    def _bias(self, p: Mapping[str, Any]) -> list[Any]:
        return [Scope(p)[self.bias]] if self.bias else []


class ConvolutionStep(NamedTuple):
    """Padding and stride of a convolution, and the window of the pooling after it."""

    padding: tuple[int, ...]
    stride: int
    pool: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """What shapes of weights do not tell of a convolutional net.

    Parameters
    ----------
    padding
        ``"same"`` (half the window), ``"valid"`` (none), or how many zeros there are on every side.
    stride
        Of the convolutions: a number for all, or one for each.
    pool
        Maxima over windows of 2 after ``"each"`` convolution, after the ``"last"``, or ``"none"``; means with
        ``"mean-each"`` and ``"mean-last"``.
    flatten
        Whether the linear layers see every place (True) or the mean over all places.
    """

    padding: str | int = "valid"
    stride: int | tuple[int, ...] = 1
    pool: str = "none"
    flatten: bool = True

    @property
    def reduce(self) -> Callable[..., Any]:
        """Return what pooling does with a window."""
        return avg_pool if self.pool.startswith("mean-") else max_pool

    def plan(self, convolutions: Sequence[Layer]) -> list[ConvolutionStep]:
        """Return what is done by each convolution."""
        n = len(convolutions)
        pooled = {"each": range(n), "last": (n - 1,), "none": ()}[self.pool.removeprefix("mean-")]
        strides = (self.stride,) * n if isinstance(self.stride, int) else self.stride
        if len(strides) != n:
            raise SpecError(f"{len(strides)} strides for {n} convolutions", expected="one, or one for each")
        return [
            ConvolutionStep(self._border(layer, stride), stride, 2 if i in pooled else 1)
            for i, (layer, stride) in enumerate(zip(convolutions, strides, strict=True))
        ]

    def _border(self, layer: Layer, stride: int) -> tuple[int, ...]:
        if isinstance(self.padding, int):
            return (self.padding,) * len(layer.window)
        if self.padding == "same" and stride > 1 and layer.layout == "keras":
            fact = "Keras pads one side more than the other where it strides"
            raise SpecError(fact, subject=layer.weight, expected="padding 'valid'", remedy="write the net's function")
        return tuple(n // 2 if self.padding == "same" else 0 for n in layer.window)

    def n_features(self, convolutions: Sequence[Layer], space: tuple[int, ...]) -> int:
        """Return what an input of `space` comes to before the linear layers; 0 where it is too small."""
        for layer, (padding, stride, pool) in zip(convolutions, self.plan(convolutions), strict=True):
            sizes = zip(space, padding, layer.window, strict=True)
            space = tuple(((s + 2 * p - n) // stride + 1) // pool for s, p, n in sizes)
            if min(space) < 1:
                return 0
        n = convolutions[-1].n_out
        for s in space if self.flatten else ():
            n *= s
        return n


def fitting(
    convolutions: Sequence[Layer], n_features: int, space: tuple[int, ...], said: Mapping[str, Any]
) -> Geometry:
    """Return the one geometry that makes `n_features` of an input of `space`.

    Parameters
    ----------
    said
        Fields of `Geometry` that are known.

    Raises
    ------
    SpecError
        None does, or several do.
    """
    found: dict[Any, Geometry] = {}
    for one in _geometries(said):
        if one.n_features(convolutions, space) == n_features:
            found.setdefault((tuple(one.plan(convolutions)), one.flatten or n_features == 1), one)
    if len(found) != 1:
        listed = "; ".join(f"padding={g.padding!r}, pool={g.pool!r}, flatten={g.flatten}" for g in found.values())
        other = "give the size that the net was made for, say stride=…, padding=…, pool=…, or write its function"
        raise SpecError(
            f"an input of {' × '.join(map(str, space))} can come to {n_features} features in {len(found)} ways",
            expected="one",
            remedy=f"say which: {listed}" if found else other,
        )
    return next(iter(found.values()))


def _geometries(said: Mapping[str, Any]) -> Iterator[Geometry]:
    choices = [(said[name],) if said.get(name) is not None else values for name, values in TRIED.items()]
    return (Geometry(*each) for each in itertools.product(*choices))


TRIED: Mapping[str, tuple[Any, ...]] = {
    "padding": ("valid", "same"),
    "stride": (1,),
    "pool": ("none", "each", "last"),
    "flatten": (True, False),
}
"""What an input's size may tell apart, in `Geometry`'s order. It tells neither strides nor means from maxima."""


def features(
    p: Mapping[str, Any],
    x: Any,
    *,
    convolutions: Sequence[Layer],
    sums: Sequence[Layer],
    activation: Callable[[Any], Any] = relu,
    said: Mapping[str, Any] | None = None,
) -> Any:
    """Return what goes into the last weighted sum, (batch, n).

    Parameters
    ----------
    x
        (batch, features); before convolutions (batch, channels, \\*space), or channels last for Keras's layout.
    """
    if convolutions:
        x = _convolved(p, x, convolutions, sums, activation, said or {})
    for layer in sums[:-1]:
        x = activation(layer.sum(p, x))
    return x


def _convolved(p: Any, x: Any, convolutions: Any, sums: Any, activation: Any, said: Mapping[str, Any]) -> Any:
    is_last, n = convolutions[0].layout == "keras", len(convolutions[0].window)
    if x.ndim != n + 2:
        raise SpecError(f"inputs of {x.ndim} axes", expected=f"{n + 2}: batch, channels and {n} of space")
    x = x.transpose(0, n + 1, *range(1, n + 1)) if is_last else x
    geometry = fitting(convolutions, sums[0].n_in, tuple(x.shape[2:]), said)
    for layer, (padding, stride, pool) in zip(convolutions, geometry.plan(convolutions), strict=True):
        x = activation(layer.convolution(p, x, padding, stride))
        x = geometry.reduce(x, size=pool) if pool > 1 else x
    if not geometry.flatten:
        return mean(x, axis=tuple(range(2, n + 2)))
    x = x.transpose(0, *range(2, n + 2), 1) if is_last else x
    return x.reshape(x.shape[0], -1)
