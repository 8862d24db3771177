"""ONNX models: the tensors of their graphs, that is initializers and the values of Constant nodes.

Source: ``onnx/onnx.proto`` (messages ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto) and
``docs/ExternalData.md``. The wire is walked by `weighttools.io.protobuf`: the onnx package would load every value to
list one name, and holds at most 2 GiB. Data that lies in the file as it is (raw_data, packed floats, external files)
is read by offset; integers stored as varints are decoded whole.

Names are those of the values: an initializer's own, a Constant's first output. A subgraph's (of If, Loop, Scan) take
``node/attribute/`` before them where the plain name is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from weighttools.core.budgets import ONNX_DEPTH as MAX_DEPTH
from weighttools.core.budgets import ONNX_NAME as MAX_NAME
from weighttools.core.budgets import ONNX_PARTS as _MAX_PARTS
from weighttools.core.budgets import ONNX_TENSORS as MAX_TENSORS
from weighttools.core.budgets import ONNX_TEXT as MAX_TEXT
from weighttools.core.findings import Finding
from weighttools.core.readers import Whole
from weighttools.core.spec import Source, Span, Spec
from weighttools.core.tensor import Tensor
from weighttools.core.tensormap import Origin, TensorMap
from weighttools.errors import UnsupportedError, few
from weighttools.formats.base import Format, ReadOptions
from weighttools.formats.onnx.elements import ELEMENTS, STRING, Element, Varints, of_bytes
from weighttools.formats.onnx.external import DataFiles
from weighttools.formats.onnx.parts import Graph, GraphContents, Proto
from weighttools.io.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, Wire

_MAX_AXES = 64
_MOST_SETTINGS = 16
_SHAPING = frozenset(["ConstantOfShape"])
"""Operators whose tensor is the one value that they fill a shape with."""


# Numbers of TensorProto's data fields -> name, and the bytes of one element where they are of fixed width.
_DATA = {4: "float_data", 5: "int32_data", 7: "int64_data", 9: "raw_data", 10: "double_data", 11: "uint64_data"}
_FIXED = {"float_data": (FIXED32, 4), "double_data": (FIXED64, 8)}

# ModelProto's own fields -> the metadata they become.
_TEXTS = {2: "onnx.producer_name", 3: "onnx.producer_version", 4: "onnx.domain"}
_NUMBERS = {1: "onnx.ir_version", 5: "onnx.model_version"}

# AttributeProto's own value fields, of a Constant: number -> (attribute's name, data type, is a list).
_VALUES = {
    2: ("value_float", 1, False),
    3: ("value_int", 7, False),
    7: ("value_floats", 1, True),
    8: ("value_ints", 7, True),
}


def matches(head: bytes) -> bool:
    """Whether a file begins as ONNX writers begin: ir_version, then the producer, domain, version, text or graph."""
    if len(head) < 4 or head[0] != 0x08 or not 1 <= head[1] <= 0x7F:
        return False
    if head[2] == 0x12:
        return _begins_text(head[3:])
    return head[2] in (0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)


def _begins_text(field: bytes) -> bool:
    """Whether a field is a producer's name: a SavedModel and a Core ML model have a message there."""
    n = field[0] if field[0] < 0x80 else min(64, field[0] - 0x80 + 0x80 * int.from_bytes(field[1:2], "little"))
    begin = 1 if field[0] < 0x80 else 2
    return all(byte >= 0x20 for byte in field[begin : begin + n])


def read(source: Source, options: ReadOptions | None = None) -> TensorMap:
    """Walk a model and list its tensors; no value is read.

    Raises
    ------
    CorruptFileError
        The content is no ONNX model, is cut short, or a tensor's data does not fit its shape.
    UnsafeFileError
        External data would be read from outside the model's directory.
    """
    return _Model(source).read()


class _Model:
    """One walk over one model."""

    def __init__(self, source: Source) -> None:
        self.source, self.wire, self.found = source, Wire(source), GraphContents()
        self.data_files = DataFiles(source, self.wire)

    def read(self) -> TensorMap:
        graphs, opsets = self._header()
        while graphs:
            graphs[:0] = self._walk(graphs.pop(0))
        found = self.found
        if opsets:
            found.metadata["onnx.opset"] = ", ".join(opsets)
        if found.left_out and not found.tensors:
            fact = f"holds no tensor that can be read: {few(list(found.left_out), 3)}"
            raise UnsupportedError(fact, subject=self.source.name)
        found.notes += found.left_out.notes()
        files = (self.source.name, *self.data_files.names())
        origin = Origin(self.source.name, "onnx", files, tuple(found.notes))
        return TensorMap(found.tensors, found.metadata, origin=origin)

    def _header(self) -> tuple[list[Graph], list[str]]:
        """Read ModelProto: metadata, and where the graph and the functions lie."""
        graphs: list[Graph] = []
        opsets: list[str] = []
        bodies: list[Graph] = []
        for found in self.wire.fields(0, self.source.size):
            if found.number == 7:
                graphs.append(self._graph(found, "", 0))
            elif found.number == 25:
                bodies.append(self._graph(found, f"functions/{len(bodies)}/", 0, is_function=True))
            elif found.number == 8:
                opsets.append(self._opset(found))
            else:
                self._describe(found)
        if len(graphs) != 1:
            raise self.wire.corrupt(f"the model holds {len(graphs)} graphs", 0, "one: this is no ONNX model")
        if not opsets and int(self.found.metadata.get("onnx.ir_version", 0)) >= 3:
            raise self.wire.corrupt("the model names no opset (truncated?)", self.source.size, "opset_import")
        return [*graphs, *bodies], opsets

    def _describe(self, found: Field) -> None:
        """Take a field of ModelProto that is metadata, or say that it is left out."""
        metadata = self.found.metadata
        if found.number == 14:
            key, value = self._entry(found)
            metadata[key] = value
        elif found.number in _TEXTS:
            metadata[_TEXTS[found.number]] = self.wire.text(found, MAX_TEXT)
        elif found.number in _NUMBERS:
            metadata[_NUMBERS[found.number]] = str(self.wire.expect(found, VARINT).signed)
        elif found.number == 20:
            self.found.left_out.add("graphs of a training", "training_info")

    def _graph(self, found: Field, prefix: str, depth: int, *, is_function: bool = False) -> Graph:
        self.wire.expect(found, BYTES)
        if depth > MAX_DEPTH or len(prefix) > MAX_NAME:
            raise self.wire.corrupt("graphs are nested too deeply", found.offset, f"at most {MAX_DEPTH} levels")
        return Graph(found.offset, found.stop, prefix, depth, is_function)

    def _opset(self, found: Field) -> str:
        domain, version = "", 0
        for part in self._message(found):
            if part.number == 1:
                domain = self.wire.text(part, MAX_NAME)
            elif part.number == 2:
                version = self.wire.expect(part, VARINT).signed
        return f"{domain or 'ai.onnx'} {version}"

    def _entry(self, found: Field) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        texts = {part.number: self.wire.text(part, MAX_TEXT) for part in self._message(found) if part.number in (1, 2)}
        return texts.get(1, ""), texts.get(2, "")

    def _message(self, found: Field) -> Iterator[Field]:
        self.wire.expect(found, BYTES)
        return self.wire.fields(found.offset, found.stop)

    def _walk(self, graph: Graph) -> list[Graph]:
        """Take a graph's tensors; return the subgraphs of its nodes."""
        inner: list[Graph] = []
        node_number, initializer = (7, None) if graph.is_function else (1, 5)
        for found in self.wire.fields(graph.start, graph.stop):
            if found.number == node_number:
                inner += self._node(found, graph)
            elif found.number == initializer:
                proto = self._tensor_proto(found)
                self._add(proto.name, proto, graph)
            elif found.number == 15 and not graph.is_function:
                self.found.left_out.add("a sparse initializer", self._sparse_name(found))
        return inner

    def _node(self, node: Field, graph: Graph) -> list[Graph]:
        """Take the value of a Constant; return the subgraphs of any other node."""
        label = output = kind = ""
        attributes = []
        for found in self._message(node):
            if found.number == 2 and not output:
                output = self.wire.text(found, MAX_NAME)
            elif found.number == 3:
                label = self.wire.text(found, MAX_NAME)
            elif found.number == 4:
                kind = self.wire.text(found, MAX_NAME)
            elif found.number == 5:
                attributes.append(found)
        if kind == "Constant":
            for attribute in attributes:
                self._constant(output, attribute, graph)
            return []
        node_path = f"{graph.prefix}{label or output}/"
        return [
            inner for attribute in attributes for inner in self._subgraphs(attribute, kind, node_path, graph.depth + 1)
        ]

    def _subgraphs(self, attribute: Field, kind: str, prefix: str, depth: int) -> Iterator[Graph]:
        """Yield the graphs of an attribute; what else could be weights there is left out and said."""
        parts = list(self._message(attribute))
        name = next((self.wire.text(found, MAX_NAME) for found in parts if found.number == 1), "")
        for found in parts:
            if found.number in (6, 11):
                yield self._graph(found, f"{prefix}{name}/", depth)
        if kind not in _SHAPING and self._holds_numbers(parts):
            self.found.left_out.add(f"numbers in an attribute of {kind:.80}", f"{prefix}{name}")

    def _holds_numbers(self, parts: list[Field]) -> bool:
        """Whether an attribute has tensors, or more floats than a setting has: classifiers of ai.onnx.ml do."""
        n_bytes = sum(found.length for found in parts if found.number == 7)
        return n_bytes > 4 * _MOST_SETTINGS or any(found.number in (5, 10, 22, 23) for found in parts)

    def _constant(self, output: str, attribute: Field, graph: Graph) -> None:
        """Take a Constant's value: a tensor, or numbers that stand in the attribute itself."""
        values: dict[int, list[Field]] = {}
        for found in self._message(attribute):
            if found.number == 5:
                self._add(output, self._tensor_proto(found), graph)
            elif found.number in _VALUES:
                values.setdefault(found.number, []).append(found)
            elif found.number in (4, 9, 22):
                self.found.left_out.add("text or a sparse tensor of a Constant node", output)
        for number, parts in values.items():
            _, data_type, is_list = _VALUES[number]
            field_name = ELEMENTS[data_type].field
            proto = Proto(attribute.offset, output, [], data_type, {field_name: parts})
            proto.dims = [self._n_values(proto, field_name)] if is_list else []
            self._add(output, proto, graph)

    def _n_values(self, proto: Proto, field_name: str) -> int:
        """Count the numbers of a typed field."""
        if field_name in _FIXED:
            return sum(part.length for part in proto.data[field_name]) // _FIXED[field_name][1]
        return sum(len(self.wire.varints(part, MAX_NAME)) for part in proto.data[field_name])

    def _tensor_proto(self, message: Field) -> Proto:
        """Read a TensorProto's header; of its data only where it lies."""
        proto = Proto(message.offset)
        for found in self._message(message):
            if found.number == 1:
                proto.dims += self.wire.varints(found, _MAX_AXES)
            elif found.number == 2:
                proto.data_type = self.wire.expect(found, VARINT).signed
            elif found.number == 3:
                raise UnsupportedError("a tensor comes in segments", subject=self.source.name, expected="whole tensors")
            elif found.number == 8:
                proto.name = self.wire.text(found, MAX_NAME)
            elif found.number == 13:
                key, value = self._entry(found)
                proto.external[key] = value
            elif found.number == 14:
                proto.is_external = self.wire.expect(found, VARINT).value == 1
            elif found.number in _DATA and (found.length or _DATA[found.number] == "raw_data"):
                proto.data.setdefault(_DATA[found.number], []).append(found)
        return proto

    def _sparse_name(self, sparse: Field) -> str:
        """Return the name of a SparseTensorProto: that of its values."""
        values = next((found for found in self._message(sparse) if found.number == 1), None)
        return self._tensor_proto(values).name if values else ""

    def _add(self, plain: str, proto: Proto, graph: Graph) -> None:
        element = ELEMENTS.get(proto.data_type)
        if element is None:
            if proto.data_type == 0:
                raise self.wire.corrupt(f"tensor {plain!r} has no data type", proto.at, "a TensorProto.DataType")
            is_text = proto.data_type == STRING
            reason = "text, not numbers" if is_text else f"data type {proto.data_type}, which is not known"
            self.found.left_out.add(reason, plain)
            return
        name = plain if plain not in self.found.tensors else graph.prefix + plain
        if plain in graph.names or name in self.found.tensors or len(self.found.tensors) >= MAX_TENSORS:
            raise self.wire.corrupt(f"two tensors are called {plain!r}", proto.at, "each name once")
        graph.names.add(plain)
        self.found.tensors[name] = self._tensor(name, proto, element)

    def _tensor(self, name: str, proto: Proto, element: Element) -> Tensor:
        """Make the tensor, its data held against its shape."""
        if len(proto.dims) > _MAX_AXES or not all(0 <= n < 1 << 63 for n in proto.dims):
            raise self.wire.corrupt(f"tensor {name!r} has the shape {proto.dims}", proto.at, "whole numbers from 0")
        spec = Spec(element.dtype, tuple(proto.dims), element.encoding)
        if proto.is_external:
            return of_bytes(spec, element, [self._external(name, proto, spec, element)])
        if len(proto.data) > 1:
            fact = f"tensor {name!r} has both {' and '.join(proto.data)}"
            raise self.wire.corrupt(fact, proto.at, "one of them")
        kind, parts = next(iter(proto.data.items()), ("raw_data", []))
        if kind not in ("raw_data", element.field):
            raise self.wire.corrupt(f"tensor {name!r} of {element.dtype} has {kind}", proto.at, element.field)
        if kind == "raw_data" or kind in _FIXED:
            return self._direct(name, proto, spec, element, kind, parts)
        return self._varints(name, proto, spec, element, parts)

    def _direct(self, name: str, proto: Proto, spec: Spec, element: Element, kind: str, parts: list[Field]) -> Tensor:
        """Data that lies in the model as it is: raw, or floats, which protobuf stores like that too."""
        for part in parts:
            if part.wire != BYTES and (kind == "raw_data" or part.wire != _FIXED[kind][0]):
                self.wire.expect(part, BYTES)
        if kind == "raw_data" and len(parts) > 1:
            raise self.wire.corrupt(f"tensor {name!r} has raw_data twice", proto.at, "once")
        self._check_parts(name, parts)
        self._check_bytes(name, spec, element, sum(part.length for part in parts), proto.at)
        spans = [Span(self.source, part.offset, part.length) for part in parts]
        return of_bytes(spec, element, spans or [Span(self.source, proto.at, 0)])

    def _check_parts(self, name: str, parts: list[Field]) -> None:
        if len(parts) > _MAX_PARTS:
            raise UnsupportedError(
                f"the data of tensor {name!r} comes in {len(parts):,} fields",
                subject=self.source.name,
                expected="raw_data, or packed fields",
                remedy="save the model again with the onnx package",
            )

    def _check_bytes(self, name: str, spec: Spec, element: Element, n_bytes: int, at: int) -> None:
        wanted = -(-spec.n_elements * element.bits // 8)
        if n_bytes != wanted:
            fact = f"tensor {name!r} of {element.dtype} and shape {list(spec.shape)} has {n_bytes:,} bytes"
            raise self.wire.corrupt(fact, at, f"{wanted:,}")

    def _varints(self, name: str, proto: Proto, spec: Spec, element: Element, parts: list[Field]) -> Tensor:
        """Integers as varints: a tensor that is decoded whole; each takes 1 to 10 bytes."""
        self._check_parts(name, parts)
        for part in parts:
            if part.wire not in (VARINT, BYTES):
                self.wire.expect(part, BYTES)
        per = 8 // element.bits if element.bits in (2, 4) else 1
        n_stored = -(-spec.n_elements // per)
        n_bytes = sum(part.length for part in parts)
        if not n_stored <= n_bytes <= 10 * n_stored:
            fact = f"tensor {name!r} of shape {list(spec.shape)} has {n_bytes:,} bytes of {element.field}"
            raise self.wire.corrupt(fact, proto.at, f"{n_stored:,} numbers of 1 to 10 bytes")
        spans = tuple(Span(self.source, part.offset, part.length) for part in parts)
        load = Varints(spans, n_stored, spec.n_elements, element)
        encoding = "varint" if element.encoding == "raw" else f"varint {element.encoding}"
        stored = spans[0] if len(spans) == 1 else None
        return Tensor(Spec(spec.dtype, spec.shape, encoding), Whole(load, spec.n_elements), stored)

    def _external(self, name: str, proto: Proto, spec: Spec, element: Element) -> Span:
        """Return where a tensor's data lies in another file of the model's directory."""
        wanted = -(-spec.n_elements * element.bits // 8)
        length = self.data_files.number(name, proto.external, "length", wanted, proto.at)
        self._check_bytes(name, spec, element, length, proto.at)
        return self.data_files.span(name, proto.external, wanted, proto.at)


def check(source: Source) -> Iterator[Finding]:
    """Yield what a runtime would load or read beyond the model; as `onnx_check.check`."""
    from weighttools.formats.onnx import check as onnx_check

    yield from onnx_check.check(source)


FORMAT = Format(matches=matches, read=read, check=check)
