"""Every pickle of a file read as data, for what unpickling it would run: of a stream, of an archive, of object arrays.

A pickle is known by its protocol's first byte, or, of protocols 0 and 1 that have none, by a trial: what runs as
opcodes up to its STOP, or far enough to call something, is one; text and numbers are not. Whatever cannot be read to
its end is an error, for an unpickler may be less strict than the machine here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, ValuesView

from weighttools.core.budgets import MOST_NAMED, MOST_NESTED_ARCHIVES
from weighttools.core.findings import ERROR, NOTE, WARNING, Finding, summed_up
from weighttools.core.spec import Source
from weighttools.errors import UnsafeFileError, WeighttoolsError
from weighttools.formats import npy_header, strangers
from weighttools.formats.pickles.findings import findings
from weighttools.formats.pickles.machine import Machine
from weighttools.formats.pickles.objects import Global
from weighttools.formats.pickles.opcodes import HANDLERS, PROTOCOLS
from weighttools.formats.pickles.stream import Stream
from weighttools.io.archive import Member, is_zip, members
from weighttools.io.archive_salvage import Allowance, Inflated, SpentError, head, salvaged
from weighttools.io.source import Bytes, Part

SUFFIXES = (".pkl", ".pickle", ".p", ".joblib", ".dill", ".npy", ".zip")
"""Files that a loader may unpickle, beside those of formats; checked where they lie in a directory."""
LEGACY_PICKLES = 5
"""Those of a legacy stream; behind them lie its storages."""

_CHUNK = 1 << 16
_OPCODES = frozenset(opcode for opcode, handler in enumerate(HANDLERS) if handler)
_PICKLED = (".pkl", ".pickle", ".p", ".joblib", ".dill")
_MOST_TRIED = 16
"""Plain pickles of protocol 0 or 1, one behind the other, that convince without one that names a function."""
_PLAUSIBLE = re.compile(r"\w+(?:\.\w+)*")
_HEAD_BYTES = 512
_SAID = dict.fromkeys(("pickle-runs-code", "pickle-imports"), 2 * MOST_NAMED)
"""How many findings of an archive's pickles are said, each with a name."""


def of_source(source: Source, suffix_says: bool) -> Iterable[Finding]:
    """Return what is found in a file of no known format: nothing, if it is neither a zip archive nor a pickle.

    Parameters
    ----------
    source
        The file.
    suffix_says
        Whether its name is a pickle's: then it is read as one, unless it plainly is something else.
    """
    begin = source.read(0, min(_HEAD_BYTES, source.size))
    if is_zip(begin):
        return of_archive(source)
    named = suffix_says or source.name.casefold().endswith(_PICKLED)
    is_pickle = (named and begin and not strangers.known_stranger(begin)) or begins_pickle(Stream(source))
    return of_stream(Stream(source)) if is_pickle else ()


def begins_pickle(stream: Stream) -> bool:
    """Whether a stream begins with a pickle; it is used up."""
    return _says_protocol(stream) or _tried(stream)


def _says_protocol(stream: Stream) -> bool:
    start = stream.source.read(stream.position, min(2, stream.remaining))
    return len(start) == 2 and start[0] == 0x80 and start[1] in PROTOCOLS


def _tried(stream: Stream, left: Allowance | None = None) -> bool:
    """Run pickles up to the stream's end or the first that names or calls a function; say whether that went well."""
    for _ in range(_MOST_TRIED):
        ended, machine = _run(stream, left)
        if any(use.n_calls or ended for found, use in machine.globals.items() if _is_plausible(found)):
            return True
        if not ended or not stream.remaining:
            return ended or bool(machine.acts)
    return True


def _goes_on(stream: Stream, left: Allowance | None) -> bool:
    """Whether one more pickle follows in a stream of pickles, whole or broken.

    It ends, says its protocol, or names or does something before it breaks, or goes on for longer than it is followed.
    """
    if _says_protocol(stream):
        return True
    machine = _machine(stream, left)
    try:
        machine.load()
    except SpentError:
        raise
    except UnsafeFileError:
        return True
    except WeighttoolsError:
        return bool(machine.acts) or any(use.n_calls or _is_plausible(found) for found, use in machine.globals.items())
    finally:
        _spend(machine, left)
    return True


def _run(stream: Stream, left: Allowance | None) -> tuple[bool, Machine]:
    machine = _machine(stream, left)
    try:
        machine.load()
    except SpentError:
        raise
    except WeighttoolsError:
        return False, machine
    finally:
        _spend(machine, left)
    return True, machine


def _machine(stream: Stream, left: Allowance | None) -> Machine:
    """Return a machine for a stream; what was inflated runs no more opcodes than the archive has left."""
    return Machine(stream, None if left is None else max(0, left.opcodes), skims=True)


def _spend(machine: Machine, left: Allowance | None) -> None:
    if left is not None:
        left.opcodes -= machine.n_opcodes


def _is_plausible(found: Global) -> bool:
    return bool(_PLAUSIBLE.fullmatch(found.module) and _PLAUSIBLE.fullmatch(found.name))


def of_stream(
    stream: Stream, n_pickles: int | None = None, scripted: bool = False, left: Allowance | None = None
) -> Iterator[Finding]:
    """Yield what unpickling a stream would run: every pickle in it, one behind the other.

    Parameters
    ----------
    stream
        The pickles; the first is taken for one, whatever it begins with.
    n_pickles
        How many there are, where something else follows them; None for all that the stream holds.
    scripted
        Whether they are a TorchScript archive's, which names classes of its own code.
    left
        What inflated pickles may still run; None for those that are stored.
    """
    machine = _machine(stream, left)
    n_read, spent = 0, None
    try:
        while stream.remaining and n_read != n_pickles:
            machine.load()
            n_read += 1
            if n_pickles is None and stream.remaining and not _goes_on(_copy(stream), left):
                yield _trailing(stream)
                break
    except SpentError as error:
        spent = error
    except WeighttoolsError as error:
        yield Finding(ERROR, "broken-pickle", str(error), remedy="do not load it with an unpickler")
    _spend(machine, left)
    yield from findings(machine, scripted)
    if spent:
        raise spent


def _copy(stream: Stream) -> Stream:
    return Stream(stream.source, stream.position, stream.position + stream.remaining)


def _trailing(stream: Stream) -> Finding:
    fact = f"{stream.remaining:,} bytes follow the pickle's end at byte {stream.position:,}, and are no pickle"
    return Finding(WARNING, "trailing-bytes", f"{stream.source.name}: {fact}")


def of_archive(source: Source) -> Iterator[Finding]:
    """Yield what is found in a zip archive: in every member, whatever it is called, and in archives within it.

    An archive that contradicts itself is an error, and its members are looked into all the same. Of each kind of
    finding the first few are said, and how many more there are.
    """
    return summed_up(_of_archive(source, 0, Allowance(source)), _SAID)


def _of_archive(source: Source, depth: int, left: Allowance) -> Iterator[Finding]:
    try:
        found: Iterable[Member] = members(source).values()
    except WeighttoolsError as error:
        yield Finding(ERROR, "unreadable", str(error))
        found = salvaged(source, left)
    scripted = isinstance(found, ValuesView) and any(member.name.endswith("/constants.pkl") for member in found)
    if scripted:
        yield Finding(NOTE, "torchscript", f"{source.name} holds TorchScript: code that torch.jit.load takes in")
    spent: list[str] = []
    try:
        for member in found:
            yield from _of_member(member, depth, left, scripted, spent)
    except SpentError as error:  # while members are searched for
        spent.append(str(error))
    if spent:
        more = f"; {len(spent) - 1:,} more members are not looked into either" * (len(spent) > 1)
        yield Finding(ERROR, "unreadable", spent[0] + more)


def _of_member(member: Member, depth: int, left: Allowance, scripted: bool, spent: list[str]) -> Iterator[Finding]:
    """Yield what is found in a member; that it cannot be read is a finding, and the others are looked into."""
    try:
        yield from _of_content(member, depth, left, scripted)
    except SpentError as error:
        spent.append(str(error))
    except WeighttoolsError as error:
        yield Finding(ERROR, "unreadable", str(error))


def _of_content(member: Member, depth: int, left: Allowance, scripted: bool) -> Iterator[Finding]:
    subject = f"{member.span.source.name}: {member.name}"
    begin = head(member, _HEAD_BYTES)
    named = member.name.casefold().endswith(_PICKLED)
    other = strangers.known_container(begin)
    if other:
        yield Finding(WARNING, "not-looked-into", f"{subject} {other}, and is not looked into")
    elif is_zip(begin) and depth >= MOST_NESTED_ARCHIVES:
        yield Finding(ERROR, "not-looked-into", f"{subject} is an archive {depth + 1:,} archives deep")
    elif is_zip(begin):
        content = _content(member, left, subject)
        inner = Bytes(content.whole(), subject) if isinstance(content, Inflated) else content
        yield from _of_archive(inner, depth + 1, left)
    elif begin.startswith(npy_header.MAGIC):
        yield from of_npy(_content(member, left, subject), left if member.deflated or depth else None)
    elif begin and (named or begin[0] in _OPCODES):
        spent = left if member.deflated or depth else None
        yield from _of_pickle(_content(member, left, subject), named, scripted, spent)


def _of_pickle(content: Part | Inflated, named: bool, scripted: bool, left: Allowance | None) -> Iterator[Finding]:
    """Yield what is found in a member that is called a pickle, or ends as one or calls something."""
    source: Source = content
    start = 0
    if isinstance(content, Part):  # places are told as those in the file
        source, start = content.whole, content.start
    stop = start + content.size
    if named or _tried(Stream(source, start, stop, _HEAD_BYTES), left):
        yield from of_stream(Stream(source, start, stop, _CHUNK), scripted=scripted, left=left)


def _content(member: Member, left: Allowance, subject: str) -> Part | Inflated:
    """Return a member's content as a source."""
    if member.deflated:
        left.refuse_if_spent(subject)
        return Inflated(member, left, subject)
    return Part(member.span.source, member.span.offset, member.span.length, subject)


def of_npy(source: Source, left: Allowance | None = None) -> Iterator[Finding]:
    """Yield what loading an NPY file with ``allow_pickle=True`` could run, if Python objects follow its header."""
    header = npy_header.parse_header(lambda n: source.read(0, min(n, source.size)), source.name)
    if npy_header.holds_objects(header):
        yield from of_stream(Stream(source, header.length, chunk=_CHUNK), left=left)
