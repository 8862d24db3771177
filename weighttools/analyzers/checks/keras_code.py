"""Code in a Keras configuration: what ``keras.saving.load_model`` would run, import or ask the person for.

Source: Keras, ``src/saving/serialization_lib.py`` (``deserialize_keras_object``: a class or function is looked up by
``registered_name``, or imported by ``module``; ``__lambda__`` is marshalled code).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import counted, few

_MARSHALLED = re.compile(r'"class_name":\s*"(?:__lambda__|function)"|"function_type":\s*"lambda"')
_LAMBDA = re.compile(r'"class_name":\s*"Lambda"')
_FUNCTIONS = ("activations", "losses", "metrics", "ops", "initializers", "regularizers", "constraints", "random")
"""Parts of Keras whose functions compute on tensors only."""
_LOADERS = frozenset(["TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"])
"""Keras's own layers that unpickle, or load a program."""
_REMEDY = "load only its weights, into a model that you define"

Json = dict[str, Any]


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield what each configuration in the metadata would have Keras run, import or look for."""
    for key, value in tensor_map.metadata.items():
        text = value if isinstance(value, str) else ""
        nodes = list(_nodes(text)) if '"class_name"' in text or "\\u" in text else []
        n = sum(node["class_name"] == "Lambda" for node in nodes) or len(_LAMBDA.findall(text))
        if n:
            marshalled = any(_is_marshalled(node) for node in nodes) or _MARSHALLED.search(text)
            fact = f"{key} holds {counted(n, 'Lambda layer')}, Python code that keras.load_model would run"
            yield Finding(ERROR if marshalled else WARNING, "keras-lambda", fact, remedy=_REMEDY)
        elif any(node["class_name"] == "__lambda__" for node in nodes):
            yield Finding(ERROR, "keras-lambda", f"{key} holds marshalled Python code", remedy=_REMEDY)
        run = sorted({what for node in nodes if (what := _run(node))})
        if run:
            fact = f"{key} would have keras.load_model import or call {few(run)}"
            yield Finding(ERROR, "keras-imports", fact, remedy=_REMEDY)
        custom = sorted({what for node in nodes if (what := _custom(node))})
        if custom:
            yield Finding(WARNING, "keras-custom", f"{key} asks for objects that Keras has not: {few(custom)}")


def _nodes(text: str) -> Iterator[Json]:
    """Yield each object of a JSON text that names a class; of what is no JSON, none."""
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _is_marshalled(node: Json) -> bool:
    config = node.get("config")
    kind = config.get("function_type") if isinstance(config, dict) else None
    return node["class_name"] in ("__lambda__", "function") or kind == "lambda"


def _run(node: Json) -> str:
    """Return what loading an object would import or call beyond Keras's harmless parts; empty for nothing."""
    module, name, config = node.get("module"), node["class_name"], node.get("config")
    called = config if name == "function" and isinstance(config, str) else name
    if name in _LOADERS:
        return f"{module or 'keras.layers'}.{name}"
    if name == "TFOpLambda" and isinstance(config, dict):
        function = str(config.get("function", ""))
        return f"tf.{function}" if function.startswith(("io.", "raw_ops.", "py_", "numpy_function")) else ""
    if not isinstance(module, str) or module == "builtins":
        return ""
    parts = module.split(".")
    if parts[0] not in ("keras", "tf_keras"):
        return "" if name != "function" and _custom(node) else f"{module}.{called}"
    inner = [part for part in parts[1:] if part != "src"]
    harmless = name != "function" or inner[:1] == [] or inner[0] in _FUNCTIONS
    return "" if harmless else f"{module}.{called}"


def _custom(node: Json) -> str:
    """Return the name of an object that the person must hand to Keras; empty for Keras's own."""
    registered = node.get("registered_name")
    known = registered if isinstance(registered, str) and ">" in registered else node["class_name"]
    package, sign, _ = known.partition(">")
    return str(known) if sign and package.casefold() not in ("keras", "builtins", "") else ""
