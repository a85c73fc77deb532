"""The interface of a runner, and the completion it returns."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tumen.language import Action, Ontology


@dataclass(frozen=True)
class Seconds:
    """Where the time of one answer went.

    Attributes:
        prompt: until the first token.
        generation: from there to the last token.
        total: measured by the caller, everything in between included.
    """

    prompt: float
    generation: float
    total: float


# Words of a sentence that name a thing or a place of the home: (number of the first unit, of the
# unit after the last, slots that may hold them).
KnownName = tuple[int, int, tuple[str, ...]]


@dataclass(frozen=True)
class Completion:
    """One answer of a runner.

    Attributes:
        text: the action as compact JSON; of a plain completion, the text as written.
        tokens: ids of the tokens written, the end token included; empty if the runner does not
            report them.
        logprobs: (piece, natural logarithm of its probability) of each token, before the grammar
            mask; `-inf` for a probability below the smallest float.
        confidence: see `confidence`; 0 if the runner does not report it.
        seconds: where the time went.
        prompt_tokens: how many were read.
        completion_tokens: how many were written.
        reused_tokens: how many of the prompt were not read again, because their state was kept.
        passes: forward passes it took; 0 if the runner does not report them.
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
    """Turns one sentence into one action of its ontology."""

    ontology: Ontology

    @property
    def name(self) -> str:
        """For people: the recipe and tier, or the endpoint."""
        ...

    async def act(self, sentence: str) -> Completion:
        """Return the action for a sentence.

        Raises:
            InputError: the sentence cannot be used.
            RunnerError: no answer, or one that is not an action.
        """
        ...

    def stream(self, sentence: str) -> AsyncIterator[str | Completion]:
        """Yield the action's text piece by piece, then the whole `Completion`.

        Closing the iterator stops the runner.

        Raises:
            InputError: the sentence cannot be used.
            RunnerError: no answer, or one that is not an action.
        """
        ...

    async def close(self) -> None:
        """Free processes and connections."""
        ...


def confidence(logprobs: Sequence[tuple[str, float]]) -> float:
    """Return the probability that the model gives to its action, 0 to 1.

    It is the product over all tokens but the language.

    The log-probabilities are the model's own, before the grammar mask, which gives the product its
    meaning: a token that the grammar forced against the model's choice lowers it, while one that
    the model would have written anyway (a closing quote) hardly counts. The language is left out
    because no act depends on it.

    Args:
        logprobs: (piece, natural logarithm of its probability), in order.
    """
    written = ""
    total = 0.0
    for piece, logprob in logprobs:
        written += piece
        if "intent" in written:  # the tokens before it are the language
            total += logprob
    if "intent" not in written or math.isnan(total):
        return 0.0
    return math.exp(min(total, 0.0))


class StreamTidier:
    """`Action.tidy` for pieces of text: drops the space that opens a copied value."""

    # `tidy` looks for `":" `, four characters: with the three before a piece it is found across
    # pieces, and never twice.
    TAIL_CHARACTERS = 3

    def __init__(self) -> None:
        self._tail = ""

    def __call__(self, piece: str) -> str:
        """Return the next piece without such a space."""
        joined = self._tail + piece
        before = len(self._tail)
        self._tail = joined[-self.TAIL_CHARACTERS :]
        return Action.tidy(joined)[before:]
