"""Activation functions: fused kernels that fill the value and the derivative in one sweep through the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from weighttools.train.autograd.arithmetic import Result
from weighttools.train.autograd.gradients import Array
from weighttools.train.autograd.operands import floats
from weighttools.train.autograd.variable import operation
from weighttools.train.parallel import CHEAP, blocks, scratch, spread
from weighttools.transforms import initializer_ranges as ranges

Kernel = Callable[[Array, Array, Array | None, Array, Array], None]
"""``kernel(x, y, d, t, u)`` fills y and, unless it is None, dy/dx; t and u are scratch. All flat and of one length."""

OutputKernel = Callable[[Array, Array], None]
"""``kernel(x, out)`` fills `out`. Both flat and of one length."""

_EXP_LIMIT = {"f": 88.0, "d": 700.0}
"""Where exp nears the largest finite number, by dtype character."""


def _pointwise(kernel: Kernel, doc: str) -> Callable[..., Any]:
    name = kernel.__name__.strip("_")

    def f(x: Array, /, *, keep: bool) -> Result:
        floats(name, x)
        y = np.empty(x.shape, x.dtype)
        d = np.empty(x.shape, x.dtype) if keep else None
        flat_x, flat_y, flat_d = x.reshape(-1), y.reshape(-1), None if d is None else d.reshape(-1)

        def sweep(start: int, stop: int) -> None:
            t, u = scratch((stop - start,), 2, x.dtype)
            kernel(flat_x[start:stop], flat_y[start:stop], None if flat_d is None else flat_d[start:stop], t, u)

        spread(sweep, blocks(x.size))
        return y, lambda dy, need: (_scale(d, dy),)

    f.__name__, f.__doc__ = name, doc
    return operation(f)


def _scale(d: Any, dy: Array) -> Any:
    """Multiply `d` by `dy` in place."""
    flat_d, flat_dy = d.reshape(-1), dy.reshape(-1)

    def kernel(start: int, stop: int) -> None:
        flat_d[start:stop] *= flat_dy[start:stop]

    spread(kernel, blocks(d.size, split=CHEAP))
    return d


def _by_output(value: OutputKernel, slope: OutputKernel, doc: str) -> Callable[..., Any]:
    """Make an operation whose derivative is a function of its result, which the next operation keeps anyway."""

    name = value.__name__.strip("_")

    def f(x: Array, /) -> Result:
        return _from_output(name, x, value, slope)

    f.__name__, f.__doc__ = name, doc
    return operation(f)


def _from_output(name: str, x: Array, value: OutputKernel, slope: OutputKernel) -> Result:
    floats(name, x)
    y = _swept(value, x)
    return y, lambda dy, need: (_swept(slope, y, dy),)


def _swept(kernel: OutputKernel, x: Array, times: Array | None = None) -> Array:
    """Return the kernel's values, times another array, block by block."""
    y = np.empty(x.shape, x.dtype)
    flat_x, flat_y, flat_t = x.reshape(-1), y.reshape(-1), None if times is None else times.reshape(-1)

    def sweep(start: int, stop: int) -> None:
        out = flat_y[start:stop]
        kernel(flat_x[start:stop], out)
        if flat_t is not None:
            out *= flat_t[start:stop]

    spread(sweep, blocks(x.size, split=CHEAP))
    return y


def _relu(x: Array, out: Array) -> None:
    out.fill(0)
    np.maximum(x, out, out=out)  # by the scalar 0 takes three times as long


def _relu_slope(y: Array, out: Array) -> None:
    np.greater(y, 0, out=out, casting="unsafe")


def _leaky_relu(x: Array, out: Array, below: float) -> None:
    np.multiply(x, below, out=out)
    np.copyto(out, x, where=x > 0)


def _leaky_relu_slope(y: Array, out: Array, below: float) -> None:
    out.fill(below)
    np.copyto(out, 1, where=y > 0)


def _elu(x: Array, out: Array, alpha: float) -> None:
    out.fill(0)
    np.minimum(x, out, out=out)
    np.expm1(out, out=out)
    out *= alpha
    np.copyto(out, x, where=x > 0)


def _elu_slope(y: Array, out: Array, alpha: float) -> None:
    np.add(y, alpha, out=out)
    np.copyto(out, 1, where=y > 0)


def _tanh(x: Array, out: Array) -> None:
    np.tanh(x, out=out)


def _tanh_slope(y: Array, out: Array) -> None:
    np.multiply(y, y, out=out)
    np.subtract(1, out, out=out)


def _sigmoid(x: Array, out: Array) -> None:
    logistic(x, out)


def logistic(x: Array, out: Array) -> None:
    """Fill `out` with 1 / (1 + exp(-x)); beyond 88 from 0 (float64: 700) the value stays that of the bound."""
    limit = _EXP_LIMIT[x.dtype.char]
    np.clip(x, -limit, limit, out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    out += 1
    np.divide(1, out, out=out)


def _sigmoid_slope(y: Array, out: Array) -> None:
    np.subtract(1, y, out=out)
    out *= y


def _silu(x: Array, y: Array, d: Array | None, t: Array, u: Array) -> None:
    logistic(x, t)
    np.multiply(x, t, out=y)
    if d is not None:  # s (1 + x (1 - s)) = s + y (1 - s)
        np.subtract(1, t, out=d)
        d *= y
        d += t


_ERF_7_1_26 = tuple(a / 2 for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


def _normal_cdf_f32(x: Array, out: Array, density: Array, t: Array) -> None:
    """Fill `out` with the normal distribution function of x and `density` with exp(-x**2 / 2).

    Abramowitz and Stegun 7.1.26, absolute error 1.5e-7: one exponential serves the value and the derivative.
    """
    np.abs(x, out=out)
    np.multiply(out, 0.3275911 * math.sqrt(0.5), out=t)
    t += 1
    np.divide(1, t, out=t)
    np.multiply(x, x, out=density)
    density *= -0.5
    np.exp(density, out=density)
    np.multiply(t, _ERF_7_1_26[4], out=out)
    for a in _ERF_7_1_26[3::-1]:
        out += a
        out *= t
    out *= density  # the tail beyond abs(x); the rest is 1 - tail for x > 0, and the tail itself below
    np.greater(x, 0, out=t, casting="unsafe")
    np.subtract(t, out, out=out)
    np.abs(out, out=out)


def _normal_cdf_f64(x: Array, out: Array, density: Array, t: Array) -> None:
    out[:] = [0.5 * math.erfc(-value * math.sqrt(0.5)) for value in x.tolist()]
    np.multiply(x, x, out=density)
    density *= -0.5
    np.exp(density, out=density)


def _gelu(x: Array, y: Array, d: Array | None, t: Array, u: Array) -> None:
    cdf = _normal_cdf_f32 if x.dtype == np.float32 else _normal_cdf_f64
    density = y if d is None else d
    cdf(x, t, density, u)
    np.multiply(x, t, out=y)
    if d is not None:
        d *= 1 / math.sqrt(2 * math.pi)
        d *= x
        d += t


def _gelu_tanh(x: Array, y: Array, d: Array | None, t: Array, u: Array) -> None:
    k = math.sqrt(2 / math.pi)
    np.multiply(x, x, out=u)
    np.multiply(u, 0.044715, out=t)
    t += 1
    t *= x
    t *= k
    np.tanh(t, out=t)
    if d is not None:  # x k (1 + 3 * 0.044715 x**2) (1 - t**2) / 2, before (1 + t) / 2 is added
        u *= 3 * 0.044715
        u += 1
        u *= k
        np.multiply(t, t, out=d)
        np.subtract(1, d, out=d)
        d *= u
        d *= x
        d *= 0.5
    t += 1
    t *= 0.5
    np.multiply(x, t, out=y)
    if d is not None:
        d += t


relu = _by_output(_relu, _relu_slope, "Return max(x, 0); the derivative at 0 is 0.")
tanh = _by_output(_tanh, _tanh_slope, "Return the hyperbolic tangent.")
sigmoid = _by_output(_sigmoid, _sigmoid_slope, "Return 1 / (1 + exp(-x)).")
silu = _pointwise(_silu, "Return x * sigmoid(x), also called swish.")
gelu = _pointwise(_gelu, "Return x times the normal distribution function of x (absolute error 5e-7 in float32).")
gelu_tanh = _pointwise(_gelu_tanh, "Return GELU by its tanh formula, as GPT-2 and Gemma have it.")


@operation
def leaky_relu(x: Array, /, *, slope: float = 0.01) -> Result:
    """Return `x` where it is positive, else ``slope * x``; the derivative at 0 is `slope`, a number of 0 or more."""
    ranges.amounts("leaky_relu", slope=float(slope))
    kernels = (partial(f, below=float(slope)) for f in (_leaky_relu, _leaky_relu_slope))
    return _from_output("leaky_relu", x, *kernels)


@operation
def elu(x: Array, /, *, alpha: float = 1.0) -> Result:
    """Return `x` where it is positive, else ``alpha * (exp(x) - 1)``; `alpha` is a number of 0 or more.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, Exponential Linear Units, arXiv:1511.07289, equation 15.
    """
    ranges.amounts("elu", alpha=float(alpha))
    return _from_output("elu", x, *(partial(f, alpha=float(alpha)) for f in (_elu, _elu_slope)))


@operation
def swiglu(gate: Array, up: Array, /, *, keep: bool) -> Result:
    """Return ``silu(gate) * up``; both of one shape. Keeps the sigmoid of `gate` beside its arguments."""
    floats("swiglu", gate, up)
    if gate.shape != up.shape:
        raise ValueError("the gate and what it gates differ in shape")
    y, s = np.empty(gate.shape, gate.dtype), np.empty(gate.shape, gate.dtype) if keep else None
    g, u, flat_y, flat_s = gate.reshape(-1), up.reshape(-1), y.reshape(-1), None if s is None else s.reshape(-1)

    def kernel(start: int, stop: int) -> None:
        at = slice(start, stop)
        t = scratch((stop - start,), 1, g.dtype)[0] if flat_s is None else flat_s[at]
        logistic(g[at], t)
        np.multiply(g[at], t, out=flat_y[at])
        flat_y[at] *= u[at]

    spread(kernel, blocks(g.size))
    return y, lambda dy, need: _swiglu_back(g, u, flat_s, dy)


def _swiglu_back(g: Array, u: Array, s: Any, dy: Array) -> tuple[Array, Array]:
    dg, du, d = np.empty(dy.shape, g.dtype), np.empty(dy.shape, g.dtype), dy.reshape(-1)
    flat_dg, flat_du = dg.reshape(-1), du.reshape(-1)

    def kernel(start: int, stop: int) -> None:
        at = slice(start, stop)
        a, t = flat_dg[at], s[at]
        np.multiply(d[at], t, out=a)
        np.multiply(a, g[at], out=flat_du[at])
        a *= u[at]
        np.subtract(1, t, out=t)  # the derivative of silu is s (1 + g (1 - s))
        t *= g[at]
        t += 1
        a *= t

    spread(kernel, blocks(g.size))
    return dg, du
