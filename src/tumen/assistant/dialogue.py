"""Dialogue: what a conversation remembers from one turn to the next."""

from __future__ import annotations

from tumen.assistant.acts import Outcome
from tumen.assistant.resolution import Question, Resolved
from tumen.home import Home
from tumen.language import LANGUAGES, Action

AREA_SECONDS = 120
"""How long the room that was spoken of stays the room that is meant."""

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

    def begin_turn(self) -> None:
        """Begin a turn: what is remembered from now on is undone together."""
        self._fresh = True

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
            self.last = resolved.targets
            self._remember_area(resolved)
        # only what changed something can be undone
        if not outcome.changed:
            return
        if self._fresh:
            self._undoable = [*self._undoable[1 - MAX_UNDO :], []]
            self._fresh = False
        self._undoable[-1].append(outcome)

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
