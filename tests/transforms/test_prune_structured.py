"""N of every M, rows, columns, channels, heads: against torch.nn.utils.prune and plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune as theirs
from torch.sparse import _semi_structured_conversions as semi_structured

import weighttools as wt
from tests.formats.torch_arrays import to_torch
from tests.strategies import random_array
from tests.transforms.edits import FLOATS, bits, normal, read, wide
from weighttools.core.dtypes import DTYPES
from weighttools.errors import SpecError


def of_every(array, n, m):
    """Keep-mask by a stable sort of each group; what is not finite stays."""
    magnitude = np.abs(wide(array)).reshape(-1, m)
    keys = np.where(np.isfinite(magnitude), magnitude, np.inf)
    kept = np.ones(keys.shape, bool)
    np.put_along_axis(kept, np.argsort(keys, axis=1, kind="stable")[:, : m - n], False, axis=1)
    return (kept | ~np.isfinite(magnitude)).reshape(array.shape)


@given(
    st.sampled_from(FLOATS), st.sampled_from([(2, 4), (4, 8), (1, 4), (1, 2), (3, 5), (9, 10)]),
    st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 30),
)  # fmt: skip
def test_n_of_m(dtype, nm, n_rows, n_groups, seed, specials, block):
    n, m = nm
    shape = (n_rows, n_groups * m)
    array = random_array(DTYPES[dtype], shape, seed) if specials else normal(shape, dtype, seed)
    pruned = wt.prune(wt.TensorMap.from_arrays({"fc.weight": array}), nm=f"{n}:{m}")
    wanted = of_every(array, n, m)
    np.testing.assert_array_equal(read(wt.masks(pruned), block)["fc.weight"], wanted)
    np.testing.assert_array_equal(bits(read(pruned, block)["fc.weight"]), np.where(wanted, bits(array), 0))
    if not specials:
        n_kept = np.count_nonzero(wide(pruned["fc.weight"].read()).reshape(-1, m), axis=1)
        assert n_kept.max() <= n  # the rule of semi-structured sparsity


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_2_of_4_is_semi_structured_to_torch(dtype):
    """Torch's own compression to 2:4 keeps every value of it, and loses some of what is not pruned so."""
    array = normal((64, 128), dtype, 1)
    pruned = wt.prune(wt.TensorMap.from_arrays({"fc.weight": array}), nm="2:4")["fc.weight"].read()
    for values, survives in ((pruned, True), (array, False)):
        dense = to_torch(values)
        compressed, metadata = semi_structured.sparse_semi_structured_from_dense_cutlass(dense)
        assert compressed.shape == (64, 64)
        back = semi_structured.sparse_semi_structured_to_dense_cutlass(compressed, metadata)
        assert torch.equal(back, dense) == survives


@pytest.mark.parametrize(("nm", "figure"), [("2:4", "nm_2_4"), ("4:8", "nm_4_8")])
def test_patterns_pass_the_analyzers_check(nm, figure):
    arrays = {"fc.weight": normal((32, 64), "float32", 2), "conv.weight": normal((8, 16, 3, 8), "bfloat16", 3)}
    tensor_map = wt.TensorMap.from_arrays(arrays)
    for source, complies in ((wt.prune(tensor_map, nm=nm), True), (tensor_map, False)):
        for row in wt.stats(source, sparsity=True)["tensors"]:
            assert (row[figure] == 1.0) == complies


def test_n_of_m_in_blocks_of_a_writer(tmp_path):
    array = normal((700, 1000), "float32", 0)
    pruned = wt.prune(wt.TensorMap.from_arrays({"fc.weight": array}), nm="2:5")
    record = wt.save(tmp_path / "p.safetensors", pruned)
    found = wt.open(tmp_path / "p.safetensors")["fc.weight"].read()
    np.testing.assert_array_equal(found, np.where(of_every(array, 2, 5), array, 0))
    assert record["transforms"][0]["n_zero"] == 700 * 1000 * 3 // 5 == record["transforms"][0]["n_pruned"]


AXES = {"rows": 0, "columns": -1, "channels": 1}


@given(
    st.sampled_from([*AXES]), st.sampled_from([1, 2, float("inf")]), st.lists(st.integers(1, 7), min_size=3, max_size=4),
    st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), st.integers(0, 2**32 - 1), st.integers(1, 30),
)  # fmt: skip
def test_units_are_torch_s(structure, norm, shape, share, seed, block):
    array = normal(tuple(shape), "float64", seed)
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(torch.from_numpy(array.copy())))
    theirs.ln_structured(module, "weight", amount=share, n=norm, dim=AXES[structure])
    found = wt.prune(
        wt.TensorMap.from_arrays({"conv.weight": array}), structure=structure, sparsity=share, norm=f"{norm:g}"
    )
    np.testing.assert_array_equal(read(found, block)["conv.weight"], module.weight.detach().numpy())


def test_units_that_are_not_finite_stay():
    array = np.ones((4, 3), np.float32)
    array[0, 1], array[2, 0] = np.nan, np.inf
    found = wt.prune(wt.TensorMap.from_arrays({"fc.weight": array}), structure="rows", sparsity=0.75)
    assert found.report["scopes"][0]["n_units_pruned"] == 2
    np.testing.assert_array_equal(found["fc.weight"].read(), array * np.array([[1], [0], [1], [0]], np.float32))


@pytest.mark.parametrize(
    "names",
    [
        ("encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.key",
         "encoder.layer.0.attention.self.value", "encoder.layer.0.attention.output.dense"),
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
         "model.layers.0.self_attn.o_proj"),
    ],
)  # fmt: skip
def test_heads_go_together(names):
    arrays = {f"{name}.weight": normal((12, 12), "float32", i) for i, name in enumerate(names)}
    arrays["model.layers.0.mlp.up_proj.weight"] = normal((12, 12), "float32", 9)
    found = wt.prune(wt.TensorMap.from_arrays(arrays), structure="heads", n_heads=4, sparsity=0.5)
    assert found.report["n_pruned"] == sum(int((tensor.read() == 0).sum()) for tensor in found.values())
    *qkv, out = [arrays[f"{name}.weight"].astype(np.float64) for name in names]
    scores = sum(np.square(a.reshape(4, 3, 12)).sum((1, 2)) for a in qkv) + np.square(out.reshape(12, 4, 3)).sum((0, 2))
    gone = np.isin(np.arange(12) // 3, np.argsort(scores)[:2])
    for name in names[:3]:
        np.testing.assert_array_equal(
            found[f"{name}.weight"].read(), np.where(gone[:, None], 0, arrays[f"{name}.weight"])
        )
    np.testing.assert_array_equal(found[f"{names[3]}.weight"].read(), np.where(gone, 0, arrays[f"{names[3]}.weight"]))
    assert "model.layers.0.mlp.up_proj.weight" not in found.report["names"]


def test_shared_keys_and_values_stay():
    shapes = {"q_proj": (8, 8), "k_proj": (4, 8), "v_proj": (4, 8), "o_proj": (8, 8)}
    arrays = {f"l.0.attn.{n}.weight": normal(s, "float32", i) for i, (n, s) in enumerate(shapes.items())}
    found = wt.prune(wt.TensorMap.from_arrays(arrays), structure="heads", n_heads=4, sparsity=0.5)
    assert found.report["n_pruned"] == sum(int((tensor.read() == 0).sum()) for tensor in found.values())
    assert found.report["names"] == ["l.0.attn.q_proj.weight", "l.0.attn.o_proj.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nm": "2:4"}, "rows of 6 elements are not whole groups of 4"),
        ({"nm": "4:4"}, "is no pattern"),
        ({"nm": "2:64"}, "is no pattern"),
        ({"nm": "x"}, "is no pattern"),
        ({"nm": "1:2", "sparsity": 0.5}, "nm sets the sparsity"),
        ({"nm": "1:2", "scope": "tensor"}, "tensor by tensor"),
        ({"structure": "rows"}, "needs sparsity"),
        ({"structure": "rows", "sparsity": 1.5}, "out of range"),
        ({"structure": "rows", "sparsity": 0.5, "random": True}, "exclude each other"),
        ({"structure": "heads", "sparsity": 0.5}, "needs n_heads: no config.json"),
        ({"structure": "heads", "sparsity": 0.5, "n_heads": 2}, "no tensor has heads"),
        ({"structure": "channels", "sparsity": 0.5}, "no tensor has channels"),
    ],
)
def test_refused(options, message):
    tensor_map = wt.TensorMap.from_arrays({"fc.weight": np.ones((4, 6), np.float32)})
    with pytest.raises(wt.WeighttoolsError, match=message):
        wt.prune(tensor_map, **options)


def test_heads_are_those_of_the_configuration(tmp_path: Path) -> None:
    """As many as config.json says, or the message names the option that is missing."""
    import transformers as t

    config = t.LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    t.LlamaForCausalLM(config).save_pretrained(tmp_path)
    wanted = wt.prune(tmp_path, structure="heads", n_heads=4, sparsity=0.5)
    found = wt.prune(tmp_path, structure="heads", sparsity=0.5)
    assert {n: a.tobytes() for n, a in found.read().items()} == {n: a.tobytes() for n, a in wanted.read().items()}
    assert "heads: 4, as config.json beside the weights says" in found.origin.notes
    (tmp_path / "config.json").unlink()
    with pytest.raises(SpecError, match="^structure heads needs n_heads"):
        wt.prune(tmp_path, structure="heads", sparsity=0.5)
