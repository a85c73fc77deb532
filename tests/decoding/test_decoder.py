"""Decoding: whatever is guessed, ridden along or kept, the answer is that of plain greedy decoding, in fewer passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tumen.decoding.automaton import ActionGrammar, FreeText, GrammarState
from tumen.decoding.decoder import (
    KEPT_STATES,
    Decoder,
    DraftProposer,
    FrequencyProposer,
    PromptLookup,
    Proposer,
    ScoredToken,
    SentenceProposer,
)
from tumen.decoding.llama import LlamaModel
from tumen.language.action import DO, HOME, normalise, parse, units

WORDS = [
    "turn",
    "on",
    "off",
    "the",
    "kitchen",
    "light",
    "lamp",
    "room",
    "80 %",
    "打开",
    "厨房的灯",
    "x",
    "äh",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("decode") / "m.gguf", seed=3, layers=2))


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory, make_gguf: Callable[..., Path]) -> LlamaModel:
    """The same weights as `model` but for the missing second layer, so that it is right now and then."""
    return LlamaModel(make_gguf(tmp_path_factory.mktemp("decode") / "d.gguf", seed=3, layers=1))


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    chance = random.Random(5)
    return [normalise(" ".join(chance.choices(WORDS, k=chance.randint(1, 9)))) for _ in range(40)]


class Liar(Proposer):
    """Proposes anything."""

    def __init__(self, vocab: int) -> None:
        self._chance, self._vocab = random.Random(9), vocab

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        ids = range(self._vocab) if state.ids is None else state.ids.tolist()
        return [self._chance.choice(ids) for _ in range(self._chance.randint(0, 5))]


class Oracle(Proposer):
    """Knows the answer."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]]) -> None:
        self._answers = answers

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        for prompt, answer in self._answers.items():
            if tuple(read[: len(prompt)]) == prompt:
                return answer[len(read) - len(prompt) :]
        return ()


def actions(
    model: LlamaModel, sentences: Sequence[str], decoder: Decoder
) -> tuple[list[list[ScoredToken]], int]:
    """The answers, and the passes they took in all."""
    form, found, passes = ActionGrammar(HOME.model_dump(), model.inner, model.end), [], 0
    for words in sentences:
        prompt = model.tokens(words + DO, begin=True)
        found.append(
            [one for fresh in decoder.write(prompt, form.start(units(words))) for one in fresh]
        )
        passes += decoder.passes
    return found, passes


def texts(
    model: LlamaModel, sentences: Sequence[str], decoder: Decoder
) -> tuple[list[list[ScoredToken]], int]:
    """The same for free text of at most 24 tokens."""
    found, passes = [], 0
    for words in sentences:
        prompt = model.tokens(words + DO, begin=True)
        found.append(
            [
                one
                for fresh in decoder.write(prompt, FreeText(model.is_end), limit=24)
                for one in fresh
            ]
        )
        passes += decoder.passes
    return found, passes


def ids(answers: Sequence[Sequence[ScoredToken]]) -> list[list[int]]:
    return [[one.token for one in answer] for answer in answers]


def test_every_trick_writes_what_plain_greedy_writes(
    model: LlamaModel, draft: LlamaModel, sentences: list[str]
) -> None:
    context = model.context(128)
    plain, most = actions(model, sentences, Decoder(context, model.end, ride=False))
    prompts = [tuple(model.tokens(words + DO, begin=True)) for words in sentences]
    oracle = Oracle(dict(zip(prompts, ids(plain), strict=True)))
    proposers: list[list[Proposer]] = [
        *([], [SentenceProposer()], [FrequencyProposer()], [FrequencyProposer(0.1, 9)]),
        *([DraftProposer(draft.context(128))], [Liar(model.vocab)], [oracle]),
    ]
    passes = []
    for some in proposers:
        answers, count = actions(model, sentences, Decoder(context, model.end, some))
        assert ids(answers) == ids(plain)
        np.testing.assert_allclose(
            [o.logprob for a in answers for o in a],
            [o.logprob for a in plain for o in a],
            atol=0.02,
        )
        passes.append(count)
    assert (
        max(passes) <= most == sum(len(answer) - 1 for answer in plain)
    )  # the end token is never asked for
    assert max(passes[1:4]) < passes[0] < most
    assert passes[-1] == len(sentences)
    assert all(
        parse("".join(model.piece(token).decode() for token in answer)) for answer in ids(plain)
    )


def test_free_text_too(model: LlamaModel, draft: LlamaModel, sentences: list[str]) -> None:
    context = model.context(128)
    plain, most = texts(model, sentences, Decoder(context, model.end))
    assert most == sum(map(len, plain))
    fewer = []
    for proposer in (PromptLookup(match=2), DraftProposer(draft.context(128)), Liar(model.vocab)):
        answers, passes = texts(model, sentences, Decoder(context, model.end, [proposer]))
        assert ids(answers) == ids(plain)
        fewer.append(passes)
    assert fewer[0] < most
    assert max(fewer) <= most


def test_logprobs_are_those_of_the_whole_vocabulary(model: LlamaModel) -> None:
    context, prompt = model.context(64), model.tokens("turn on" + DO, begin=True)
    state = ActionGrammar(HOME.model_dump(), model.inner, model.end).start(units("turn on"))
    first = next(Decoder(context, model.end).write(prompt, state))[0]
    context.forget(0)
    row = context.decode(prompt)[0].astype(np.float64)
    assert first.logprob == pytest.approx(row[first.token] - np.log(np.exp(row).sum()), abs=1e-4)


def test_a_kept_prefix_is_read_once(model: LlamaModel) -> None:
    decoder, free = Decoder(model.context(128), model.end), FreeText(model.is_end)
    few_shot = model.tokens("turn on the light" * 3, begin=True)

    def written(words: str, prefix: list[int]) -> list[int]:
        prompt = [*prefix, *model.inner(words + DO)]
        return [
            one.token
            for fresh in decoder.write(prompt, free, limit=6, prefix=len(prefix))
            for one in fresh
        ]

    first = written("kitchen", few_shot)
    assert decoder.reused == 0
    assert written("lamp off", few_shot) != first
    assert decoder.reused == len(few_shot)
    assert written("kitchen", few_shot) == first
    others = [model.tokens("lamp " * n, begin=True) for n in range(1, KEPT_STATES + 2)]
    for other in others[:2]:  # away, and back from the saved state
        written("kitchen", other)
        assert decoder.reused == 0
    assert written("kitchen", few_shot) == first
    assert decoder.reused == len(few_shot)
    for other in others:
        written("kitchen", other)
    assert written("kitchen", few_shot) == first
    assert decoder.reused == 0  # too many others since


def test_it_stops_at_the_limit_and_where_the_context_ends(model: LlamaModel) -> None:
    free = FreeText(lambda token: False)
    for proposers in ([], [PromptLookup(match=1)], [Liar(model.vocab)]):
        decoder = Decoder(model.context(32), model.end, proposers)
        for limit, want in ((1, 1), (5, 5), (None, 32 - 4 + 1)):  # the last token need not be read
            answer = [one for fresh in decoder.write([1, 5, 6, 3], free, limit) for one in fresh]
            assert len(answer) == want
