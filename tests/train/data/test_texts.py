"""Texts to batches: against transformers' tokenizer and its padding, and against what the rows say."""

from __future__ import annotations

import base64
import itertools
import json
import os
import struct
import subprocess
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
    data = train.data.text(ROWS, tokenizer=bert, pair=pair, weight="w", max_length=length)
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
    notes = train.data.text(ROWS, tokenizer=bert).notes
    assert notes == (
        "rows: 3 texts of 3 to 12 tokens (median 5); 1 cut to 12",
        "2 classes: 0 = neg (2), 1 = pos (1)",
    )


def test_the_tightest_bound_of_all_files_holds(tmp_path: Path) -> None:
    home = tiny_texts.bert(tmp_path)
    assert train.data.tokens(home).max_length == 12
    (home / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 9}))
    assert train.data.tokens(home).max_length == 9
    (home / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(
        json.dumps(config | {"model_type": "roberta", "max_position_embeddings": 10, "pad_token_id": 1})
    )
    assert train.data.tokens(home).max_length == 8  # its positions begin at 2
    assert train.data.tokens(home).pad_id == 1


def test_blocks_are_a_stream_cut_evenly(llama: Path, tmp_path: Path) -> None:
    texts = ["the film was good .", "the end", "a very bad book !"]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    data = train.data.language(tmp_path / "x.jsonl", tokenizer=llama, block=4)
    known = tiny_texts.fast(llama)
    stream = [i for text in texts for i in (*known(text, add_special_tokens=False)["input_ids"], 3)]
    assert np.concatenate(data.ids).tolist() == stream[:-1] and np.concatenate(data.target).tolist() == stream[1:]
    assert [len(one) for one in data.ids] == [4, 4, 4, 2]
    batch = data.batch(np.array([0, 3]))
    assert batch["target"][1].tolist() == [*stream[-2:], -100, -100] and batch["mask"].sum(1).tolist() == [4, 2]
    (tmp_path / "x.txt").write_text("the film\nwas good")
    plain = train.data.language(tmp_path / "x.txt", tokenizer=llama, block=8)
    assert len(plain) == 1 and len(plain.ids[0]) == 4


def test_the_loss_of_blocks_is_that_of_transformers(llama: Path) -> None:
    data = train.data.language(
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
    data = train.data.language(rows, tokenizer=llama, prompt="q")
    known = tiny_texts.fast(llama)
    for i, row in enumerate(rows):
        before = known(row["q"])["input_ids"]
        after = [*known(row["completion"], add_special_tokens=False)["input_ids"], 3]
        assert data.ids[i].tolist() == [*before, *after][:-1]
        assert data.target[i].tolist() == [*[-100] * (len(before) - 1), *after]
    with pytest.raises(SpecError, match=r"row:1: a prompt of 4 tokens leaves none .* in 3"):
        train.data.language(rows, tokenizer=llama, prompt="q", block=3)


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
        train.data.text(rows, tokenizer=bert)


def test_texts_without_tokens_are_refused(llama: Path) -> None:
    known = train.data.tokens(llama)
    known.tokenizer.post_processor = tiny_texts.processors.TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(SpecError, match="row:2: the text has no tokens"):
        train.data.text([("good", 0), ("  ", 1)], tokenizer=known)
    with pytest.raises(SpecError, match="has 0 tokens"):
        train.data.language([""], tokenizer=train.data.Tokens(known.tokenizer))


def test_tokenizers_that_are_missing_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tiny_texts.bert(tmp_path / "bert")
    (home / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(SourceError, match=r"has no tokenizer\.json.*\(tokenizer\)"):
        train.data.tokens(home)
    assert train.data.tokens(tmp_path / "tokenizer.json").pad_id == 0
    for content in (
        "",
        "{}",
        "[1]",
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}',
    ):
        (home / "tokenizer.json").write_text(content)
        with pytest.raises(CorruptFileError, match="is no tokenizer|is not valid JSON|is not a JSON object") as caught:
            train.data.tokens(home)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[text\]'"):
        train.data.tokens(home)


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
        train.data.text(ROWS, tokenizer=tmp_path / "tokenizer.json")
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


def test_a_padding_beyond_int32_is_refused(bert: Path) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    whole["padding"]["pad_id"] = 2**32 - 1
    with pytest.raises(CorruptFileError, match=r"padding\.pad_id has the number 4,294,967,295; expected at most"):
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
        train.data.text(ROWS, tokenizer=tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "step", [[{"String": "e"}, "e" * 1000], {**E1000, "type": "Nobody's"}, {"prepend": "e" * 1000}]
)
def test_steps_that_the_package_takes_whatever_their_type_says_are_bounded(bert: Path, step: Any) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    for normalizer in (step, {"type": "Sequence", "normalizers": [step]}):
        with pytest.raises(
            CorruptFileError, match=r"normalizer (puts in a text of 1,000|has a step that is no object)"
        ):
            check_bounds(whole | {"normalizer": normalizer}, "x")


def special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def sequence(name: str, kind: int = 0) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}


def template(single: Any, pair: Any = (), **ids: list[int]) -> dict[str, Any]:
    tokens = {name: {"id": name, "ids": numbers, "tokens": ["a"] * len(numbers)} for name, numbers in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": [*pair], "special_tokens": tokens}


AROUND = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        (template([special("X"), sequence("A")]), "'single' adds 'X', which its special_tokens lack"),
        (template([sequence("B")]), "'single' has the sequence 'B'; expected A, each once at most"),
        (template([sequence("A")] * 3000), "'single' has the sequence 'A'; expected A, each once at most"),
        (template([], [sequence("B"), sequence("B")]), "'pair' has the sequence 'B'; expected A and B, each once"),
        (template([special("X")] * 2000, X=[1] * 20_000), "adds 40,000,000 tokens; expected 64 at most"),
        (template([special("X")] * 33, [special("X")] * 32, X=[1]), "adds 65 tokens; expected 64 at most"),
        ({"type": "Sequence", "processors": [AROUND] * 17}, "adds 68 tokens; expected 64 at most"),
        ({"type": "Sequence", "processors": [template([])] * 2}, "has 2 templates; expected one"),
        ({"type": "Sequence", "processors": [AROUND] * 64}, "its post_processor has 65 steps; expected 64 at most"),
        ([[sequence("A")], [], {}], "its post_processor has a step that is no object"),
        (template([{"Sequence": ["B", 0]}]), "'single' is no template; expected {\"Sequence\""),
        (template("[CLS] $A"), "'single' is no template"),
        (template([special("X"), sequence("A")], X=[4_000_000_000]), "post_processor's 'ids' has the number 4,000,"),
        (template([sequence("A", 4_000_000_000)]), "post_processor's 'type_id' has the number 4,000,000,000"),
        ({**AROUND, "sep": ["[SEP]", 2**31]}, "post_processor's 'sep' has the number 2,147,483,648"),
    ],
)
@pytest.mark.parametrize("key", ["type", "kind"])
def test_processors_that_panic_or_add_without_bound_are_refused(
    bert: Path, tmp_path: Path, processor: Any, said: str, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the package would write of a panic is not to be seen; nor does it look at the type."""
    whole = json.loads((bert / "tokenizer.json").read_text())
    whole["post_processor"] = json.loads(json.dumps(processor).replace('"type"', f'"{key}"'))
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptFileError) as caught:
        train.data.text(ROWS, tokenizer=tmp_path / "tokenizer.json", pair="other")
    assert said in str(caught.value) and str(tmp_path) in str(caught.value) and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "processor",
    [
        template([special("X"), sequence("A")], [sequence("A"), sequence("B", 1)], X=[1] * 64),
        {
            "type": "Sequence",
            "processors": [AROUND, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}],
        },
        {"type": "Sequence", "processors": [AROUND, template([special("X"), sequence("A")], [sequence("A")], X=[1])]},
    ],
)
def test_processors_that_the_package_runs_are_kept(bert: Path, tmp_path: Path, processor: Any) -> None:
    from tokenizers import Tokenizer

    whole = json.loads((bert / "tokenizer.json").read_text()) | {"post_processor": processor}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole | {"truncation": None, "padding": None}))
    known = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    found = train.data.tokens(tmp_path).encode(["good film", "bad"])
    assert [one.ids.tolist() for one in found] == [one.ids for one in known.encode_batch(["good film", "bad"])]


def charsmap(at: int = 0, texts: bytes = b"film\0", n: int = 512, root: int = 256) -> str:
    """A trie of Darts-clone that leads from "b" to a place in `texts`: 256 ^ 98 = 354, whose leaf is 354 ^ 1."""
    units = [0] * n
    units[0], units[354], units[355] = root << 10, 1 << 10 | 1 << 8 | ord("b"), 1 << 31 | at
    return base64.b64encode(struct.pack(f"<I{n}I", 4 * n, *units) + texts).decode()


def test_a_sound_table_of_characters_is_kept(bert: Path, tmp_path: Path) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    whole["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    known = train.data.tokens(tmp_path)
    assert known.ids(["good b"])[0].tolist() == known.ids(["good film"])[0].tolist()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("AAAA", "is no table of characters: it is cut short"),
        ("", "is no table of characters: it is cut short"),
        (None, "is no table of characters: it is no text"),
        ("?", "is no table of characters"),
        (base64.b64encode(struct.pack("<I", 0)).decode(), "leads beyond its trie"),
        (base64.b64encode(struct.pack("<II", 4, 0)).decode(), "leads beyond its trie"),
        (base64.b64encode(struct.pack("<III", 8, 2**32 - 1, 2**32 - 1)).decode(), "leads beyond its trie"),
        (charsmap(n=400), "leads beyond its trie"),
        (charsmap(root=512), "leads beyond its trie"),
        (charsmap(at=6), "leads beyond its texts"),
        (charsmap(at=1, texts="é\0".encode()), "leads beyond its texts"),
        (charsmap(texts=b"\xff\0"), "is no table of characters"),
        (charsmap(texts=b"e" * 65), "its normalizer puts in a text of 65 characters; expected 64 at most"),
    ],
)
def test_tables_of_characters_that_lead_nowhere_are_refused(
    bert: Path, tmp_path: Path, table: Any, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    whole["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": table}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CorruptFileError) as caught:
        train.data.text([("a b", 0)], tokenizer=tmp_path)
    assert said in str(caught.value) and capfd.readouterr().err == ""


NOBODY = {"post_processor": None, "added_tokens": [], "padding": None}
WORD_LEVEL = {"type": "WordLevel", "vocab": {"zz": 0}, "unk_token": "[UNK]"}


@pytest.mark.parametrize(
    "model",
    [
        WORD_LEVEL,
        {**WORD_LEVEL, "type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9},
        {"type": "Unigram", "unk_id": None, "vocab": [["zzz", -1.0]]},
        {"type": "BPE", "vocab": {"z": 0}, "merges": [], "unk_token": "nope"},
    ],
)
def test_a_tokenizer_without_its_unknown_token_is_one_line(bert: Path, tmp_path: Path, model: Any) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text()) | NOBODY | {"model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    for read in (train.data.text, train.data.language):
        with pytest.raises(SpecError, match=r"^a text cannot be tokenized: .*(?i:unk)"):
            read([("good", 0)] if read is train.data.text else ["good"], tokenizer=tmp_path)  # type: ignore[operator]


def _panicking(bert: Path, tmp_path: Path) -> Any:
    whole = json.loads((bert / "tokenizer.json").read_text())
    whole["decoder"] = {"type": "Strip", "content": "a", "start": 0, "stop": 9}
    whole["model"]["vocab"] = {"[UNK]": 1, "aa": 30}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    return train.data.tokens(tmp_path)


def test_panics_are_errors_of_ours(bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rust writes a panic's text to descriptor 2 itself: none of it is seen, and all else that is written is."""
    found = _panicking(bert, tmp_path)
    with pytest.raises(SpecError, match="tokens cannot be made a text: index out of bounds"):
        found.decode([30])
    assert capfd.readouterr().err == ""
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


THREADS = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from weighttools import train
found = train.data.tokens(sys.argv[1])
def write(i):
    for j in range(400):
        os.write(2, f"<{i}.{j}>\\n".encode())
        try:
            found.decode([30])
        except Exception:
            pass
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(4)))
"""


def test_what_other_threads_write_meanwhile_is_kept(bert: Path, tmp_path: Path) -> None:
    _panicking(bert, tmp_path)
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    command = [sys.executable, "-c", THREADS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line]
    assert sorted(lines) == sorted(f"<{i}.{j}>" for i in range(4) for j in range(400))


@pytest.mark.parametrize("backtrace", ["0", "1", "full"])
def test_a_panic_with_a_backtrace(bert: Path, tmp_path: Path, backtrace: str) -> None:
    _panicking(bert, tmp_path)
    code = f"from weighttools import train; t = train.data.tokens({str(tmp_path)!r})\ntry: t.decode([30])\nexcept Exception: pass"
    environment = {**os.environ, "RUST_BACKTRACE": backtrace}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_without_a_standard_error(bert: Path, tmp_path: Path) -> None:
    _panicking(bert, tmp_path)
    code = f"import os; os.close(2); from weighttools import train; print(len(train.data.tokens({str(bert)!r}).encode(['a b'])))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "1\n"


def test_pieces_of_no_length_are_refused(bert: Path) -> None:
    whole = json.loads((bert / "tokenizer.json").read_text())
    with pytest.raises(CorruptFileError, match="its pre_tokenizer cuts pieces of length 0; expected 1 or more"):
        check_bounds(whole | {"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "x")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pad_token_id", "2147483648", "2147483648"),
        ("pad_token_id", '"x"', "'x'"),
        ("pad_token_id", "1e400", "inf"),
        ("pad_token_id", "true", "True"),
        ("eos_token_id", "99999999999999999999", "99999999999999999999"),
        ("eos_token_id", "[3, 1.5]", "1.5"),
    ],
)
def test_token_numbers_of_config_json_that_are_none_are_refused(
    tmp_path: Path, kind: str, key: str, value: str, said: str
) -> None:
    home = tiny_texts.bert(tmp_path)
    config = json.loads((home / "config.json").read_text()) | {"model_type": kind, key: "HERE"}
    (home / "config.json").write_text(json.dumps(config).replace('"HERE"', value))
    with pytest.raises(CorruptFileError) as caught:
        train.data.text(ROWS, tokenizer=home)
    assert f"{home}/config.json: {key} is {said}; expected a token's number" in str(caught.value)


@pytest.mark.parametrize("value", [-1, 2**32 - 1, None])
def test_a_token_that_is_minus_one_is_none(tmp_path: Path, value: int | None) -> None:
    home = tiny_texts.bert(tmp_path)
    config = json.loads((home / "config.json").read_text()) | {"pad_token_id": value, "eos_token_id": value}
    (home / "config.json").write_text(json.dumps(config))
    known = train.data.tokens(home)
    assert (known.pad_id, known.end_id) == (0, 3)  # the padding's of tokenizer.json, and [SEP]


def test_settings_that_the_package_cannot_take_are_one_line(tmp_path: Path) -> None:
    home = tiny_texts.bert(tmp_path)
    (home / "tokenizer_config.json").write_text('{"eos_token": "\\ud800", "model_max_length": 0.5}')
    with pytest.raises(CorruptFileError, match="its tokenizer's settings do not fit: .*surrogates"):
        train.data.tokens(home)
    (home / "tokenizer_config.json").write_text('{"model_max_length": 0.5}')
    assert train.data.tokens(home).max_length == 12


def test_labels_that_are_no_characters_are_refused(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": "a", "label": "\\ud800"}\n')
    with pytest.raises(SpecError, match=r"x\.jsonl:2: label 'label' holds half of a surrogate pair") as caught:
        train.data.text(tmp_path / "x.jsonl", tokenizer=bert)
    str(caught.value).encode()


def test_of_a_long_text_only_the_beginning_is_tokenized(bert: Path) -> None:
    known = train.data.tokens(bert, 7)
    seen: list[int] = []

    class Watched:
        """A tokenizer that counts the characters it is given."""

        def __getattr__(self, name: str) -> Any:
            return getattr(known.tokenizer, name)

        def encode_batch(self, texts: list[str]) -> Any:
            seen.extend(map(len, texts))
            return known.tokenizer.encode_batch(texts)

    texts = ["it is not a good book , is it . " * 1000, " " * 2000 + "good film " * 99, "x" * 5000, "bad"]
    found = train.data.Tokens(Watched(), known.pad_id, known.end_id, 7).encode(texts)
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
    known = train.data.tokens(bert, length)
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
    known = train.data.tokens(bert, length)
    counting = Counting(known.tokenizer)
    pairs = ([spaced(3000), "bad", spaced(3000)], ["bad", spaced(3000), spaced(60)])
    train.data.Tokens(counting, known.pad_id, known.end_id, length).encode(*pairs)
    assert counting.seen < len(spaced(3000))


def test_of_prompts_and_completions_only_what_a_block_holds_is_tokenized(llama: Path) -> None:
    known = train.data.tokens(llama)
    counting = Counting(known.tokenizer)
    watched = train.data.Tokens(counting, known.pad_id, known.end_id)
    rows = [{"prompt": "good film", "completion": text} for text in (*PAIRED, spaced(3000)) if text]
    data = train.data.language(rows, tokenizer=watched, block=9, prompt="prompt")
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
        train.data.language(
            [{"prompt": spaced(3000), "completion": "bad"}], tokenizer=watched, block=9, prompt="prompt"
        )


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
    known = train.data.tokens(bert, 6)
    given: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(known.tokenizer, name)

        def encode_batch(self, texts: list[Any], **options: Any) -> Any:
            given.append(len(texts))
            return known.tokenizer.encode_batch(texts, **options)

    texts, others = ["good film", "bad"] * 1500, ["it is not a good book"] * 3000
    watched = train.data.Tokens(Watched(), known.pad_id, known.end_id, 6)
    known.tokenizer.enable_truncation(6)
    whole = [known.tokenizer.encode_batch(given) for given in (texts, list(zip(texts, others, strict=True)))]
    known.tokenizer.no_truncation()
    for found, right in zip((watched.encode(texts), watched.encode(texts, others)), whole, strict=True):
        assert [one.ids.tolist() for one in found] == [one.ids for one in right]
    assert [ids.tolist() for ids in watched.ids(texts)] == [
        one.ids for one in known.tokenizer.encode_batch(texts, add_special_tokens=False)
    ]
    assert max(given) <= 1024 and sum(given) == 9000
