"""How much work and memory an untrusted file may cost, each bound with its reason; readers and checks take them here.

The rule they serve: a file under 1 MB costs at most 2 s of processor time and 300 MB, whatever it declares.
"""

MAX_PIECE = 512
"""Characters of a token that pairs are merged into: each is split at every place, at a cost of its length squared.

The longest pieces of known vocabularies have 96 characters; a megabyte of longest ones takes half a second."""

MAX_TOKENS = 1 << 20
"""Tokens of a vocabulary that is made out as long as an embedding, whose rows a header may claim for nothing.

The largest known vocabularies have 262,144 for models that GGUF holds, and below 2^20 for any."""
