"""What stayed as it was: frozen layers and modules, and changes of one role alone. Names and figures tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weighttools.analyzers.compare.explain.context import ExplanationContext, Findings
from weighttools.analyzers.compare.explain.wording import enumerated, labels, listed, percent
from weighttools.analyzers.compare.pair import Explanation, Pair
from weighttools.families.role_types import Role
from weighttools.families.roles import tell_role

ONLY = {Role.NORM: "norms", Role.BIAS: "biases", Role.HEAD: "head", Role.EMBEDDING: "embeddings"}


def explain_frozen(findings: Findings) -> list[Explanation]:
    """Say which roles alone changed, or which modules did not; where all was rounded, what stayed tells nothing."""
    context = findings.context
    if all(findings.explained.get(change.name) == "rounded" for change in findings.changes):
        return []
    changed = [change.pair for change in findings.changes if _is_parameter(change.pair, context)]
    same = [pair for pair in context.unchanged if _is_parameter(pair, context)]
    if not changed or not same:
        return []
    return _only(changed, same, context) or _modules(changed, same)


def _is_parameter(pair: Pair, context: ExplanationContext) -> bool:
    return pair.after.dtype.is_float and context.role(pair).is_parameter


def _only(changed: Sequence[Pair], same: Sequence[Pair], context: ExplanationContext) -> list[Explanation]:
    """Say that all that changed is norms, or biases, or the head, or embeddings."""
    for role, word in ONLY.items():
        is_only = all(_is_of(pair, role, context) for pair in changed)
        if is_only and not all(_is_of(pair, role, context) for pair in same):
            names = tuple(pair.new for pair in changed)
            n_elements = sum(pair.after.n_elements for pair in changed)
            total = n_elements + sum(pair.after.n_elements for pair in same)
            text = (
                f"Only {'the head' if role is Role.HEAD else word} changed ({listed(names)}): {n_elements:,} of"
                f" {total:,} parameters; the other {len(same):,} tensors are unchanged."
            )
            evidence: dict[str, object] = {
                "role": str(role), "n_tensors": len(changed), "n_unchanged_tensors": len(same),
                "n_elements": n_elements, "n_unchanged_elements": total - n_elements,
            }  # fmt: skip
            return [Explanation(f"only-{word}", text, names, evidence)]
    return []


def _is_of(pair: Pair, role: Role, context: ExplanationContext) -> bool:
    """Whether a tensor is of a role; a bias is also of its module: of a norm, or of the head."""
    own = context.role(pair)
    if own is Role.BIAS and role in (Role.NORM, Role.HEAD):
        cut = max(pair.new.rfind("."), pair.new.rfind("/")) + 1
        return tell_role(f"{pair.new[:cut]}weight", pair.after.spec, context.names or None).role is role
    return own is role


def _modules(changed: Sequence[Pair], same: Sequence[Pair]) -> list[Explanation]:
    """Say which modules are unchanged as wholes: the outermost such ones, with their numbers as ranges."""
    touched = {module for pair in changed for module in _around(pair.new)}
    whole: dict[str, list[Pair]] = {}
    for pair in same:
        outermost = next((module for module in _around(pair.new) if module not in touched), None)
        if outermost is not None:
            whole.setdefault(outermost, []).append(pair)
    if not whole:
        return []
    sizes = {
        label: sum(pair.after.n_elements for module in modules for pair in whole[module])
        for label, modules in labels(whole).items()
    }
    held = [pair for pairs in whole.values() for pair in pairs]
    n_elements, n_all = (sum(pair.after.n_elements for pair in pairs) for pairs in (held, [*changed, *same]))
    ordered = sorted(sizes, key=lambda label: -sizes[label])
    text = (
        f"Frozen: {enumerated(ordered)} {'is' if len(whole) == 1 else 'are'} unchanged, {percent(n_elements / n_all)}"
        f" of the parameters; what changed lies in {listed(_innermost(changed))}."
    )
    evidence: dict[str, object] = {
        "unchanged": ordered, "n_tensors": len(held), "n_changed_tensors": len(changed),
        "n_elements": n_elements, "n_all_elements": n_all,
    }  # fmt: skip
    return [Explanation("frozen", text, tuple(pair.new for pair in held), evidence)]


def _around(name: str) -> list[str]:
    """Return the modules that a tensor lies in, the outermost first."""
    separator = "." if "." in name else "/"
    parts = name.split(separator)[:-1]
    return [separator.join(parts[: n + 1]) for n in range(min(len(parts), 100))]


def _innermost(pairs: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys((_around(pair.new) or [pair.new])[-1] for pair in pairs))
