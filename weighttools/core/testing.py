"""What the conformance suites share: Hypothesis strategies for what weight files hold, and means to break it.

The suites (`weighttools.formats.testing`, `weighttools.analyzers.testing`, `weighttools.transforms.testing`) are for
whoever adds to weighttools; they need pytest and Hypothesis, which nothing else here imports.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from weighttools.core.dtypes import DTYPES, DType
from weighttools.core.tensormap import TensorMap
from weighttools.errors import MissingDependencyError

try:
    from hypothesis import settings
    from hypothesis import strategies as st
except ImportError:
    raise MissingDependencyError(
        "the conformance suites need Hypothesis", remedy="pip install pytest hypothesis"
    ) from None

ODD_NAMES = (
    "",
    "a",
    "model.layers.0.self_attn.q_proj.weight",
    "dense/kernel:0",
    "../../etc/passwd",
    "/absolute",
    "C:\\windows\\path",
    'quo"te',
    "it's",
    "two words ",
    "trailing.",
    "line\nfeed\ttab",
    "\x1b[31mred",
    "ключ.вес",
    "重み",
    "emoji 🧠",
    "e\u0301 and é",
    "\u202eright to left",
    "a.npy",
    "[0, :2]",
    "*?{}",
    "__proto__",
)


def at_most(n: int) -> settings:
    """Settings of a property: `n` examples, or fewer where the profile of Hypothesis that is loaded asks for fewer.

    How long one takes decides nothing.
    """
    return settings(max_examples=min(n, settings().max_examples), deadline=None)


def bits_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array's bytes as flat uint8 in C order, so that NaN equals itself and -0.0 is not 0.0."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def same_bits(left: Any, right: Any) -> bool:
    """Whether two arrays have one dtype, one shape and one bit pattern."""
    a, b = np.asarray(left), np.asarray(right)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_same(found: Any, expected: Any) -> None:
    """Fail, saying which tensor, unless two mappings of arrays agree in names, dtypes, shapes and bits."""
    assert sorted(found) == sorted(expected)
    for name in expected:
        a, b = np.asarray(found[name]), np.asarray(expected[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        np.testing.assert_array_equal(bits_of(a), bits_of(b), err_msg=repr(name))


def specials(dtype: DType) -> list[bytes]:
    """Return little-endian bytes of elements that break careless code: ±0, subnormals, Inf, NaN, the extremes."""
    n = max(1, dtype.bits // 8)
    if dtype.kind == "bool":
        return [b"\0", b"\1"]
    top = (1 << min(dtype.bits, 8)) - 1
    half = 1 << (min(dtype.bits, 8) - 1)
    words = [0, 1, (1 << dtype.bits) - 1, 1 << (dtype.bits - 1), (1 << dtype.bits - 1) - 1, (1 << dtype.bits - 1) | 1]
    infinities = {"float64": 0x7FF << 52, "float32": 0xFF << 23, "float16": 0x1F << 10, "bfloat16": 0xFF << 7}
    if dtype.name in infinities:
        words += [infinities[dtype.name], infinities[dtype.name] | 1 << (dtype.bits - 1), infinities[dtype.name] | 1]
    assert top >= half
    return [word.to_bytes(n, "little") for word in words]


def random_array(dtype: DType, shape: Sequence[int], seed: int) -> np.ndarray[Any, Any]:
    """Return an array of random bits of `dtype`, a third of its elements special ones."""
    rng = np.random.default_rng(seed)
    n, width = math.prod(shape), max(1, dtype.bits // 8)
    raw = np.frombuffer(rng.bytes(n * width), np.uint8).reshape(n, width).copy()
    if dtype.kind == "bool":
        raw &= 1
    if dtype.bits < 8:
        raw &= (1 << dtype.bits) - 1
    known = np.frombuffer(b"".join(specials(dtype)), np.uint8).reshape(-1, width)
    where = rng.random(n) < 0.3
    raw[where] = known[rng.integers(0, len(known), int(where.sum()))]
    little = raw.reshape(-1)
    return little.view(dtype.numpy).reshape(tuple(shape))


def dtypes(names: Sequence[str] = tuple(DTYPES)) -> st.SearchStrategy[DType]:
    """Draw one of the dtypes called `names`."""
    return st.sampled_from([DTYPES[name] for name in names])


def shapes(min_dims: int = 0, max_dims: int = 4, max_side: int = 5, zero: bool = True) -> st.SearchStrategy[Any]:
    """Draw shapes: 0-d, zero-size, ones and ordinary."""
    side = st.integers(0 if zero else 1, max_side)
    return st.lists(side, min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def arrays(
    draw: st.DrawFn,
    names: Sequence[str] = tuple(DTYPES),
    shape: st.SearchStrategy[Any] | None = None,
    whole_bytes: bool = False,
) -> np.ndarray[Any, Any]:
    """Draw an array of random bits; with `whole_bytes`, packed elements fill whole bytes."""
    dtype = draw(dtypes(names))
    sides = draw(shapes() if shape is None else shape)
    if whole_bytes and dtype.pack > 1 and math.prod(sides) % dtype.pack:
        sides = (*sides[:-1], sides[-1] * dtype.pack) if sides else (dtype.pack,)
    return random_array(dtype, sides, draw(st.integers(0, 2**32 - 1)))


def names(alphabet: st.SearchStrategy[str] | None = None, odd: Sequence[str] = ODD_NAMES) -> st.SearchStrategy[str]:
    """Draw tensor names: those people use, those that break parsers, and any Unicode without surrogates or NUL."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0") if alphabet is None else alphabet
    return st.one_of(st.sampled_from(list(odd)), st.text(characters, max_size=12))


RESERVED = {"__metadata__", "__weighttools__"}


@st.composite
def tensor_maps(
    draw: st.DrawFn,
    array: st.SearchStrategy[np.ndarray[Any, Any]] | None = None,
    name: st.SearchStrategy[str] | None = None,
    min_size: int = 0,
    max_size: int = 6,
    metadata: bool = True,
    aliases: bool = True,
) -> TensorMap:
    """Draw a map in memory with text metadata and ties, none of which can be taken for the other."""
    one = names() if name is None else name
    usable = one.filter(lambda text: text not in RESERVED)
    keys = draw(st.lists(usable, unique=True, min_size=min_size, max_size=max_size))
    held = {key: draw(arrays(whole_bytes=True) if array is None else array) for key in keys}
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
    notes = draw(st.dictionaries(text, text, max_size=3)) if metadata else {}
    notes = {k: v for k, v in notes.items() if v not in held}
    extra = draw(st.lists(usable, unique=True, max_size=2)) if aliases and keys else []
    ties = {alias: draw(st.sampled_from(keys)) for alias in extra if alias not in held and alias not in notes}
    return TensorMap.from_arrays(held, notes, ties)


HOSTILE_PATCHES = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    bytes(16),
    b"9" * 25,
    b"-1",
    b"1e9",
    b'"',
    b"[[[[",
)
"""What a length, a count or a piece of text is overwritten with, besides random bytes."""


def run_python(code: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter that finds the modules that this one finds; return what it prints."""
    places = [place for place in sys.path if place]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {places!r}\n{code}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def mutated(data: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    """Apply (position, what, bytes) changes to a file's bytes."""
    found = bytearray(data)
    for at, what, patch in changes:
        at = min(at, max(0, len(found) - 1))
        if what == "set":
            found[at : at + len(patch)] = patch
        elif what == "flip" and found:
            found[at] ^= patch[0] if patch else 1
        elif what == "insert":
            found[at:at] = patch
        elif what == "delete":
            del found[at : at + max(1, len(patch))]
        else:
            found[at:at] = found[at : at + max(1, len(patch))]
    return bytes(found)
