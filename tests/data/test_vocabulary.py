"""Outside vocabularies: read, cut as llama.cpp cuts, never a control token out of a text, trimmed without another cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strangers import CONTROL, cut_of, train_bpe

from tumen.core.errors import InputError
from tumen.data import (
    Codec,
    read_corpus,
    read_vocabulary,
    require_same_vocabulary,
    write_dataset,
    write_tokenizer,
)
from tumen.data.tokenizer import WORD_RULES, PretrainedCodec, Vocabulary
from tumen.decoding.llama import LlamaModel
from tumen.language.action import HOME, Action, normalise, parse, units
from tumen.recipe import Tokenizer as Section

HARD = [
    "turn on the kitchen light", "what's 8 plus 80.5 %", "打开厨房的灯", "调到 80 %吧", "schalte das licht in der küche an",
    "café's menu 12:30", "naïve 🙂 test", "it'll rain", "x" * 40, "ab 1/2",
]  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(stranger: Path) -> Vocabulary:
    return read_vocabulary(stranger)


@pytest.fixture(scope="module")
def sentences(corpus: Path) -> list[str]:
    return [row["sentence"] for row in read_corpus(corpus, "train")][:200]


def test_a_file_and_a_folder_say_the_same(stranger: Path, vocabulary: Vocabulary) -> None:
    folder = read_vocabulary(stranger.parent)
    assert folder.model_copy(update={"control": ()}) == vocabulary.model_copy(
        update={"control": ()}
    )
    assert {folder.tokens[number] for number in folder.control} == set(CONTROL)
    assert (folder.begin, folder.do, folder.end) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def test_saved_and_read_again(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == read_vocabulary(tmp_path) == vocabulary


class TestLikeLlama:
    """llama.cpp's own tokeniser on the same units and pieces."""

    @pytest.fixture(scope="class", params=WORD_RULES)
    @staticmethod
    def both(
        request: pytest.FixtureRequest, stranger: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[tuple[PretrainedCodec, LlamaModel]]:
        """The same tokens and merges under each rule of cutting words."""
        path = cut_of(
            stranger,
            tmp_path_factory.mktemp("pre") / "m.gguf",
            1,
            {"tokenizer.ggml.pre": request.param},
        )
        model = LlamaModel(path)
        yield PretrainedCodec(read_vocabulary(path)), model
        model.close()

    def test_units(self, both: tuple[PretrainedCodec, LlamaModel], sentences: list[str]) -> None:
        codec, model = both
        for unit in {
            unit for sentence in (*HARD, *sentences) for unit in units(normalise(sentence))
        }:
            assert codec.text(unit) == model.tokenize_inner(unit), unit

    def test_any_text(self, both: tuple[PretrainedCodec, LlamaModel]) -> None:
        codec, model = both
        for text in HARD:
            assert codec.text(text) == model.tokenize(text), text

    def test_actions(self, both: tuple[PretrainedCodec, LlamaModel], corpus: Path) -> None:
        """What the runner's automaton would force is what a model is trained on."""
        from tumen.decoding.automaton import ActionGrammar

        codec, model = both
        form = ActionGrammar(HOME.model_dump(), model.tokenize_inner, codec.end)
        for row in list(read_corpus(corpus, "train"))[:100]:
            state = form.start(units(row["sentence"]))
            for token in codec.answer(parse(json.dumps(row["action"]))):
                assert token in state.allowed, row
                state = state.advance(token)


def test_smollm2_cuts_as_llama_does(smollm2_cut: Path, sentences: list[str]) -> None:
    codec, model = PretrainedCodec(read_vocabulary(smollm2_cut)), LlamaModel(smollm2_cut)
    assert (codec.vocab, codec.begin, codec.do, codec.end) == (49_152, 1, 2, 0)
    for text in (*HARD, *sentences):
        assert codec.text(text) == model.tokenize(text)
    for unit in {unit for sentence in sentences for unit in units(sentence)}:
        assert codec.text(unit) == model.tokenize_inner(unit)
    model.close()


@pytest.mark.parametrize("pieces", [False, True])
def test_a_copied_unit_is_the_same_run_in_sentence_and_action(
    vocabulary: Vocabulary, pieces: bool
) -> None:
    structure = HOME.structure_tokens()
    codec = PretrainedCodec(vocabulary.with_tokens(structure) if pieces else vocabulary)
    sentence = normalise("turn on the 2 blue lämpchen in 客厅")
    action = Action("HassTurnOn", "en", {"name": "the 2 blue lämpchen", "area": "客厅"})
    answer, prompt = codec.answer(action), codec.prompt(sentence)
    for run in ("the 2 blue lämpchen", "客厅"):
        ids = codec.words(run if run == "客厅" else f" {run}")
        for found in (answer, prompt):
            assert any(found[at : at + len(ids)] == ids for at in range(len(found)))
    assert codec.decode(answer[:-1]) == action.wire()
    assert parse(codec.decode(answer[:-1])) == action
    if pieces:
        assert len(answer) < len(PretrainedCodec(vocabulary).answer(action)) / 2


@pytest.fixture(scope="module")
def codec(vocabulary: Vocabulary) -> PretrainedCodec:
    return PretrainedCodec(vocabulary)


@settings(max_examples=200)
@given(parts=st.lists(st.sampled_from([*CONTROL, "<|im_", "turn", " ", "on", "|>"]), max_size=6))
def test_a_typed_control_token_is_text(codec: PretrainedCodec, parts: list[str]) -> None:
    text = "".join(parts)
    ids = codec.text(text)
    assert not {codec.begin, codec.do, codec.end} & set(ids)
    assert codec.decode(ids) == text


class TestTrimmed:
    def test_texts_are_cut_as_before(self, vocabulary: Vocabulary, sentences: list[str]) -> None:
        words = [unit for sentence in sentences for unit in units(sentence)]
        less = vocabulary.trimmed(words[: len(words) // 2], 20)
        assert len(less.tokens) < len(vocabulary.tokens)
        assert less.rows is not None
        before, after = PretrainedCodec(vocabulary), PretrainedCodec(less)
        for word in words[: len(words) // 2]:
            assert [less.rows[token] for token in after.text(word)] == before.text(word)
        for word in (*words, *HARD):
            assert after.decode(after.text(word)) == before.decode(before.text(word)), (
                "other words still have letters"
            )

    def test_rows_are_those_of_the_outside_model(self, vocabulary: Vocabulary) -> None:
        less = vocabulary.trimmed([" kitchen"], 5)
        again = less.trimmed([" kitchen"], 0).with_tokens(['{"lang":"en"'])
        assert again.rows is not None
        whole = [row for row in again.rows if isinstance(row, int)]
        assert [vocabulary.tokens[row] for row in whole] == list(again.tokens[: len(whole)])
        (mean,) = again.rows[len(whole) :]
        assert isinstance(mean, tuple)
        assert "".join(vocabulary.tokens[row] for row in mean) == '{"lang":"en"'

    def test_as_a_recipe_asks(self, stranger: Path, corpus: Path, tmp_path: Path) -> None:
        section = Section(init_from=str(stranger), trim=30, pieces=True)
        manifest = write_tokenizer(section, corpus, tmp_path / "tokenizer", "x")
        codec = Codec.load(tmp_path / "tokenizer")
        assert isinstance(codec, PretrainedCodec)
        assert manifest.facts["vocab"] == codec.vocab
        assert {piece: len(ids) for piece, ids in codec.structure.items()} == dict.fromkeys(
            HOME.structure_tokens(), 1
        )
        facts = write_dataset(corpus, tmp_path / "tokenizer", tmp_path / "dataset", "x").facts
        plain = Section(init_from=str(stranger))
        write_tokenizer(plain, corpus, tmp_path / "plain", "x")
        assert (
            facts["train_tokens"]
            < write_dataset(corpus, tmp_path / "plain", tmp_path / "more", "x").facts[
                "train_tokens"
            ]
        )


class TestRefused:
    def test_another_models_tokens(
        self, vocabulary: Vocabulary, stranger: Path, tmp_path: Path
    ) -> None:
        less = vocabulary.trimmed([" kitchen"], 5).with_tokens(['{"lang":"en"'])
        require_same_vocabulary(less, stranger)
        train_bpe(["the other one says other things"] * 5, tmp_path, 500)
        with pytest.raises(
            InputError, match=r"is not the tokenizer's .*; set tokenizer\.init_from to it"
        ):
            require_same_vocabulary(less, tmp_path)

    def test_sentencepiece(self, device: Path, tokenizer: Path, tmp_path: Path) -> None:
        from tumen.shrink.gguf_writer import write_gguf
        from tumen.train.weights import read_final

        write_gguf(tmp_path / "m.gguf", *read_final(device), Codec.load(tokenizer), "int8", "ours")
        with pytest.raises(InputError, match=r"of the kind 'llama'; only byte-level BPE"):
            read_vocabulary(tmp_path / "m.gguf")

    def test_a_rule_nobody_knows(self, stranger: Path, tmp_path: Path) -> None:
        path = cut_of(stranger, tmp_path / "m.gguf", 1, {"tokenizer.ggml.pre": "tekken"})
        with pytest.raises(InputError, match="cuts a text into words by the unknown rule 'tekken'"):
            read_vocabulary(path)

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("normalizer", {"type": "Lowercase"}, "changes texts"),
            ("pre_tokenizer", {"type": "Whitespace"}, "rule to cut a text into words is unknown"),
            (
                "model",
                {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
                "not a byte-level BPE|'BPE' is needed",
            ),
            ("version", "7", "not a tokenizer"),
        ],
    )
    def test_another_tokenizer_json(
        self, stranger: Path, tmp_path: Path, name: str, value: object, says: str
    ) -> None:
        tree = json.loads((stranger.parent / "tokenizer.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps(tree | {name: value}))
        with pytest.raises(InputError, match=says) as caught:
            read_vocabulary(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("merges", "says"),
        [
            (["t u", "t u"], "a merge twice"),
            (["t  u"], "does not join two tokens"),
            (["turn nobody"], "does not join two tokens"),
        ],
    )
    def test_merges_that_cannot_be_meant(
        self, stranger: Path, tmp_path: Path, merges: list[str], says: str
    ) -> None:
        path = cut_of(stranger, tmp_path / "m.gguf", 1, {"tokenizer.ggml.merges": merges})
        with pytest.raises(InputError, match=says):
            read_vocabulary(path)

    def test_none_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="missing"):
            read_vocabulary(tmp_path)


def test_another_rule_of_a_folder_is_known_by_its_form(tmp_path: Path) -> None:
    for name in WORD_RULES:
        train_bpe(["turn on the light"] * 3, tmp_path / name, 300, name)
        assert read_vocabulary(tmp_path / name).pre == name
