"""External data of ONNX models: values that lie in other files of the model's directory.

Source: ``docs/ExternalData.md`` of ONNX. An entry of TensorProto.external_data is a key and a text; ``location`` is a
relative path, ``offset`` and ``length`` are decimal numbers of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from weighttools.core.spec import Source, Span
from weighttools.errors import CorruptFileError, UnsupportedError
from weighttools.io.protobuf import Wire


class DataFiles:
    """The data files of one model, each opened once.

    Parameters
    ----------
    source, wire
        The model, and the walk over it.
    """

    def __init__(self, source: Source, wire: Wire) -> None:
        self.source, self.wire = source, wire
        self._files: dict[Path, Source] = {}

    def names(self) -> list[str]:
        """Return the paths of the files that were opened."""
        return [str(path) for path in self._files]

    def number(self, name: str, entries: Mapping[str, str], key: str, default: int, at: int) -> int:
        """Return an entry of tensor `name` that is a number, or `default` where there is none."""
        text = entries.get(key)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise self.wire.corrupt(f"the external data of tensor {name!r} has the {key} {text!r}", at, "a number")
        return int(text)

    def span(self, name: str, entries: Mapping[str, str], n_bytes: int, at: int) -> Span:
        """Return where the `n_bytes` of tensor `name`, whose message begins `at`, lie.

        Raises
        ------
        CorruptFileError
            The file is too short.
        UnsafeFileError
            It does not lie in the model's directory.
        """
        location = entries.get("location", "")
        offset = self.number(name, entries, "offset", 0, at)
        data = self._data_file(name, location)
        if offset + n_bytes > data.size:
            missing = offset + n_bytes - data.size
            raise CorruptFileError(
                f"the data of tensor {name!r} runs {missing:,} bytes over the end of {location}",
                subject=self.source.name,
                expected=f"at least {offset + n_bytes:,} bytes in it",
                remedy="fetch the data file again",
            )
        return Span(data, offset, n_bytes)

    def _data_file(self, name: str, location: str) -> Source:
        from weighttools.io.beside import inside

        home = getattr(self.source, "path", None)
        if not home:
            raise UnsupportedError(
                f"the data of tensor {name!r} lies in another file", subject=self.source.name, expected="a path"
            )
        path = Path(home).parent / location
        if path not in self._files:
            self._files[path] = inside(Path(home).parent, location, self.source.name)
        return self._files[path]
