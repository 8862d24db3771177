"""Pruning single weights: against torch.nn.utils.prune and against a plain sort."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune as theirs

import weighttools as wt
from tests.formats.torch_arrays import to_torch
from tests.thorough import chosen
from tests.transforms.edits import FLOATS, TORCH_FLOATS, bits, matrices, normal, read, wide
from weighttools.verbs.editing import reading_bytes

SHARES = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])


def sorted_masks(arrays, share, order=None):
    """Keep-masks by a stable sort of all magnitudes, with what is not finite kept."""
    flat = np.concatenate([np.abs(wide(a)).ravel() for a in arrays.values()])
    finite = np.isfinite(flat)
    keys = np.where(finite, flat, np.inf)
    n = min(round(share * flat.size), int(finite.sum()))
    kept = np.ones(flat.size, bool)
    kept[np.argsort(keys, kind="stable")[:n]] = False
    parts = np.split(kept, np.cumsum([a.size for a in arrays.values()])[:-1])
    return {name: part.reshape(arrays[name].shape) for name, part in zip(arrays, parts, strict=True)}


def check(arrays, pruned, masks, block):
    """Dropped elements are +0.0, kept ones have their bits, and the masks to be saved say so."""
    found, told = read(pruned, block), read(wt.masks(pruned), block)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and told[name].dtype == bool
        np.testing.assert_array_equal(told[name], masks[name], err_msg=name)
        np.testing.assert_array_equal(bits(found[name]), np.where(masks[name], bits(array), 0), err_msg=name)


@given(matrices(), SHARES, st.integers(1, 40))
def test_global_is_a_stable_sort(arrays, share, block):
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=share)
    masks = sorted_masks(arrays, share)
    check(arrays, pruned, masks, block)
    assert pruned.report["n_pruned"] == sum(int((~mask).sum()) for mask in masks.values())


@given(matrices(), SHARES, st.integers(1, 40))
def test_by_tensor_is_a_stable_sort_of_each(arrays, share, block):
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=share, scope="tensor")
    masks = {name: sorted_masks({name: array}, share)[name] for name, array in arrays.items()}
    check(arrays, pruned, masks, block)


def distinct(arrays):
    """Whether all magnitudes differ, so that torch has no choice."""
    flat = np.concatenate([np.abs(wide(a)).ravel() for a in arrays.values()])
    return np.unique(flat).size == flat.size


def modules(arrays):
    found = {}
    for name, array in arrays.items():
        module = torch.nn.Module()
        module.register_parameter("weight", torch.nn.Parameter(to_torch(array)))
        found[name] = module
    return found


def numbers(tensor):
    return tensor.detach().to(torch.float64).numpy()


@given(matrices(TORCH_FLOATS, specials=False, one_dtype=True), SHARES)
def test_global_is_torch_s(arrays, share):
    mine = modules(arrays)
    theirs.global_unstructured([(m, "weight") for m in mine.values()], theirs.L1Unstructured, amount=share)
    found = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=share)
    values = [np.abs(wide(found[name].read())) for name in arrays]
    wanted = [np.abs(numbers(m.weight)) for m in mine.values()]
    same = np.sort(np.concatenate([v.ravel() for v in values]))
    np.testing.assert_array_equal(same, np.sort(np.concatenate([v.ravel() for v in wanted])))  # whatever goes of ties
    if distinct(arrays):
        for name, module in mine.items():
            np.testing.assert_array_equal(wide(found[name].read()), numbers(module.weight), err_msg=name)


@given(matrices(TORCH_FLOATS, specials=False), SHARES)
def test_by_tensor_is_torch_s(arrays, share):
    found = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=share, scope="tensor")
    for name, module in modules(arrays).items():
        theirs.l1_unstructured(module, "weight", amount=share)
        value, wanted = wide(found[name].read()), numbers(module.weight)
        np.testing.assert_array_equal(np.sort(np.abs(value).ravel()), np.sort(np.abs(wanted).ravel()))
        if distinct({name: arrays[name]}):
            np.testing.assert_array_equal(value, wanted)


@given(matrices(TORCH_FLOATS, specials=False), SHARES, st.sampled_from(["global", "tensor"]))
def test_random_masks_are_torch_s_custom_ones(arrays, share, scope):
    found = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=share, random=True, seed=3, scope=scope)
    masks = wt.masks(found).read()
    for name, module in modules(arrays).items():
        theirs.custom_from_mask(module, "weight", torch.from_numpy(masks[name]))
        np.testing.assert_array_equal(wide(found[name].read()), numbers(module.weight))
    n_elements = sum(a.size for a in arrays.values())
    if scope == "global":
        assert sum(int((~m).sum()) for m in masks.values()) == round(share * n_elements)
    else:
        assert all(int((~masks[name]).sum()) == round(share * a.size) for name, a in arrays.items())


@given(matrices(), st.integers(0, 5), st.integers(1, 40))
def test_random_depends_on_seed_and_name_alone(arrays, seed, block):
    """Not on blocks, nor on the values, nor (tensor by tensor) on the other tensors; higher targets drop more."""
    options = {"random": True, "seed": seed, "scope": "tensor"}
    tensor_map = wt.TensorMap.from_arrays(arrays)
    low, high = (wt.prune(tensor_map, sparsity=share, **options) for share in (0.3, 0.6))
    masks = read(wt.masks(low), block)
    for name, mask in wt.masks(high).read().items():
        assert not (mask & ~masks[name]).any()
        alone = wt.prune(wt.TensorMap.from_arrays({name: arrays[name]}), sparsity=0.3, **options)
        np.testing.assert_array_equal(wt.masks(alone)[name].read(), masks[name])


def test_random_drops_evenly():
    array = np.ones((1000, 1000), np.float32)
    tensor_map = wt.TensorMap.from_arrays({"a.weight": array, "b.weight": array})
    masks = wt.masks(wt.prune(tensor_map, sparsity=0.5, random=True)).read()
    for mask in masks.values():
        for axis in (0, 1):
            assert np.abs(mask.mean(axis) - 0.5).max() < 6 * 0.5 / np.sqrt(1000)  # six standard deviations
        assert abs(np.corrcoef(mask[:, 1:].ravel(), mask[:, :-1].ravel())[0, 1]) < 0.006
    assert 0.49 < np.mean(masks["a.weight"] == masks["b.weight"]) < 0.51


@given(matrices(specials=False), st.floats(0, 1), st.floats(0, 1))
def test_twice_is_once_at_the_higher_target(arrays, one, other):
    tensor_map = wt.TensorMap.from_arrays(arrays)
    first, second = sorted([one, other])
    twice = wt.prune(wt.prune(tensor_map, sparsity=first), sparsity=second)
    once = wt.prune(tensor_map, sparsity=second)
    for name in arrays:
        np.testing.assert_array_equal(wide(twice[name].read()), wide(once[name].read()))


TARGETS = {
    "tensor": {"scope": "tensor"},
    "group": {"scope": "group"},
    "random": {"random": True, "seed": 5},
    "rows": {"structure": "rows"},
    "columns by 1": {"structure": "columns", "norm": "1"},
}


@given(matrices(), st.sampled_from(sorted(TARGETS)), st.floats(0, 1), st.floats(0, 1))
def test_twice_is_once_by_every_way_with_a_target(arrays, way, one, other):
    """NaN, Inf and ties among the values too; -0.0 is a zero that the first pruning may have passed over."""
    tensor_map = wt.TensorMap.from_arrays(arrays)
    first, second = sorted([one, other])
    twice = wt.prune(wt.prune(tensor_map, sparsity=first, **TARGETS[way]), sparsity=second, **TARGETS[way])
    once = wt.prune(tensor_map, sparsity=second, **TARGETS[way])
    for name in arrays:
        np.testing.assert_array_equal(wide(twice[name].read()), wide(once[name].read()))


@given(matrices(), st.one_of(st.floats(0, 3), st.just(1e-46), st.just(1e300)), st.integers(1, 40))
def test_threshold(arrays, threshold, block):
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), threshold=threshold)
    with np.errstate(invalid="ignore"):
        masks = {n: ~(np.isfinite(wide(a)) & (np.abs(wide(a)) < threshold)) for n, a in arrays.items()}
    check(arrays, pruned, masks, block)


def test_ties_are_cut_in_order():
    arrays = {name: np.ones((2, 3), np.float32) for name in ("b.weight", "a.weight")}
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=8 / 12).read()
    assert pruned["b.weight"].sum() == 0 and pruned["a.weight"].ravel().tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", chosen(FLOATS, ("float32", "bfloat16")))
def test_large_tensors_meet_the_target(dtype):
    """Larger than a block of the count, so that ties and cuts cross blocks."""
    array = normal((1500, 1000), dtype, 5)
    tensor_map = wt.TensorMap.from_arrays({"a.weight": array, "b.weight": array[::-1, ::-1].T})
    for share in (0.5, 0.123457):
        pruned = wt.prune(tensor_map, sparsity=share)
        masks = sorted_masks(tensor_map.read(), share)
        for name, mask in wt.masks(pruned).read().items():
            np.testing.assert_array_equal(mask, masks[name])


def test_groups():
    arrays = {
        f"model.layers.{i}.mlp.{n}.weight": normal((4, 5), "float32", i) * (i + 1) for i in range(12) for n in "ab"
    }
    arrays["head.weight"] = normal((3, 4), "float32", 99)
    pruned = wt.prune(wt.TensorMap.from_arrays(arrays), sparsity=0.5, scope="group")
    masks = wt.masks(pruned).read()
    groups = {name: name.split(".mlp")[0].removesuffix(".weight") for name in arrays}
    assert {row["scope"] for row in pruned.report["scopes"]} == set(groups.values())
    for group in set(groups.values()):
        inside = {name: array for name, array in arrays.items() if groups[name] == group}
        for name, mask in sorted_masks(inside, 0.5).items():
            np.testing.assert_array_equal(masks[name], mask)


@pytest.mark.parametrize(
    ("verb", "passes", "n_passes"),
    [
        (partial(wt.prune, sparsity=0.5), "magnitude", 2),
        (partial(wt.prune, sparsity=0.5, scope="tensor"), "magnitude", 2),
        (partial(wt.prune, sparsity=0.5, random=True), "random", 2),
        (partial(wt.prune, sparsity=0.5, structure="columns"), "norm", 1),
        (partial(wt.clip, norm=1.0), "norm", 1),
    ],
)
def test_progress_of_what_is_read_to_plan(verb, passes, n_passes):
    arrays = {"a.weight": normal((1200, 1000), "float32", 1), "b.weight": normal((30, 40), "float32", 2)}
    tensor_map = wt.TensorMap.from_arrays({**arrays, "a.bias": np.ones(9, np.float32)})
    moved = []
    verb(tensor_map, progress=moved.append)
    assert len(moved) >= 3 * n_passes and min(moved) > 0
    assert sum(moved) == n_passes * (1_200_000 + 1200) * 4 == reading_bytes(tensor_map, passes=passes)


def test_masks_only_of_what_was_just_pruned():
    tensor_map = wt.TensorMap.from_arrays({"a.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(wt.WeighttoolsError, match="just pruned"):
        wt.masks(tensor_map)
    with pytest.raises(wt.WeighttoolsError, match="just pruned"):
        wt.masks(wt.scale(wt.prune(tensor_map, sparsity=0.5), by=2.0))
