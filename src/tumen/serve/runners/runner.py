"""The boundary: what a runner is, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tumen.language import Ontology, tidy


@dataclass(frozen=True)
class Seconds:
    """Where the time of one answer went. `total` is seen from outside, with everything in between."""

    prompt: float
    generation: float
    total: float


@dataclass(frozen=True)
class Completion:
    """One answer of a runner.

    Attributes:
        text: the action as compact JSON; of a plain completion, the text as written.
        tokens: ids of the tokens written, the end token included; empty from a runner that does not tell.
        logprobs: (piece, natural logarithm of its probability) of each token, before the grammar; `-inf` for no number.
        confidence: see `confidence`; 0 from a runner that does not tell.
        seconds: where the time went.
        prompt_tokens, completion_tokens: how many were read and written.
        reused_tokens: of the prompt, how many had not to be read again, because their state was kept.
        passes: forward passes it took; 0 from a runner that does not tell.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[tuple[str, float], ...]
    confidence: float
    seconds: Seconds
    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int = 0
    passes: int = 0


class Runner(Protocol):
    """Something that turns one sentence into one action of its ontology."""

    ontology: Ontology

    @property
    def name(self) -> str:
        """For people: the tier and recipe, or the endpoint."""
        ...

    async def act(self, sentence: str) -> Completion:
        """The action for a sentence.

        Raises:
            InputError: the sentence cannot be taken.
            RunnerError: no answer, or one that is no action.
        """
        ...

    def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        """The action's text piece by piece, then the whole `Completion`. Closing the iterator stops the runner.

        Raises:
            InputError: the sentence cannot be taken.
            RunnerError: no answer, or one that is no action.
        """
        ...

    async def close(self) -> None:
        """Let go of processes and connections."""
        ...


def confidence(logprobs: Sequence[tuple[str, float]]) -> float:
    """The probability the model gives to its action, from 0 to 1: the product over its tokens but the language.

    The log-probabilities are the model's own, before the grammar (llama.cpp reports them so), which gives the product
    its meaning: a token the grammar had to force against the model's will pulls it down, while one the model would
    have written anyway (a closing quote) weighs next to nothing. The language is left out because no act depends on
    it.
    """
    written, total = "", 0.0
    for piece, logprob in logprobs:
        written += piece
        if "intent" in written:  # the tokens before it say the language
            total += logprob
    return math.exp(min(total, 0.0)) if "intent" in written and not math.isnan(total) else 0.0


class Tidier:
    """`core.action.tidy` for text that comes in pieces: drops the space that opens a copied value."""

    def __init__(self) -> None:
        self._tail = ""

    def __call__(self, piece: str) -> str:
        """The piece without that space."""
        joined, before = self._tail + piece, len(self._tail)
        self._tail = joined[-3:]  # too short to hold the four characters that lose one
        return tidy(joined)[before:]
