"""Dialogue: what a conversation remembers from one turn to the next."""

from __future__ import annotations

from tumen.assistant.acts import Outcome
from tumen.assistant.commands import Recent
from tumen.assistant.resolution import Question, Resolved
from tumen.home import Home
from tumen.language import ACTS, LANGUAGES, Action

AREA_SECONDS = 120
"""How long the room that was spoken of stays the room that is meant."""

RECENT_SECONDS = 600
"""How long a command without a target is about what was spoken of last."""

MAX_UNDO = 20
"""Turns that can be undone."""


class Dialogue:
    """What a conversation remembers.

    Args:
        home: the home that is spoken to.

    Attributes:
        lang: the language that was spoken last.
        question: the question that waits for an answer.
        asked: the action it was asked about; None if it has no missing slot.
        last: the ids that "it" stands for.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.lang = LANGUAGES[0]
        self.question: Question | None = None
        self.asked: Action | None = None
        self.last: tuple[str, ...] = ()
        self._area: str | None = None
        self._area_time = 0.0  # seconds since 1970
        # what was done in the last turn that did something, and what its question offered
        self._acts: list[Resolved] = []
        self._chain: tuple[str, ...] = ()
        self._offered: tuple[str, ...] = ()
        self._acts_time = 0.0  # seconds since 1970
        self._turn_acts = False
        # the outcomes of each turn that changed something
        self._undoable: list[list[Outcome]] = []
        self._fresh = True

    @property
    def area(self) -> str | None:
        """The area that was spoken of last, for two minutes.

        It is where "the lights" are if the speaker's room is not known.
        """
        age = self.home.clock().timestamp() - self._area_time
        return self._area if age <= AREA_SECONDS else None

    @property
    def recent(self) -> Recent:
        """What was spoken of in the turns before."""
        age = self.home.clock().timestamp() - self._acts_time
        if age > RECENT_SECONDS:
            return Recent(self.last)
        return Recent(self.last, tuple(self._acts), self._chain, self._offered, fresh=True)

    def begin_turn(self) -> None:
        """Begin a turn: what is remembered from now on is undone together."""
        self._fresh = True
        self._turn_acts = False

    def ask(self, question: Question, action: Action | None) -> None:
        """Wait for the answer to a question.

        Args:
            question: what is missing.
            action: what was understood, to be completed by the answer.
        """
        self.question = question
        self.asked = action

    def drop_question(self) -> None:
        """Stop waiting for an answer."""
        self.question = None
        self.asked = None

    def remember(self, resolved: Resolved, outcome: Outcome) -> None:
        """Keep what an act was about, and how to undo it.

        Args:
            resolved: what was done.
            outcome: the changes.
        """
        # `what time is it` between two commands changes nothing about `it`
        if resolved.targets:
            self._remember_targets(resolved)
            self._remember_area(resolved)
        # only what changed something can be undone
        if not outcome.changed:
            return
        if self._fresh:
            self._undoable = [*self._undoable[1 - MAX_UNDO :], []]
            self._fresh = False
        self._undoable[-1].append(outcome)

    def _remember_targets(self, resolved: Resolved) -> None:
        """Keep what `it` stands for, and what was done, one turn together."""
        goes_on = bool(self._acts) and self._acts[-1].intent == resolved.intent
        so_far = self._chain if goes_on or self._turn_acts else ()
        self._chain = tuple(dict.fromkeys((*so_far, *resolved.targets)))
        if self._turn_acts:
            self.last = tuple(dict.fromkeys((*self.last, *resolved.targets)))
        else:
            self.last = resolved.targets
            self._acts = []
        self._turn_acts = True
        self._acts_time = self.home.clock().timestamp()
        if resolved.intent in ACTS:
            self._acts.append(resolved)
        question = self.question
        offered = question.options if question else ()
        self._offered = tuple(id_ for option in offered for id_ in option.targets)

    def _remember_area(self, resolved: Resolved) -> None:
        """Keep the area of the targets, if all of them share one."""
        entities = self.home.entities
        areas = {entities[id_].area for id_ in resolved.targets if id_ in entities}
        # with devices in two rooms, neither is the room spoken of
        if len(areas) == 1:
            self._area = areas.pop() or None
            self._area_time = self.home.clock().timestamp()

    def take_undoable(self) -> list[Outcome]:
        """Remove and return the outcomes of the last turn that can be undone, in their order."""
        if not self._undoable:
            return []
        return self._undoable.pop()
