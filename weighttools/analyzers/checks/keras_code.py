"""Code in a Keras configuration: Lambda layers hold marshalled Python functions, which loading the model would run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from weighttools.core.findings import ERROR, WARNING, Finding
from weighttools.core.tensormap import TensorMap
from weighttools.errors import counted

_MARSHALLED = re.compile(r'"class_name":\s*"(?:__lambda__|function)"|"function_type":\s*"lambda"')
_LAMBDA = re.compile(r'"class_name":\s*"Lambda"')


def check(tensor_map: TensorMap) -> Iterator[Finding]:
    """Yield a finding for each configuration in the metadata that holds a Lambda layer."""
    for key, value in tensor_map.metadata.items():
        text = value if isinstance(value, str) else ""
        n = len(_LAMBDA.findall(text))
        if not n:
            continue
        severity = ERROR if _MARSHALLED.search(text) else WARNING
        fact = f"{key} holds {counted(n, 'Lambda layer')}, Python code that keras.load_model would run"
        yield Finding(severity, "keras-lambda", fact, remedy="load only its weights, into a model that you define")
