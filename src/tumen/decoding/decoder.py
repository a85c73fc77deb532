"""Greedy decoding in as few forward passes as it takes.

A pass reads the tokens chosen last and, behind them, a *plan*: the tokens that must come (one way on in the automaton), and those
that a proposer expects. Its logits say which of them the model would have chosen itself; from the first other one the plan is
forgotten (speculative decoding, Leviathan et al. 2023, arXiv:2211.17192, section 2.1, with an argmax in place of sampling). So the
answer is that of plain greedy decoding, and a forced token never costs a pass of its own.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tumen.decoding.automaton import ContinueOrClose, GrammarState, InCopiedSlot, InStructure
from tumen.decoding.llama import LlamaAdapter, LlamaContext

ONWARD = -1  # no token: that a run of words went on
KEPT_STATES = 4  # prefixes whose state is held as bytes, beside the one in the context


class ScoredToken(NamedTuple):
    """A token of an answer, with the natural logarithm of its probability before the automaton's mask."""

    token: int
    logprob: float


class Proposer(Protocol):
    """Somebody who expects certain tokens. A wrong guess costs time, never the answer.

    To come, for a GGUF that has one: the multi-token head, in a `LlamaContext` of its own (llama.cpp: `ctx_type` MTP, `ctx_other`).
    """

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """What may follow `read` (the prompt and the answer so far), from `state` on; nothing if it has no idea."""
        ...

    def learn(self, state: GrammarState, token: int) -> None:
        """Hear what was chosen at a place where there was a choice; most need not know."""
        return


class SentenceProposer(Proposer):
    """In a copied run: the sentence goes on as it did. `most` tokens at a time."""

    def __init__(self, most: int = 4) -> None:
        self._most = most

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """The next words of the sentence."""
        inside = state.onward if isinstance(state, ContinueOrClose) else state
        return inside.onward[: self._most] if isinstance(inside, InCopiedSlot) else ()


class FrequencyProposer(Proposer):
    """What was mostly chosen at a place of an action before: the language people here speak, the slot an intent mostly has, whether
    a copied run mostly ends there. Goes on for as long as all of it together was the case more often than `least`.
    """

    def __init__(self, least: float = 0.5, most: int = 2) -> None:
        self._least, self._most = least, most
        self._seen: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """The usual way on."""
        found: list[int] = []
        sure = 1.0
        while len(found) < self._most and not over(state):
            token = only(state)
            if token is None:
                token, share = self._usual(state)
                sure *= share
            if token is None or sure < self._least:
                break
            found.append(token)
            state = state.after(token)
        return found

    def learn(self, state: GrammarState, token: int) -> None:
        """Remember a choice; of copied words only that the run went on."""
        if isinstance(state, InStructure | ContinueOrClose):
            onward = isinstance(state, ContinueOrClose) and state.goes_on(token)
            self._seen[type(state), state.place][ONWARD if onward else token] += 1

    def _usual(self, state: GrammarState) -> tuple[int | None, float]:
        """What was chosen most often here, and its share."""
        seen = (
            self._seen.get((type(state), state.place))
            if isinstance(state, InStructure | ContinueOrClose)
            else None
        )
        if not seen:
            return None, 0.0
        token, count = seen.most_common(1)[0]
        if token == ONWARD and isinstance(state, ContinueOrClose):
            token = int(state.onward.ids[0])
        return token, count / (seen.total() + 1)


class PromptLookup(Proposer):
    """In free text: what followed the last `match` tokens when they stood there before (prompt lookup, A. Saxena 2023)."""

    def __init__(self, match: int = 3, most: int = 8) -> None:
        self._match, self._most = match, most

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """What followed the latest earlier occurrence."""
        if state.ids is not None:
            return ()
        tail = list(read[-self._match :])
        for at in range(len(read) - self._match - 1, -1, -1):
            if read[at : at + self._match] == tail:
                return read[at + self._match : at + self._match + self._most]
        return ()


class DraftProposer(Proposer):
    """What a smaller model with the same vocabulary would write, under the same automaton."""

    def __init__(self, context: LlamaContext, most: int = 4) -> None:
        self._context, self._most, self._read = context, most, list[int]()

    def propose(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        """Its own greedy continuation."""
        unread = self._return_to(read)
        found: list[int] = []
        while (
            len(found) < self._most
            and not over(state)
            and len(self._read) + len(unread) < self._context.size
        ):
            token = only(state)
            if token is None:
                token = choose(self._context.decode(unread)[0], state)
                self._read += unread
                unread = []
            found.append(token)
            unread.append(token)
            state = state.after(token)
        return found

    def _return_to(self, read: Sequence[int]) -> list[int]:
        """Forget what turned out otherwise; returns what is to be read, at least the last token."""
        pairs = enumerate(zip(self._read, read[:-1], strict=False))
        same = next(
            (at for at, (mine, theirs) in pairs if mine != theirs),
            min(len(self._read), len(read) - 1),
        )
        self._context.forget(same)
        del self._read[same:]
        return list(read[same:])


class Decoder:
    """One answer at a time from a model.

    Args:
        context: of the model, for this decoder alone.
        end: the token after an action.
        proposers: asked in this order; the first with an idea is heard.
        ride: whether forced tokens go along with a pass (off only to measure what that is worth).
    """

    def __init__(
        self, context: LlamaContext, end: int, proposers: Sequence[Proposer] = (), ride: bool = True
    ) -> None:
        self.context, self._end, self.proposers, self._ride = context, end, proposers, ride
        self._kept: tuple[int, ...] = ()
        self._states: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self.passes = self.reused = 0

    def write(
        self, prompt: Sequence[int], state: GrammarState, limit: int | None = None, prefix: int = 0
    ) -> Iterator[list[ScoredToken]]:
        """The answer to a prompt, as many tokens at once as a pass gave; ends with an end token, at `limit`, or when all is full.

        Args:
            limit: the most tokens to write.
            prefix: how many tokens of the prompt are worth keeping, as the next prompt will begin with them too.
        """
        self.passes = 0
        self.reused = self._keep(tuple(prompt[:prefix]))
        read, unread = list(prompt), list(prompt[prefix:])
        left = self.context.size if limit is None else limit
        while left > 0 and self.context.length + len(unread) <= self.context.size:
            room = min(left, self.context.size - self.context.length - len(unread))
            plan = self._plan(read, state, room)
            rows = self.context.decode(unread + plan, len(plan) + 1)
            self.passes += 1
            fresh, state = self._follow(rows, plan, state, left)
            self.context.forget(self.context.length - len(plan) + min(len(fresh) - 1, len(plan)))
            yield fresh
            if over(state):
                return
            left -= len(fresh)
            read += [written.token for written in fresh]
            unread = read[-1:]

    def adapt(self, adapters: Sequence[tuple[LlamaAdapter, float]]) -> None:
        """Write with these (adapter, scale) from now on; what was kept was read without them and goes."""
        self._kept = ()
        self._states.clear()
        self.context.adapt(adapters)

    def _follow(
        self, rows: NDArray[np.float32], plan: Sequence[int], state: GrammarState, left: int
    ) -> tuple[list[ScoredToken], GrammarState]:
        """What the model chooses along a plan: its tokens until the first that is another one, or one more than the plan."""
        fresh: list[ScoredToken] = []
        for at, row in enumerate(rows[:left]):
            token = choose(row, state)
            fresh.append(ScoredToken(token, logprob(row, token)))
            if only(state) is None:
                for proposer in self.proposers:
                    proposer.learn(state, token)
            state = state.after(token)
            if (
                only(state) == self._end and len(fresh) < left
            ):  # nothing else may come, so nobody is asked
                fresh.append(ScoredToken(self._end, 0.0))
                state = state.after(self._end)
            if over(state) or at == len(plan) or token != plan[at]:
                break
        return fresh, state

    def _plan(self, read: Sequence[int], state: GrammarState, room: int) -> list[int]:
        """Tokens to read along: forced ones, and from the first choice on what a proposer expects."""
        plan: list[int] = []
        guesses: Iterator[int] | None = None
        while len(plan) < room and not over(state):
            forced = only(state)
            if guesses is None and forced is None:
                guesses = iter(self._guess([*read, *plan], state))
            guess = None if guesses is None else next(guesses, None)
            token = guess if forced is None or not self._ride else forced
            if token is None or token == self._end or not allows(state, token):
                break
            plan.append(token)
            state = state.after(token)
        return plan

    def _guess(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        return next(
            (found for proposer in self.proposers if (found := proposer.propose(read, state))), ()
        )

    def _keep(self, prefix: tuple[int, ...]) -> int:
        """Leave exactly a prefix in the context. Returns how many tokens of it had not to be read again."""
        if prefix == self._kept:
            self.context.forget(len(prefix))
            return len(prefix)
        if self._kept:
            self.context.forget(len(self._kept))
            self._states[self._kept] = self.context.save()
            while len(self._states) > KEPT_STATES:
                self._states.popitem(last=False)
        self.context.forget(0)
        self._kept, known = (), self._states.pop(prefix, None)
        if known is not None:
            self.context.restore(known, len(prefix))
        elif prefix:
            self.context.decode(prefix)
        self._kept = prefix
        return 0 if known is None else len(prefix)


def choose(row: NDArray[np.float32], state: GrammarState) -> int:
    """The likeliest token that may come; of equals, the lowest."""
    if state.ids is None:
        return int(row.argmax())
    return int(state.ids[row[state.ids].argmax()])


def logprob(row: NDArray[np.float32], token: int) -> float:
    """The natural logarithm of a token's probability among all tokens."""
    return -math.log(
        np.exp(row - row[token]).sum()
    )  # minus infinity if so unlikely that float32 has no number for it


def only(state: GrammarState) -> int | None:
    """The token that must come, if no other may."""
    return int(state.ids[0]) if state.ids is not None and len(state.ids) == 1 else None


def over(state: GrammarState) -> bool:
    """Whether all is written."""
    return state.ids is not None and not len(state.ids)


def allows(state: GrammarState, token: int) -> bool:
    """Whether a token may come."""
    return state.ids is None or bool((state.ids == token).any())
