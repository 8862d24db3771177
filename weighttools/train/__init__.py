"""The NumPy training core: a model is a function of ``{file's tensor name: array}``; there are no layer classes.

>>> import numpy as np
>>> from weighttools import train
>>> def model(p, x):
...     h = train.relu(train.linear(x, p["fc1.weight"], p["fc1.bias"]))
...     return train.linear(h, p["fc2.weight"], p["fc2.bias"])
>>> def loss(p, x, y):
...     return train.cross_entropy(model(p, x), target=y)
>>> shapes = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}
>>> p = {n: (train.he_normal() if len(s) > 1 else train.zeros()).draw(s, seed=0, name=n) for n, s in shapes.items()}
>>> x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0])
>>> optimizer = train.adamw(lr=0.05).after(train.ClipNorm(1.0))
>>> state = optimizer.init(p)
>>> before = loss(p, x, y)
>>> for _ in range(20):
...     value, grads = train.value_and_grad(loss, p, x, y)
...     notes = optimizer.step(p, grads, state)
>>> bool(loss(p, x, y) < before / 2)
True

The parts, and what they give by name:

- `tape`: `value_and_grad`, `operation` (to write a new one), `Variable`; `checkpointing`: `checkpoint`.
- `ops`, operations on arrays and variables alike: `linear`, `matmul`, `embedding`, `conv`, `max_pool`, `avg_pool`;
  `attention`, `rope`, `rope_tables`; `layer_norm`, `rms_norm`, `batch_norm`, `normalize`, `softmax`, `log_softmax`,
  `dropout`; `relu`, `leaky_relu`, `elu`, `gelu`, `gelu_tanh`, `silu`, `swiglu`, `sigmoid`, `tanh`; `add`, `sub`, `mul`,
  `div`, `power`, `absolute`, `exp`, `log`, `sqrt`, `sum`, `mean`; `reshape`, `transpose`, `take`, `concat`.
- `losses`, scalars with normalised weights: `cross_entropy`, `focal`, `binary_cross_entropy`, `binary_focal`, `mse`,
  `mae`, `huber`, `contrastive`, `cosine_embedding`; `cosine_similarity`, `perplexity`.
- `init`, initialisers, also for files in blocks: `Initializer` and the table `INITIALIZERS`, `he_normal`, `he_uniform`,
  `xavier_normal`, `xavier_uniform`, `lecun_normal`, `lecun_uniform`, `orthogonal`, `normal`, `truncated_normal`,
  `uniform`, `zeros`, `depth_scaled`; `gain`, `fans`, `initialized`; `signal`: `signal_report` (does a signal live
  through the layers?).
- `optimizers`, chains of transforms: `Optimizer` and its `State`, `sgd`, `adam`, `adamw`, `adagrad`, `rmsprop`,
  `adafactor`, `lion`, `muon`; `ClipNorm`, `ClipValue`, `Penalty`; schedules: `Schedule`, `constant`, `step_decay`,
  `inverse_sqrt`, `warmup_linear`, `warmup_cosine`, `one_cycle`, `range_test`, `Plateau`; averages: `Average`, `ema`,
  `swa`, `Accumulation`; groups: `decays`, `layerwise`.
- `weights`, of classes and samples: `class_weights`, `effective_weights`, `sampled`; `tasks`, losses and figures of
  what is learnt: `Task`, `Classification`, `Binary`, `Regression`, `LanguageModel`, `Pairs`.
- `models`: architectures by their files' names; `generation`: `generate`; `checkpoints`, a file's model with a head:
  `model`, `Loaded`, `Classifier`, `Regressor`, `Embedder`, `companions`.
- `data`: `text`, `Texts`, `tokens`, `Tokens`, `language`, `Sequences`, `table`, `Table`, `Scaling`, `npz`, `arrays`,
  and what they have in common, `Data` and `Batch`.
- `fitting`, with freezing, masks and resuming: `fit`, its `Model`, `Recipe`, `Result` and `History`, `evaluate`,
  `predict`, `find_rate`, `gradual` (pruning); `tensor_map` and, in `commands`, `write` for a file.
- `adapters`, low-rank weights beside a frozen model, as PEFT's files have them: `lora`, `weights_of`, `save_lora`,
  `load_lora`, `merge_lora`, `adapter_of`.
- `commands`: what finetune, evaluate and generate do; `parallel`, `memory` (`keep_pages`): who gets cores and pages.

Training is in float32 (and exact in float64): read bfloat16 files as float32, or updates below their step vanish.
"""

from weighttools.train.adapters.adapting import adapter_of as adapter_of
from weighttools.train.adapters.adapting import load_lora as load_lora
from weighttools.train.adapters.adapting import merge_lora as merge_lora
from weighttools.train.adapters.adapting import save_lora as save_lora
from weighttools.train.adapters.lora import lora as lora
from weighttools.train.adapters.lora import weights_of as weights_of
from weighttools.train.autograd.recompute import checkpoint as checkpoint
from weighttools.train.autograd.tape import value_and_grad as value_and_grad
from weighttools.train.autograd.variable import Variable as Variable
from weighttools.train.autograd.variable import operation as operation
from weighttools.train.checkpoints.companions import companions as companions
from weighttools.train.checkpoints.heads import Classifier as Classifier
from weighttools.train.checkpoints.heads import Embedder as Embedder
from weighttools.train.checkpoints.heads import Regressor as Regressor
from weighttools.train.checkpoints.loading import Loaded as Loaded
from weighttools.train.checkpoints.loading import model as model
from weighttools.train.data.arrays import arrays as arrays
from weighttools.train.data.batches import Batch as Batch
from weighttools.train.data.batches import Data as Data
from weighttools.train.data.language import Sequences as Sequences
from weighttools.train.data.language import language as language
from weighttools.train.data.tables import Scaling as Scaling
from weighttools.train.data.tables import Table as Table
from weighttools.train.data.tables import npz as npz
from weighttools.train.data.tables import table as table
from weighttools.train.data.texts import Texts as Texts
from weighttools.train.data.texts import text as text
from weighttools.train.data.tokens import Tokens as Tokens
from weighttools.train.data.tokens import tokens as tokens
from weighttools.train.fitting.evaluation import evaluate as evaluate
from weighttools.train.fitting.evaluation import predict as predict
from weighttools.train.fitting.fit import Result as Result
from weighttools.train.fitting.fit import fit as fit
from weighttools.train.fitting.held import gradual as gradual
from weighttools.train.fitting.history import History as History
from weighttools.train.fitting.rates import find_rate as find_rate
from weighttools.train.fitting.recipe import Recipe as Recipe
from weighttools.train.fitting.saving import tensor_map as tensor_map
from weighttools.train.generation import generate as generate
from weighttools.train.losses import binary_cross_entropy as binary_cross_entropy
from weighttools.train.losses import binary_focal as binary_focal
from weighttools.train.losses import contrastive as contrastive
from weighttools.train.losses import cosine_embedding as cosine_embedding
from weighttools.train.losses import cosine_similarity as cosine_similarity
from weighttools.train.losses import cross_entropy as cross_entropy
from weighttools.train.losses import focal as focal
from weighttools.train.losses import huber as huber
from weighttools.train.losses import mae as mae
from weighttools.train.losses import mse as mse
from weighttools.train.losses import perplexity as perplexity
from weighttools.train.memory import keep_pages as keep_pages
from weighttools.train.ops import *  # noqa: F403
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
from weighttools.train.optim.schedules import Plateau as Plateau
from weighttools.train.optim.schedules import Schedule as Schedule
from weighttools.train.optim.schedules import constant as constant
from weighttools.train.optim.schedules import inverse_sqrt as inverse_sqrt
from weighttools.train.optim.schedules import one_cycle as one_cycle
from weighttools.train.optim.schedules import range_test as range_test
from weighttools.train.optim.schedules import step_decay as step_decay
from weighttools.train.optim.schedules import warmup_cosine as warmup_cosine
from weighttools.train.optim.schedules import warmup_linear as warmup_linear
from weighttools.train.optim.transforms import ClipNorm as ClipNorm
from weighttools.train.optim.transforms import ClipValue as ClipValue
from weighttools.train.optim.transforms import Penalty as Penalty
from weighttools.train.signal import signal_report as signal_report
from weighttools.train.tasks.classification import Binary as Binary
from weighttools.train.tasks.classification import Classification as Classification
from weighttools.train.tasks.model import Model as Model
from weighttools.train.tasks.regression import LanguageModel as LanguageModel
from weighttools.train.tasks.regression import Pairs as Pairs
from weighttools.train.tasks.regression import Regression as Regression
from weighttools.train.tasks.task import Task as Task
from weighttools.train.weights import class_weights as class_weights
from weighttools.train.weights import effective_weights as effective_weights
from weighttools.train.weights import sampled as sampled
from weighttools.train.writing import write as write
from weighttools.transforms.initializers import INITIALIZERS as INITIALIZERS
from weighttools.transforms.initializers import Initializer as Initializer
from weighttools.transforms.initializers import depth_scaled as depth_scaled
from weighttools.transforms.initializers import fans as fans
from weighttools.transforms.initializers import gain as gain
from weighttools.transforms.initializers import he_normal as he_normal
from weighttools.transforms.initializers import he_uniform as he_uniform
from weighttools.transforms.initializers import initialized as initialized
from weighttools.transforms.initializers import lecun_normal as lecun_normal
from weighttools.transforms.initializers import lecun_uniform as lecun_uniform
from weighttools.transforms.initializers import normal as normal
from weighttools.transforms.initializers import orthogonal as orthogonal
from weighttools.transforms.initializers import truncated_normal as truncated_normal
from weighttools.transforms.initializers import uniform as uniform
from weighttools.transforms.initializers import xavier_normal as xavier_normal
from weighttools.transforms.initializers import xavier_uniform as xavier_uniform
from weighttools.transforms.initializers import zeros as zeros
