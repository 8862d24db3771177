"""Optimisers: chains of transforms of gradients, with state in plain arrays; their rates may be `schedules`.

- Optimisers: `sgd`, `adam`, `adamw`, `adagrad`, `rmsprop`, `adafactor`, `lion`, `muon`, `Optimizer`, `State`
- Steps to put around them: `ClipNorm`, `ClipValue`, `Penalty`
- Averages of weights or gradients: `ema`, `swa`, `Average`, `Accumulation`
- Groups of weights: `decays`, `layerwise`
"""

from __future__ import annotations

from weighttools.train.optim.averages import Accumulation as Accumulation
from weighttools.train.optim.averages import Average as Average
from weighttools.train.optim.averages import ema as ema
from weighttools.train.optim.averages import swa as swa
from weighttools.train.optim.chains import Optimizer as Optimizer
from weighttools.train.optim.chains import State as State
from weighttools.train.optim.chains import adafactor as adafactor
from weighttools.train.optim.chains import adagrad as adagrad
from weighttools.train.optim.chains import adam as adam
from weighttools.train.optim.chains import adamw as adamw
from weighttools.train.optim.chains import lion as lion
from weighttools.train.optim.chains import muon as muon
from weighttools.train.optim.chains import rmsprop as rmsprop
from weighttools.train.optim.chains import sgd as sgd
from weighttools.train.optim.groups import decays as decays
from weighttools.train.optim.groups import layerwise as layerwise
from weighttools.train.optim.transforms import ClipNorm as ClipNorm
from weighttools.train.optim.transforms import ClipValue as ClipValue
from weighttools.train.optim.transforms import Penalty as Penalty

__all__ = [
    "Accumulation",
    "Average",
    "ClipNorm",
    "ClipValue",
    "Optimizer",
    "Penalty",
    "State",
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "decays",
    "ema",
    "layerwise",
    "lion",
    "muon",
    "rmsprop",
    "sgd",
    "swa",
]


def __dir__() -> list[str]:
    return sorted(__all__)
