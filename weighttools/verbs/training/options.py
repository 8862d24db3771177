"""Options of finetune and evaluate, each declared once; what `fit` has too is its declaration."""

from __future__ import annotations

from dataclasses import replace

from weighttools.core.options import Option
from weighttools.train.fitting.options import FITTING

EPOCHS = 3
"""Passes over the data where neither they nor updates are given."""
DATA = (
    Option(
        "task", choices=("classify", "regress", "lm"),
        help="What to learn: classes, numbers, or the next token. [default: what model and data speak for]",
    ),
    Option("text_column", default="text", shows_default=True, metavar="NAME", help="The column of the text."),
    Option("pair_column", metavar="NAME", help="The column of a second text, for pairs."),
    Option(
        "label_column", metavar="NAME",
        help="The column of the label. [default: label, target, class, y or score]",
    ),
    Option(
        "weight_column", metavar="NAME",
        help="The column of each row's weight, in the loss and in all other figures.",
    ),
    Option(
        "feature_columns", default=(), many=True, flags=("--feature-column",), metavar="NAME",
        help="A column of a table to predict from, in order. Repeatable. [default: all others]",
    ),
    Option(
        "prompt_column", metavar="NAME",
        help="The column that a language model is given, and does not learn. [default: prompt, where there is no text]",
    ),
    Option(
        "completion_column", default="completion", shows_default=True, metavar="NAME",
        help="The column to learn after it.",
    ),
    Option("tokenizer", is_path=True, metavar="PATH", help="Where tokenizer.json is. [default: CKPT]"),
    Option(
        "max_length", int, metavar="N", least=1,
        help="Tokens of a text at most. [default: what tokenizer and model allow]",
    ),
    Option(
        "block", int, 256, shows_default=True, metavar="N", least=2,
        help="Tokens of a language model's sequence: texts are laid end to end, an end token after each, and cut.",
    ),
    Option(
        "activation", metavar="NAME",
        help="Between the layers of a plain stack. [default: what the file says, else relu]",
    ),
    FITTING["batch_size"],
)  # fmt: skip
"""Where a data file has what."""

FINETUNE = (
    Option("standardize", bool, False, "Bring a table's features to mean 0, deviation 1."),
    Option(
        "validation", None, metavar="FILE|SHARE",
        help="Data to measure by after each epoch: a file, or the share of --data to hold out, such as 0.2.",
    ),
    replace(FITTING["epochs"], default=None, shows_default=False, help=f"Passes over the data. [default: {EPOCHS}]"),
    FITTING["steps"],
    FITTING["accumulate"],
    Option(
        "lr", float, least=0,
        help="The peak learning rate. [default: 5e-5 for texts, 5e-4 with --lora, else 1e-3]",
    ),
    Option(
        "optimizer", default="adamw", shows_default=True, metavar="NAME",
        help="adamw, adamw-8bit, adam, sgd, lion, adafactor, muon, rmsprop, adagrad.",
    ),
    Option(
        "schedule", default="linear", shows_default=True, metavar="NAME",
        help="linear and cosine fall to 0; constant, one-cycle, inverse-sqrt, plateau.",
    ),
    Option("warmup", float, 0.0, "Updates, or below 1 their share.", shows_default=True, least=0),
    Option(
        "weight_decay", float, 0.01, shows_default=True, least=0,
        help="Of matrices only; for adam, sgd, rmsprop and adagrad it is the L2 penalty.",
    ),
    Option("l1", float, 0.0, "L1 penalty of matrices; it makes exact zeros.", shows_default=True, least=0),
    Option("momentum", float, 0.0, "Of sgd.", shows_default=True, least=0, below=1),
    Option(
        "layer_decay", float, 1.0, shows_default=True, metavar="SHARE", above=0, most=1,
        help="Each layer's learning rate is this share of that of the one above.",
    ),
    replace(
        FITTING["clip_norm"], default=1.0, shows_default=True, above=None, least=0,
        help="The largest norm of the gradients; 0: any.",
    ),
    FITTING["freeze"],
    FITTING["only"],
    FITTING["masks"],
    Option("hold_zeros", bool, False, "Hold the zeros that a pruned checkpoint has."),
    replace(FITTING["prune"], kind=float, above=0, below=1),
    FITTING["sampler"],
    Option(
        "ema", float, metavar="DECAY", least=0, below=1,
        help="Keep the moving average of the weights, e.g. 0.999.",
    ),
    Option("class_weight", None, metavar="balanced|A=1,B=5", help="What each class counts for in the loss."),
    Option("label_smoothing", float, 0.0, "Spread over all classes.", shows_default=True, least=0, below=1),
    Option("focal", float, metavar="GAMMA", least=0, help="Use the focal loss."),
    Option(
        "error", default="mse", choices=("mse", "mae", "huber"), shows_default=True,
        help="The loss of --task regress.",
    ),
    Option(
        "pooling", choices=("cls", "last", "mean"),
        help="What a new head of a text model sees. [default: as in transformers]",
    ),
    Option(
        "init", default="xavier_normal", shows_default=True, metavar="NAME", help="How a new head begins; see init.",
    ),
    Option("dropout", float, 0.0, "Before a new head.", shows_default=True, least=0, below=1),
    Option("new_head", bool, False, "Draw a new head even where the old one fits."),
    Option("recompute", bool, False, "Less memory, more time: compute layers again on the way back."),
    Option(
        "lora", None, metavar="r=8,alpha=16",
        help="Train a low-rank adapter beside the frozen weights, and write it as PEFT does; also dropout=P, rslora.",
    ),
    Option(
        "lora_targets", default=(), many=True, metavar="PATTERN",
        help="The weights that the adapter changes, or all-linear. Repeatable. [default: queries and values]",
    ),
    Option("merge", bool, False, "With --lora: write the checkpoint, the change added."),
    replace(FITTING["seed"], help="Of the order, the split and the new head."),
    FITTING["patience"],
    FITTING["monitor"],
    FITTING["state"],
    FITTING["every"],
    FITTING["resume"],
    Option("history", is_path=True, metavar="FILE", help="Write the figures: .csv, or .json."),
    Option("plot", is_path=True, metavar="FILE", help="Draw the losses: .png, .svg, .pdf."),
)  # fmt: skip
"""How to train."""
