"""Choosing a token among the allowed ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tumen.decoding.automaton import FINISHED, FreeText, GrammarState, OneOfTexts
from tumen.decoding.greedy import (
    argmax_allowed,
    forced_token,
    is_allowed,
    is_finished,
    log_probability,
)

ROW = np.array([0.5, 3.0, -1.0, 2.0, 2.0], np.float32)


def one_of(*tokens: int) -> GrammarState:
    """A state in which these tokens are allowed."""
    return OneOfTexts.start([chr(token) for token in tokens], lambda text: [ord(text)], end=0)


def test_the_largest_logit_among_the_allowed_tokens_wins() -> None:
    assert argmax_allowed(ROW, FreeText(lambda token: False)) == 1
    assert argmax_allowed(ROW, one_of(2, 3)) == 3
    assert argmax_allowed(ROW, one_of(2)) == 2


class Prefers:
    """A state that adds to the logits of some tokens."""

    allowed = np.array([0, 2, 3], np.int32)

    def __init__(self, preferred: dict[int, float]) -> None:
        self.preferred = preferred

    def advance(self, token: int) -> GrammarState:
        return FINISHED


def test_what_a_state_prefers_is_added_to_the_logits() -> None:
    assert argmax_allowed(ROW, Prefers({})) == 3
    assert argmax_allowed(ROW, Prefers({2: 2.0})) == 3, "a model that is sure of another one"
    assert argmax_allowed(ROW, Prefers({2: 4.0})) == 2


def test_of_equal_logits_the_lowest_token_wins() -> None:
    assert argmax_allowed(ROW, one_of(4, 3)) == 3


def test_the_log_probability_is_that_of_the_whole_vocabulary() -> None:
    total = math.log(sum(math.exp(logit) for logit in ROW.tolist()))
    for token, logit in enumerate(ROW.tolist()):
        assert log_probability(ROW, token) == pytest.approx(logit - total, abs=1e-6)


def test_a_token_is_forced_when_no_other_is_allowed() -> None:
    assert forced_token(one_of(4)) == 4
    assert forced_token(one_of(3, 4)) is None
    assert forced_token(FINISHED) is None
    assert forced_token(FreeText(lambda token: False)) is None


def test_a_state_is_finished_when_no_token_is_allowed() -> None:
    assert is_finished(FINISHED)
    assert not is_finished(one_of(4))
    assert not is_finished(FreeText(lambda token: False))


def test_free_text_allows_every_token() -> None:
    assert is_allowed(FreeText(lambda token: False), 4)
    assert is_allowed(one_of(3, 4), 4)
    assert not is_allowed(one_of(3), 4)
