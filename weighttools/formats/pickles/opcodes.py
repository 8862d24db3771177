"""The opcodes of Python's pickles, protocols 0 to 5: a table from opcode to what it does to the machine.

Source: Python's ``pickletools.opcodes``. Every length is held against the bytes that remain before it is taken.
"""

from __future__ import annotations

import codecs
import re
import struct
from typing import Any

from weighttools.core.budgets import INTEGER_BYTES
from weighttools.formats.pickles.objects import Global, Made, Persistent, PickledDict
from weighttools.formats.pickles.stack import Handler, Stack

PROTOCOLS = range(6)


def _constant(value: Any) -> Handler:
    def push(m: Stack) -> None:
        m.stack.append(value)

    return push


def _integer(n_bytes: int, signed: bool = False) -> Handler:
    def push(m: Stack) -> None:
        m.stack.append(int.from_bytes(m.stream.take(n_bytes), "little", signed=signed))

    return push


def _long(n_bytes: int) -> Handler:
    def push(m: Stack) -> None:
        data = _counted(m, n_bytes)
        if len(data) > INTEGER_BYTES:
            m.go_beyond(f"the pickle holds an integer of {len(data):,} bytes")
        m.stack.append(int.from_bytes(data[:INTEGER_BYTES], "little", signed=True))

    return push


def _counted(m: Stack, n_bytes: int) -> bytes:
    """Take a length of `n_bytes`, then as many bytes as it says."""
    return m.stream.take(int.from_bytes(m.stream.take(n_bytes), "little"))


def _bytes(n_bytes: int) -> Handler:
    def push(m: Stack) -> None:
        m.stack.append(_counted(m, n_bytes))

    return push


def _text(n_bytes: int) -> Handler:
    def push(m: Stack) -> None:
        m.stack.append(m.text(_counted(m, n_bytes)))

    return push


def _old_text(n_bytes: int) -> Handler:
    """Text or bytes of Python 2: text where it is UTF-8, as `torch.load` reads it, else bytes."""

    def push(m: Stack) -> None:
        m.stack.append(_text_or_bytes(_counted(m, n_bytes)))

    return push


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _tuple(n: int) -> Handler:
    def push(m: Stack) -> None:
        run = [m.pop() for _ in range(n)]
        m.stack.append(tuple(reversed(run)))

    return push


def _fresh(make: type) -> Handler:
    def push(m: Stack) -> None:
        m.stack.append(make())

    return push


def _get(n_bytes: int) -> Handler:
    def push(m: Stack) -> None:
        _recall(m, int.from_bytes(m.stream.take(n_bytes), "little"))

    return push


def _recall(m: Stack, index: int) -> None:
    try:
        m.stack.append(m.memo[index])
    except KeyError:
        raise m.corrupt(f"the pickle recalls memo {index}, which it has not set") from None


def _put(n_bytes: int) -> Handler:
    def store(m: Stack) -> None:
        m.memo[int.from_bytes(m.stream.take(n_bytes), "little")] = m.top()

    return store


def _extension(n_bytes: int) -> Handler:
    def push(m: Stack) -> None:
        m.push_global("copyreg", f"extension {int.from_bytes(m.stream.take(n_bytes), 'little')}")

    return push


def _number(m: Stack, line: bytes, base: int = 10) -> int:
    """Read a number as CPython's unpickler does: up to a zero byte; a base may be told by how it begins."""
    digits = line.split(b"\0")[0]
    try:
        return int(digits, base)
    except ValueError:
        raise m.corrupt("the pickle holds a malformed number") from None


def _int_line(m: Stack) -> None:
    line = m.stream.line()
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
    elif _OCTAL.fullmatch(line.split(b"\0")[0]):  # C's strtol takes it for one; nothing is 0
        m.stack.append(int(line.split(b"\0")[0] or b"0", 8))
    else:
        m.stack.append(_number(m, line, 0))


_OCTAL = re.compile(rb"\s*[-+]?0[0-7]+|")


def _long_line(m: Stack) -> None:
    m.stack.append(_number(m, m.stream.line().removesuffix(b"L"), 0))


def _float_line(m: Stack) -> None:
    line = m.stream.line()
    try:
        m.stack.append(float(line.split(b"\0")[0]))
    except ValueError:
        raise m.corrupt("the pickle holds a malformed number") from None


def _binary_float(m: Stack) -> None:
    m.stack.append(struct.unpack(">d", m.stream.take(8))[0])


def _string_line(m: Stack) -> None:
    line = m.stream.line().strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise m.corrupt("the pickle holds a string without quotes")
    try:
        m.stack.append(_text_or_bytes(codecs.escape_decode(line[1:-1])[0]))
    except ValueError:
        raise m.corrupt("the pickle holds a malformed string") from None


def _unicode_line(m: Stack) -> None:
    line = m.stream.line()
    try:  # the function itself: looking a codec up by name would import its module
        m.stack.append(codecs.raw_unicode_escape_decode(line)[0])
    except ValueError:
        raise m.corrupt("the pickle holds malformed text") from None


def _get_line(m: Stack) -> None:
    _recall(m, _number(m, m.stream.line()))


def _put_line(m: Stack) -> None:
    m.memo[_number(m, m.stream.line())] = m.top()


def _memoize(m: Stack) -> None:
    m.memo[len(m.memo)] = m.top()


def _protocol(m: Stack) -> None:
    found = m.stream.take(1)[0]
    if found not in PROTOCOLS:
        raise m.corrupt(f"the pickle says it has protocol {found}")


def _frame(m: Stack) -> None:
    length = int.from_bytes(m.stream.take(8), "little")
    if length > m.stream.remaining:
        raise m.corrupt(f"a frame of the pickle claims {length:,} bytes, where {m.stream.remaining:,} remain")


def _pop(m: Stack) -> None:
    if m.marks and len(m.stack) == m.floor:
        m.pop_mark()
    else:
        m.pop()


def _pop_mark(m: Stack) -> None:
    m.pop_mark()


def _duplicate(m: Stack) -> None:
    m.stack.append(m.top())


def _mark(m: Stack) -> None:
    m.mark()


def _tuple_run(m: Stack) -> None:
    m.stack.append(tuple(m.pop_mark()))


def _list_run(m: Stack) -> None:
    m.stack.append(m.pop_mark())


def _dict_run(m: Stack) -> None:
    m.stack.append(PickledDict(_pairs(m, m.pop_mark())))


def _pairs(m: Stack, run: list[Any]) -> list[tuple[Any, Any]]:
    if len(run) % 2:
        raise m.corrupt("the pickle sets a key without a value")
    return list(zip(run[::2], run[1::2], strict=True))


def _set_items(m: Stack) -> None:
    _into_mapping(m, _pairs(m, m.pop_mark()))


def _set_item(m: Stack) -> None:
    value, key = m.pop(), m.pop()
    _into_mapping(m, [(key, value)])


def _into_mapping(m: Stack, pairs: list[tuple[Any, Any]]) -> None:
    target = m.top()
    if not pairs:
        return
    if type(target) is PickledDict or type(target) is Made:
        target.items += pairs
    elif type(target) is list and all(type(key) is int and -len(target) <= key < len(target) for key, _ in pairs):
        for key, value in pairs:
            target[key] = value
    else:
        _change(m, target, "the pickle sets entries of what is no dictionary", "set entries of what it has imported")


def _change(m: Stack, target: Any, fact: str, act: str) -> None:
    """Change what is no container of the pickle's own: what it has imported, or the bytes of a bytearray."""
    if type(target) in (Global, Persistent):
        m.act(act)
    if type(target) not in (Global, Persistent, bytes):
        raise m.corrupt(fact)
    m.go_beyond(fact)


def _append(m: Stack) -> None:
    value = m.pop()
    _into_list(m, [value])


def _appends(m: Stack) -> None:
    _into_list(m, m.pop_mark())


def _into_list(m: Stack, values: list[Any]) -> None:
    target = m.top()
    if not values:
        return
    if type(target) is list:
        target += values
    elif type(target) is Made:
        target.items += [(None, value) for value in values]
    else:
        _change(m, target, "the pickle appends to what is no list", "append to what it has imported")


def _global(m: Stack) -> None:
    module = m.text(m.stream.line())
    m.push_global(module, m.text(m.stream.line()))


def _stack_global(m: Stack) -> None:
    name, module = m.pop(), m.pop()
    m.push_global(module, name)


def _reduce(m: Stack) -> None:
    args, callee = m.pop(), m.pop()
    m.push_made(callee, args)


def _new_with_keywords(m: Stack) -> None:
    keywords, args, callee = m.pop(), m.pop(), m.pop()
    m.push_made(callee, args)
    m.stack[-1].state = keywords


def _instance(m: Stack) -> None:
    _global(m)
    callee = m.pop()
    m.push_made(callee, tuple(m.pop_mark()))


def _object(m: Stack) -> None:
    run = m.pop_mark()
    if not run:
        raise m.corrupt("the pickle makes an object of nothing")
    m.push_made(run[0], tuple(run[1:]))


def _build(m: Stack) -> None:
    state, target = m.pop(), m.top()
    if type(target) is Made:
        target.state = state
    elif type(target) is Global or type(target) is Persistent:  # a module's or a class's own attributes
        m.act("set attributes of what it has imported")
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    if any(type(part) is PickledDict and m.sets_dunder(part) for part in parts):
        m.act("set attributes that begin with two underscores")


def _persistent_line(m: Stack) -> None:
    m.push_persistent(m.text(m.stream.line()))


def _persistent(m: Stack) -> None:
    m.push_persistent(m.pop())


def _buffer(m: Stack) -> None:
    raise m.corrupt("the pickle refers to buffers outside the file")


_TABLE: dict[bytes, Handler] = {
    b"(": _mark, b"0": _pop, b"1": _pop_mark, b"2": _duplicate, b"\x80": _protocol, b"\x95": _frame,
    b"N": _constant(None), b"\x88": _constant(True), b"\x89": _constant(False),
    b"K": _integer(1), b"M": _integer(2), b"J": _integer(4, signed=True), b"I": _int_line, b"L": _long_line,
    b"\x8a": _long(1), b"\x8b": _long(4), b"F": _float_line, b"G": _binary_float,
    b"S": _string_line, b"V": _unicode_line, b"U": _old_text(1), b"T": _old_text(4),
    b"X": _text(4), b"\x8c": _text(1), b"\x8d": _text(8),
    b"B": _bytes(4), b"C": _bytes(1), b"\x8e": _bytes(8), b"\x96": _bytes(8),
    b")": _constant(()), b"t": _tuple_run, b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3),
    b"]": _fresh(list), b"l": _list_run, b"}": _fresh(PickledDict), b"d": _dict_run, b"\x8f": _fresh(list),
    b"\x91": _list_run, b"a": _append, b"e": _appends, b"\x90": _appends, b"s": _set_item, b"u": _set_items,
    b"g": _get_line, b"h": _get(1), b"j": _get(4), b"p": _put_line, b"q": _put(1), b"r": _put(4), b"\x94": _memoize,
    b"c": _global, b"\x93": _stack_global, b"\x82": _extension(1), b"\x83": _extension(2), b"\x84": _extension(4),
    b"R": _reduce, b"\x81": _reduce, b"\x92": _new_with_keywords, b"i": _instance, b"o": _object, b"b": _build,
    b"P": _persistent_line, b"Q": _persistent, b"\x97": _buffer, b"\x98": _buffer,
}  # fmt: skip

HANDLERS: list[Handler | None] = [_TABLE.get(bytes([opcode])) for opcode in range(256)]
