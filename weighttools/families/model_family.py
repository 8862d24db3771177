"""The form of what is known of a family of models: one row says it all, and `weighttools.families.models` holds them.

What a field leaves None is not known here, on purpose: each user of the row says so in its own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from weighttools.families.shapes import TensorTable

Pairs = tuple[tuple[str, str], ...]
Json = Mapping[str, Any]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ConfigEntry(NamedTuple):
    """An option of a model's function, and the entry of config.json that gives it.

    Parameters
    ----------
    kind
        ``"count"`` (a whole number), ``"number"`` (above 0) or ``"activation"`` (a name).
    keys
        The entry's names: the first that is there counts. Where none is, `ModelFamily.defaults` tells.
    least
        Of a count.
    most
        Of a count: a number, or the name of an option that is read before.
    """

    kind: Literal["count", "number", "activation"]
    keys: tuple[str, ...]
    least: int = 1
    most: int | str = 1 << 24


class EncoderParts(NamedTuple):
    """What a family of BERT's kin calls the parts of a layer, and where its layers lie."""

    layer: str = "encoder.layer.{}"
    qkv: tuple[str, str, str] = ("attention.self.query", "attention.self.key", "attention.self.value")
    attended: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"
    widened: str = ""
    """The weighted sum after the embeddings, where those are narrower than the layers."""
    pooler: str = "pooler.dense"


class DecoderStyle(NamedTuple):
    """What sets a family of Llama's kin apart, beside its entries of config.json.

    Parameters
    ----------
    windows
        Which layers see a window only: ``"none"``, ``"all"``, ``"said"`` (config.json's ``use_sliding_window``), or
        all but one in every so many.
    is_scaled
        Embeddings are scaled by sqrt(size), and norms multiply by 1 + weight: Gemma.
    post_norms
        What a block adds is normalised too.
    head_norms
        Every head of queries and keys is normalised.
    query_scale
        Whether config.json says what attention is scaled by (``query_pre_attn_scalar``).
    turns_part
        Whether only a part of each head turns where config.json says so (``partial_rotary_factor``).
    """

    windows: str | int = "none"
    is_scaled: bool = False
    post_norms: bool = False
    head_norms: bool = False
    query_scale: bool = False
    turns_part: bool = False


class ModelFunction(NamedTuple):
    """Which function of arrays computes a model, and with which options.

    Parameters
    ----------
    name
        ``"bert"``, ``"gpt2"`` or ``"llama"``: of the table of functions in `weighttools.train.models.families`.
    entries
        Options that config.json gives, one entry each; Llama's kin have the same ones, and none here.
    how
        What the function is told beside: the names of parts, or the style.
    size
        config.json's entry for the length of a hidden state.
    only
        Values that config.json must have where it has the entry: what the function does not do otherwise.
    spares
        Tensors that a whole model has, and that the function does without where a file lacks them.
    skips
        How the names of tensors begin that the function does not look at.
    """

    name: str
    entries: Mapping[str, ConfigEntry] = _NOTHING
    how: EncoderParts | DecoderStyle | None = None
    size: str = "hidden_size"
    only: Mapping[str, tuple[Any, ...]] = _NOTHING
    spares: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()


class ScoringHead(NamedTuple):
    """How a class for sequences is built on a model: a pooled state, perhaps a dense layer, and the scores.

    Parameters
    ----------
    pooling
        ``"cls"``, ``"last"`` or ``"mean"``: which state of the tokens stands for the text.
    out
        The name of the last weighted sum.
    dense
        The name of the one before it, ``{}`` standing for the file's prefix; empty for none.
    activation
        What follows it, as config.json's entries name activations.
    has_bias
        Whether the last weighted sum has a bias.
    """

    pooling: str
    out: str
    dense: str = ""
    activation: str = "tanh"
    has_bias: bool = True


class GgufArchitecture(NamedTuple):
    """What llama.cpp calls a family's tensors and settings, and how it keeps them.

    Parameters
    ----------
    architecture
        GGUF's ``general.architecture``. Of several families with one, the first is what a file is read as.
    pairs
        Hugging Face's name and GGUF's, without ``.weight`` or ``.bias``; ``{}`` stands for the layer's number.
    changes
        GGUF's names, without layer, of tensors that also change: ``"q"`` and ``"k"`` (rows of each head are
        interleaved), ``"transpose"``; ``"norm"`` (GGUF holds 1 more) goes for every weight whose name ends in norm.
    head
        The output layer and the embedding it is tied to where it is missing, by Hugging Face's names.
    is_always_tied
        Whether llama.cpp wants the output layer left out, for it is the embedding in every model.
    wrappers
        Prefixes that Hugging Face's classes put before these names, and what takes their place.
    derived
        Hugging Face's tensors that GGUF has no place for, or computes: regular expressions.
    epsilon
        The norms' key; llama.cpp reads no model without.
    entries
        Entries of config.json and their keys, beyond those that most families have; they come before those.
    fixed
        Entries that GGUF has no key for, and the values that llama.cpp computes with.
    always
        Metadata that go with every model.
    read
        Entries that are read from GGUF's keys, and not written there.
    nulls
        Entries that config.json must say to be null where GGUF does not say them: the class has others of its own.
    widening
        How many times wider than the hidden states a layer is within, where config.json does not say.
    scaled_by_heads
        How many layers the one model has whose attention is scaled by hidden size / heads, not by a head's size.
    """

    architecture: str
    pairs: Pairs
    changes: Mapping[str, str] = _NOTHING
    head: tuple[str, str] | None = ("lm_head.weight", "model.embed_tokens.weight")
    is_always_tied: bool = False
    wrappers: Pairs = (
        ("model.language_model.", "model."),
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("layers.", "model.layers."),
        ("embed_tokens.", "model.embed_tokens."),
        ("norm.", "model.norm."),
    )
    derived: tuple[str, ...] = (r".*rotary_emb\.inv_freq",)
    epsilon: str = "attention.layer_norm_rms_epsilon"
    entries: Pairs = ()
    fixed: Mapping[str, tuple[Any, ...]] = _NOTHING
    always: Json = _NOTHING
    read: Pairs = ()
    nulls: tuple[str, ...] = ()
    widening: int | None = None
    scaled_by_heads: int | None = None


class ModelFamily(NamedTuple):
    """All that is known of a family of models.

    Parameters
    ----------
    model_type
        What config.json calls it.
    kind
        ``"encoder"``, which has no cache of keys and values, or ``"decoder"``.
    class_name
        What transformers' classes of it begin with: ``Llama`` of ``LlamaForCausalLM``. None: classes of a model with
        other parts beside texts.
    prefix
        What transformers puts before the body's names where a head stands on it.
    tensors
        Names, axes by config.json's entries, when they are there, and what is tied: what `check` holds files against.
    defaults
        What transformers takes where config.json does not say it, for checks, GGUF and training alike.
    function
        What computes it in training. None: nothing here does.
    head
        How its class for sequences is built. None: the one for Llama's kin for decoders, else a mean and one sum.
    adapted
        Modules that peft adapts unless told otherwise. None: it has no such table.
    gguf
        What llama.cpp makes of it. None: it has other architectures, or none is known here.
    language_class
        The class with an output layer, where its name follows no rule.
    """

    model_type: str
    kind: Literal["encoder", "decoder"]
    class_name: str | None
    prefix: str
    tensors: TensorTable
    defaults: Json
    function: ModelFunction | None
    head: ScoringHead | None
    adapted: tuple[str, ...] | None
    gguf: GgufArchitecture | None
    language_class: str | None = None

    @property
    def plain_class(self) -> str:
        """The class that reads a checkpoint without a head of a task: ``LlamaForCausalLM``, ``BertModel``."""
        if self.kind == "decoder":
            return self.language_class or f"{self.class_name}ForCausalLM"
        return f"{self.class_name}Model"
