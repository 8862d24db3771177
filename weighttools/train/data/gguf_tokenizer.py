"""The tokenizer that a GGUF file carries in its metadata, run by the package ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from weighttools.core.panics import panics_as_errors
from weighttools.errors import CorruptFileError, MissingDependencyError, install
from weighttools.families.gguf.tokenizer_json import KEY as KEY
from weighttools.families.gguf.tokenizer_json import has_tokenizer as has_tokenizer
from weighttools.families.gguf.tokenizer_json import merges_by_score as merges_by_score
from weighttools.families.gguf.tokenizer_json import tokenizer_json


def gguf_tokenizer(metadata: Mapping[str, Any], subject: str = "the GGUF file") -> Any:
    """Return a ``tokenizers.Tokenizer`` made of GGUF's metadata.

    Raises
    ------
    UnsupportedError, CorruptFileError
        As `tokenizer_json`.
    MissingDependencyError
        The package ``tokenizers`` is not installed.
    """
    data = tokenizer_json(metadata, subject)
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependencyError("text needs the package tokenizers", remedy=install("text")) from None
    with panics_as_errors("its tokens and merges make no tokenizer", CorruptFileError, subject):
        return Tokenizer.from_str(json.dumps(data))
