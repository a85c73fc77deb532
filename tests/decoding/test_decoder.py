"""Decoding: with any proposer, plan or kept prefix, the answer is that of plain greedy decoding."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tumen.decoding.automaton import ActionGrammar, FreeText, GrammarState
from tumen.decoding.decoder import SAVED_PREFIXES, Decoder
from tumen.decoding.greedy import ScoredToken
from tumen.decoding.llama import LlamaModel
from tumen.decoding.proposers import (
    DraftProposer,
    FrequencyProposer,
    PromptLookup,
    Proposer,
    SentenceProposer,
)
from tumen.language.action import DO, HOME, normalise, parse, units

WORDS = [
    *("turn", "on", "off", "the", "kitchen", "light", "lamp", "room", "80 %"),
    *("打开", "厨房的灯", "x", "äh"),
]
FREE_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("decode") / "m.gguf", seed=3, layers=2))


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    """The same weights as `model` without its second layer, so that it is right now and then."""
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("decode") / "d.gguf", seed=3, layers=1))


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    chance = random.Random(5)
    return [normalise(" ".join(chance.choices(WORDS, k=chance.randint(1, 9)))) for _ in range(40)]


class RandomProposer(Proposer):
    """Proposes anything, allowed or not."""

    def __init__(self, vocab: int) -> None:
        self._chance = random.Random(9)
        self._vocab = vocab

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        tokens = range(self._vocab) if state.allowed is None else state.allowed.tolist()
        return [self._chance.choice(tokens) for _ in range(self._chance.randint(0, 5))]


class Oracle(Proposer):
    """Proposes the right answer."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]]) -> None:
        self._answers = answers

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        for prompt, answer in self._answers.items():
            if tuple(read[: len(prompt)]) == prompt:
                return answer[len(read) - len(prompt) :]
        return ()


Answers = list[list[ScoredToken]]


def actions(model: LlamaModel, sentences: Sequence[str], decoder: Decoder) -> tuple[Answers, int]:
    """The actions for sentences, and the passes they took in all."""
    grammar = ActionGrammar(HOME.model_dump(), model.tokenize_inner, model.end)
    return _written(model, sentences, decoder, lambda words: grammar.start(units(words)), None)


def free_texts(
    model: LlamaModel, sentences: Sequence[str], decoder: Decoder
) -> tuple[Answers, int]:
    """The same for free text."""
    free = FreeText(model.is_end)
    return _written(model, sentences, decoder, lambda words: free, FREE_TOKENS)


def _written(
    model: LlamaModel,
    sentences: Sequence[str],
    decoder: Decoder,
    state_of: Callable[[str], GrammarState],
    limit: int | None,
) -> tuple[Answers, int]:
    answers, passes = [], 0
    for words in sentences:
        prompt = model.tokenize(words + DO, begin=True)
        steps = decoder.write(prompt, state_of(words), limit)
        answers.append([scored for fresh in steps for scored in fresh])
        passes += decoder.passes
    return answers, passes


def tokens_of(answers: Sequence[Sequence[ScoredToken]]) -> list[list[int]]:
    return [[scored.token for scored in answer] for answer in answers]


def logprobs_of(answers: Sequence[Sequence[ScoredToken]]) -> list[float]:
    return [scored.logprob for answer in answers for scored in answer]


@pytest.fixture(scope="module")
def plain(model: LlamaModel, sentences: list[str]) -> tuple[Answers, int]:
    """Plain greedy decoding: one pass a token."""
    return actions(model, sentences, Decoder(model.context(128), model.end, plan_forced=False))


class TestActions:
    def test_plain_decoding_takes_a_pass_for_every_token_but_the_end(
        self, plain: tuple[Answers, int], model: LlamaModel
    ) -> None:
        answers, passes = plain
        assert passes == sum(len(answer) - 1 for answer in answers)
        for answer in tokens_of(answers):
            assert parse("".join(model.piece(token).decode() for token in answer))

    def test_any_proposer_writes_the_same_in_fewer_passes(
        self, plain: tuple[Answers, int], model: LlamaModel, draft: LlamaModel, sentences: list[str]
    ) -> None:
        answers, most = plain
        context = model.context(128)
        prompts = [tuple(model.tokenize(words + DO, begin=True)) for words in sentences]
        oracle = Oracle(dict(zip(prompts, tokens_of(answers), strict=True)))
        proposers: dict[str, list[Proposer]] = {
            "none": [],
            "sentence": [SentenceProposer()],
            "frequency": [FrequencyProposer()],
            "bold frequency": [FrequencyProposer(0.1, 9)],
            "draft": [DraftProposer(draft.context(128))],
            "random": [RandomProposer(model.vocab)],
            "oracle": [oracle],
        }
        passes: dict[str, int] = {}
        for name, some in proposers.items():
            found, passes[name] = actions(model, sentences, Decoder(context, model.end, some))
            assert tokens_of(found) == tokens_of(answers), name
            np.testing.assert_allclose(logprobs_of(found), logprobs_of(answers), atol=0.02)
        assert max(passes.values()) <= most
        assert passes["none"] < most
        for name in ("sentence", "frequency", "bold frequency"):
            assert passes[name] < passes["none"]
        assert passes["oracle"] == len(sentences)

    def test_the_log_probability_is_that_of_the_whole_vocabulary(self, model: LlamaModel) -> None:
        context = model.context(64)
        prompt = model.tokenize("turn on" + DO, begin=True)
        grammar = ActionGrammar(HOME.model_dump(), model.tokenize_inner, model.end)
        state = grammar.start(units("turn on"))
        first = next(Decoder(context, model.end).write(prompt, state))[0]
        context.forget(0)
        row = context.decode(prompt)[0].astype(np.float64)
        expected = row[first.token] - np.log(np.exp(row).sum())
        assert first.logprob == pytest.approx(expected, abs=1e-4)


def test_any_proposer_writes_the_same_free_text(
    model: LlamaModel, draft: LlamaModel, sentences: list[str]
) -> None:
    context = model.context(128)
    answers, most = free_texts(model, sentences, Decoder(context, model.end))
    assert most == sum(map(len, answers))
    proposers = [
        PromptLookup(match=2),
        DraftProposer(draft.context(128)),
        RandomProposer(model.vocab),
    ]
    passes = []
    for proposer in proposers:
        found, count = free_texts(model, sentences, Decoder(context, model.end, [proposer]))
        assert tokens_of(found) == tokens_of(answers)
        passes.append(count)
    assert passes[0] < most
    assert max(passes) <= most


class TestPrefix:
    @pytest.fixture
    def decoder(self, model: LlamaModel) -> Decoder:
        return Decoder(model.context(128), model.end)

    @pytest.fixture
    def examples(self, model: LlamaModel) -> list[int]:
        return model.tokenize("turn on the light" * 3, begin=True)

    def write(
        self, model: LlamaModel, decoder: Decoder, words: str, prefix: list[int]
    ) -> list[int]:
        prompt = [*prefix, *model.tokenize_inner(words + DO)]
        steps = decoder.write(prompt, FreeText(model.is_end), limit=6, prefix=len(prefix))
        return [scored.token for fresh in steps for scored in fresh]

    def test_a_kept_prefix_is_read_once(
        self, model: LlamaModel, decoder: Decoder, examples: list[int]
    ) -> None:
        first = self.write(model, decoder, "kitchen", examples)
        assert decoder.reused == 0
        assert self.write(model, decoder, "lamp off", examples) != first
        assert decoder.reused == len(examples)
        assert self.write(model, decoder, "kitchen", examples) == first

    def test_a_saved_prefix_is_restored(
        self, model: LlamaModel, decoder: Decoder, examples: list[int]
    ) -> None:
        first = self.write(model, decoder, "kitchen", examples)
        for other in ("lamp ", "lamp lamp "):
            self.write(model, decoder, "kitchen", model.tokenize(other, begin=True))
            assert decoder.reused == 0
        assert self.write(model, decoder, "kitchen", examples) == first
        assert decoder.reused == len(examples)

    def test_the_oldest_of_too_many_prefixes_is_dropped(
        self, model: LlamaModel, decoder: Decoder, examples: list[int]
    ) -> None:
        first = self.write(model, decoder, "kitchen", examples)
        for count in range(1, SAVED_PREFIXES + 2):
            self.write(model, decoder, "kitchen", model.tokenize("lamp " * count, begin=True))
        assert self.write(model, decoder, "kitchen", examples) == first
        assert decoder.reused == 0


@pytest.mark.parametrize("name", ["none", "lookup", "random"])
@pytest.mark.parametrize(
    ("limit", "expected"), [(1, 1), (5, 5), (None, 32 - 4 + 1)]
)  # the last token need not be read, so it needs no room
def test_it_stops_at_the_limit_and_where_the_context_ends(
    model: LlamaModel, name: str, limit: int | None, expected: int
) -> None:
    proposers: dict[str, list[Proposer]] = {
        "none": [],
        "lookup": [PromptLookup(match=1)],
        "random": [RandomProposer(model.vocab)],
    }
    decoder = Decoder(model.context(32), model.end, proposers[name])
    steps = decoder.write([1, 5, 6, 3], FreeText(lambda token: False), limit)
    assert len([scored for fresh in steps for scored in fresh]) == expected
