"""The tokenizer beside a checkpoint (tokenizer.json), or in its GGUF metadata, by the package ``tokenizers``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weighttools.core.budgets import JSON_BYTES
from weighttools.core.panics import panics_as_errors
from weighttools.core.tensormap import TensorMap
from weighttools.errors import (
    CorruptFileError,
    MissingDependencyError,
    SourceError,
    SpecError,
    UnsafeFileError,
    install,
    option,
)
from weighttools.io.beside import LEAVES, OF_TEXTS
from weighttools.io.home import Home, LocalHome, home_of
from weighttools.io.text import parse_json, read_bounded
from weighttools.train.autograd.gradients import Array
from weighttools.train.data.gguf_tokenizer import gguf_tokenizer, has_tokenizer
from weighttools.train.data.tokenizer_bounds import MOST_ID, check_bounds
from weighttools.train.models.files import described

if TYPE_CHECKING:
    from weighttools.core.spec import Source

FILE = "tokenizer.json"
CONFIG = "config.json"
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>", "<|im_end|>")
_ENDS = ("<|endoftext|>", "</s>", "<|im_end|>", "<eos>", "<|end_of_text|>", "[SEP]")
_UNBOUNDED = 1_000_000
"""A model_max_length above this says that nobody set one."""

_CHARACTERS = 64
"""Of a long text so many characters for each token that is wanted are looked at first; words have fewer."""

_TEXTS = 1024
_NOT_ENCODED = "a text cannot be tokenized"
_NONE = 2**32 - 1
"""GGUF's -1."""

Base = str | os.PathLike[str] | TensorMap
"""A checkpoint: its path, its directory, or the open map."""


def home_beside(base: Base) -> Home:
    """Return the home of a checkpoint, where its configuration and tokenizer are looked for.

    Raises
    ------
    SourceError
        An open map came from no file.
    """
    from weighttools.formats.opening import located

    home = home_of(located(base.origin.path if isinstance(base, TensorMap) else os.fspath(base)))
    if home is None:
        raise SourceError("comes from no file, so that nothing lies beside it", subject="the checkpoint")
    return home


class Encoded(NamedTuple):
    """A text's token numbers and types (int32), and whether it was cut."""

    ids: Array
    segments: Array
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenizer and what the data needs to know of it.

    Parameters
    ----------
    tokenizer
        A ``tokenizers.Tokenizer`` that neither pads nor truncates.
    pad_id
        What shorter texts of a batch are filled with.
    end_id
        The token that ends a text; None where the tokenizer has none.
    max_length
        The most tokens of a text, those that the tokenizer adds included; None without a bound.
    """

    tokenizer: Any = field(repr=False)
    pad_id: int = 0
    end_id: int | None = None
    max_length: int | None = None

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Return the tokens of texts, or of pairs of texts, cut to `max_length`."""
        try:
            with panics_as_errors(_NOT_ENCODED):
                return [one for at in _batches(texts) for one in self._encoded(texts[at], pairs and pairs[at])]
        finally:
            self.tokenizer.no_truncation()

    def _encoded(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Encoded]:
        self.tokenizer.no_truncation()
        together = None if pairs is None else self._pairs(texts, pairs)
        if self.max_length is not None:
            self.tokenizer.enable_truncation(self.max_length)
        if together is not None:
            return [_kept(one) for one in self.tokenizer.encode_batch(together)]
        cut = [self._cut(text, self.max_length) for text in texts]
        found: list[Any] = self.tokenizer.encode_batch(cut)
        for i, text in enumerate(texts):
            if cut[i] is not text and not found[i].overflowing:  # its beginning has too few tokens to do
                found[i] = self.tokenizer.encode(text)
        return [_kept(one) for one in found]

    def _cut(self, text: str, n_tokens: int | None) -> str:
        """Return the beginning of a text that is far longer than so many tokens need, up to a word's end.

        Only for tokenizers that cut texts into words before anything else: a word's tokens depend on it alone.
        """
        room = (n_tokens or len(text)) * _CHARACTERS
        if len(text) <= room or not _cuts_words(self.tokenizer):
            return text
        words = text[:room].rsplit(None, 1)
        return words[0] if len(words) == 2 else text

    def _pairs(self, texts: Sequence[str], pairs: Sequence[str]) -> list[tuple[str, str]]:
        together = list(zip(texts, pairs, strict=True))
        if self.max_length is None or self.max_length <= self.tokenizer.num_special_tokens_to_add(True):
            return together  # where nothing but what it adds has room, the package cuts nothing
        room = self.max_length * _CHARACTERS
        return [self._cut_pair(*both) if max(map(len, both)) > room else both for both in together]

    def _cut_pair(self, text: str, other: str) -> tuple[str, str]:
        """Return beginnings of a pair that are cut to the same tokens as the whole.

        The package takes from the longer text first; of two that both exceed `max_length` it leaves halves, and if
        one token is over, that goes to the longer: so the longer of the beginnings is the longer of the texts.
        """
        whole, most = (text, other), self.max_length or 1
        found = [self._begun(part, most) for part in whole]
        is_odd = (most - self.tokenizer.num_special_tokens_to_add(True)) % 2
        if is_odd and all(n > most for _, n in found):
            is_longer = self._is_longer(text, other)
            while (found[0][1] > found[1][1]) != is_longer:
                most *= 2
                found[not is_longer] = self._begun(whole[not is_longer], most)
        return found[0][0], found[1][0]

    def _begun(self, text: str, most: int) -> tuple[str, int]:
        """Return the beginning of a text and its number of tokens: more than `most`, or it is the whole text."""
        for part in (self._cut(text, most), text):
            n = len(self.tokenizer.encode(part, add_special_tokens=False).ids)
            if n > most:
                break
        return part, n

    def _is_longer(self, text: str, other: str) -> bool:
        """Whether a text has more tokens than another; no more is looked at than tells it."""
        most = self.max_length or 1
        while True:
            (part, n), (other_part, n_other) = self._begun(text, most), self._begun(other, most)
            if (other_part is other and n > n_other) or (part is text and n_other >= n):
                return n > n_other
            most *= 2

    def ids(self, texts: Sequence[str], special: bool = False, most: int | None = None) -> list[Array]:
        """Return the token numbers (int32) of texts.

        Parameters
        ----------
        texts
            The texts.
        special
            Add what the tokenizer adds to each.
        most
            How many tokens of each matter: of a text that has far more, those that follow may be left out.
        """
        with panics_as_errors(_NOT_ENCODED):
            return [one for at in _batches(texts) for one in self._ids(texts[at], special, most)]

    def _ids(self, texts: Sequence[str], special: bool, most: int | None) -> list[Array]:
        cut = [self._cut(text, most) for text in texts]
        found = self.tokenizer.encode_batch(cut, add_special_tokens=special)
        least = (most or 0) + (self.tokenizer.num_special_tokens_to_add(False) if special else 0)
        for i, text in enumerate(texts):
            if cut[i] is not text and len(found[i].ids) <= least:  # its beginning has too few tokens to do
                found[i] = self.tokenizer.encode(text, add_special_tokens=special)
        return [np.array(one.ids, np.int32) for one in found]

    def decode(self, ids: Any) -> str:
        """Return the text of token numbers."""
        with panics_as_errors("tokens cannot be made a text"):
            return str(self.tokenizer.decode([int(i) for i in ids]))


def _batches(texts: Sequence[str]) -> list[slice]:
    """Cut the texts into runs that are tokenized at once: the package keeps some hundred bytes a token meanwhile."""
    return [slice(start, start + _TEXTS) for start in range(0, len(texts), _TEXTS)]


def _kept(one: Any) -> Encoded:
    return Encoded(np.array(one.ids, np.int32), np.array(one.type_ids, np.int32), bool(one.overflowing))


def _cuts_words(tokenizer: Any) -> bool:
    """Return whether words are told apart before they become tokens; some tokenizers merge across spaces."""
    if tokenizer.pre_tokenizer is None:
        return False
    text = tokenizer.normalizer.normalize_str("a b") if tokenizer.normalizer is not None else "a b"
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) > 1


def tokens(base: Base | Tokens, max_length: int | None = None) -> Tokens:
    """Read the tokenizer beside a checkpoint, or the one that a GGUF file carries where none lies beside it.

    Parameters
    ----------
    base
        The checkpoint, a directory with a tokenizer.json, that file itself, or what this function returned.
    max_length
        The most tokens of a text; by default what tokenizer.json, tokenizer_config.json and config.json allow.

    Raises
    ------
    SourceError
        There is no tokenizer.json.
    CorruptFileError
        It is none.
    MissingDependencyError
        The package ``tokenizers`` is not installed.
    """
    if max_length is not None and max_length < 1:
        raise SpecError(f"max_length {max_length}", expected="1 or more")
    if isinstance(base, Tokens):
        return base if max_length is None else Tokens(base.tokenizer, base.pad_id, base.end_id, max_length)
    tokenizer, config, settings, place, subject = _read(base)
    for key in ("pad_token_id", "eos_token_id"):
        token_ids(config, key, subject)
    with panics_as_errors("its tokenizer's settings do not fit", CorruptFileError, place):
        bound = max_length or _bound(tokenizer, config, settings)
        pad_id = _pad_id(tokenizer, config, settings)
        end_id = _end_id(tokenizer, config, settings)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return Tokens(tokenizer, pad_id, end_id, bound)


def _read(base: Base) -> tuple[Any, Mapping[str, Any], Mapping[str, Any], str, str]:
    """Return the tokenizer, the model's configuration, its own, and what to call the place and the configuration."""
    named = None if isinstance(base, TensorMap) or "://" in os.fspath(base) else os.fspath(base)
    is_named = named is not None and os.path.basename(named) == FILE
    home = LocalHome(named) if named and is_named else home_beside(base)
    carried = None if home.has(FILE) or home.is_elsewhere(FILE) else _gguf(base)
    if carried is None:
        config, settings = (home.read_json(name) or {} for name in (CONFIG, "tokenizer_config.json"))
        return _loaded(home, is_named), config, settings, home.place, home.path_of(CONFIG)
    place = carried.origin.path
    return gguf_tokenizer(carried.metadata, place), described(carried)[1], {}, place, place


def _gguf(base: Base) -> TensorMap | None:
    """Return the map of a GGUF file that carries a tokenizer; None for any other checkpoint."""
    from weighttools.formats.opening import open as open_checkpoint

    if not isinstance(base, TensorMap) and not str(base).endswith(".gguf"):
        return None
    found = base if isinstance(base, TensorMap) else open_checkpoint(base)
    return found if has_tokenizer(found.metadata) else None


def _file(home: Home, is_named: bool) -> Source:
    """Open a tokenizer: through a link wherever it leads where a person names it, else only within its directory."""
    from weighttools.io.source import open_source

    path = home.path_of(FILE)
    if is_named and home.has(FILE):
        return open_source(path)
    if home.is_elsewhere(FILE):
        raise UnsafeFileError(f"is {LEAVES}", subject=path, remedy=f"name what it leads to ({option('tokenizer')})")
    found = home.open(FILE)
    if found is None:
        raise SourceError(
            f"has no {FILE}",
            subject=home.place,
            remedy=f"name the tokenizer's directory ({option('tokenizer')}), or save one there",
        )
    return found


def _loaded(home: Home, is_named: bool) -> Any:
    data, path = read_bounded(_file(home, is_named), JSON_BYTES), home.path_of(FILE)
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependencyError("reading text needs tokenizers", remedy=install("text")) from None
    check_bounds(parse_json(data, path), path)
    with panics_as_errors("is no tokenizer", CorruptFileError, path):
        return Tokenizer.from_buffer(data)


def _bound(tokenizer: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Return the least bound that any of the files gives."""
    said = [(tokenizer.truncation or {}).get("max_length"), settings.get("model_max_length"), context_of(config)]
    return min((int(n) for n in said if isinstance(n, (int, float)) and 1 <= n < _UNBOUNDED), default=None)


def left_elsewhere(origin: TensorMap) -> list[str]:
    """Return the line that says what of a checkpoint's tokenizer is not taken, for it is a link to elsewhere."""
    home = home_of(origin.origin)
    return home.not_taken(OF_TEXTS) if home else []


def context_of(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model takes; None where its configuration does not say."""
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(positions, int) or positions < 1:
        return None
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        pad_id = next(iter(token_ids(config, "pad_token_id")), 0)
        positions -= pad_id + 1  # their positions begin behind the padding's
    return positions


def token_ids(config: Mapping[str, Any], key: str, subject: object = CONFIG) -> list[int]:
    """Return the token numbers under a key of a configuration: one, several, or none, for which -1 may stand.

    Raises
    ------
    CorruptFileError
        One is no whole number, or beyond int32.
    """
    said = config.get(key)
    numbers = said if isinstance(said, list) else [] if said is None else [said]
    for number in numbers:
        is_whole = isinstance(number, int) and not isinstance(number, bool)
        if not is_whole or (number > MOST_ID and number != _NONE):
            expected = f"a token's number, {MOST_ID:,} at most"
            raise CorruptFileError(f"{key} is {number!r}", subject=subject, expected=expected)
    return [number for number in numbers if 0 <= number <= MOST_ID]


def _pad_id(tokenizer: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    if said := token_ids(config, "pad_token_id"):
        return said[0]
    padding = tokenizer.padding
    if padding:
        return int(padding["pad_id"])
    found = _token_id(tokenizer, (settings.get("pad_token"), *_PADS))
    return 0 if found is None else found


def _end_id(tokenizer: Any, config: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Return the token that ends a text: the tokenizer's own settings go before the model's, and these before habit."""
    named = _token_id(tokenizer, (settings.get("eos_token"),))
    number = next(iter(token_ids(config, "eos_token_id")), None)
    if named is None and number is not None and number < tokenizer.get_vocab_size():
        return number
    return _token_id(tokenizer, _ENDS) if named is None else named


def _token_id(tokenizer: Any, candidates: Sequence[Any]) -> int | None:
    """Return the number of the first candidate that the tokenizer knows."""
    contents = [c.get("content") if isinstance(c, Mapping) else c for c in candidates]
    found = (tokenizer.token_to_id(c) for c in contents if isinstance(c, str))
    return next((i for i in found if i is not None), None)
