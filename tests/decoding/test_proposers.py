"""Proposers: what each guesses. That a wrong guess changes nothing is tested by test_decoder.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.decoding.test_automaton import END, OURS, SMALL, Vocabulary

from tumen.decoding.automaton import ActionGrammar, FreeText, GrammarState
from tumen.decoding.proposers import FrequencyProposer, PromptLookup, SentenceProposer

FREE = FreeText(lambda token: False)


class Action:
    """SMALL's actions for one sentence."""

    def __init__(self, *words: str) -> None:
        self.vocabulary = Vocabulary(OURS)
        for word in words:
            self.vocabulary.tokenize(word)
        self.grammar = ActionGrammar(SMALL, self.vocabulary.tokenize, END)
        self.words = words

    def token(self, piece: str) -> int:
        (token,) = self.vocabulary.tokenize(piece)
        return token

    def state_after(self, *pieces: str) -> GrammarState:
        state = self.grammar.start(self.words)
        for piece in pieces:
            state = state.advance(self.token(piece))
        return state

    def learn(self, proposer: FrequencyProposer, *pieces: str) -> None:
        state = self.grammar.start(self.words)
        for piece in pieces:
            proposer.learn(state, self.token(piece))
            state = state.advance(self.token(piece))

    def texts(self, tokens: Sequence[int]) -> list[str]:
        return [self.vocabulary.texts[token] for token in tokens]


HEAD = ('{"lang":"en"', ',"intent":"set"')
OPEN = (*HEAD, ',"room":"')


class TestSentence:
    action = Action(" a", " b", " c", " d", " e", " f")

    def propose(self, *pieces: str, limit: int = 4) -> list[str]:
        state = self.action.state_after(*pieces)
        return self.action.texts(SentenceProposer(limit).propose([], state))

    def test_in_a_copied_slot_it_proposes_the_next_words(self) -> None:
        assert self.propose(*OPEN) == [" a", " b", " c", " d"]
        assert self.propose(*OPEN, " b") == [" c", " d", " e", " f"]
        assert self.propose(*OPEN, " b", limit=2) == [" c", " d"]

    def test_elsewhere_it_proposes_nothing(self) -> None:
        assert self.propose() == []
        assert self.propose(*HEAD) == []


class TestFrequency:
    def test_without_experience_it_proposes_nothing(self) -> None:
        assert list(FrequencyProposer().propose([], Action(" a").state_after())) == []

    def test_it_proposes_what_was_chosen_most_often(self) -> None:
        action, proposer = Action(" a"), FrequencyProposer(threshold=0.5, limit=1)
        action.learn(proposer, '{"lang":"zh"')
        for _ in range(3):
            action.learn(proposer, '{"lang":"en"')
        assert action.texts(proposer.propose([], action.state_after())) == ['{"lang":"en"']

    def test_a_guess_below_the_threshold_is_not_made(self) -> None:
        action, proposer = Action(" a"), FrequencyProposer(threshold=0.5, limit=1)
        for language in ("en", "zh"):
            action.learn(proposer, f'{{"lang":"{language}"')
        assert list(proposer.propose([], action.state_after())) == []  # 1 of 2, smoothed 1/3
        action.learn(proposer, '{"lang":"en"')
        assert len(proposer.propose([], action.state_after())) == 1  # 2 of 3, smoothed 1/2

    def test_the_probability_of_the_whole_guess_counts(self) -> None:
        action, proposer = Action(" a"), FrequencyProposer(threshold=0.5, limit=9)
        action.learn(proposer, '{"lang":"en"', ',"intent":"set"')
        action.learn(proposer, '{"lang":"en"', ',"intent":"set"')
        # 2/3 for the language, 2/3 * 2/3 < 0.5 with the intent
        assert action.texts(proposer.propose([], action.state_after())) == ['{"lang":"en"']

    def test_of_copied_words_it_learns_only_that_the_run_goes_on(self) -> None:
        first, proposer = Action(" a", " b"), FrequencyProposer(threshold=0.5, limit=1)
        first.learn(proposer, *OPEN, " a", " b")
        state = first.state_after(*OPEN, " a")
        assert first.texts(proposer.propose([], state)) == [" b"]

    def test_it_learns_that_a_run_mostly_ends(self) -> None:
        action, proposer = Action(" a", " b"), FrequencyProposer(threshold=0.5, limit=1)
        action.learn(proposer, *OPEN, " a", '"')
        assert action.texts(proposer.propose([], action.state_after(*OPEN, " a"))) == ['"']

    def test_free_text_is_not_learned(self) -> None:
        proposer = FrequencyProposer()
        proposer.learn(FREE, 3)
        assert list(proposer.propose([], FREE)) == []


class TestPromptLookup:
    @pytest.mark.parametrize(
        ("read", "guess"),
        [
            ([1, 2, 3, 4, 5, 1, 2, 3], [4, 5, 1]),
            ([1, 2, 3, 9, 1, 2, 3, 7, 1, 2, 3], [7, 1, 2]),  # the latest
            ([1, 2, 3, 4, 5], []),
            ([1, 2], []),
            ([], []),
        ],
    )
    def test_it_proposes_what_followed_the_last_tokens_before(
        self, read: list[int], guess: list[int]
    ) -> None:
        assert list(PromptLookup(match=3, limit=3).propose(read, FREE)) == guess

    def test_it_is_for_free_text_alone(self) -> None:
        state = Action(" a").state_after()
        assert list(PromptLookup().propose([1, 2, 3, 4, 1, 2, 3], state)) == []
