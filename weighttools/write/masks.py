"""A pruned map written with its masks: both appear, or none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from weighttools.errors import SourceError, SpecError, option
from weighttools.io.placing import identities, withdraw
from weighttools.io.progress import Progress, silent
from weighttools.write.early import check_writable
from weighttools.write.plan import Plan, Record, plan
from weighttools.write.protection import check_suffix, file, refuse_read, refuse_shared


@dataclass(frozen=True, slots=True)
class WithMasks:
    """The write of an output and of its masks.

    Parameters
    ----------
    output, masks
        The plans of both.
    """

    output: Plan
    masks: Plan

    def run(self, *, dry_run: bool = False, planned: Progress = silent, progress: Progress = silent) -> Record:
        """Execute both plans or, in a `dry_run`, none; parameters and result are those of `Plan.run`."""
        if dry_run:
            record = self.output.run(dry_run=True, planned=planned, progress=progress)
        else:
            planned(self.output.n_bytes + self.masks.n_bytes)
            record = self._execute(progress)
        return record | {"masks": self.masks.destination.path}

    def _execute(self, progress: Progress) -> Record:
        """Write the output when the masks are written too and lack only their name."""
        dst, force = self.output.destination.path, self.output.force
        is_new = dst != "-" and not (force and os.path.lexists(dst))
        record: Record = {}
        placed: dict[Path, tuple[int, int]] = {}

        def write_output() -> None:
            record.update(self.output.execute(progress))
            if is_new:
                placed.update(identities(Path(os.path.realpath(dst))))

        try:
            self.masks.execute(progress, last=write_output)
        except BaseException:
            withdraw(placed)
            raise
        return record


def with_masks(output: Plan, path: str) -> WithMasks:
    """Plan to write the masks of a map that was just pruned together with it.

    Parameters
    ----------
    output
        The plan of the pruned map.
    path
        Where the masks go, in a format that holds booleans.

    Raises
    ------
    SpecError
        It is no place of its own, or the map was not just pruned.
    """
    from weighttools.transforms.prune import masks

    _check_name(path)
    found = WithMasks(output, plan(masks(output.tensor_map), path, force=output.force))
    refuse_shared([output.target(), found.masks.target("the masks")])
    return found


def check_masks(path: str, dst: str, reads: list[str], force: bool) -> None:
    """Refuse, before values are read for long, a place to which the masks could not be written.

    Parameters
    ----------
    path, dst
        Where the masks go, and where the output does.
    reads
        What is read.
    force
        Whether an existing file is replaced.

    Raises
    ------
    SpecError, SourceError
        As of `with_masks` and of writing.
    """
    _check_name(path)
    target = file("the masks", path)
    refuse_read([target], reads)
    refuse_shared([file("the output", dst), target])
    if os.path.lexists(path) and not force:
        raise SourceError("exists already", subject=path, remedy=f"give {option('force')} to replace it")
    check_writable(path, force)


def _check_name(path: str) -> None:
    if path == "-":
        raise SpecError(
            "masks need a file of their own", subject=option("masks"), expected="a path other than the output's"
        )
    if os.path.splitext(path)[1] and not os.path.isdir(path):
        check_suffix(path, "masks are saved as a file, or in a directory without a suffix")
