"""What a checkpoint's function is: its body, its output layer, its pooler, and the tensors it uses."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from weighttools.errors import SpecError, WeighttoolsError, few

BUFFERS = re.compile(r"(.*\.)?(position_ids|token_type_ids|num_batches_tracked|inv_freq|attn\.(masked_)?bias)")
"""Names of what files hold beside weights and functions make themselves."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a file's names fit a function.

    Parameters
    ----------
    used
        Names that the function reads, in the file's order.
    missing
        Names that it needs and the file has not.
    unexpected
        Names that it does not look at.
    """

    used: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.used)} tensors used"]
        parts += [
            f"{len(names)} {what}: {few(names)}"
            for what, names in (("missing", self.missing), ("not used", self.unexpected))
            if names
        ]
        return "; ".join(parts)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint's function of ``{name: array}``, in parts, so that another head can take the place of its own.

    Parameters
    ----------
    family
        config.json's ``model_type``; ``"mlp"`` or ``"cnn"`` where the shapes told.
    kind
        ``"encoder"``, ``"decoder"``, ``"mlp"`` or ``"cnn"``.
    prefix
        What the file puts before the family's names.
    size
        Length of a hidden state.
    n_layers
        How many layers are run.
    body
        ``body(p, inputs, mask=None, **options)`` gives hidden states.
    output
        ``output(p, hidden)`` gives logits, or predictions; None where the family has no such layer.
    pooler
        ``pooler(p, hidden)`` gives a state a sequence, by the file's own pooler; None without one.
    required, optional
        Full names of the tensors that the parts use, always or where the file has them.
    assumed
        What the function takes for granted, as neither the file nor the caller says.
    """

    family: str
    kind: str
    prefix: str
    size: int
    n_layers: int
    body: Callable[..., Any]
    output: Callable[[Mapping[str, Any], Any], Any] | None
    pooler: Callable[[Mapping[str, Any], Any], Any] | None
    required: tuple[str, ...]
    optional: tuple[str, ...]
    assumed: tuple[str, ...] = ()

    def __call__(self, p: Mapping[str, Any], inputs: Any, mask: Any = None, **options: Any) -> Any:
        return self.run(p, inputs, mask, **options)

    def run(self, p: Mapping[str, Any], inputs: Any, mask: Any = None, **options: Any) -> Any:
        """Return logits or predictions; of an encoder, which has no output layer, hidden states.

        Parameters
        ----------
        inputs
            Token ids (batch, positions), or packed with the option ``lengths``; for an MLP or a CNN, floats.
        mask
            True, or 1, at real tokens.
        options
            ``lengths``, ``recompute``, of decoders ``cache``, of encoders ``segments``.
        """
        x = self.hidden(p, inputs, mask, **options)
        return x if self.output is None else self.output(p, x)

    def hidden(self, p: Mapping[str, Any], inputs: Any, mask: Any = None, **options: Any) -> Any:
        """Return what goes into the output layer, or into a new head: (\\*inputs.shape, size) for tokens.

        Raises
        ------
        SpecError
            The inputs, the arrays and the configuration do not fit.
        TensorNotFoundError
            An array is missing.
        """
        try:
            return self.body(p, inputs, **({} if mask is None else {"mask": mask}), **options)
        except (ValueError, IndexError) as error:
            if isinstance(error, WeighttoolsError):
                raise
            line = (str(error).splitlines() or ["shapes"])[0]
            raise SpecError(f"arrays and configuration do not fit: {line}", subject=self.family) from None

    def tied(self, ties: Mapping[str, str]) -> Architecture:
        """Return it for arrays of which a tied one is there once.

        Parameters
        ----------
        ties
            Names that the parts ask for, and the names that the arrays have.
        """
        if not ties:
            return self
        body, output, pooler = (
            None if part is None else functools.partial(_tied, part, ties)
            for part in (self.body, self.output, self.pooler)
        )
        assert body is not None
        return replace(self, body=body, output=output, pooler=pooler)

    def report(self, names: Iterable[str]) -> Loading:
        """Return which of a file's `names` are used, missing and unexpected. Buffers count as none of them."""
        known, wanted = list(names), {*self.required, *self.optional}
        return Loading(
            tuple(n for n in known if n in wanted),
            tuple(n for n in self.required if n not in set(known)),
            tuple(n for n in known if n not in wanted and not BUFFERS.fullmatch(n)),
        )

    def checked(self, names: Iterable[str]) -> Loading:
        """Return the report on `names`.

        Raises
        ------
        SpecError
            A tensor that the function needs is missing.
        """
        found = self.report(names)
        if found.missing:
            fact = f"the {self.family} function needs {_some(found.missing)}, which are missing"
            strange = f"; it does not understand {_some(found.unexpected)}" if found.unexpected else ""
            raise SpecError(fact + strange, remedy="write a function over the names if it is another model")
        return found


def whole(params: Mapping[str, Any], ties: Mapping[str, str]) -> Mapping[str, Any]:
    """Return arrays by all the names that they are asked for by: a tied one by each of its names."""
    return {**{name: params[kept] for name, kept in ties.items() if kept in params}, **params} if ties else params


def _tied(part: Callable[..., Any], ties: Mapping[str, str], p: Mapping[str, Any], *args: Any, **options: Any) -> Any:
    return part(whole(p, ties), *args, **options)
