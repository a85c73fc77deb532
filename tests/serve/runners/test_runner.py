"""Confidence, and text tidied piece by piece."""

from __future__ import annotations

import json
import math

import pytest

from tumen.language.action import Action
from tumen.serve.runners.runner import StreamTidier, confidence

LANGUAGE = ('{"lang":"en"', -5.0)


def test_confidence_is_the_probability_of_the_action_without_its_language() -> None:
    rows = [
        LANGUAGE,
        (',"intent":"HassTurnOn"', -0.1),
        (',"name":"', -0.2),
        (" lamp", -0.3),
        ('"', 0.0),
        ("}", 0.0),
        ("", 0.0),
    ]
    assert confidence(rows) == pytest.approx(math.exp(-0.6))


def test_confidence_counts_an_intent_written_in_several_tokens_from_the_one_that_completes_it() -> (
    None
):
    rows = [('{"lang":"en","int', -5.0), ('ent":"none"', -0.5), ("}", -0.1)]
    assert confidence(rows) == pytest.approx(math.exp(-0.6))


@pytest.mark.parametrize("logprob", [float("-inf"), float("nan")])
def test_an_impossible_token_means_no_confidence(logprob: float) -> None:
    assert confidence([LANGUAGE, (',"intent":"none"', logprob)]) == 0.0


def test_text_without_an_intent_means_no_confidence() -> None:
    assert confidence([LANGUAGE]) == 0.0
    assert confidence([]) == 0.0


def test_confidence_is_at_most_1() -> None:
    assert confidence([(',"intent":"none"', 1e-6)]) == 1.0


@pytest.mark.parametrize("size", range(1, 12))
def test_pieces_are_tidied_as_the_whole_text_is(size: int) -> None:
    wire = '{"lang":"en","intent":"HassListAddItem","name":" to do","item":" milk  x"}'
    tidier = StreamTidier()
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    assert "".join(tidier(piece) for piece in pieces) == Action.tidy(wire)
    assert json.loads(Action.tidy(wire))
