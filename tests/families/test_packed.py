"""Packed checkpoints are recognised, never half decoded: scales and packed integers keep their very bytes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize
from safetensors.numpy import save_file

import weighttools as wt
from weighttools.errors import SpecError
from weighttools.families.packed import packed

OUT, IN = 64, 128
NORM = {"model.norm.weight": np.linspace(0.5, 1.5, IN, dtype=np.float32)}
AT = "model.layers.0.q_proj"
RANDOM = np.random.default_rng(17)


def words(*shape: int, dtype: str = "int32") -> np.ndarray:
    """Random bits."""
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(RANDOM.bytes(n), np.uint8).view(dtype).reshape(shape)


def scales(*shape: int, dtype: str = "float16") -> np.ndarray:
    """Positive numbers that bfloat16 cannot hold."""
    return np.array(1 + RANDOM.random(shape), dtype)


def gptq(bits: int) -> dict[str, np.ndarray]:
    return {
        f"{AT}.qweight": words(IN * bits // 32, OUT), f"{AT}.qzeros": words(IN // 32, OUT * bits // 32),
        f"{AT}.scales": scales(IN // 32, OUT), f"{AT}.g_idx": np.arange(IN, dtype=np.int32) // 32,
    }  # fmt: skip


def bnb(state: dict[str, object], nested: bool = False, storage: str = "uint8") -> dict[str, np.ndarray]:
    name = f"{AT}.weight"
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    first = words(OUT * IN // 64, dtype="uint8") if nested else scales(OUT * IN // 64, dtype="float32")
    more = {
        f"{name}.nested_absmax": scales(1, dtype="float32"), f"{name}.nested_quant_map": scales(256, dtype="float32"),
    }  # fmt: skip
    return {
        name: words(OUT * IN // 2 // np.dtype(storage).itemsize, 1, dtype=storage), f"{name}.absmax": first,
        f"{name}.quant_map": scales(16, dtype="float32"), f"{name}.quant_state.bitsandbytes__nf4": text,
        **(more if nested else {}),
    }  # fmt: skip


def fp8(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn)


def config(method: str, **more: object) -> dict[str, object]:
    return {"model_type": "llama", "quantization_config": {"quant_method": method, **more}}


CT = {"format": "pack-quantized", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}}
PACK = {
    f"{AT}.weight_packed": words(OUT, IN // 8), f"{AT}.weight_scale": scales(OUT, IN // 32),
    f"{AT}.weight_shape": np.array([OUT, IN]),
}  # fmt: skip
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"
LAYOUTS: dict[str, tuple[str, dict[str, np.ndarray], dict[str, object] | None]] = {
    "gptq 4": ("GPTQ", gptq(4), config("gptq", bits=4)),
    "gptq 3": ("GPTQ", gptq(3), config("gptq", bits=3)),
    "gptq by tensors alone": ("GPTQ", gptq(4), None),
    "auto-round": ("GPTQ (auto-round)", gptq(4), config("auto-round", bits=4)),
    "awq": (
        "AWQ",
        {f"{AT}.qweight": words(IN, OUT // 8), f"{AT}.qzeros": words(4, OUT // 8), f"{AT}.scales": scales(4, OUT)},
        config("awq", bits=4),
    ),
    "compressed-tensors": ("compressed-tensors", PACK, config("compressed-tensors", **CT)),
    "in text_config": ("compressed-tensors", PACK, {"text_config": config("compressed-tensors", **CT)}),
    "asymmetric, no config": (
        "compressed-tensors", {**PACK, f"{AT}.weight_zero_point": words(OUT // 8, IN // 32)}, None
    ),
    "int8 of compressed-tensors": (
        "integers with scales",
        {f"{AT}.weight": words(OUT, IN, dtype="int8"), f"{AT}.weight_scale": scales(OUT, 1, dtype="float32")},
        config("compressed-tensors", format="int-quantized"),
    ),
    "nf4": ("bitsandbytes", bnb({"quant_type": "nf4"}), config("bitsandbytes", load_in_4bit=True)),
    "nf4, nested": ("bitsandbytes", bnb({"quant_type": "nf4"}, nested=True), None),
    "nf4 stored as float32": ("bitsandbytes", bnb({"quant_type": "nf4"}, storage="float32"), None),
    "bitsandbytes int8": (
        "bitsandbytes int8",
        {
            f"{AT}.weight": words(OUT, IN, dtype="int8"), f"{AT}.SCB": scales(OUT, dtype="float32"),
            f"{AT}.weight_format": np.array(0, np.uint8),
        },
        config("bitsandbytes", load_in_8bit=True),
    ),
    "mxfp4": (
        "MXFP4",
        {
            f"{EXPERTS}_blocks": words(2, OUT, IN // 32, 16, dtype="uint8"),
            f"{EXPERTS}_scales": words(2, OUT, IN // 32, dtype="uint8"),
        },
        config("mxfp4"),
    ),
    "nvfp4 of modelopt": (
        "NVFP4",
        {
            f"{AT}.weight": words(OUT, IN // 2, dtype="uint8"), f"{AT}.weight_scale": fp8(OUT, IN // 16),
            f"{AT}.weight_scale_2": scales(dtype="float32"), f"{AT}.input_scale": scales(dtype="float32"),
        },
        config("modelopt", quant_algo="NVFP4"),
    ),
    "nvfp4 of compressed-tensors": (
        "NVFP4",
        {
            f"{AT}.weight_packed": words(OUT, IN // 2, dtype="uint8"), f"{AT}.weight_scale": fp8(OUT, IN // 16),
            f"{AT}.weight_global_scale": scales(1, dtype="float32"),
        },
        None,
    ),
    "fp8 in blocks": (
        "fp8 with scales",
        {f"{AT}.weight": fp8(OUT, IN), f"{AT}.weight_scale_inv": scales(1, 1, dtype="float32")},
        config("fp8", weight_block_size=[128, 128]),
    ),
    "fp8, DeepSeek-V4's name": (
        "fp8 with scales", {f"{AT}.weight": fp8(OUT, IN), f"{AT}.scale": scales(1, 1, dtype="float32")}, None
    ),
    "fp8, ComfyUI's name": (
        "fp8 with scales",
        {
            f"{AT}.weight": fp8(OUT, IN), f"{AT}.scale_weight": scales(dtype="float32"),
            "scaled_fp8": np.zeros(2, ml_dtypes.float8_e4m3fn),
        },
        None,
    ),
    "fp8 experts": (
        "fp8 with scales", {EXPERTS: fp8(2, OUT, IN), f"{EXPERTS}_scale_inv": scales(2, 1, 1, dtype="float32")}, None
    ),
    "fp8, scales lost": ("whose scales are not found", {f"{AT}.weight": fp8(OUT, IN)}, config("fp8")),
    "mlx": (
        "MLX",
        {f"{AT}.weight": words(OUT, IN // 8, dtype="uint32"), f"{AT}.scales": scales(OUT, 2),
         f"{AT}.biases": scales(OUT, 2)},
        {"quantization": {"bits": 4, "group_size": 64}},
    ),
    "onnx runtime's names": (
        "ONNX",
        {f"{AT}.weight_quantized": words(OUT, IN, dtype="int8"), f"{AT}.weight_scale": scales(dtype="float32"),
         f"{AT}.weight_zero_point": np.array(0, np.int8)},
        None,
    ),
}  # fmt: skip


@pytest.fixture(params=list(LAYOUTS))
def layout(request, tmp_path: Path) -> tuple[Path, str, dict[str, np.ndarray]]:
    """A directory, what it is called, and its arrays."""
    title, arrays, said = LAYOUTS[request.param]
    place = tmp_path / "model"
    place.mkdir()
    save_file(arrays | NORM, place / "model.safetensors", metadata={"format": "pt"})
    if said is not None:
        (place / "config.json").write_text(json.dumps(said))
    return place, title, arrays


def stored(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What the official reader finds in a file: dtype, shape and bytes, 8-bit floats too."""
    names = {"I32": "int32", "I64": "int64", "U8": "uint8", "I8": "int8", "U32": "uint32", "F16": "float16", "F64": "float64",
             "F32": "float32", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}  # fmt: skip
    return {n: (names[t["dtype"]], tuple(t["shape"]), bytes(t["data"])) for n, t in deserialize(path.read_bytes())}


def bits(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}


def test_decoding_and_casting_are_refused_with_the_evidence(layout, inside, tmp_path: Path) -> None:
    place, title, _ = layout
    for option in (
        ["--dequantize"],
        ["--dtype", "bfloat16"],
        ["--dtype", "float32", "--dequantize"],
        ["--quantize", "q8_0"],
    ):
        ran = inside("convert", place, tmp_path / "out.safetensors", *option)
        assert ran.code == 2 and not (tmp_path / "out.safetensors").exists()
        assert ran.err.count("\n") == 1 and title in ran.err and "packed as" in ran.err
        assert AT in ran.err or EXPERTS in ran.err
    if (place / "config.json").exists():
        assert "config.json says" in ran.err


def test_copies_shards_and_joins_keep_every_byte(layout, inside, tmp_path: Path) -> None:
    place, _, arrays = layout
    for target, options in ((tmp_path / "one.safetensors", ()), (tmp_path / "many", ("--max-shard-size", "9KB"))):
        assert inside("convert", place, target, *options).code == 0
    assert inside("convert", tmp_path / "many", tmp_path / "joined.safetensors").code == 0
    for file in ("one.safetensors", "joined.safetensors"):
        assert stored(tmp_path / file) == bits(arrays | NORM)


def test_counts_are_said_to_be_of_what_is_stored(layout) -> None:
    place, title, _ = layout
    for record in (wt.params(place), wt.estimate(place)):
        (note,) = [note for note in record["notes"] if "counts are of what is stored" in note]
        assert title in note and (AT in note or EXPERTS in note)
    found = wt.inspect(place)
    assert found["kind"].startswith("quantized") and any(title in line for line in found["evidence"])


def averaged(place: Path) -> wt.TensorMap:
    """The mean of a checkpoint with itself, which is refused of packed weights: they are left out."""
    with pytest.raises(SpecError, match="is packed as .*: its weights cannot be averaged"):
        wt.average([place, place])
    found = packed(wt.open(place))
    assert found is not None
    return wt.average([place, place], exclude=sorted(found.members))


def test_no_edit_changes_a_part_of_a_packed_weight(layout) -> None:
    place, _, arrays = layout
    edits = (
        lambda: wt.scale(place, by=2.0, include_all=True), lambda: wt.decay(place, rate=0.1, include_all=True),
        lambda: wt.noise(place, std=1.0, include_all=True), lambda: wt.clip(place, value=0.1, include_all=True),
        lambda: wt.prune(place, sparsity=0.5, include_all=True), lambda: averaged(place),
        lambda: wt.init(place, method="zeros", include_all=True),
    )  # fmt: skip
    for edit in edits:
        after = edit().read()
        assert bits({name: after[name] for name in arrays}) == bits(arrays)
    assert np.array_equal(
        wt.scale(place, by=2.0, include_all=True)["model.norm.weight"].read(), 2 * NORM["model.norm.weight"]
    )


def test_an_edit_that_would_change_nothing_else_is_refused(tmp_path: Path) -> None:
    save_file(LAYOUTS["fp8 in blocks"][1], tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match="packed as fp8 with scales"):
        wt.scale(tmp_path / "a.safetensors", by=2.0)


def test_what_is_not_packed_beside_it_can_be_cast(tmp_path: Path) -> None:
    arrays = LAYOUTS["gptq 4"][1]
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(arrays | NORM, source)
    wt.convert(source, target, dtype="bfloat16", keep_dtype=[f"{AT}.*"])
    assert stored(target) == bits(arrays | {name: value.astype(ml_dtypes.bfloat16) for name, value in NORM.items()})
    wt.convert(source, target, include=["*norm*"], dtype="float16", force=True)
    assert stored(target)["model.norm.weight"][0] == "float16"
    with pytest.raises(SpecError, match="GPTQ"):  # a scale is a part of it too
        wt.convert(source, target, dtype="bfloat16", keep_dtype=["*.qweight"], force=True)


def test_npz_does_not_widen_packed_floats(tmp_path: Path) -> None:
    save_file(LAYOUTS["fp8 in blocks"][1] | NORM, tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match="packed as fp8"):
        wt.convert(tmp_path / "a.safetensors", tmp_path / "a.npz", npz_bf16="float32")
    wt.convert(tmp_path / "a.safetensors", tmp_path / "a.npz")
    assert bits(wt.open(tmp_path / "a.npz").read()) == stored(tmp_path / "a.safetensors")


def test_scales_that_stand_alone_keep_their_dtype(inside, tmp_path: Path) -> None:
    """As of a cache of keys in fp8, beside plain weights."""
    arrays = {"l.0.k_scale": scales(dtype="float32"), "l.0.v_scale": scales(dtype="float32"), **NORM}
    save_file(arrays, tmp_path / "a.safetensors")
    ran = inside("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--dtype", "bfloat16")
    found = stored(tmp_path / "b.safetensors")
    assert ran.code == 0 and "2 scales of a quantisation keep their dtypes (first 'l.0.k_scale')" in ran.err
    assert found["l.0.k_scale"][2] == arrays["l.0.k_scale"].tobytes()
    assert found["model.norm.weight"][0] == "bfloat16"


@pytest.mark.parametrize(
    "arrays",
    [
        {"params/LayerNorm_0/scale": scales(8, dtype="float32"), "params/LayerNorm_0/bias": scales(8)},
        {"logit_scale": scales(dtype="float32"), "visual.proj.weight": scales(4, 4)},
        {"conv.weight": scales(4, 4), "conv.scale": scales(4), "conv.weight_shape": np.array([4, 4])},
        {"attn.q_norm.scale": scales(4), "block_scales": scales(4), "n.num_batches_tracked": np.array(3)},
        {"a.weight": fp8(4, 4)},
        {"codes": np.arange(4), "layers/dense/vars/0": scales(4, 4), "layers/dense/vars/1": scales(4)},
    ],
)
def test_plain_weights_are_not_taken_for_packed(arrays, tmp_path: Path) -> None:
    save_file(arrays, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert packed(wt.open(tmp_path / "a.safetensors")) is None
    wt.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float64")
    assert stored(tmp_path / "b.safetensors") == bits(
        {n: a.astype(np.float64) if a.dtype.kind in "fV" else a for n, a in arrays.items()}
    )


def test_a_configuration_alone_does_not_make_weights_packed(tmp_path: Path) -> None:
    """Files of plain floats keep the quantization_config of where they come from."""
    save_file({f"{AT}.weight": scales(4, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config("bitsandbytes")))
    assert packed(wt.open(tmp_path)) is None


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_keras_own_quantisation(mode, suffix, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Dense(16)])
    model.build((None, 8))
    path = tmp_path / f"model{suffix}"
    with warnings.catch_warnings():  # the input layer cannot be quantised, which is no news; and NumPy's deprecations
        warnings.simplefilter("ignore")
        model.quantize(mode)
        (model.save if suffix == ".keras" else model.save_weights)(path)
    found = packed(wt.open(path))
    assert found is not None and found.encodings == ("keras",)
    assert all("/dense/" in name for name in found.members)
    with pytest.raises(SpecError, match="Keras int8 or int4"):
        wt.convert(path, tmp_path / "o.safetensors", dtype="bfloat16")


def test_training_refuses_packed_weights(layout) -> None:
    from weighttools import train

    place, title, _ = layout
    with pytest.raises(SpecError, match="packed as") as raised:
        train.model(place)
    assert title in str(raised.value)


def test_hostile_configurations_change_nothing(tmp_path: Path) -> None:
    save_file(LAYOUTS["gptq 4"][1], tmp_path / "model.safetensors")
    for said in ('{"quantization_config": [1]}', "[", '{"quantization_config": {"quant_method": {"a": 1}, "bits": "x"}}',
                 '{"quantization_config": {"quant_method": "\\u001b[31m' + "x" * 5000 + '"}}'):  # fmt: skip
        (tmp_path / "config.json").write_text(said)
        found = packed(wt.open(tmp_path / "model.safetensors"))
        assert found is not None and found.encodings == ("gptq",)
        assert "\x1b" not in found.title + found.says and len(found.title + found.says) < 300
