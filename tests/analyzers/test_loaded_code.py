"""What Keras and ONNX runtimes would run or trust; the models are made by keras and onnx themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import weighttools as wt
from weighttools.core.tensormap import TensorMap


def found(path: Path) -> dict[str, list[dict[str, Any]]]:
    by_code: dict[str, list[dict[str, Any]]] = {}
    for finding in wt.check(path, headers=True)["findings"]:
        by_code.setdefault(finding["code"], []).append(finding)
    return by_code


pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


# -- Keras ------------------------------------------------------------------------------------------------------------


def keras_model(*layers: Any) -> Any:
    import keras

    model = keras.Sequential(
        [keras.layers.Input((3,)), *layers, keras.layers.Dense(2, "relu", kernel_regularizer="l2")]
    )
    model.compile("adam", keras.losses.MeanSquaredError(), [keras.metrics.AUC(), keras.losses.mean_absolute_error])
    return model


def custom_layer() -> Any:
    import keras

    @keras.saving.register_keras_serializable(package="mine")
    class Odd(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    return Odd()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_own_layers_are_no_finding(tmp_path: Path, suffix: str) -> None:
    import keras

    keras_model(keras.layers.BatchNormalization()).save(tmp_path / f"a{suffix}")
    assert not [code for code in found(tmp_path / f"a{suffix}") if code.startswith("keras-")]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_and_a_registered_layer_of_keras(tmp_path: Path, suffix: str) -> None:
    import keras

    keras_model(custom_layer(), keras.layers.Lambda(lambda x: x + 1)).save(tmp_path / f"a{suffix}")
    report = found(tmp_path / f"a{suffix}")
    assert [f["severity"] for f in report["keras-lambda"]] == ["error"]
    assert [f["severity"] for f in report["keras-custom"]] == ["warning"] and "mine>Odd" in report["keras-custom"][0][
        "message"
    ]
    assert "keras-imports" not in report


@pytest.mark.parametrize(("node", "code"), [
    ({"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}, "keras-imports"),
    ({"module": "os", "class_name": "function", "config": "system", "registered_name": "a>b"}, "keras-imports"),
    ({"module": "my.models", "class_name": "Net", "config": {}, "registered_name": "Net"}, "keras-imports"),
    ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, "keras-imports"),
    ({"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "x"}}, "keras-imports"),
    ({"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}, "keras-imports"),
    ({"class_name": "__lambda__", "config": {"code": "x"}}, "keras-lambda"),
    ({"class_name": "L\u0061mbda", "config": {"function": {"class_name": "__lambda__"}}}, "keras-lambda"),
    ({"class_name": "pack>Layer", "config": {}}, "keras-custom"),
    ({"module": "builtins", "class_name": "function", "config": "f", "registered_name": "mine>f"}, "keras-custom"),
])  # fmt: skip
def test_what_a_configuration_names(tmp_path: Path, node: dict[str, Any], code: str) -> None:
    text = json.dumps({"class_name": "Sequential", "config": {"layers": [[node]]}})
    escaped = text.replace("Lambda", "\\u004cambda").replace("function", "\\u0066unction")
    for name, written in {"a.h5": text, "b.h5": escaped}.items():
        wt.save(tmp_path / name, TensorMap.from_arrays({"w": np.ones(2, np.float32)}, {"model_config": written}))
        assert code in found(tmp_path / name)


# -- ONNX -------------------------------------------------------------------------------------------------------------


def onnx_model(*nodes: Any, functions: Any = (), **opsets: int) -> Any:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], [weights])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), producer_name="test")


ADD = helper.make_node("Add", ["x", "w"], ["y"])
ODD = helper.make_node("Odd", ["x", "w"], ["y"], domain="my.ops")


def test_standard_operators_are_no_finding(tmp_path: Path) -> None:
    gelu = helper.make_node("FastGelu", ["x"], ["z"], domain="com.microsoft")
    onnx.save(onnx_model(ADD, gelu), tmp_path / "a.onnx")
    assert not [code for code in found(tmp_path / "a.onnx") if code.startswith("onnx-")]


def test_an_operator_of_another_domain_wherever_it_stands(tmp_path: Path) -> None:
    branch = helper.make_graph([ODD], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
    inner = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    function = helper.make_function("my.fn", "F", ["x", "w"], ["y"], [ODD], [helper.make_opsetid("my.ops", 1)])
    for model in (onnx_model(ODD), onnx_model(inner), onnx_model(ADD, functions=[function])):
        onnx.save(model, tmp_path / "a.onnx")
        [finding] = found(tmp_path / "a.onnx")["onnx-operator"]
        assert "my.ops::Odd" in finding["message"] and finding["severity"] == "warning"


def test_a_models_own_function_is_no_custom_operator(tmp_path: Path) -> None:
    function = helper.make_function("my.ops", "Odd", ["x", "w"], ["y"], [ADD], [helper.make_opsetid("", 18)])
    onnx.save(onnx_model(ODD, functions=[function]), tmp_path / "a.onnx")
    assert "onnx-operator" not in found(tmp_path / "a.onnx")


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../b", "C:\\x", "..\\x"])
def test_data_outside_the_directory(tmp_path: Path, location: str) -> None:
    model = onnx_model(ADD)
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    [finding] = found(tmp_path / "a.onnx")["onnx-path"]
    assert finding["severity"] == "error"
    tensor.external_data[0].value = "a.data"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "a.data").write_bytes(np.ones(2, np.float32).tobytes())
    assert not [code for code in found(tmp_path / "a.onnx") if code.startswith("onnx-") or code == "unreadable"]
