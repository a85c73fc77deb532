"""Proposers guess which tokens come next, so that one forward pass can check several.

A wrong guess costs time, never the answer: `Decoder` keeps only what the model itself chooses. They
are off by default; `docs/decoding.md` says what each is worth. A GGUF with a multi-token prediction
head could be another one, in a context of its own (llama.cpp: `ctx_type` MTP, `ctx_other`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Protocol

from tumen.decoding.automaton import ContinueOrClose, GrammarState, InCopiedSlot, InStructure
from tumen.decoding.greedy import argmax_allowed, forced_token, is_finished
from tumen.decoding.llama import LlamaContext

RUN_CONTINUES = -1  # counted in place of a token: a run of words went on


class Proposer(Protocol):
    """Guesses tokens."""

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Return tokens that may follow, or none.

        Args:
            read: tokens of the prompt and of the answer so far.
            state: of the automaton after them.
        """
        ...

    def learn(self, state: GrammarState, token: int) -> None:
        """Record the token that was chosen where several were allowed. Most proposers ignore it."""
        return


class SentenceProposer(Proposer):
    """In a copied slot: the sentence goes on as it did.

    Args:
        limit: tokens of one guess.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Return the next tokens of the sentence."""
        # After a whole word the run may go on or end; the guess is that it goes on.
        inside = state.inside if isinstance(state, ContinueOrClose) else state
        if not isinstance(inside, InCopiedSlot):
            return ()
        return inside.rest_of_sentence[: self._limit]


class FrequencyProposer(Proposer):
    """At a place of an action: what was chosen there most often before.

    It learns the language that people here speak, the slot an intent mostly has, and whether a
    copied run mostly ends at a word.

    Args:
        threshold: the guess goes on while its estimated probability as a whole is at least this.
        limit: tokens of one guess.
    """

    def __init__(self, threshold: float = 0.5, limit: int = 2) -> None:
        self._threshold = threshold
        self._limit = limit
        self._counts: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Return the most frequent continuation."""
        guess: list[int] = []
        probability = 1.0
        while len(guess) < self._limit and not is_finished(state):
            # A forced token is certain, so it does not lower the probability.
            token = forced_token(state)
            if token is None:
                token, share = self._most_frequent(state)
                probability *= share
            if token is None or probability < self._threshold:
                break
            guess.append(token)
            state = state.advance(token)
        return guess

    def learn(self, state: GrammarState, token: int) -> None:
        """Count a choice; of copied words only that the run went on."""
        # Words differ from sentence to sentence; that a run goes on does not.
        if isinstance(state, ContinueOrClose) and state.continues(token):
            token = RUN_CONTINUES
        if isinstance(state, InStructure | ContinueOrClose):
            self._counts[_place(state)][token] += 1

    def _most_frequent(self, state: GrammarState) -> tuple[int | None, float]:
        """Return the token chosen most often at a place and its smoothed share."""
        if not isinstance(state, InStructure | ContinueOrClose):
            return None, 0.0
        counts = self._counts.get(_place(state))
        if not counts:
            return None, 0.0
        token, count = counts.most_common(1)[0]
        # Of a run that mostly goes on: whatever its next token is in this sentence.
        if token == RUN_CONTINUES and isinstance(state, ContinueOrClose):
            token = int(state.inside.allowed[0])
        # One more than was seen, so that a single observation is not certain.
        return token, count / (counts.total() + 1)


def _place(state: InStructure | ContinueOrClose) -> Hashable:
    """Return what is the same for a place of an action in all sentences."""
    return type(state), state.trie


class PromptLookup(Proposer):
    """In free text: what followed the last tokens at an earlier place.

    Prompt lookup decoding (A. Saxena, 2023).

    Args:
        match: how many last tokens must be the same.
        limit: tokens of one guess.
    """

    def __init__(self, match: int = 3, limit: int = 8) -> None:
        self._match = match
        self._limit = limit

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Return what followed the latest earlier occurrence."""
        if state.allowed is not None:
            return ()
        last = list(read[-self._match :])
        # From the end: what was said last is the likeliest to be said again.
        for start in range(len(read) - self._match - 1, -1, -1):
            end = start + self._match
            if read[start:end] == last:
                return read[end : end + self._limit]
        return ()


class DraftProposer(Proposer):
    """What a smaller model with the same vocabulary would write, under the same automaton.

    Args:
        context: of the smaller model, for this proposer alone.
        limit: tokens of one guess.
    """

    def __init__(self, context: LlamaContext, limit: int = 4) -> None:
        self._context = context
        self._limit = limit
        self._read: list[int] = []  # tokens in the context

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Return the draft's own greedy continuation."""
        unread = self._rewind_to(read)
        guess: list[int] = []
        while len(guess) < self._limit and not is_finished(state):
            if len(self._read) + len(unread) >= self._context.size:
                break
            # Forced tokens wait, and are read with the next one that the draft chooses.
            token = forced_token(state)
            if token is None:
                (row,) = self._context.decode(unread)
                token = argmax_allowed(row, state)
                self._read += unread
                unread = []
            guess.append(token)
            unread.append(token)
            state = state.advance(token)
        return guess

    def _rewind_to(self, read: Sequence[int]) -> list[int]:
        """Forget wrong guesses; return the tokens still to be read, at least the last one."""
        # The draft keeps what its last guess and the answer have in common.
        kept = 0
        for own, actual in zip(self._read, read[:-1], strict=False):
            if own != actual:
                break
            kept += 1
        self._context.forget(kept)
        del self._read[kept:]
        return list(read[kept:])
