"""Which tensors of several checkpoints are averaged: ties, what some lack, and what is no parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weighttools.core.patterns import matching_names
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import TensorMap
from weighttools.errors import SpecError, counted, few, option
from weighttools.families.of_maps import roles
from weighttools.families.packed import packed
from weighttools.families.role_types import Role
from weighttools.families.roles import tell_role

MISSING = ("error", "keep", "drop")
"""What becomes of a tensor that not all have: an error, the mean over those that have it, or it is left out."""

INTEGERS = "copied from the first: integers, and what is quantised"
NOT_ASKED = "copied from the first: not asked for"
_COPIED = {
    Role.STATE: "copied from the first: training state",
    Role.BUFFER: "copied from the first: buffers",
    Role.VECTOR: "copied from the first: vectors of spectral norm",
    Role.MASK: "copied from the first: masks",
    Role.SCALE: "copied from the first: scales of quantised tensors",
}
"""Roles whose values have no mean that means anything. Running statistics have one."""


@dataclass(slots=True)
class AveragePlan:
    """What is averaged, and what is not.

    Parameters
    ----------
    first
        The first map, without the ties that not all maps have.
    untied
        The names that are tied in it, but not in all.
    holders
        Each name that was asked for, to the maps that have it, by number; those that are left out are not among them.
    averaged
        The names of these whose values are averaged.
    left
        Rule to how many tensors are copied by it.
    lacking
        Names that not all maps have.
    roles
        What the names that were asked for are.
    """

    first: TensorMap
    untied: list[str]
    holders: dict[str, list[int]] = field(default_factory=dict)
    averaged: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    roles: dict[str, Role] = field(default_factory=dict)

    def notes(self, missing: str) -> list[str]:
        """Return what should be known of it."""
        n = sum(self.roles[name] is Role.STATISTIC for name in self.averaged)
        masks = self.left.get(_COPIED[Role.MASK])
        does = "left out" if missing == "drop" else "averaged over those that have them"
        said = {
            f"not in all files, {does}: {few(self.lacking)}": self.lacking,
            f"tied in the first file and not in all, so averaged each by itself: {few(self.untied)}": self.untied,
            f"{counted(n, 'running statistic')} averaged too, which is near what the averaged model would measure on "
            "data, but not the same": n,
            "the masks are the first file's: where the others' differ, the weights are means of what they mask": masks,
        }
        return [note for note, holds in said.items() if holds]


def plan(maps: Sequence[TensorMap], include: Sequence[str], exclude: Sequence[str], missing: str) -> AveragePlan:
    """Say what is averaged of several maps.

    Raises
    ------
    SpecError
        A tensor is not in all of them, and `missing` is ``"error"``; one has another shape or an encoding; or so few
        fit that these are not the same model.
    TensorNotFoundError
        A pattern matches nothing.
    """
    if missing not in MISSING:
        raise SpecError(f"missing tensors: {missing!r}", expected=f"one of {', '.join(MISSING)}")
    first, untied = _untied(maps)
    everywhere = [first, *maps[1:]]
    names = dict.fromkeys(name for one in everywhere for name in (*one, *one.aliases) if name not in first.aliases)
    asked = list(matching_names(names, include, exclude))
    for one in everywhere:
        _refuse_packed(one, asked)
    asked = [name for name in asked if not _is_foreign_state(everywhere, name)]
    found = AveragePlan(first, untied)
    holders = {name: [i for i, one in enumerate(everywhere) if name in one] for name in asked}
    found.lacking = [name for name in asked if len(holders[name]) < len(maps)]
    strangers = _strangers(everywhere, asked)
    if found.lacking and missing == "error":
        raise _lacks(maps, found.lacking, holders[found.lacking[0]], strangers)
    if strangers and missing != "error":
        raise SpecError(strangers.lstrip("; "), expected="checkpoints of one model")
    dropped = set(found.lacking) if missing == "drop" else set()
    found.holders = {name: holders[name] for name in asked if name not in dropped}
    _divide(found, everywhere, strangers)
    n_other = len([name for name in first if name not in holders])
    found.left |= {NOT_ASKED: n_other} if n_other else {}
    return found


def _is_foreign_state(maps: Sequence[TensorMap], name: str) -> bool:
    """Whether a name is training state that not all maps have: the first's stays, and no other's is added."""
    holders = [one for one in maps if name in one]
    return len(holders) < len(maps) and tell_role(name, holders[0][name].spec, holders[0]).role is Role.STATE


def _refuse_packed(tensor_map: TensorMap, asked: Sequence[str]) -> None:
    """Refuse to average what little is not packed of a packed checkpoint: the mean would be of norms alone."""
    parts = packed(tensor_map)
    members = [name for name in asked if parts and name in parts.members]
    if parts and members:
        raise SpecError(
            f"is packed as {parts.title}: its weights cannot be averaged as they are, first {members[0]!r}",
            subject=tensor_map.origin.path or None,
            expected="decoded weights",
            remedy="leave the packed ones out with -x: they are then the first file's",
        )


def _untied(maps: Sequence[TensorMap]) -> tuple[TensorMap, list[str]]:
    """Return the first map with a tensor of its own for each name that is not tied to the same one in all maps."""
    first = maps[0]
    loose = [alias for alias, kept in first.aliases.items() if not all(_is_tied(one, alias, kept) for one in maps[1:])]
    if not loose:
        return first, []
    tensors = {**{name: first[name] for name in first}, **{name: first[name] for name in loose}}
    aliases = {alias: kept for alias, kept in first.aliases.items() if alias not in loose}
    return first.replace(tensors=tensors, aliases=aliases), loose


def _is_tied(tensor_map: TensorMap, one: str, other: str) -> bool:
    ties = tensor_map.aliases
    return one in tensor_map and other in tensor_map and ties.get(one, one) == ties.get(other, other)


def _strangers(maps: Sequence[TensorMap], asked: Sequence[str]) -> str:
    """Return what to add to a message if less than half of some map's tensors fit the first's, or nothing."""
    for other in maps[1:]:
        either = [name for name in asked if name in maps[0] or name in other]
        n = sum(name in maps[0] and name in other and maps[0][name].shape == other[name].shape for name in either)
        if 2 * n < len(either):
            return f"; only {n:,} of {counted(len(either), 'tensor')} fit: these are not the same model"
    return ""


def _lacks(maps: Sequence[TensorMap], lacking: Sequence[str], holders: Sequence[int], strangers: str) -> SpecError:
    name, more = lacking[0], f" (and {len(lacking) - 1:,} more that not all have)" if len(lacking) > 1 else ""
    if holders[0] == 0:
        without = next(one for i, one in enumerate(maps) if i not in holders)
        subject, fact = without.origin.path, f"there is no tensor {name!r} to average{more}"
    else:
        subject, fact = maps[holders[0]].origin.path, f"it has {name!r}, which the first file does not have{more}"
    return SpecError(
        fact + strangers,
        subject=subject or None,
        expected="the same tensors in all files",
        remedy="{0} keep averages over the files that have it, {0} drop leaves it out".format(option("missing")),
    )


def _divide(found: AveragePlan, maps: Sequence[TensorMap], strangers: str) -> None:
    """Part the names into those that are averaged and those that are copied."""
    known = [dict(zip(one, roles(one), strict=True)) for one in maps]
    for name, holders in found.holders.items():
        one = maps[holders[0]]
        spec = one[name].spec
        said = known[holders[0]].get(name) or tell_role(name, spec, one)
        found.roles[name] = said.role
        is_plain = spec.dtype.is_float and spec.dtype.bits >= 8 and not spec.is_quantized
        rule = _COPIED.get(said.role) if is_plain else INTEGERS
        if rule is not None:
            found.left[rule] = found.left.get(rule, 0) + 1
            continue
        for i in holders[1:]:
            _check_fit(maps[i], name, one[name], strangers)
        found.averaged.append(name)


def _check_fit(other: TensorMap, name: str, wanted: Tensor, strangers: str) -> None:
    found = other[name]
    if found.shape != wanted.shape or not found.dtype.is_float or found.spec.is_quantized:
        fact = f"{name!r} is {found.spec.label} {found.shape}, not a float {wanted.shape}{strangers}"
        raise SpecError(fact, subject=other.origin.path or None, expected="tensors of equal shapes, decoded")


def result(found: AveragePlan, maps: Sequence[TensorMap], averaged: Mapping[str, Tensor]) -> TensorMap:
    """Return the first map with means in it, without what is left out, and with what only others have."""
    dropped = set(found.lacking) - set(found.holders)
    kept = {name: found.first[name] for name in found.first if name not in dropped}
    added = {name: maps[holders[0]][name] for name, holders in found.holders.items() if name not in kept}
    tensors = {**kept, **added, **averaged}
    aliases = {alias: name for alias, name in found.first.aliases.items() if name in tensors}
    origin = found.first.origin
    others = (*origin.others, *(file for one in maps for file in one.origin.files))
    return found.first.replace(tensors=tensors, aliases=aliases, origin=origin._replace(others=others))
