"""Session: a conversation with a home. One sentence in, one `Turn` out; nothing that is said raises.

A session keeps the pending question (so that "the second one" or "the bedroom one" answers it without the model),
what "it" is, the room spoken of last, and the turns that can be undone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tumen.assistant.acts import Change, Outcome, act, undo
from tumen.assistant.replies.reply import reply, reply_finished, reply_undone
from tumen.assistant.resolution import resolve
from tumen.assistant.values import Values
from tumen.assistant.verdict import Question, Refusal, Resolved, Verdict
from tumen.core.errors import TumenError
from tumen.home import Home, common_words, forms, language_of, split, spoken
from tumen.language import Action, normalise

FRESH_SECONDS = 120
KEPT = 20
"""Turns that can be undone."""


class Understood(Protocol):
    """What a model made of a sentence, and which tier did."""

    @property
    def action(self) -> Action: ...
    @property
    def tier(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...


class Understand(Protocol):
    """Reads a sentence; raises a `TumenError` when it cannot."""

    def __call__(self, sentence: str) -> Understood: ...


@dataclass(frozen=True)
class Turn:
    """One sentence and all that came of it. `seconds` by stage: understand, resolve, act, reply, the model's own."""

    sentence: str
    reply: str
    action: Action | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    tier: str = ""
    why: str = ""
    confidence: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def resolved(self) -> Resolved | None:
        """The action on real things, if it came so far."""
        return self.verdict if isinstance(self.verdict, Resolved) else None

    @property
    def question(self) -> Question | None:
        """What is asked back, if anything."""
        return self.verdict if isinstance(self.verdict, Question) else None

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing was done, if so."""
        return (
            self.verdict
            if isinstance(self.verdict, Refusal)
            else self.outcome.refusal
            if self.outcome
            else None
        )

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is different now: before and after."""
        return self.outcome.changed if self.outcome else ()


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.since = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.since = now - self.since, now


class Session:
    """A conversation.

    Args:
        home: the home that is spoken to.
        understand: reads a sentence into an action.
        values: the lexicon of the bundle; the built-in one if left out.
    """

    def __init__(self, home: Home, understand: Understand, values: Values | None = None) -> None:
        self.home, self.understand, self.values = home, understand, values or Values()
        self.pending: Question | None = None
        self._asked: Action | None = None
        self.last: tuple[str, ...] = ()
        self._area: tuple[str, float] | None = None
        self.lang = "en"
        self._undoable: list[Outcome] = []

    @property
    def area(self) -> str | None:
        """The area spoken of in the last two minutes: where "the lights" are if nobody knows the speaker's room."""
        fresh = self._area and self.home.clock().timestamp() - self._area[1] <= FRESH_SECONDS
        return (self._area[0] or None) if self._area and fresh else None

    def say(self, sentence: str) -> Turn:
        """Answer one sentence. A sentence nobody can take is a turn whose reply is the one-line error."""
        clock = _Clock()
        try:
            said = normalise(sentence)
        except TumenError as error:
            return self._failed(sentence, error, clock)
        return (
            self._undo(sentence, said, clock)
            or self._answered(sentence, said, clock)
            or self._understood(sentence, said, clock)
        )

    def due(self) -> tuple[Turn, ...]:
        """The turns of timers that have run out since: their command is carried out, or that time is up is said."""
        turns = []
        for timer in self.home.finished():
            done = Turn("", reply_finished(timer, self.home, self.lang), why="a timer ran out")
            turns += [done, self.say(timer.command)] if timer.command else [done]
        return tuple(turns)

    def _failed(self, sentence: str, error: TumenError, clock: _Clock) -> Turn:
        clock.stage("understand")
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Turn(sentence, line, error=line, seconds=clock.seconds)

    def _understood(self, sentence: str, said: str, clock: _Clock) -> Turn:
        """The way through the model."""
        try:
            found = self.understand(said)
        except TumenError as error:
            return self._failed(sentence, error, clock)
        clock.stage("understand")
        clock.seconds = dict(found.seconds) | clock.seconds
        self.lang = found.action.lang
        verdict = resolve(
            found.action, self.home, self.values, self.home.here or self.area, self.last
        )
        clock.stage("resolve")
        turn = Turn(
            sentence,
            "",
            found.action,
            verdict,
            None,
            found.tier,
            found.why,
            found.confidence,
            clock.seconds,
        )
        return self._close(turn, verdict, clock)

    def _close(self, turn: Turn, verdict: Verdict, clock: _Clock) -> Turn:
        """Act if there is something to act on, remember, and say it."""
        self.pending = verdict if isinstance(verdict, Question) else None
        self._asked = turn.action if self.pending else None
        outcome = act(verdict, self.home) if isinstance(verdict, Resolved) else None
        clock.stage("act")
        if outcome and not outcome.refusal and isinstance(verdict, Resolved):
            self._remember(verdict, outcome)
        text = reply(outcome or verdict, self.home)  # type: ignore[arg-type]
        clock.stage("reply")
        return Turn(
            turn.sentence,
            text,
            turn.action,
            verdict,
            outcome,
            turn.tier,
            turn.why,
            turn.confidence,
            clock.seconds,
        )

    def _remember(self, resolved: Resolved, outcome: Outcome) -> None:
        if resolved.targets:
            self.last = resolved.targets
            areas = {
                self.home.entities[id_].area
                for id_ in resolved.targets
                if id_ in self.home.entities
            }
            if len(areas) == 1:
                self._area = (areas.pop() or "", self.home.clock().timestamp())
        if outcome.changed:
            self._undoable = [*self._undoable[1 - KEPT :], outcome]

    def _undo(self, sentence: str, said: str, clock: _Clock) -> Turn | None:
        """Take the last change back, as far as twenty turns."""
        if spoken(said) not in common_words().undo:
            return None
        clock.stage("understand")
        self.pending = None
        if not self._undoable:
            refusal = Refusal("HassNevermind", language_of(said, self.lang), "nothing")
            text = reply(refusal, self.home)
            clock.stage("reply")
            return Turn(sentence, text, None, refusal, None, why="undo", seconds=clock.seconds)
        back = undo(self._undoable.pop(), self.home)
        clock.stage("act")
        text = reply_undone(back, self.home)
        clock.stage("reply")
        return Turn(sentence, text, None, back.resolved, back, why="undo", seconds=clock.seconds)

    def _meant(self, question: Question, said: str) -> Resolved | None:
        """An answer as an action: nothing after all, one of the options, or the device or room that was missing."""
        if spoken(said) in common_words().nevermind:
            return Resolved("HassNevermind", question.lang)
        numbers = chosen(question, said)
        if numbers:
            return question.choose(*numbers)
        if self._asked is None or question.reason not in _FILLS:
            return None
        filled = Action(
            self._asked.intent,
            self._asked.lang,
            {**self._asked.slots, _FILLS[question.reason]: said},
        )
        verdict = resolve(filled, self.home, self.values)
        return verdict if isinstance(verdict, Resolved) else None

    def _answered(self, sentence: str, said: str, clock: _Clock) -> Turn | None:
        """The answer to the pending question, if that is what was said."""
        question = self.pending
        if question is None:
            return None
        verdict = self._meant(question, said)
        if verdict is None:
            return None
        clock.stage("understand")
        clock.stage("resolve")
        turn = Turn(
            sentence, "", None, verdict, why="answer to the question", seconds=clock.seconds
        )
        return self._close(turn, verdict, clock)


_FILLS = {"what": "name", "where": "area"}


def chosen(question: Question, said: str) -> tuple[int, ...]:
    """Which options an answer means: by number, `both`, or words that fit one option alone; none if unclear."""
    words = [
        word
        for word in split(said)
        if word not in common_words().stops and word not in _ANSWER_WORDS
    ]
    answer = " ".join(words) or spoken(said)
    count = len(question.options)
    if not count:
        return ()
    if answer in common_words().all or spoken(said) in common_words().all:
        return tuple(range(count))
    for number, ordinal in enumerate(common_words().ordinals[:count]):
        if answer in ordinal or spoken(said) in ordinal:
            return (number,)
    if answer in common_words().last:
        return (count - 1,)
    fits = [number for number, option in enumerate(question.options) if _fits(words, option.label)]
    exact = [
        number
        for number in fits
        if "".join(split(question.options[number].label)) == "".join(words)
    ]
    fits = exact or fits
    return (fits[0],) if len(fits) == 1 else ()


_ANSWER_WORDS = frozenset(
    (
        "one",
        "ones",
        "der",
        "die",
        "das",
        "dem",
        "den",
        "bitte",
        "please",
        "i",
        "mean",
        "meant",
        "ich",
        "meine",
    )
)


def _fits(words: Sequence[str], label: str) -> bool:
    """Whether every word of an answer is in a label, plural and case aside; Chinese characters in their order."""
    pieces = split(label)
    bent = {form for piece in pieces for form in (piece, *forms(piece))}
    whole = "".join(pieces)
    return bool(words) and all(
        bool({word, *forms(word)} & bent)
        or (len(word) >= (1 if ord(word[0]) > 0x2E80 else 4) and _plain(word) in whole)
        for word in words
    )


def _plain(word: str) -> str:
    """A Chinese answer without the `的` and `那个` around it."""
    return word.removesuffix("的那个").removesuffix("那个").removesuffix("的") or word
