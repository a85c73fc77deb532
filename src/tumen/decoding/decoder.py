"""Greedy decoding in as few forward passes as possible.

A pass reads the tokens chosen last and, after them, a *plan*: tokens that are forced (the automaton
allows no other) and tokens that a proposer guesses. The logits of the pass show which of them the
model chooses itself; the plan is dropped from the first other choice on. This is speculative
decoding (Leviathan et al. 2023, arXiv:2211.17192, section 2.1) with an argmax in place of sampling.
So the answer is that of plain greedy decoding, and a forced token never costs a pass of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from tumen.decoding.automaton import GrammarState
from tumen.decoding.greedy import (
    ScoredToken,
    argmax_allowed,
    forced_token,
    is_allowed,
    is_finished,
    log_probability,
)
from tumen.decoding.llama import LlamaAdapter, LlamaContext, Logits
from tumen.decoding.proposers import Proposer

SAVED_PREFIXES = 4  # whose state is kept as bytes, beside the one in the context


class Decoder:
    """Writes one answer at a time.

    Args:
        context: of the model, for this decoder alone.
        end: the token after an action.
        proposers: asked in this order; the first guess is used.
        plan_forced: whether forced tokens are planned. Off only to measure what that is worth.

    Attributes:
        passes: forward passes of the last answer, the prefix not counted.
        reused: tokens of its prefix that were not read again.
    """

    def __init__(
        self,
        context: LlamaContext,
        end: int,
        proposers: Sequence[Proposer] = (),
        plan_forced: bool = True,
    ) -> None:
        self.context = context
        self.proposers = proposers
        self._end = end
        self._plan_forced = plan_forced
        self._prefix: tuple[int, ...] = ()  # the prefix whose state is in the context
        self._saved: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self.passes = 0
        self.reused = 0

    def write(
        self, prompt: Sequence[int], state: GrammarState, limit: int | None = None, prefix: int = 0
    ) -> Iterator[list[ScoredToken]]:
        """Yield the answer to a prompt: at each step the tokens that one pass gave.

        Ends after an end token, at `limit`, or when the context is full.

        Args:
            prompt: token ids.
            state: of the automaton before the answer.
            limit: most tokens to write; default: as many as the context holds.
            prefix: how many tokens of the prompt to keep in memory, as the next prompt will begin
                with them too.
        """
        self.passes = 0
        self.reused = self._load_prefix(tuple(prompt[:prefix]))
        read = list(prompt)
        unread = list(prompt[prefix:])
        left = self.context.size if limit is None else limit
        while left > 0 and self._room(unread) >= 0:
            room = min(left, self._room(unread))
            plan = self._plan(read, state, room)
            # A row of logits after the last unread token, and one after each planned token.
            rows = self.context.decode(unread + plan, len(plan) + 1)
            self.passes += 1
            fresh, state = self._follow(rows, plan, state, left)
            self._drop_wrong_guesses(plan, fresh)
            yield fresh
            if is_finished(state):
                return
            left -= len(fresh)
            read += [scored.token for scored in fresh]
            # All chosen tokens but the last are in the context already.
            unread = read[-1:]

    def use_adapters(self, adapters: Sequence[tuple[LlamaAdapter, float]]) -> None:
        """Write with these (adapter, scale) from now on.

        Kept prefixes were read without them and are dropped.
        """
        self._prefix = ()
        self._saved.clear()
        self.context.use_adapters(adapters)

    def _room(self, unread: Sequence[int]) -> int:
        """Return how many tokens fit after the unread ones; negative if those do not fit."""
        return self.context.size - self.context.length - len(unread)

    def _follow(
        self, rows: Logits, plan: Sequence[int], state: GrammarState, left: int
    ) -> tuple[list[ScoredToken], GrammarState]:
        """Choose a token for each row of logits, until the choice is not the planned one.

        Args:
            rows: logits after the last unread token and after each planned one, (plan + 1,
                vocabulary).
            plan: the planned tokens.
            state: of the automaton before the first choice.
            left: most tokens to choose.

        Returns:
            the tokens, at least one, and the state after them.
        """
        fresh: list[ScoredToken] = []
        for index, row in enumerate(rows[:left]):
            token = argmax_allowed(row, state)
            fresh.append(ScoredToken(token, log_probability(row, token)))
            self._teach(state, token)
            state = state.advance(token)
            if forced_token(state) == self._end and len(fresh) < left:
                # Nothing else may come, so the model is not asked: probability 1.
                fresh.append(ScoredToken(self._end, 0.0))
                state = state.advance(self._end)
            plan_ends = index == len(plan)
            if is_finished(state) or plan_ends or token != plan[index]:
                break
        return fresh, state

    def _teach(self, state: GrammarState, token: int) -> None:
        """Tell the proposers which token was chosen; a forced one was no choice."""
        if forced_token(state) is not None:
            return
        for proposer in self.proposers:
            proposer.learn(state, token)

    def _drop_wrong_guesses(self, plan: Sequence[int], fresh: Sequence[ScoredToken]) -> None:
        """Remove the planned tokens that were not chosen from the context.

        All planned tokens are in the context. The last fresh token is not: it is read by the next
        pass.
        """
        right = min(len(fresh) - 1, len(plan))  # planned tokens that were chosen
        self.context.forget(self.context.length - len(plan) + right)

    def _plan(self, read: Sequence[int], state: GrammarState, room: int) -> list[int]:
        """Return tokens to read ahead: forced ones, and after the first choice guessed ones."""
        plan: list[int] = []
        guesses: Iterator[int] | None = None
        while len(plan) < room and not is_finished(state):
            forced = forced_token(state)
            if guesses is None and forced is None:
                guesses = iter(self._guess([*read, *plan], state))
            # A guess covers forced tokens as well, so its iterator moves on with every token.
            guess = next(guesses, None) if guesses is not None else None
            use_forced = forced is not None and self._plan_forced
            token = forced if use_forced else guess
            # The end token is never planned: after it nothing is read.
            if token is None or token == self._end or not is_allowed(state, token):
                break
            plan.append(token)
            state = state.advance(token)
        return plan

    def _guess(self, read: Sequence[int], state: GrammarState) -> Sequence[int]:
        for proposer in self.proposers:
            guess = proposer.propose(read, state)
            if guess:
                return guess
        return ()

    def _load_prefix(self, prefix: tuple[int, ...]) -> int:
        """Make the context hold exactly a prefix; return how many tokens were not read again."""
        if prefix == self._prefix:
            self.context.forget(len(prefix))
            return len(prefix)
        self._save_prefix()
        self.context.forget(0)
        self._prefix = ()  # in case reading fails
        reused = 0
        saved = self._saved.pop(prefix, None)
        if saved is not None:
            self.context.restore(saved, len(prefix))
            reused = len(prefix)
        elif prefix:
            self.context.decode(prefix)
        self._prefix = prefix
        return reused

    def _save_prefix(self) -> None:
        """Keep the state of the current prefix as bytes; drop the oldest of too many."""
        if not self._prefix:
            return
        # The context may hold an answer behind the prefix.
        self.context.forget(len(self._prefix))
        self._saved[self._prefix] = self.context.save()
        while len(self._saved) > SAVED_PREFIXES:
            self._saved.popitem(last=False)
