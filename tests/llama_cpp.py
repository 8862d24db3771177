"""llama.cpp itself, as the package xllamacpp carries it: what it cuts texts into, and what it writes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest


class LlamaCpp:
    """A GGUF file opened by llama.cpp, computing in float32.

    Parameters
    ----------
    path
        The file.
    embeds
        Whether it shall give embeddings instead of tokens.
    """

    def __init__(self, path: Path, embeds: bool = False) -> None:
        package = pytest.importorskip("xllamacpp")
        wanted = package.CommonParams()
        wanted.model.path = str(path)
        wanted.n_ctx, wanted.n_parallel, wanted.warmup, wanted.fit_params = 256, 1, False, False
        wanted.cpuparams.n_threads, wanted.verbosity, wanted.embedding = 1, 0, embeds
        wanted.cache_type_k = wanted.cache_type_v = package.ggml_type.GGML_TYPE_F32
        wanted.flash_attn_type = next(kind for kind in package.llama_flash_attn_type if "DISABLED" in kind.name)
        if embeds:
            wanted.pooling_type = next(kind for kind in package.llama_pooling_type if kind.name.endswith("_NONE"))
        self._server = package.Server(wanted)
        # One that is let go of before its loop of tasks has begun waits for the loop's end for ever: so let it do one.
        _ = self.embeddings([1]) if embeds else self.greedy([1], 1)

    def _asked(self, what: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._server.listening_address + what, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def ids(self, text: str, add_special: bool = True) -> list[int]:
        """Return the tokens of a text."""
        found = self._asked("/tokenize", content=text, add_special=add_special, parse_special=True)
        return [int(token) for token in found["tokens"]]

    def greedy(self, ids: list[int], n: int) -> list[int]:
        """Return the `n` likeliest tokens after some, one after another."""
        settings = {"n_predict": n, "temperature": 0, "return_tokens": True, "cache_prompt": False, "ignore_eos": True}
        return [int(token) for token in self._asked("/completion", prompt=ids, **settings)["tokens"]]

    def embeddings(self, ids: list[int]) -> list[list[float]]:
        """Return the last hidden state of each token."""
        found: list[list[float]] = self._asked("/embedding", content=ids, embd_normalize=-1)[0]["embedding"]
        return found
