"""Choosing a token: greedy, among the tokens that an automaton's state allows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumen.decoding.automaton import GrammarState

LogitRow = NDArray[np.float32]  # (vocabulary,), before any softmax


class ScoredToken(NamedTuple):
    """A token of an answer and its log-probability (natural), before the automaton's mask."""

    token: int
    logprob: float


def argmax_allowed(row: LogitRow, state: GrammarState) -> int:
    """Return the allowed token with the largest logit; of equals, the lowest id.

    What the state prefers is added to the logits.
    """
    if state.allowed is None:
        return int(row.argmax())
    scores = row[state.allowed]
    if state.preferred:
        bonus = [state.preferred.get(token, 0.0) for token in state.allowed.tolist()]
        scores = scores + np.array(bonus, np.float32)
    # `allowed` is ascending, so the first of equals is the lowest id.
    return int(state.allowed[scores.argmax()])


def log_probability(row: LogitRow, token: int) -> float:
    """Return the natural logarithm of a token's probability among all tokens.

    Minus infinity where the probability is too small for float32.
    """
    # Relative to the token's own logit, so that no exponential of a large number is needed.
    ratios = np.exp(row - row[token])
    return -math.log(ratios.sum())


def forced_token(state: GrammarState) -> int | None:
    """Return the only allowed token, `None` if there is another number of them."""
    if state.allowed is None or len(state.allowed) != 1:
        return None
    return int(state.allowed[0])


def is_finished(state: GrammarState) -> bool:
    """Return whether nothing more may be written."""
    return state.allowed is not None and len(state.allowed) == 0


def is_allowed(state: GrammarState, token: int) -> bool:
    """Return whether a token may come next."""
    return state.allowed is None or bool((state.allowed == token).any())
