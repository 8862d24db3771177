"""The lengths and conditions that families' tables share: sizes by config.json's usual entries, classes, ties."""

from __future__ import annotations

from collections.abc import Mapping

from weighttools.families.shapes import Condition, Config, Length, TensorTable, entry, number


def classes(config: Config) -> int | None:
    """Return how many outputs a classifier has; other heads of its name have others."""
    named = config.get("architectures")
    kind = str(named[0]) if isinstance(named, list) and named else ""
    if not kind.endswith(("ForSequenceClassification", "ForTokenClassification", "ForImageClassification")):
        return None
    table, said = config.get("id2label"), number(config, "num_labels")
    names = list(table.values()) if isinstance(table, Mapping) else []
    is_default = names == [f"LABEL_{i}" for i in range(len(names))]  # early files say num_labels beside it
    return said if said and is_default else len(names) or None


def own_head(is_tied: bool) -> Condition:
    """Return the condition of an output layer: a language model has one of its own unless it is the embeddings'."""

    def when(config: Config) -> bool | None:
        named = config.get("architectures")
        kind = str(named[0]) if isinstance(named, list) and named else ""
        if config.get("tie_word_embeddings", is_tied) or not kind.endswith(
            ("ForCausalLM", "ForMaskedLM", "LMHeadModel")
        ):
            return None
        return True

    return when


V, D, P = entry("vocab_size"), entry("hidden_size"), entry("max_position_embeddings")
F, T, HEADS = entry("intermediate_size"), entry("type_vocab_size"), entry("num_attention_heads")
PLAIN: Mapping[str, Length] = {"V": V, "D": D, "P": P, "F": F, "T": T, "L": classes}
"""What most families' tables call the lengths of axes."""


def narrow_lengths(default: int | None) -> Mapping[str, Length]:
    """Return the lengths of a family whose embeddings may be narrower; `default` None: as its layers."""
    narrow = entry("embedding_size", "hidden_size") if default is None else entry("embedding_size", default=default)
    return {**PLAIN, "E": narrow}


def is_projected(narrow: Length) -> Condition:
    """Return the condition that embeddings are of another length than the layers."""

    def when(config: Config) -> bool | None:
        sizes = narrow(config), D(config)
        return None if None in sizes else sizes[0] != sizes[1]

    return when


def encoder_table(
    body: str,
    heads: str,
    sizes: Mapping[str, Length] = PLAIN,
    conditions: Mapping[str, Condition] | None = None,
    counts: tuple[tuple[str, int], ...] = (("num_hidden_layers", 0),),
    whole: tuple[str, str] = ("hidden_size", "num_attention_heads"),
    anchor: str = "embeddings.word_embeddings.weight",
) -> TensorTable:
    """Return the tensors of an encoder; its output layer is the embeddings' unless config.json says otherwise.

    Parameters
    ----------
    body, heads
        The tables of the model, and of what may stand on it.
    sizes, conditions
        What the tables call lengths, and when tensors are there.
    counts, anchor
        As `TensorTable` has them.
    whole
        The entries of a length and of heads that must divide it.
    """
    own = {"tie_word_embeddings": own_head(is_tied=True), **(conditions or {})}
    return TensorTable(anchor, body, heads, sizes, own, counts, whole)
