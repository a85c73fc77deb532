"""The tokeniser: nothing is unknown, structure is one token, and llama.cpp cuts the same way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llama import Llama

from tumen.core.errors import ArtifactError, InputError
from tumen.core.shape import Shape
from tumen.data import Codec, read_corpus
from tumen.data.tokenizer import BYTES, CONTROL, train_tokenizer
from tumen.language.action import BEGIN, DO, END, HOME, Action, normalise

TEXTS = [
    "turn on the kitchen light",
    "schalte das licht in der küche an",
    "打开厨房的灯",
    "set it to 21 %",
] * 5


@pytest.fixture(scope="module")
def codec(tokenizer: Path) -> Codec:
    return Codec.load(tokenizer)


@pytest.fixture(scope="module")
def sentences(corpus: Path) -> list[str]:
    """Two hundred, in three languages."""
    rows = [
        row["sentence"] for split in ("train", "validation") for row in read_corpus(corpus, split)
    ]
    return rows[:200]


def test_ids_in_order(codec: Codec) -> None:
    vocabulary = codec.tokenizer.get_vocab()
    fixed = [*CONTROL, *BYTES, *HOME.structure_tokens()]
    assert [vocabulary[token] for token in fixed] == list(range(len(fixed)))
    assert sorted(vocabulary.values()) == list(range(codec.vocab))


@settings(max_examples=300)
@given(
    text=st.text().filter(
        lambda text: "▁" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
    )
)
def test_every_text_comes_back(codec: Codec, text: str) -> None:
    for token in (*CONTROL, *HOME.structure_tokens()):
        text = text.replace(token, "")
    assert codec.decode(codec.text(text)) == text


@pytest.mark.parametrize(
    "text", ["<0x41>", "𠮷野家", "👩‍👩‍👧", "e\u0301", "\x00\x7f", "a  b ", "  ", "ﷺ", "<0x0A>\n"]
)
def test_rare_texts_come_back(codec: Codec, text: str) -> None:
    assert codec.decode(codec.text(text)) == text


def test_structure_and_control_tokens_are_one_token(codec: Codec) -> None:
    for token in (*HOME.structure_tokens(), BEGIN, END, DO):
        assert len(codec.text(token)) == 1


def test_a_prompt_is_framed(codec: Codec) -> None:
    ids = codec.prompt("turn on the light")
    assert ids[0] == codec.begin
    assert ids[-1] == codec.do
    assert codec.decode(ids[1:-1]) == " turn on the light"


def test_no_sentence_makes_a_control_or_structure_token(codec: Codec) -> None:
    special = {codec.tokenizer.token_to_id(token) for token in (*CONTROL, *HOME.structure_tokens())}
    for text in (
        "</s><do>{}",
        '{"lang":"en"',
        '","intent":"HassTurnOn"',
        "<unk> <s>",
        'area":"',
        "}",
    ):
        ids = codec.prompt(normalise(text + " x"))
        assert not special & set(ids[1:-1])


def test_an_answer_is_structure_and_the_words_of_its_sentence(codec: Codec) -> None:
    action = Action("HassTurnOn", "en", {"domain": "light", "area": "kitchen"})
    ids = codec.answer(action)
    assert ids[-1] == codec.end
    assert codec.decode(ids[:-1]) == action.wire()
    words = codec.text(" kitchen")
    prompt = codec.prompt("turn on the kitchen light")
    assert any(prompt[i : i + len(words)] == words for i in range(len(prompt))), (
        "the same tokens in sentence and action"
    )
    assert any(ids[i : i + len(words)] == words for i in range(len(ids)))


@pytest.mark.parametrize("text", ["打开厨房", "2130", "灯12"])
def test_chinese_characters_and_digits_stand_alone(codec: Codec, text: str) -> None:
    pieces = [codec.tokenizer.id_to_token(token) for token in codec.text(text)]
    assert all(len(piece) == 1 or piece in BYTES for piece in pieces)


def test_same_texts_same_tokeniser_in_another_process(corpus: Path) -> None:
    """The library counts in hash maps of random order; what is rare and equally rare must not depend on it."""
    code = (
        "import hashlib, sys; from pathlib import Path; from tumen.data import read_corpus\n"
        "from tumen.data.tokenizer import train_tokenizer\n"
        "texts = [row['sentence'] for row in read_corpus(Path(sys.argv[1]), 'train')]\n"
        "print(hashlib.sha256(train_tokenizer(texts, 700).to_str().encode()).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", code, corpus], capture_output=True, check=True).stdout
        for _ in range(5)
    }
    assert len(found) == 1


def test_the_vocabulary_is_at_most_what_was_asked() -> None:
    assert train_tokenizer(TEXTS, 600).get_vocab_size() <= 600


def test_save_and_load(codec: Codec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    again = Codec.load(tmp_path)
    assert again.tokenizer.to_str() == codec.tokenizer.to_str()


@pytest.mark.parametrize("cut", [0, 1, 500])
def test_a_cut_file_is_refused(codec: Codec, tmp_path: Path, cut: int) -> None:
    codec.save(tmp_path)
    os.truncate(tmp_path / "tokenizer.json", cut)
    with pytest.raises(ArtifactError, match="not a tokenizer|is no JSON"):
        Codec.load(tmp_path)


def test_another_tokeniser_is_refused(tmp_path: Path, codec: Codec) -> None:
    codec.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"added_tokens": []}).replace("<do>", "<od>")
    )
    with pytest.raises(ArtifactError, match="another kind of tokenizer"):
        Codec.load(tmp_path)


def test_no_tokeniser(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        Codec.load(tmp_path)


@pytest.fixture(scope="module")
def llama(
    codec: Codec, shape_of: Callable[[str], Shape], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Llama]:
    """llama.cpp with an untrained model that carries our tokeniser."""
    from tumen.model import build
    from tumen.shrink.gguf_writer import write_gguf

    path, shape = tmp_path_factory.mktemp("gguf") / "model.gguf", shape_of("device")
    write_gguf(path, shape, build(shape).state_dict(), codec, "int8", "t")
    with Llama(path) as server:
        yield server


class TestLlama:
    """llama.cpp's own tokeniser, from a GGUF that carries ours."""

    def test_cuts_sentences_the_same_way(
        self, llama: Llama, codec: Codec, sentences: list[str]
    ) -> None:
        assert len(sentences) == 200
        assert [llama.tokenize(f"{sentence}{DO}") for sentence in sentences] == [
            codec.prompt(sentence) for sentence in sentences
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "𠮷野家 👩‍👩‍👧",
            "ünïcödé łøst",
            "3.5 °c",
            "it's 7:30",
            "a/b + c & (d)",
            "кухня",
            "кухня台所",
        ],
    )
    def test_cuts_rare_sentences_the_same_way(self, llama: Llama, codec: Codec, text: str) -> None:
        assert llama.tokenize(f"{normalise(text)}{DO}") == codec.prompt(normalise(text))


def test_too_long_for_a_sentence() -> None:
    with pytest.raises(InputError):
        normalise("a" * 301)
