"""Python code that lies beside weights, and configurations that name it: loaders run it when they are told to trust it.

Sources: transformers, ``dynamic_module_utils.py`` (``auto_map``, with ``repository--module.Class`` for code of another
repository) and ``pipelines/__init__.py`` (``custom_pipelines``); sentence-transformers, ``modules.json``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weighttools.analyzers import configuration
from weighttools.core.findings import WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import WeighttoolsError, few
from weighttools.io.home import home_of

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
ENTRIES = ("auto_map", "custom_pipelines", "custom_generate")
FOLDERS = ("", "custom_generate")


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each configuration that names code, and one for the Python files beside the weights."""
    for config in CONFIGS:
        try:
            found = configuration.read_beside(tensor_map.origin, config) or {}
        except WeighttoolsError:
            continue  # other checks say so
        for entry in ENTRIES:
            names = sorted(_texts(found.get(entry)))
            if names:
                other = " (of another repository)" if any("--" in name for name in names) else ""
                yield Finding(WARNING, "remote-code", f"{entry} of {config} names code{other}: {few(names)}")
    files = list(_python_files(tensor_map))
    if files:
        yield Finding(WARNING, "python-files", f"Python files lie beside the weights: {few(files)}")


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in an entry, two levels deep at most."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, (dict, list)):
            yield from (text for text in (item.values() if isinstance(item, dict) else item) if isinstance(text, str))


def _python_files(tensor_map: TensorMap) -> Iterator[str]:
    home = home_of(tensor_map.origin)
    if home is None:
        return
    for folder in FOLDERS:
        if folder or home.is_whole:
            names = [name for name in home.names(folder) if name.endswith((".py", ".pyc", ".so"))]
            yield from (f"{folder}/{name}" if folder else name for name in names)
