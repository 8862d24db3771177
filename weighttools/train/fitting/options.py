"""The options of a training, declared once; light, for the commands' help is made of them too."""

from __future__ import annotations

from weighttools.core.options import Option

_MOST = 2**31
"""All counts are below that."""

OPTIONS = (
    Option("epochs", int, 1, "Passes over the data.", shows_default=True, least=1, below=_MOST, decides=False),
    Option("steps", int, None, "Updates in all, instead of epochs.", least=1, below=_MOST, decides=False),
    Option("batch_size", int, 32, "Samples a batch.", shows_default=True, least=1, below=_MOST),
    Option(
        "freeze", default=(), many=True, metavar="PATTERN",
        help="Tensors to leave as they are: a glob (* crosses dots) or re:REGEX. Repeatable.",
    ),
    Option("only", default=(), many=True, metavar="PATTERN", help="Train these only. Repeatable."),
    Option("masks", None, None, "Hold weights at 0 where `prune --mask-out` wrote false.", metavar="FILE"),
    Option(
        "prune", None, None, "Prune matrices on the way, up to this share of zeros.", metavar="SHARE",
    ),
    Option(
        "sampler", str, "shuffle",
        "Each sample once an epoch, or drawn by its weight and its class's, which then leave the loss.",
        choices=("shuffle", "weighted"), shows_default=True,
    ),
    Option("clip_norm", float, None, "The largest norm of the gradients.", above=0),
    Option("accumulate", int, 1, "Batches an update.", shows_default=True, least=1, below=_MOST),
    Option("average", None, None, "The average of the weights that is kept in their place."),
    Option("seed", int, 0, "Of the order and the split.", shows_default=True, least=0),
    Option(
        "patience", int, None,
        "Stop after so many epochs that were no better; with --validation the best weights are kept.",
        least=1, below=_MOST,
    ),
    Option(
        "monitor", str, None,
        "What better means: val_loss, val_accuracy, …. [default: val_loss; without --validation loss]",
        metavar="FIGURE",
    ),
    Option("keep", str, None, "The best weights by the monitor, or the last.", choices=("best", "last")),
    Option("every", int, None, "… and after every N updates.", metavar="N", least=1, below=_MOST, decides=False),
    Option(
        "state", None, None, "Keep the training's state there after each epoch.", metavar="DIR", is_path=True,
        decides=False,
    ),
    Option(
        "resume", bool, False, "Continue from the state, to the bit, if there is any; else begin.", decides=False,
    ),
)  # fmt: skip
"""What `fit` takes beside the model, the data, the task, the optimiser and who is told."""

FITTING = {one.name: one for one in OPTIONS}
"""The same by name."""
