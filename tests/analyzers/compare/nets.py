"""Small nets in torch, and what befalls them: steps of real optimizers on random data, and arrays of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import ml_dtypes
import numpy as np
import torch
from torch import nn

from weighttools.core.tensormap import TensorMap

State = dict[str, torch.Tensor]
VOCABULARY = 96


class Layer(nn.Module):
    """A block of one mixing and one hidden layer, with the names of Llama's and a LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width) for _ in range(4))
        self.up_proj, self.down_proj = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        mixed = torch.tanh(self.q_proj(y)) * torch.sigmoid(self.k_proj(y)) + self.v_proj(y)
        x = x + self.o_proj(mixed)
        return x + self.down_proj(nn.functional.gelu(self.up_proj(x)))


class Net(nn.Module):
    """An embedding, layers, a norm and a head."""

    def __init__(self, width: int, n_layers: int = 2) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


def net(width: int, n_layers: int = 2, dtype: torch.dtype = torch.float32) -> Net:
    """Return a net whose weights are as training leaves them: no norm is exactly 1, no bias exactly 0."""
    made = Net(width, n_layers)
    with torch.no_grad():
        made.embed_tokens.weight *= 0.1
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return made.to(dtype)


def train(
    model: nn.Module,
    n_steps: int,
    batch: int,
    make: Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer],
    tokens: Sequence[int] = range(VOCABULARY),
) -> None:
    """Take steps on random tokens; what does not require gradients stays."""
    optimizer = make([parameter for parameter in model.parameters() if parameter.requires_grad])
    known = torch.tensor(list(tokens))
    for _ in range(n_steps):
        drawn = known[torch.randint(len(known), (batch,))]
        target = (drawn * 7 + 3) % VOCABULARY
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(drawn).float(), target).backward()
        optimizer.step()


def state(model: nn.Module) -> State:
    """Return a copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


_VIEWS = {
    torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
}


def array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array, bit for bit."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype in _VIEWS:
        bits, dtype = _VIEWS[tensor.dtype]
        return tensor.view(bits).numpy().view(dtype)
    return tensor.numpy()


def tensor_map(weights: Mapping[str, torch.Tensor]) -> TensorMap:
    """Return weights as a map."""
    return TensorMap.from_arrays({name: array(tensor) for name, tensor in weights.items()})
