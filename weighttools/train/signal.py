"""Does a signal live through the layers? Activation and gradient sizes at initialisation, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighttools.train.autograd.gradients import Pullback
from weighttools.train.autograd.tape import Tape
from weighttools.train.autograd.variable import Variable

LOW, HIGH = 0.8, 1.25
"""A layer that changes the signal's size by a factor outside these compounds to nothing or to overflow in depth."""

WEIGHING = ("linear", "conv", "matmul")
"""Operations that are a layer if one of their arrays is a named weight."""
REARRANGING = ("transpose", "reshape")
"""Operations whose result is the same weight still."""


@dataclass(frozen=True, slots=True)
class LayerSignal:
    """What one weighted sum (or convolution) did.

    Parameters
    ----------
    name
        The weight's.
    activation_rms, gradient_rms
        Root mean squares of its output and of the loss's gradient there.
    gain, gradient_gain
        Output against the output of the layer before it, and gradient against that of the layer after it; NaN at the
        ends.
    """

    name: str
    activation_rms: float
    gradient_rms: float
    gain: float
    gradient_gain: float

    @property
    def is_healthy(self) -> bool:
        """Whether both gains lie within 0.8 to 1.25, where they are known."""
        return all(math.isnan(g) or LOW <= g <= HIGH for g in (self.gain, self.gradient_gain))


@dataclass(frozen=True, slots=True)
class SignalReport:
    """All layers in the order they ran."""

    layers: tuple[LayerSignal, ...]

    @property
    def mean_gain(self) -> float:
        """The geometric mean of the gains; NaN for fewer than two layers."""
        return _mean_gain([layer.activation_rms for layer in self.layers])

    @property
    def mean_gradient_gain(self) -> float:
        """The geometric mean of the gradients' gains, backwards."""
        return _mean_gain([layer.gradient_rms for layer in reversed(self.layers)])

    @property
    def verdict(self) -> str:
        """``"vanishing"``, ``"exploding"`` or ``"healthy"``, by the mean gain of the values, then of the gradients."""
        return next((_told(gain) for gain in self._gains.values() if _told(gain) != "healthy"), "healthy")

    @property
    def _gains(self) -> dict[str, float]:
        return {"activations": self.mean_gain, "gradients": self.mean_gradient_gain}

    def __str__(self) -> str:
        lines = [
            f"{layer.name}: activation {layer.activation_rms:.3g} (x {layer.gain:.3g}), "
            f"gradient {layer.gradient_rms:.3g} (x {layer.gradient_gain:.3g})"
            + ("" if layer.is_healthy else f"  <- outside {LOW} to {HIGH}")
            for layer in self.layers
        ]
        told = (f"{what} {_told(gain)}, x {gain:.3g} a layer" for what, gain in self._gains.items())
        return "\n".join([*lines, f"{self.verdict}: {'; '.join(told)}"])


def _told(gain: float) -> str:
    return "healthy" if math.isnan(gain) or LOW <= gain <= HIGH else "vanishing" if gain < LOW else "exploding"


class _Recorder(Tape):
    """A tape that measures what weights give, and the gradients that come back to there."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        self.seen: list[list[Any]] = []

    def variables(self, params: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
        given = super().variables(params, names)
        self.names = {id(v.slot): k for k, v in given.items() if isinstance(v, Variable) and v.ndim > 1}
        return given

    def record(self, name: str, y: Any, args: Iterable[Any], pullback: Pullback) -> Variable:
        args = list(args)
        slots = [id(a.slot) for a in reversed(args) if isinstance(a, Variable)]  # weights come after what they weigh
        layer = next((self.names[slot] for slot in slots if slot in self.names), None)
        if layer is None or name not in WEIGHING:
            out = super().record(name, y, args, pullback)
            if layer is not None and name in REARRANGING:
                self.names[id(out.slot)] = layer  # the tape keeps the slot, and so its id
            return out
        row = [layer, _rms(y), math.nan]
        self.seen.append(row)

        def measured(dy: Any, need: Any) -> Any:
            row[2] = _rms(dy)
            return pullback(dy, need)

        return super().record(name, y, args, measured)


def signal_report(loss: Callable[..., Any], params: Mapping[str, Any], *data: Any, **options: Any) -> SignalReport:
    """Run ``loss(params, *data, **options)`` forwards and backwards once and measure every layer.

    A layer is a `linear`, `conv` or `matmul` with a named weight of two axes or more, as it is, transposed or reshaped.

    Raises
    ------
    SpecError
        The loss is no scalar that depends on `params`.
    """
    tape = _Recorder()
    tape.backward(loss(tape.variables(params), *data, **options))
    return SignalReport(tuple(_layers(tape.seen)))


def _layers(seen: list[list[Any]]) -> Iterable[LayerSignal]:
    for i, (name, activation, gradient) in enumerate(seen):
        before = seen[i - 1][1] if i else math.nan
        after = seen[i + 1][2] if i + 1 < len(seen) else math.nan
        yield LayerSignal(name, activation, gradient, _ratio(activation, before), _ratio(gradient, after))


def _rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if np.size(x) else math.nan


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan if not a else math.inf


def _mean_gain(sizes: list[float]) -> float:
    if len(sizes) < 2:
        return math.nan
    first, last = sizes[0], sizes[-1]
    if not (first > 0 and math.isfinite(last)):
        return math.inf if first > 0 else math.nan
    return float((last / first) ** (1 / (len(sizes) - 1)))
