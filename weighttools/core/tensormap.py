"""TensorMap: an immutable, ordered mapping from names to tensors that are not read yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from weighttools.core import patterns
from weighttools.core.spec import Source, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.errors import SpecError, printable

if TYPE_CHECKING:
    from weighttools.core.spec import Array

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Origin(NamedTuple):
    """Where a map came from.

    Parameters
    ----------
    path
        As the user would name it.
    format
        The format's name, e.g. ``"safetensors"``.
    files
        Every weight file that was opened.
    notes
        What the reader wants said: a wrong suffix, a stale total, something left out.
    reports
        What transforms did or will do to the values, in order; see `TensorMap.report`.
    values
        Small values that the file keeps beside its tensors, by name: an epoch, a learning rate. No tensors, so
        nothing else than looking at them keeps them.
    foreign
        What a loader of the file would import or call beside what makes tensors: name, n_calls, offset of each.
    others
        Files and directories that values come from too: of other checkpoints, of an adapter. They are not written over.
    beside
        Files to put into a directory that the map is written to, by name; they take the place of those beside `path`.
    lacking
        What should be among these and cannot, and why, a line each: said where a directory is written.
    """

    path: str = ""
    format: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reports: tuple[Mapping[str, Any], ...] = ()
    values: Mapping[str, Any] = {}
    foreign: tuple[Mapping[str, Any], ...] = ()
    others: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = {}
    lacking: tuple[str, ...] = ()


Row = tuple[Spec, Source, int, int]
"""A raw tensor as a header gives it: spec, source, offset, length. A map makes it a Tensor when it is asked for."""


class TensorMap(Mapping[str, Tensor]):
    """An immutable, ordered mapping from tensor names to lazy tensors, with metadata and ties.

    Parameters
    ----------
    tensors
        Name to tensor, or to the row of a header that tells all about it, in the file's order.
    metadata
        The file's own metadata, without the entries that record ties.
    aliases
        Tied tensors: a second name to the name that is stored. An alias can be looked up, but it is not
        iterated, counted or written as a tensor of its own.
    origin
        Where the map came from.
    """

    __slots__ = ("_aliases", "_metadata", "_tensors", "origin")

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | Mapping[str, Row] | Mapping[str, Tensor | Row],
        metadata: Mapping[str, Any] = _NOTHING,
        aliases: Mapping[str, str] = _NOTHING,
        origin: Origin | None = None,
    ) -> None:
        self._tensors: dict[str, Tensor | Row] = dict(tensors)
        self._metadata = dict(metadata)
        self._aliases = dict(aliases)
        self.origin = origin or Origin()

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], metadata: Mapping[str, Any] = _NOTHING, aliases: Mapping[str, str] = _NOTHING
    ) -> TensorMap:
        """Make a map of arrays in memory, and of tensors; arrays are held, not copied.

        Parameters
        ----------
        arrays
            Name to what `Tensor.from_array` takes, or to a `Tensor`.
        metadata, aliases
            As of the map.

        Raises
        ------
        SpecError
            An array holds no plain numbers, or a name is no string.
        """
        from weighttools.core.union import tensors_of

        return cls(tensors_of(arrays), metadata, aliases)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The file's metadata."""
        return MappingProxyType(self._metadata)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Tied tensors: alias to the name that is stored."""
        return MappingProxyType(self._aliases)

    def __getitem__(self, name: str) -> Tensor:
        found = self._tensors.get(self._aliases.get(name, name) if name not in self._tensors else name)
        if found is None:
            raise patterns.not_found(name, list(self._tensors))
        return found if isinstance(found, Tensor) else _from_row(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors or name in self._aliases

    def specs(self) -> list[Spec]:
        """Return the specs, in order; no tensor is made for it."""
        return [entry.spec if isinstance(entry, Tensor) else entry[0] for entry in self._tensors.values()]

    def sizes(self) -> list[int]:
        """Return the bytes that each tensor takes in its file, in order; no tensor is made for it."""
        return [entry.stored_bytes if isinstance(entry, Tensor) else entry[3] for entry in self._tensors.values()]

    @classmethod
    def joined(cls, maps: Iterable[TensorMap]) -> TensorMap:
        """Join the tensors of several maps, without metadata and ties; of one name the last stays."""
        tensors: dict[str, Tensor | Row] = {}
        for tensor_map in maps:
            tensors.update(tensor_map._tensors)
        return cls(tensors)

    def replace(self, **parts: Any) -> TensorMap:
        """Return a map with some of `tensors`, `metadata`, `aliases`, `origin` exchanged."""
        now = {"tensors": self._tensors, "metadata": self._metadata, "aliases": self._aliases, "origin": self.origin}
        return TensorMap(**{**now, **parts})

    def noted(self, *notes: str) -> TensorMap:
        """Return the map with notes added to its origin."""
        return self.replace(origin=self.origin._replace(notes=(*self.origin.notes, *notes)))

    @property
    def report(self) -> Mapping[str, Any]:
        """What the last transform that changes values did or will do; empty where there was none.

        `origin.reports` holds those of all transforms, in order. Reports travel with the map, so that transforms
        compose with `pipe`, and the record of a write has them under ``transforms``.
        """
        return self.origin.reports[-1] if self.origin.reports else _NOTHING

    def reported(self, report: Mapping[str, Any]) -> TensorMap:
        """Return the map with the report of a transform added to its origin."""
        return self.replace(origin=self.origin._replace(reports=(*self.origin.reports, report)))

    def select(self, *include: str, exclude: Sequence[str] = ()) -> TensorMap:
        """Keep the tensors whose names match a pattern of `include` (default: all) and none of `exclude`.

        An alias of a tensor that is kept is kept too, unless `exclude` matches it; of one that is not, it takes the
        place if it is itself chosen.

        Raises
        ------
        TensorNotFoundError
            A pattern matches nothing.
        """
        if not include and not exclude:
            return self
        names = [*self._tensors, *self._aliases]
        chosen = set(patterns.matching_names(names, include, exclude))
        gone = patterns.matching(names, exclude) if exclude and self._aliases else set()
        return self._chosen(chosen, gone)

    def drop(self, *exclude: str) -> TensorMap:
        """Leave out the names that match a pattern; a tensor that has another name, an alias, stays by that."""
        return self.select(exclude=exclude)

    def keep(self, names: Iterable[str]) -> TensorMap:
        """Keep the tensors called `names`, in their order, and the ties to them."""
        tensors = {name: self._tensors[name] for name in names}
        aliases = {alias: kept for alias, kept in self._aliases.items() if kept in tensors}
        return self.replace(tensors=tensors, aliases=aliases)

    def _chosen(self, chosen: Set[str], gone: Set[str]) -> TensorMap:
        """Keep the chosen names, and second names of these but for those that are to go."""
        stored = {name: name for name in self._tensors if name in chosen}
        for alias, kept in self._aliases.items():
            if alias in chosen:
                stored.setdefault(kept, alias)
        tensors = {stored[name]: tensor for name, tensor in self._tensors.items() if name in stored}
        aliases = {
            alias: stored[kept]
            for alias, kept in self._aliases.items()
            if kept in stored and stored[kept] != alias and (alias in chosen or (kept in chosen and alias not in gone))
        }
        return self.replace(tensors=tensors, aliases=aliases)

    def rename(self, change: Mapping[str, str] | Callable[[str], str]) -> TensorMap:
        """Rename tensors and aliases by a mapping (names not in it stay) or a function.

        Raises
        ------
        SpecError
            Two tensors would have the same name.
        TensorNotFoundError
            The mapping names a tensor that is not there.
        """
        change = change if callable(change) else self._by_table(change)
        new = {name: change(name) for name in (*self._tensors, *self._aliases)}
        if len(set(new.values())) != len(new):
            twice = next(name for name, n in Counter(new.values()).items() if n > 1)
            raise SpecError(
                f"two tensors would be called {twice!r}", remedy="choose names that differ", code="names-collide"
            )
        tensors = {new[name]: tensor for name, tensor in self._tensors.items()}
        return self.replace(tensors=tensors, aliases={new[a]: new[kept] for a, kept in self._aliases.items()})

    def _by_table(self, table: Mapping[str, str]) -> Callable[[str], str]:
        for name in table:
            if name not in self:
                raise patterns.not_found(name, list(self._tensors))
        return lambda name: table.get(name, name)

    def map(self, fn: Callable[[str, Tensor], Tensor | Any]) -> TensorMap:
        """Replace each tensor by ``fn(name, tensor)``, a tensor or an array; names, order, metadata and ties stay.

        `fn` is called at once, for each stored tensor. Where it returns a tensor, as it was or made lazily
        (`Tensor.apply`, `Tensor.sliced`), values move only when they are pulled. Where it computes an array, as
        ``tensor.read() * 0.5`` does, the values are read now, and the results are in memory together.

        Raises
        ------
        SpecError
            `fn` returns something else for a tensor.

        Examples
        --------
        >>> import numpy as np
        >>> before = TensorMap.from_arrays({"fc.weight": np.ones((2, 2)), "fc.bias": np.ones(2)}, {"step": "9"})
        >>> after = before.map(lambda name, tensor: tensor.read() * 0.5 if name.endswith("weight") else tensor)
        >>> after["fc.weight"].read().tolist(), after["fc.bias"] is before["fc.bias"], after.metadata["step"]
        ([[0.5, 0.5], [0.5, 0.5]], True, '9')
        """
        from weighttools.core.union import tensors_of

        return self.replace(tensors=tensors_of((name, fn(name, tensor)) for name, tensor in self.items()))

    def assign(self, tensors: Mapping[str, Tensor | Any]) -> TensorMap:
        """Return the map with tensors added at its end, or in the place of those that have the name.

        Everything else stays as it is, metadata too. A tie is one tensor with two names: where the stored name is
        assigned, its aliases change with it, and a note in `origin` says so. An alias is assigned only together with
        the name that it is tied to: the same object keeps the tie, two different ones end it, with a note. `untie`
        ends it before.

        Parameters
        ----------
        tensors
            Name to what `Tensor.from_array` takes, or to a `Tensor`, of this map or of any other. Of a map, its ties
            are taken too, and its metadata are not.

        Raises
        ------
        SpecError
            An alias is assigned alone; a value holds no plain numbers; a name is no string.

        Examples
        --------
        >>> import numpy as np
        >>> before = TensorMap.from_arrays({"fc.weight": np.ones((2, 2)), "fc.bias": np.ones(2)})
        >>> after = before.assign({"fc.bias": np.zeros(2), "scale": 3.0})
        >>> list(after), after["fc.bias"].read().tolist(), after["fc.weight"] is before["fc.weight"]
        (['fc.weight', 'fc.bias', 'scale'], [0.0, 0.0], True)
        """
        from weighttools.core.union import Tied, tensors_of, ties_given, united

        if isinstance(tensors, TensorMap):
            new, origin = Tied(tensors._tensors, tensors._aliases), tensors.origin
        else:
            given, origin = dict(tensors), Origin()
            ties = ties_given(given, self._aliases)
            new = Tied(tensors_of((name, value) for name, value in given.items() if name not in ties), ties)
        found = united(Tied(self._tensors, self._aliases), new)
        others = tuple(dict.fromkeys((*self.origin.others, *origin.others, *origin.files)))
        kept = self.origin._replace(others=tuple(path for path in others if path not in self.origin.files))
        return self.replace(tensors=found.tensors, aliases=found.aliases, origin=kept).noted(*found.notes())

    def untie(self, *include: str) -> TensorMap:
        """Give each alias that matches a pattern (default: all) a tensor of its own, with the same values, at the end.

        Raises
        ------
        TensorNotFoundError
            A pattern matches no alias.
        """
        chosen = patterns.matching(self._aliases, include) if include else set(self._aliases)
        loose = {alias: self._tensors[kept] for alias, kept in self._aliases.items() if alias in chosen}
        aliases = {alias: kept for alias, kept in self._aliases.items() if alias not in chosen}
        return self.replace(tensors={**self._tensors, **loose}, aliases=aliases)

    def __or__(self, other: object) -> TensorMap:
        """Return the map with the tensors of `other`, as `assign` does: of a name that both have, those of `other`."""
        return self.assign(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: object) -> TensorMap:
        """Return the tensors of `other` and then those of this map, which wins; metadata and ties are this map's."""
        if not isinstance(other, Mapping):
            return NotImplemented
        own = TensorMap.from_arrays({name: value for name, value in other.items() if name not in self._aliases})
        first = own.assign(self)
        return self.replace(tensors=first._tensors, aliases=first._aliases)

    def pipe(self, *transforms: Callable[[TensorMap], TensorMap]) -> TensorMap:
        """Apply transforms from left to right."""
        result = self
        for transform in transforms:
            result = transform(result)
        return result

    def read(self, *include: str, aliases: bool = False) -> dict[str, Array]:
        """Read tensors into memory: name to array of the tensor's shape.

        Parameters
        ----------
        include
            Name patterns; default all.
        aliases
            Also give each alias, as the very array that it is tied to.
        """
        chosen = self.select(*include) if include else self
        arrays = {name: tensor.read() for name, tensor in chosen.items()}
        if aliases:
            arrays |= {alias: arrays[kept] for alias, kept in chosen.aliases.items()}
        return arrays

    def totals(self) -> tuple[int, int]:
        """Return the number of elements and of stored bytes, each stored tensor once."""
        return sum(spec.n_elements for spec in self.specs()), sum(self.sizes())

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorMap, (self._tensors, self._metadata, self._aliases, self.origin)

    def _headline(self) -> str:
        n_elements, n_bytes = self.totals()
        place = f" from {printable(self.origin.path)}" if self.origin.path else ""
        return f"TensorMap: {len(self):,} tensors, {n_elements:,} elements, {n_bytes:,} bytes{place}"

    def _rows(self, most: int) -> list[tuple[str, str, str]]:
        shown = list(zip(self._tensors, self.specs(), strict=True))[:most]
        return [(printable(n), s.label, " × ".join(map(str, s.shape)) or "scalar") for n, s in shown]

    def __repr__(self) -> str:
        rows = self._rows(12)
        wide = max((len(name) for name, _, _ in rows), default=0)
        lines = [f"  {name:<{wide}}  {dtype:<9}  {shape}" for name, dtype, shape in rows]
        more = [f"  … and {len(self) - len(rows):,} more"] if len(self) > len(rows) else []
        return "\n".join([self._headline(), *lines, *more])

    def _repr_html_(self) -> str:
        from weighttools.core.notebook import map_html

        return map_html(self, self._headline())


def _from_row(row: Row) -> Tensor:
    spec, source, offset, length = row
    return Tensor(spec, None, Span(source, offset, length))


Transform = Callable[[TensorMap], TensorMap]
