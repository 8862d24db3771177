"""Texts to batches: against transformers' tokenizer and its padding, and against what the rows say."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from tests.train import tiny_texts
from weighttools import train
from weighttools.errors import CorruptFileError, MissingDependencyError, SourceError, SpecError, WeighttoolsError
from weighttools.train.data.tokenizer_bounds import check_bounds
from weighttools.train.data.tokens import _cuts_words

ROWS = [
    {"text": "good film !", "label": "pos", "other": "it was a very good book", "w": 2},
    {"text": "it is not a good book , is it . very bad plot the end .", "label": "neg", "other": "bad", "w": 0.5},
    {"text": "bad", "label": "neg", "other": "the end", "w": 1},
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_texts.llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("pair", [None, "other"])
@pytest.mark.parametrize("length", [None, 7])
def test_batches_are_those_of_transformers(bert: Path, pair: str | None, length: int | None) -> None:
    data = train.text(ROWS, tokenizer=bert, pair=pair, weight="w", max_length=length)
    chosen = [2, 0, 1]
    batch = data.batch(np.array(chosen))
    columns = [[ROWS[i][name] for i in chosen] for name in ("text", pair) if name]
    same = tiny_texts.fast(bert)(
        *columns, truncation=True, max_length=length or 12, padding="longest", return_tensors="np",
        return_token_type_ids=True,
    )  # fmt: skip
    assert np.array_equal(batch["ids"], same["input_ids"]) and np.array_equal(batch["mask"], same["attention_mask"])
    assert ("segments" in batch) == (pair is not None)
    if pair:
        assert np.array_equal(batch["segments"], same["token_type_ids"])
    assert batch["target"].tolist() == [0, 1, 0] and data.names == ("neg", "pos")
    assert batch["sample_weight"].tolist() == [1, 2, 0.5]
    assert "mask" not in data.batch(np.array([1]))  # nothing is filled up


def test_what_was_read_is_told(bert: Path) -> None:
    notes = train.text(ROWS, tokenizer=bert).notes
    assert notes == (
        "rows: 3 texts of 3 to 12 tokens (median 5); 1 cut to 12",
        "2 classes: 0 = neg (2), 1 = pos (1)",
    )


def test_the_tightest_bound_of_all_files_holds(tmp_path: Path) -> None:
    home = tiny_texts.bert(tmp_path)
    assert train.tokens(home).max_length == 12
    (home / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 9}))
    assert train.tokens(home).max_length == 9
    (home / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(
        json.dumps(config | {"model_type": "roberta", "max_position_embeddings": 10, "pad_token_id": 1})
    )
    assert train.tokens(home).max_length == 8  # its positions begin at 2
    assert train.tokens(home).pad_id == 1


def test_blocks_are_a_stream_cut_evenly(llama: Path, tmp_path: Path) -> None:
    texts = ["the film was good .", "the end", "a very bad book !"]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = train.language(tmp_path / "x.jsonl", tokenizer=llama, block=4)
    known = tiny_texts.fast(llama)
    stream = [i for text in texts for i in (*known(text, add_special_tokens=False)["input_ids"], 3)]
    assert np.concatenate(data.ids).tolist() == stream[:-1] and np.concatenate(data.target).tolist() == stream[1:]
    assert [len(one) for one in data.ids] == [4, 4, 4, 2]
    batch = data.batch(np.array([0, 3]))
    assert batch["target"][1].tolist() == [*stream[-2:], -100, -100] and batch["mask"].sum(1).tolist() == [4, 2]
    (tmp_path / "x.txt").write_text("the film\nwas good")
    plain = train.language(tmp_path / "x.txt", tokenizer=llama, block=8)
    assert len(plain) == 1 and len(plain.ids[0]) == 4


def test_the_loss_of_blocks_is_that_of_transformers(llama: Path) -> None:
    data = train.language(
        [{"text": "the film was good . the plot was bad . it is a very good book !"}], tokenizer=llama
    )
    model = train.model(llama)
    figures = train.evaluate(model, data, train.LanguageModel())
    module = transformers.AutoModelForCausalLM.from_pretrained(llama)
    import torch

    whole = torch.tensor(np.concatenate([data.ids[0], data.target[0][-1:]])).long()[None]
    with torch.no_grad():
        loss = float(module(whole, labels=whole).loss)
    assert abs(figures["loss"] - loss) < 1e-5 and abs(figures["perplexity"] - np.exp(loss)) < 1e-3


def test_nothing_is_learnt_from_a_prompt(llama: Path) -> None:
    rows = [{"q": "it is a", "completion": "good book"}, {"q": "the", "completion": "end ."}]
    data = train.language(rows, tokenizer=llama, prompt="q")
    known = tiny_texts.fast(llama)
    for i, row in enumerate(rows):
        before = known(row["q"])["input_ids"]
        after = [*known(row["completion"], add_special_tokens=False)["input_ids"], 3]
        assert data.ids[i].tolist() == [*before, *after][:-1]
        assert data.target[i].tolist() == [*[-100] * (len(before) - 1), *after]
    with pytest.raises(SpecError, match=r"row:1: a prompt of 4 tokens leaves none .* in 3"):
        train.language(rows, tokenizer=llama, prompt="q", block=3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a", "label": 1}, {"text": 3, "label": 1}], "row:2: 'text' is 3"),
        ([{"text": "a"}], "row:1: no column 'label'"),
        ([], "there are no rows"),
        ([{"text": "a", "label": None}], "row:1: label 'label' is None"),
    ],
)
def test_rows_that_are_wrong(bert: Path, rows: Any, said: str) -> None:
    with pytest.raises(WeighttoolsError, match=said):
        train.text(rows, tokenizer=bert)


def test_texts_without_tokens_are_refused(llama: Path) -> None:
    known = train.tokens(llama)
    known.tokenizer.post_processor = tiny_texts.processors.TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(SpecError, match="row:2: the text has no tokens"):
        train.text([("good", 0), ("  ", 1)], tokenizer=known)
    with pytest.raises(SpecError, match="has 0 tokens"):
        train.language([""], tokenizer=train.Tokens(known.tokenizer))


def test_tokenizers_that_are_missing_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tiny_texts.bert(tmp_path / "bert")
    (home / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(SourceError, match=r"has no tokenizer\.json.*--tokenizer"):
        train.tokens(home)
    assert train.tokens(tmp_path / "tokenizer.json").pad_id == 0
    for content in (
        "",
        "{}",
        "[1]",
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}',
    ):
        (home / "tokenizer.json").write_text(content)
        with pytest.raises(CorruptFileError, match="is no tokenizer|is not valid JSON|is not a JSON object") as caught:
            train.tokens(home)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"weighttools\[text\]"):
        train.tokens(home)


E1000 = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 1000}
E60 = {**E1000, "content": "e" * 60}
EMPTY = {"type": "Replace", "pattern": {"Regex": ""}, "content": "e"}


@pytest.mark.parametrize(
    ("part", "steps", "said"),
    [
        ("normalizer", [E1000] * 4, "its normalizer puts in a text of 1,000 characters; expected 64 at most"),
        ("normalizer", [E60] * 2, "its normalizer can make a text 3.6e+03 times as long; expected 256 times at most"),
        ("normalizer", [EMPTY] * 9, "its normalizer can make a text 512 times as long"),
        ("decoder", [E60] * 2, "its decoder can make a text"),
        ("pre_tokenizer", [{"type": "Whitespace"}] * 64, "its pre_tokenizer has 65 steps; expected 64 at most"),
        ("normalizer", [{"type": "Prepend", "prepend": "e" * 65}], "puts in a text of 65 characters"),
    ],
)
def test_tokenizers_that_let_texts_grow_without_bound_are_refused(
    bert: Path, tmp_path: Path, part: str, steps: list[Any], said: str
) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]
    whole[part] = {"type": "Sequence", inner: steps}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptFileError) as caught:
        train.text(ROWS, tokenizer=tmp_path / "tokenizer.json")
    assert said in str(caught.value)


def test_tokenizers_as_models_have_them_are_kept(bert: Path, tmp_path: Path) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    space = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "NFKC"},
    ]
    for steps in (space, [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]):
        whole["normalizer"] = {"type": "Sequence", "normalizers": steps}
        check_bounds(whole, "x")


@pytest.mark.parametrize("where", ["vocab", "added"])
def test_token_numbers_beyond_int32_are_refused(bert: Path, tmp_path: Path, where: str) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    if where == "vocab":
        whole["model"]["vocab"]["good"] = 4_000_000_000
    else:
        whole["added_tokens"].append({"id": 4_000_000_000, "content": "good"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptFileError, match="token 'good' has the number 4,000,000,000; expected at most"):
        train.text(ROWS, tokenizer=tmp_path / "tokenizer.json")


def test_of_a_long_text_only_the_beginning_is_tokenized(bert: Path) -> None:
    known = train.tokens(bert, 7)
    seen: list[int] = []

    class Watched:
        """A tokenizer that counts the characters it is given."""

        def __getattr__(self, name: str) -> Any:
            return getattr(known.tokenizer, name)

        def encode_batch(self, texts: list[str]) -> Any:
            seen.extend(map(len, texts))
            return known.tokenizer.encode_batch(texts)

    texts = ["it is not a good book , is it . " * 1000, " " * 2000 + "good film " * 99, "x" * 5000, "bad"]
    found = train.Tokens(Watched(), known.pad_id, known.end_id, 7).encode(texts)
    known.tokenizer.enable_truncation(7)
    whole = known.tokenizer.encode_batch(texts)
    known.tokenizer.no_truncation()
    assert [one.ids.tolist() for one in found] == [one.ids for one in whole]
    assert [one.is_cut for one in found] == [bool(one.overflowing) for one in whole]
    assert seen[0] <= 7 * 64 and seen[3] == 3


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.seen = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: Any, **options: Any) -> Any:
        self.seen += len(text)
        return self.tokenizer.encode(text, **options)

    def encode_batch(self, texts: list[Any], **options: Any) -> Any:
        self.seen += sum(len(part) for text in texts for part in ([text] if isinstance(text, str) else text))
        return self.tokenizer.encode_batch(texts, **options)


def spaced(n: int) -> str:
    """So many words, far between: few tokens for many characters."""
    return (" " * 28).join(tiny_texts.WORDS[i % 11] for i in range(n))


PAIRED = (*map(spaced, (1, 4, 12, 13, 29, 30, 60)), "", " " * 2000 + "good film " * 9, "x" * 5000)


@pytest.mark.parametrize("length", [1, 4, 5, 7, 8])
def test_pairs_of_long_texts_are_cut_as_the_whole_would_be(bert: Path, length: int) -> None:
    """The package's own cut of the whole pairs is the oracle: an odd token goes to the longer text."""
    known = train.tokens(bert, length)
    texts, others = ([pair[side] for pair in itertools.product(PAIRED, PAIRED)] for side in (0, 1))
    found = known.encode(texts, others)
    known.tokenizer.enable_truncation(length)
    whole = known.tokenizer.encode_batch(list(zip(texts, others, strict=True)))
    known.tokenizer.no_truncation()
    assert [one.ids.tolist() for one in found] == [one.ids for one in whole]
    assert [one.segments.tolist() for one in found] == [one.type_ids for one in whole]
    assert [one.is_cut for one in found] == [bool(one.overflowing) for one in whole]


@pytest.mark.parametrize("length", [7, 8])
def test_of_a_long_pair_only_the_beginning_is_tokenized(bert: Path, length: int) -> None:
    known = train.tokens(bert, length)
    counting = Counting(known.tokenizer)
    pairs = ([spaced(3000), "bad", spaced(3000)], ["bad", spaced(3000), spaced(60)])
    train.Tokens(counting, known.pad_id, known.end_id, length).encode(*pairs)
    assert counting.seen < len(spaced(3000))


def test_of_prompts_and_completions_only_what_a_block_holds_is_tokenized(llama: Path) -> None:
    known = train.tokens(llama)
    counting = Counting(known.tokenizer)
    watched = train.Tokens(counting, known.pad_id, known.end_id)
    rows = [{"prompt": "good film", "completion": text} for text in (*PAIRED, spaced(3000)) if text]
    data = train.language(rows, tokenizer=watched, block=9, prompt="prompt")
    assert counting.seen < len(spaced(3000)) / 2
    end = [known.end_id]
    before = known.tokenizer.encode("good film").ids
    for row, ids, target in zip(rows, data.ids, data.target, strict=True):
        after = known.tokenizer.encode(row["completion"], add_special_tokens=False).ids
        whole = [*before, *after, *end][:10]
        assert ids.tolist() == whole[:-1] and target[len(before) - 1 :].tolist() == whole[len(before) :]
    n_cut = sum(len(known.tokenizer.encode(row["completion"]).ids) + 2 > 10 for row in rows)
    assert f"; {n_cut} cut to 9" in data.notes[0]
    n_tokens = len(known.tokenizer.encode(spaced(3000)).ids)
    with pytest.raises(SpecError, match=f"a prompt of {n_tokens:,} tokens leaves none"):
        train.language([{"prompt": spaced(3000), "completion": "bad"}], tokenizer=watched, block=9, prompt="prompt")


def test_tokenizers_that_merge_across_words_get_the_whole_text() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    found = Tokenizer(models.BPE())
    assert not _cuts_words(found)
    found.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    assert _cuts_words(found)
    found.normalizer = normalizers.Replace(" ", "\u2581")  # as Gemma has it: no space is left to split at
    assert not _cuts_words(found)


def test_many_texts_are_tokenized_some_at_a_time(bert: Path) -> None:
    """The package keeps some hundred bytes a token of what it is given at once."""
    known = train.tokens(bert, 6)
    given: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(known.tokenizer, name)

        def encode_batch(self, texts: list[Any], **options: Any) -> Any:
            given.append(len(texts))
            return known.tokenizer.encode_batch(texts, **options)

    texts, others = ["good film", "bad"] * 1500, ["it is not a good book"] * 3000
    watched = train.Tokens(Watched(), known.pad_id, known.end_id, 6)
    known.tokenizer.enable_truncation(6)
    whole = [known.tokenizer.encode_batch(given) for given in (texts, list(zip(texts, others, strict=True)))]
    known.tokenizer.no_truncation()
    for found, right in zip((watched.encode(texts), watched.encode(texts, others)), whole, strict=True):
        assert [one.ids.tolist() for one in found] == [one.ids for one in right]
    assert [ids.tolist() for ids in watched.ids(texts)] == [
        one.ids for one in known.tokenizer.encode_batch(texts, add_special_tokens=False)
    ]
    assert max(given) <= 1024 and sum(given) == 9000
