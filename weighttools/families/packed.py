"""Which packed quantisation a checkpoint uses: told by tensors' names and dtypes, metadata and config.json together.

Packed layouts store integers (or floats of 8 bits and fewer) beside scales, zero points and maps in tensors of their
own. Nothing here decodes them. Importing this loads no NumPy, and compiles nothing.

Sources: the loaders of GPTQ, AWQ, compressed-tensors, bitsandbytes, ModelOpt, MLX, HQQ, quanto, ExLlama, AQLM, EETQ,
torchao, ComfyUI, ONNX Runtime and Keras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.errors import SpecError, WeighttoolsError, printable

if TYPE_CHECKING:
    from weighttools.core.spec import Spec
    from weighttools.core.tensormap import Origin, TensorMap
    from weighttools.io.home import Home

Parts = dict[str, tuple[str, "Spec"]]
"""Of one weight: what each of its tensors is, to the tensor's name and spec."""
Signature = tuple[tuple[tuple[str, str], ...], bool]
"""The parts of a weight with their dtypes, and whether they are as wide as AWQ's."""


class Packed(NamedTuple):
    """How the weights of a checkpoint are packed.

    Parameters
    ----------
    encodings
        Names of the encodings (`RULES`), the most frequent first.
    title
        What people call them.
    evidence
        What tells so: the tensors of one weight.
    says
        What config.json or the metadata say of it; may be empty.
    members
        Every tensor of a packed weight (its name, as it was given), to the part it plays: ``"qweight"``, ``"scales"``.
    """

    encodings: tuple[str, ...]
    title: str
    evidence: str
    says: str
    members: Mapping[str, str]


_LAST = {
    name: name
    for name in (
        "qweight", "qzeros", "scales", "g_idx", "biases", "SCB", "weight_format", "absmax", "quant_map",
        "nested_absmax", "nested_quant_map", "scale", "scale_weight", "scale_input", "comfy_quant", "input_scale",
        "output_scale", "W_q", "q_weight", "q_scale", "q_scale_max", "q_groups", "q_group_map", "q_invperm", "q_perm",
        "trellis", "suh", "svh", "Qidxs", "codes", "codebooks", "_data", "_scale", "_shift", "indices", "centroids",
    )
}  # fmt: skip
"""Last parts of names that tell a part of the weight before them."""
_TAILS = {
    "_packed": "packed", "_scale": "scale", "_scale_": "scale_2", "_scales": "scales", "_zero_point": "zero_point",
    "_zero_points": "zero_point", "_shape": "shape", "_g_idx": "g_idx", "_global_scale": "global_scale",
    "_scale_inv": "scale_inv", "_scales_inv": "scale_inv", "_blocks": "blocks", "_quantized": "quantized",
    "_qdata": "qdata", "_Q": "quantized", "_compressed": "compressed", "_bitmask": "bitmask", "_zp": "zero_point",
    "_zero": "zero_point",
}  # fmt: skip
"""What is put behind a weight's own name for its parts; without digits (``_scale_2``, ``_Q4``)."""
_KERAS = str.maketrans("abcdefghij", "0123456789")
_LENGTHS = sorted({len(tail) for tail in _TAILS}, reverse=True)
_WEIGHTS = ("", ".weight", "/kernel", ".kernel", "/embeddings")

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn")
_INTEGERS = ("int8", "uint8", "int32", "uint32", "int16")


class PackingRule(NamedTuple):
    """How the tensors of one weight tell its encoding.

    Parameters
    ----------
    encoding, title
        What we, and what people, call it.
    needs
        Parts that must be there; one name of each alternative ``"a|b"``.
    dtypes
        What the packed tensor may be: of the first of `needs`, or of the weight where `of_weight`.
    of_weight
        Whether the values are in the tensor that the weight would have without being packed.
    """

    encoding: str
    title: str
    needs: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    of_weight: bool = False


_SCALES = "scale_inv|scale|scale_weight|comfy_quant|_scale|scales"
RULES = (
    PackingRule("bnb_4bit", "bitsandbytes 4-bit (nf4 or fp4)", ("absmax",), (), True),
    PackingRule("bnb_int8", "bitsandbytes int8", ("SCB",), ("int8",), True),
    PackingRule("awq", "AWQ", ("qweight", "scales"), ("int32",)),
    PackingRule("gptq", "GPTQ", ("qweight", "scales|qzeros|g_idx"), _INTEGERS),
    PackingRule("mxfp4", "MXFP4", ("blocks", "scales"), ("uint8",)),
    PackingRule("nvfp4", "NVFP4", ("packed", "global_scale"), ("uint8",)),
    PackingRule("nvfp4", "NVFP4", ("scale", "scale_2"), ("uint8", "float4_e2m1fn"), True),
    PackingRule("compressed", "compressed-tensors", ("packed", "scale|shape|zero_point"), _INTEGERS),
    PackingRule("sparse", "compressed-tensors' sparse bitmask", ("compressed", "bitmask")),
    PackingRule("mlx", "MLX", ("scales",), ("uint32",), True),
    PackingRule("exl2", "ExLlamaV2", ("q_weight", "q_scale|q_groups"), _INTEGERS),
    PackingRule("exl3", "ExLlamaV3", ("trellis",), _INTEGERS),
    PackingRule("hqq", "HQQ", ("W_q",)),
    PackingRule("quanto", "quanto", ("_data", "_scale")),
    PackingRule("quip", "QuIP#", ("Qidxs",)),
    PackingRule("aqlm", "AQLM", ("codes", "codebooks")),
    PackingRule("vptq", "VPTQ", ("indices", "centroids"), _INTEGERS),
    PackingRule("torchao", "torchao", ("qdata", "scale")),
    PackingRule("keras", "Keras int8 or int4", ("vars/0", "vars/1"), ("int8", "uint8")),
    PackingRule("onnx", "ONNX quantisation", ("quantized", "scale|scales"), _INTEGERS + _FLOAT8),
    PackingRule("fp8", "fp8 with scales", (_SCALES,), _FLOAT8, True),
    PackingRule("integers", "integers with scales", (_SCALES,), _INTEGERS, True),
)
"""The rules, in the order in which they are tried."""

PLAIN_SCALES = frozenset({"k_scale", "v_scale", "q_scale", "input_scale", "output_scale", "weight_scale"})
"""Last parts of the names of quantisation's numbers that may stand beside weights that are not packed."""
_CONFIGS = ("config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json")


def is_scale(name: str) -> bool:
    """Return whether a name by itself is a quantisation's scale, as of a cache of keys in fp8.

    >>> is_scale("layers.0.self_attn.k_scale"), is_scale("norm.scale")
    (True, False)
    """
    last = name[name.rfind(".") + 1 :]
    return last in PLAIN_SCALES or last.endswith(("_scale_inv", "_scales_inv", "nested_absmax", "quant_map"))


def packed(tensor_map: TensorMap) -> Packed | None:
    """Return how the weights of a map are packed; None where they are not.

    Notes
    -----
    It looks at every name once; config.json is read only where a tensor's dtype or name gives cause.
    """
    return recognise(zip(tensor_map, tensor_map.specs(), strict=True), tensor_map.metadata, tensor_map.origin)


def recognise(
    specs: Iterable[tuple[str, Spec]], metadata: Mapping[str, Any], origin: Origin | None = None
) -> Packed | None:
    """Return how weights are packed, from names and specs; None where they are not.

    Parameters
    ----------
    specs
        Names with their specs. Names may lack their digits, so that one stands for many layers.
    metadata
        The file's own.
    origin
        Where it lies: what config.json says there tells methods apart that look alike.
    """
    known, units = _sorted(specs)
    rules: dict[Signature, PackingRule | None] = {}
    found = [(rule, unit, parts) for unit, parts in units.items() if (rule := _rule(parts, rules))]
    small = {name: "weight" for name, spec in known.items() if spec.dtype.is_float and spec.dtype.bits <= 8}
    if not found and not small:
        return None
    says = said(origin) if origin else {}
    if not found:
        return _scaleless(small, known, says, metadata)
    by_id = {id(rule): rule for rule, _, _ in found}  # a rule takes long to hash, and there may be 100,000 weights
    ranked = [by_id[key] for key, _ in Counter(id(rule) for rule, _, _ in found).most_common()]
    unit, parts = next((unit, parts) for rule, unit, parts in found if rule is ranked[0])
    return Packed(
        tuple(dict.fromkeys(rule.encoding for rule in ranked)),
        _titled(list(dict.fromkeys(rule.title for rule in ranked)), says),
        _evidence(unit, parts),
        _says(says, metadata),
        small | {name: part for _, _, parts in found for part, (name, _) in parts.items()},
    )


def _sorted(specs: Iterable[tuple[str, Spec]]) -> tuple[dict[str, Spec], dict[str, Parts]]:
    """Return all names with their specs, and the parts of what may be packed weights, each with its weight."""
    known: dict[str, Spec] = {}
    units: dict[str, Parts] = {}
    for name, spec in specs:
        if name not in known or spec.dtype.bits <= 8 or not spec.dtype.is_float:
            known[name] = spec
        if found := part_of(name):
            units.setdefault(found[0], {})[found[1]] = (name, spec)
    for unit, parts in units.items():
        if whole := next((unit + end for end in _WEIGHTS if unit + end in known), None):
            parts["weight"] = (whole, known[whole])
    return known, units


def part_of(name: str) -> tuple[str, str] | None:
    """Return the weight that a tensor belongs to, and the part it plays; None for what no packed layout has.

    >>> part_of("h.0.fc.qweight"), part_of("h.0.fc.weight_scale_inv"), part_of("h.0.fc.weight")
    (('h.0.fc', 'qweight'), ('h.0.fc', 'scale_inv'), None)
    """
    if name.endswith((".weight", ".bias")):
        return None
    cut = max(name.rfind("."), name.rfind("/")) + 1
    last = name[cut:]
    if last in _LAST and cut:
        return name[: cut - 1].removesuffix(".weight"), last
    if last.startswith("bitsandbytes__"):
        return name[: cut - 1].removesuffix(".quant_state").removesuffix(".weight"), "quant_state"
    if name.endswith("/vars/" + last):  # Keras numbers a layer's variables; a family's words have letters for them
        return name[: cut - 1], "vars/" + last.translate(_KERAS)
    return _by_tail(name[:cut], last) if "_" in last else None


def _by_tail(module: str, last: str) -> tuple[str, str] | None:
    """Return the weight and the part that what is put behind the weight's own name tells."""
    plain = last.rstrip("0123456789")
    for length in _LENGTHS:
        if part := _TAILS.get(plain[-length:]):
            return (module + plain[:-length]).removesuffix(".weight"), part
    return None


def _rule(parts: Parts, known: dict[Signature, PackingRule | None]) -> PackingRule | None:
    """Return the rule that holds of a weight's parts; those of one signature, which are most, are looked at once."""
    dtypes = tuple([(part, spec.dtype.name) for part, (_, spec) in parts.items()])
    signature = dtypes, "qweight" in parts and "scales" in parts and _is_awq(parts)
    if signature not in known:
        known[signature] = next((rule for rule in RULES if _holds(rule, parts)), None)
    return known[signature]


def _holds(rule: PackingRule, parts: Parts) -> bool:
    first = next((part for part in rule.needs[0].split("|") if part in parts), None)
    if first is None or not all(any(part in parts for part in need.split("|")) for need in rule.needs):
        return False
    values = parts.get("weight" if rule.of_weight else first)
    if values is None or (rule.dtypes and values[1].dtype.name not in rule.dtypes):
        return False
    return rule.encoding != "awq" or _is_awq(parts)


def _is_awq(parts: Parts) -> bool:
    """AWQ packs eight outputs into a word, where GPTQ packs inputs; so its scales are eight times as wide."""
    words, scales = parts["qweight"][1].shape, parts["scales"][1].shape
    return "g_idx" not in parts and bool(words and scales) and scales[-1] == 8 * words[-1]


def _scaleless(
    small: Mapping[str, str], known: Mapping[str, Spec], says: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Packed | None:
    """Return what floats of 8 bits and fewer are whose scales are not here, though something says they have some."""
    marks = (f"{name!r} is there" for name in known if name.endswith("scaled_fp8") or is_scale(name))
    why = _says(says, metadata) or next(marks, None)
    if why is None:
        return None
    first = next(iter(small))
    title = "floats of 8 bits or fewer whose scales are not found"
    return Packed(("fp8",), title, f"{first!r} is {known[first].dtype}", why, small)


_COMFY = "_quantization_metadata"
_PLAIN_METHODS = ("gptq", "awq", "mxfp4", "fp8", "bitsandbytes", "compressed-tensors", "hqq", "quanto", "torchao")


def _titled(titles: list[str], says: Mapping[str, Any]) -> str:
    method = says.get("quant_method")
    title = " and ".join(titles)
    return f"{title} ({method})" if isinstance(method, str) and method not in _PLAIN_METHODS else title


def _evidence(unit: str, parts: Parts) -> str:
    listed = ", ".join(f"{name[len(unit) :].lstrip('._/') or name} ({spec.dtype})" for name, spec in parts.values())
    return f"{unit!r} holds {listed}"


def _says(says: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    if says:
        return f"{says['file']} says {', '.join(f'{key} {value}' for key, value in says.items() if key != 'file')}"
    return f"the metadata has {_COMFY}" if _COMFY in metadata else ""


def said(origin: Origin) -> dict[str, Any]:
    """Return what a configuration beside the weights says of their quantisation, and which file it is; may be empty."""
    from weighttools.io.home import home_of

    home = home_of(origin)
    if home is None:
        return {}
    for file in _CONFIGS:
        entries = _entries(home, file, whole=file.startswith("quant"))
        if entries:
            return {"file": file, **entries}
    return {}


def _entries(home: Home, file: str, whole: bool) -> dict[str, Any]:
    try:
        config = home.read_json(file) or {}
    except WeighttoolsError:  # what is wrong with it is said by whoever needs it
        return {}
    found = config if whole else next(_sections(config), {})
    short = {key: found[key] for key in _KEYS if isinstance(found.get(key), (str, int))}
    return {key: printable(str(value))[:40] for key, value in short.items()}


_KEYS = ("quant_method", "quant_algo", "format", "bits", "packing_format", "load_in_4bit", "load_in_8bit", "group_size")
_SECTIONS = ("quantization_config", "compression_config", "quantization")


def _sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a configuration that tell of quantisation: its own, and those of its parts (text_config)."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        yield from (part[key] for key in _SECTIONS if isinstance(part.get(key), dict))


def refuse(tensor_map: TensorMap, option: str | None = None, keep: Collection[str] = ()) -> None:
    """Refuse what needs weights that are floats by themselves, where they are packed.

    Parameters
    ----------
    option
        The option that asks for it, as its caller spells it.
    keep
        Tensors that it leaves as they are.

    Raises
    ------
    SpecError
        A tensor that it would read or change is a part of a packed weight.
    """
    found = packed(tensor_map)
    if found is None or all(name in keep for name in found.members):
        return
    raise SpecError(
        f"its weights are packed as {found.title}, which is not decoded yet: {_why(found)}",
        subject=tensor_map.origin.path or None,
        expected="weights that are floats by themselves",
        remedy=f"leave {option} out to copy them as they are" if option else "give the checkpoint as it was before",
        code="packed",
    )


def counted_as_stored(found: Packed) -> str:
    """Return the note that counts are of what is stored, and not of the weights that it stands for."""
    return f"counts are of what is stored: weights are packed as {found.title} ({_why(found)})"


def _why(found: Packed) -> str:
    return f"{found.evidence}; {found.says}" if found.says else found.evidence
