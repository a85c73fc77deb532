"""Session: a conversation with a home. One sentence in, one `Turn` out; no sentence raises.

    sentence -> Interpretation -> Resolved, Question or Refusal -> Outcome -> reply

A pending question is answered without the model ("the second one", "the bedroom one"), and so is
an undo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tumen.assistant.acts import Change, Outcome, act, undo
from tumen.assistant.answers import declines, options_meant, undoes
from tumen.assistant.as_typed import as_typed
from tumen.assistant.dialogue import Dialogue
from tumen.assistant.interpretation import Interpretation
from tumen.assistant.reading import SentenceReader, SpokenPart
from tumen.assistant.replies import catalogues, reply, reply_finished, reply_undone
from tumen.assistant.resolution import Question, Refusal, Resolution, Resolved, resolve
from tumen.assistant.values import Values
from tumen.core.errors import TumenError
from tumen.home import Home, language_of
from tumen.language import LANGUAGES, Action, normalise

_MISSING_SLOT = {"what": "name", "where": "area"}
"""The slot that the answer to a question fills, by the reason of the question."""

_WRITTEN = ("item", "message", "name", "command")
"""Values that are kept or said in the speaker's own words."""


@dataclass(frozen=True)
class Turn:
    """One sentence and all that came of it.

    Attributes:
        sentence: what was said.
        reply: what was answered.
        action: what was understood; None where no model was asked.
        resolution: what that means in the home.
        outcome: what was done.
        tier: who understood it, `device` or `cloud`.
        why: why that tier answered, or why no model was asked.
        confidence: how sure the model was.
        seconds: by stage (understand, resolve, act, reply), and what each tier took.
        error: one line if the sentence was not understood at all.
        parts: the turns of its commands, if it has several; the other fields are then those of the
            first.
    """

    sentence: str
    reply: str
    action: Action | None = None
    resolution: Resolution | None = None
    outcome: Outcome | None = None
    tier: str = ""
    why: str = ""
    confidence: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    parts: tuple[Turn, ...] = ()

    @property
    def resolved(self) -> Resolved | None:
        """The action on real things, if it was resolved."""
        return self.resolution if isinstance(self.resolution, Resolved) else None

    @property
    def question(self) -> Question | None:
        """What is asked back, if anything."""
        return self.resolution if isinstance(self.resolution, Question) else None

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing was done, if it was refused."""
        if isinstance(self.resolution, Refusal):
            return self.resolution
        return self.outcome.refusal if self.outcome else None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is different now, before and after."""
        if self.parts:
            return tuple(change for part in self.parts for change in part.changes)
        return self.outcome.changed if self.outcome else ()


class _Stopwatch:
    """Measures the seconds of each stage of a turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def stage(self, name: str) -> None:
        """End a stage; the next one starts now."""
        now = time.perf_counter()
        self.seconds[name] = now - self._since
        self._since = now


class Session:
    """A conversation.

    Args:
        home: the home that is spoken to.
        understand: returns what a model makes of a sentence; raises a `TumenError` when it cannot.
        values: the lexicon of the bundle; the built-in one if left out.
    """

    def __init__(
        self, home: Home, understand: Callable[[str], Interpretation], values: Values | None = None
    ) -> None:
        self.home = home
        self.understand = understand
        self.values = values or Values()
        self.dialogue = Dialogue(home)
        home.read_names()  # before the first sentence, which would wait for it

    def say(self, sentence: str) -> Turn:
        """Answer one sentence. One that is not understood gets its one-line error as the reply."""
        return self._respond(sentence, answering=True)

    def _respond(self, sentence: str, answering: bool) -> Turn:
        """Answer one sentence.

        Args:
            sentence: what was said.
            answering: whether it may answer the pending question; a timer's command never does.
        """
        watch = _Stopwatch()
        self.dialogue.begin_turn()
        try:
            said = normalise(sentence)
            # an undo is never the answer to a question
            if undoes(said):
                return self._undo(sentence, said, watch)
            # a pending question comes before the model: `the left one` is no command
            answer = self._answer(said) if answering else None
            if answer is not None:
                watch.stage("understand")
                turn = Turn(sentence, reply="", why="answer to the question")
                return self._finish(turn, answer, watch)
            return self._interpret(sentence, watch)
        except TumenError as error:
            watch.stage("understand")
            line = _first_line(error)
            return Turn(sentence, line, error=line, seconds=watch.seconds)

    def due(self) -> tuple[Turn, ...]:
        """Return the turns of timers that have run out since the last call.

        A timer with a command is carried out; any other one says that its time is up.
        """
        turns = []
        for timer in self.home.finished():
            text = reply_finished(timer, self.home, self.dialogue.lang)
            turns.append(Turn("", text, why="a timer ran out"))
            # the command is said again, as if the speaker had waited
            if timer.command:
                turns.append(self._respond(timer.command, answering=False))
        return tuple(turns)

    # -- the ways to a turn ----------------------------------------------------------------------

    def _interpret(self, sentence: str, watch: _Stopwatch) -> Turn:
        """Answer a sentence through the model."""
        dialogue = self.dialogue
        # a home that knows its room is a satellite in this room
        here = self.home.here or dialogue.area
        reader = SentenceReader(self.home, self.understand, self.values, here, dialogue.recent)
        parts = reader.read(sentence)
        watch.stage("understand")
        dialogue.lang = parts[-1].action.lang
        if len(parts) == 1:
            return self._answer_part(sentence, _as_written(parts[0], sentence), watch)
        turns = [
            self._answer_part(part.said, _as_written(part, sentence), _Stopwatch())
            for part in parts
        ]
        watch.stage("act")
        return _together(sentence, turns, watch)

    def _answer_part(self, sentence: str, part: SpokenPart, watch: _Stopwatch) -> Turn:
        """Act on one part of a sentence, and reply."""
        # the tiers' own times are parts of `understand`
        watch.seconds = dict(part.found.seconds) | watch.seconds
        turn = Turn(
            sentence,
            reply="",
            action=part.action,
            tier=part.found.tier,
            why=part.found.why,
            confidence=part.found.confidence,
        )
        return self._finish(turn, part.resolution, watch)

    def _answer(self, said: str) -> Resolved | None:
        """Return what an answer to the pending question means; None if it does not answer it."""
        question = self.dialogue.question
        if question is None:
            return None
        if declines(said):
            return Resolved("HassNevermind", question.lang)
        numbers = options_meant(question, said, self.home)
        if numbers:
            return question.choose(*numbers)
        return self._filled(question, said)

    def _filled(self, question: Question, said: str) -> Resolved | None:
        """Return the action that was asked about, with the device or room that was missing."""
        asked = self.dialogue.asked
        slot = _MISSING_SLOT.get(question.reason)
        if asked is None or slot is None:
            return None
        action = Action(asked.intent, asked.lang, {**asked.slots, slot: said})
        resolution = resolve(action, self.home, self.values)
        # words that name nothing are not an answer
        return resolution if isinstance(resolution, Resolved) else None

    def _finish(self, turn: Turn, resolution: Resolution, watch: _Stopwatch) -> Turn:
        """Act if there is something to act on, remember it, and reply.

        Args:
            turn: what is known about the turn so far.
            resolution: what the sentence means in the home.
            watch: measures the stages.

        Returns:
            the turn with its reply, its outcome and its times.
        """
        watch.stage("resolve")
        outcome: Outcome | None = None
        if isinstance(resolution, Resolved):
            outcome = act(resolution, self.home)
            # a refused act is nothing that `it` could mean
            if not outcome.refusal:
                self.dialogue.remember(resolution, outcome)
            watch.stage("act")
            text = reply(outcome, self.home)
        else:
            watch.stage("act")
            text = reply(resolution, self.home)
        # the answer to a question is remembered with its options
        if isinstance(resolution, Question):
            self.dialogue.ask(resolution, turn.action)
        else:
            self.dialogue.drop_question()
        watch.stage("reply")
        return replace(
            turn, reply=text, resolution=resolution, outcome=outcome, seconds=watch.seconds
        )

    def _undo(self, sentence: str, said: str, watch: _Stopwatch) -> Turn:
        """Take the last change back; the question that waits is dropped."""
        watch.stage("understand")
        self.dialogue.drop_question()
        last = self.dialogue.take_undoable()
        if not last:
            # without an act, the words are the only sign of the language
            lang = language_of(said, self.dialogue.lang)
            resolution = Refusal("HassNevermind", lang, "nothing")
            text = reply(resolution, self.home)
            watch.stage("reply")
            return Turn(sentence, text, None, resolution, why="undo", seconds=watch.seconds)
        # the last act first, as each stands on the ones before it
        outcomes = [undo(outcome, self.home) for outcome in reversed(last)]
        watch.stage("act")
        turns = []
        for outcome in outcomes:
            text = reply_undone(outcome, self.home)
            turns.append(Turn(sentence, text, None, outcome.resolved, outcome, why="undo"))
        watch.stage("reply")
        if len(turns) == 1:
            return replace(turns[0], seconds=watch.seconds)
        return _together(sentence, turns, watch)


def _as_written(part: SpokenPart, sentence: str) -> SpokenPart:
    """Return a part whose own words have the capitals and marks of the sentence."""
    resolution = part.resolution
    if not isinstance(resolution, Resolved):
        return part
    said = normalise(sentence)
    values = dict(resolution.values)
    for slot in _WRITTEN:
        words = values.get(slot)
        if isinstance(words, str) and words:
            values[slot] = as_typed(sentence, said, words)
    return replace(part, resolution=replace(resolution, values=values))


def _gap(lang: str) -> str:
    """Return what stands between two sentences of a language."""
    return catalogues()[lang].sentence_gap


def _together(sentence: str, turns: Sequence[Turn], watch: _Stopwatch) -> Turn:
    """Return the turn of a sentence with several commands."""
    first = turns[0]
    lang = first.resolution.lang if first.resolution else LANGUAGES[0]
    sure = [turn.confidence for turn in turns if turn.confidence is not None]
    return replace(
        first,
        sentence=sentence,
        reply=_gap(lang).join(dict.fromkeys(turn.reply for turn in turns)),
        # the least sure part decides
        confidence=min(sure, default=None),
        seconds=dict(first.seconds) | watch.seconds,
        parts=tuple(turns),
    )


def _first_line(error: Exception) -> str:
    """Return one line for people, whatever an error holds."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
