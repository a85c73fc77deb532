"""Sentence: what is said, taken apart into parts that are each resolved before any is done.

    sentence -> clauses -> marks (not, except, later) -> model -> names of the home -> resolution

A model reads each command without its marks. What they say is never left to it: a command that is
negated, or waits for something, is not an act, however sure the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tumen.assistant.commands import NOTHING, CommandReader, Recent, names_one
from tumen.assistant.interpretation import Interpretation
from tumen.assistant.modifiers import (
    MAX_CLAUSES,
    NO_COMMAND,
    WAITING,
    Clause,
    Mark,
    clauses_of,
    languages_of,
    marks_of,
    pattern_of,
    script_of,
    segments_of,
    without_marks,
    words_of,
)
from tumen.assistant.reading.complaints import is_complaint, with_complaint
from tumen.assistant.reading.corrections import corrected
from tumen.assistant.reading.enumerations import items_of, one_thing_each
from tumen.assistant.reading.exceptions import (
    Spared,
    as_it_is,
    is_wider,
    leaving,
    spared_in,
    things_of,
)
from tumen.assistant.reading.grounding import ground, unknown_qualifier, with_colour
from tumen.assistant.reading.mark_scope import is_content, spread_to
from tumen.assistant.reading.partition import SpokenPart, best_partition, by_words
from tumen.assistant.resolution import Candidate, Question, Refusal, Resolution, Resolved, resolve
from tumen.assistant.values import Values
from tumen.assistant.wording import amount_spans, wish_spans, with_amount, with_said_kind, with_wish
from tumen.home import Home, common_words, kind_word, language_of, mentions_of, split, spoken
from tumen.language import ACTS, CLOSED, INTENTS, LANGUAGES, NONE, Action, normalise

Understand = Callable[[str], Interpretation]

_START_TIMER = "HassStartTimer"
IT = "it"
"""The name that stands for what was spoken of last, in every language."""

_MOST_SEGMENTS = 8
_UNKNOWN_THINGS = frozenset(("",))
"""Stands for what is left out where nobody knows what that is."""

_WHICH = ("name", "area", "domain", "device_class", "scope")
_LONG_NAME = 2  # units
_OPENINGS = frozenset(("cover", "lock", "valve"))
_OF_THE_HOME = frozenset(("HassTurnOn", "HassTurnOff", "HassLightSet", "HassSetPosition"))


@dataclass(frozen=True)
class SentenceReader:
    """Reads sentences for one conversation.

    Args:
        home: the home that is spoken to.
        understand: returns what a model makes of a sentence.
        values: the lexicon of the bundle.
        here: the area of the speaker, if known.
        recent: what was spoken of before.
        spared: the ids that stay as they are in this sentence.
    """

    home: Home
    understand: Understand
    values: Values
    here: str | None = None
    recent: Recent = NOTHING
    spared: frozenset[str] = frozenset()
    # what words alone say; `recent` is kept so that its id stays its own
    _known: dict[Any, tuple[Recent, list[SpokenPart]]] = field(default_factory=dict, compare=False)

    def read(self, sentence: str) -> list[SpokenPart]:
        """Return the parts of a sentence in their order, at least one.

        Raises:
            TumenError: the sentence is not accepted, or no model answers.
        """
        plainly = self._plainly(sentence) or self._sparing(sentence)
        if plainly:
            return plainly
        clauses = _without_asides(clauses_of(sentence))
        marked = [(clause, self._marks(clause.said)) for clause in clauses]
        parts: list[SpokenPart] = []
        for number, (clause, marks) in enumerate(marked):
            spread = [*marks, *spread_to(number, marked)]
            parts += self._after(parts)._parts(clause.said, spread)
        return parts

    def _after(self, parts: Sequence[SpokenPart]) -> SentenceReader:
        """Return a reader for which `it` is what some parts of the sentence are about."""
        recent = self.recent.after([part.resolution for part in parts])
        # `lights off in the hall and the blind down`: the one in the hall
        areas = {
            self.home.entities[id_].area
            for id_ in recent.targets
            if parts and id_ in self.home.entities
        }
        here = self.here or (areas.pop() if len(areas) == 1 else None) or None
        return replace(self, recent=recent, here=here)

    # -- words alone -----------------------------------------------------------------------------

    def _plainly(self, sentence: str) -> list[SpokenPart]:
        """Return the parts of a sentence whose every word is known; none for another one."""
        said = normalise(sentence)
        corrected = self._commands.correction(said)
        if corrected:
            return [by_words(said, read) for read in corrected]
        if not self._are_names(said, self._marks(said)):
            return []
        segments = segments_of(sentence)
        if len(segments) > _MOST_SEGMENTS:
            return []

        def read(words: str, before: Sequence[SpokenPart]) -> list[SpokenPart]:
            # `and the other one` goes on where the last turn ended
            led = segments[0][0] if not before else ""
            joined = led if led != "," else ""
            return self._after(before).read_words(normalise(f"{joined} {words}"))

        return best_partition(segments, read, MAX_CLAUSES)

    def _sparing(self, sentence: str) -> list[SpokenPart]:
        """Return the parts of a sentence that also says what stays as it is; none for another."""
        for spared in spared_in(sentence):
            if self._marks(spared.core):
                continue
            kept = self._things(spared)
            # `all lights off` may be those of this room or of the whole home
            for here in dict.fromkeys((self.here, None)):
                reader = replace(self, here=here, spared=kept or frozenset())
                parts = reader._plainly(spared.core)
                if any(is_wider(part, kept) for part in parts):
                    return [leaving(part, kept, spared.about) for part in parts]
        return []

    def _things(self, spared: Spared) -> frozenset[str] | None:
        """Return what the words of a part say that stays as it is; None if that is not clear."""
        for lang in languages_of(script_of(spared.core)):
            kept = things_of(spared.about, lang, {}, self.home, self.here)
            if kept is not None:
                return kept
        return None

    @property
    def _commands(self) -> CommandReader:
        """What reads a clause by its words."""
        return CommandReader(self.home, self.values, self.here, self.recent, self.spared)

    def read_words(self, said: str) -> list[SpokenPart]:
        """Return the parts of a clause whose every word is known; none for another one."""
        # the same words are looked at several times, alone and beside others
        key = (said, id(self.recent), self.here, self.spared)
        # `a bit cold in here` is no command to make it colder
        if is_complaint(said) or wish_spans(said):
            return []
        if key not in self._known:
            parts = [by_words(said, read) for read in self._commands.read(said) or ()]
            self._known[key] = (self.recent, parts)
        return list(self._known[key][1])

    # -- marks -----------------------------------------------------------------------------------

    def _marks(self, said: str) -> list[Mark]:
        """Return the marks of a clause; words that name a thing of the home are none."""
        return marks_of(said, [*self._names_in(said), *wish_spans(said), *amount_spans(said)])

    def _are_names(self, said: str, marks: Sequence[Mark]) -> bool:
        """Whether all marks of a sentence are names of things: a lamp that is called `Sunrise`.

        `at sunrise` is more than that name, and a time.
        """
        spans = [span for mark in marks for span in mark.spans]
        if not spans:
            return not marks
        named = []
        for mention in mentions_of(self.home.index, said, language_of(said, LANGUAGES[0])):
            if mention.entities:
                at = said.find(mention.words)
                named.append((at, at + len(mention.words)))
        return all(
            any(first <= start and end <= last for first, last in named) for start, end in spans
        )

    def _names_in(self, said: str) -> list[tuple[int, int]]:
        """Return (start, end) of the characters that name a thing: the scene `Good night`."""
        found = []
        for mention in mentions_of(self.home.index, said, language_of(said, LANGUAGES[0])):
            # a scene called `Morning` does not take the time out of `every morning`
            if mention.entities and mention.end - mention.start >= _LONG_NAME:
                at = said.find(mention.words)
                found.append((at, at + len(mention.words)))
        return found

    def _understood(self, said: str) -> Interpretation:
        """Return what a model makes of a clause; what a complaint asks for is known."""
        by_words = self.read_words(said)
        if by_words:
            return by_words[0].found
        found = self.understand(said)
        if names_one(found.action):
            return replace(found, action=Action(NONE, found.action.lang))
        action = with_complaint(said, found.action)
        wished = with_wish(said, action, self.home, self.here or self.home.here)
        if wished is action:
            wished = with_amount(said, action, self.home, self.values)
        return replace(found, action=with_said_kind(said, wished, self.home))

    # -- parts -----------------------------------------------------------------------------------

    def _parts(self, said: str, marks: Sequence[Mark]) -> list[SpokenPart]:
        """Return the parts of one clause.

        Args:
            said: the clause.
            marks: its own marks, and those of the others that hold for it.
        """
        excepted = [mark for mark in marks if mark.kind == "except"]
        if excepted and not self.spared:
            # `the rest` is all but these
            kept = self._things(Spared(said, excepted[0].about)) or _UNKNOWN_THINGS
            return replace(self, spared=kept)._parts(said, marks)
        found = self._without_model(said, marks)
        if found is None:
            found = self._with_all_said(said, self._understood(said), marks)
            if _is_for_later(found.action) and not any(mark.kind == "moment" for mark in marks):
                # no time was said: a model made it up
                about = {"words": found.action.slots["command"]}
                refusal = Refusal(found.action.intent, found.action.lang, "unaccounted", about)
                return [SpokenPart(said, found, found.action, refusal)]
            marks = [mark for mark in marks if not is_content(said, found.action, mark)]
        if not marks or not _changes_something(found.action):
            return self._plain(said, found)
        stopped = _reason_to_stop(found.action, marks)
        if stopped:
            return [SpokenPart(said, found, found.action, stopped)]
        core = without_marks(said, marks)
        if not core:
            return [SpokenPart(said, found, found.action, as_it_is(found.action))]
        return self._with_marks(core, found, marks)

    def _without_model(self, said: str, marks: Sequence[Mark]) -> Interpretation | None:
        """Return what the words of a clause beside its marks say; None if that is not clear."""
        core = without_marks(said, marks)
        by_words = self.read_words(core) if core and marks else []
        if not by_words:
            return None
        found = by_words[0].found
        # `a timer for five minutes`: the time is its length
        if "Timer" in found.action.intent:
            return None
        # `the radio at eight` may be a time or a volume
        weak = [mark for mark in marks if mark.moment and mark.moment.weak]
        return None if any(is_content(said, found.action, mark) for mark in weak) else found

    def _with_all_said(
        self, said: str, found: Interpretation, marks: Sequence[Mark]
    ) -> Interpretation:
        """Return what a clause means without its exception, if a model takes it for a question."""
        excepted = [mark for mark in marks if mark.kind == "except" and mark.spans]
        if not excepted or _changes_something(found.action) or found.action.intent == NONE:
            return found
        core = without_marks(said, excepted)
        return self._understood(core) if core else found

    def _plain(self, said: str, found: Interpretation) -> list[SpokenPart]:
        """Return the parts of a clause without marks."""
        by_words = self.read_words(said)
        if by_words:
            return by_words
        lang = found.action.lang
        sentences = one_thing_each(said, self.home.index, lang)
        if len(sentences) == 1 or not _changes_something(found.action):
            return self._resolved(said, found)
        parts: list[SpokenPart] = []
        for sentence in sentences:
            parts += self._resolved(sentence, self._understood(sentence))
        return parts

    def _resolved(self, said: str, found: Interpretation) -> list[SpokenPart]:
        """Return the resolved parts of a clause about one thing, or about several items."""
        return [
            SpokenPart(said, found, *self._resolve(said, action))
            for action in items_of(said, found.action)
        ]

    def _resolve(self, said: str, action: Action) -> tuple[Action, Resolution]:
        """Return an action with the names that were said, and what it means in the home."""
        grounded = ground(said, action, self.home)
        action = with_colour(said, grounded.action, self.values)
        action = corrected(said, action, self.home, self.values)
        if grounded.unaccounted:
            about = {"words": grounded.unaccounted}
            return action, Refusal(action.intent, action.lang, "unaccounted", about)
        # `door` alone opens none
        alone = kind_word("".join(split(said)))
        if alone and action.intent in _OF_THE_HOME and alone[0].domains & _OPENINGS:
            return action, Refusal(NONE, action.lang, "not_home")
        if action.slots.get("item", "") in words_of(script_of(said), "pronouns"):
            return action, Question(action.intent, action.lang, reason="what")
        action = self._with_reference(said, action)
        resolution = self._look_up(action)
        if not isinstance(resolution, Resolved) or len(resolution.targets) < 2:
            return action, resolution
        qualifier = ""
        narrows = action.intent in _OF_THE_HOME and not action.slots.get("name")
        # `a bit more light`: the words before the kind are no name
        if narrows and not wish_spans(said):
            qualifier = unknown_qualifier(said, action, self.home)
        if not qualifier and action.intent in _OF_THE_HOME and not wish_spans(said):
            slots_said = " ".join(action.slots.values())
            # `outside` may be a place that the model knows
            left = [word for word in self._commands.unaccounted(said) if word not in slots_said]
            if left:
                return action, self._which(action, resolution)
        if not qualifier:
            return action, resolution
        # `the spot light` is one lamp, or none, but not all of them
        slots = {key: value for key, value in action.slots.items() if key != "domain"}
        action = replace(action, slots={**slots, "name": qualifier})
        return action, self._look_up(action)

    def _which(self, action: Action, resolution: Resolved) -> Question:
        """Return the question which of the things that an act is about is meant."""
        options = tuple(
            Candidate(self.home.title(id_, action.lang), (id_,)) for id_ in resolution.targets
        )
        return Question(action.intent, action.lang, options, resolution.values)

    def _with_reference(self, said: str, action: Action) -> Action:
        """Return an act about what was spoken of last, where a pronoun is all that names it."""
        script = script_of(said)
        if action.intent not in ACTS or "name" not in INTENTS[action.intent]:
            return action
        pronoun = pattern_of(script, "pronouns").search(said)
        if pronoun is None or not self.recent.targets or is_complaint(said):
            return action
        if mentions_of(self.home.index, said, action.lang):
            return action
        # `make it brighter in here` is about this room
        if action.slots.get("area"):
            return action
        kept = {slot: words for slot, words in action.slots.items() if slot not in _WHICH}
        referred = replace(action, slots={"name": IT, **kept})
        return referred if isinstance(self._look_up(referred), Resolved) else action

    def _look_up(self, action: Action) -> Resolution:
        """Return what an action means in the home."""
        return resolve(action, self.home, self.values, self.here, self.recent.targets)

    # -- what marks change -----------------------------------------------------------------------

    def _with_marks(
        self, core: str, whole: Interpretation, marks: Sequence[Mark]
    ) -> list[SpokenPart]:
        """Return the parts of a clause with exceptions or a time.

        Args:
            core: the clause without its marks.
            whole: what a model makes of the clause with its marks.
            marks: exceptions and moments.
        """
        found = self._understood(core)
        # a model may need the whole clause to see that it is an act (`all off but the hall`)
        if not _changes_something(found.action):
            excepts = any(mark.kind == "except" for mark in marks)
            found = replace(whole, action=_within(core, whole.action, excepts))
        excepted = [mark for mark in marks if mark.kind == "except"]
        parts = self._plain(core, found)
        if excepted:
            parts = self._with_exceptions(core, found, excepted)
        for mark in marks:
            if mark.kind == "moment":
                parts = [self._at(part, mark, marks) for part in parts]
        return parts

    def _with_exceptions(
        self, core: str, found: Interpretation, excepted: Sequence[Mark]
    ) -> list[SpokenPart]:
        """Return the parts of a clause without the things that its exceptions take out."""
        first: list[SpokenPart] = []
        # `all lights but the hall` is about more than a room that is not the hall
        for here in dict.fromkeys((self.here, None)):
            reader = replace(self, here=here)
            whole = parts = [reader._of_all(part) for part in reader._plain(core, found)]
            for mark in excepted:
                parts = [reader._without(part, mark.about) for part in parts]
            first = first or parts
            if [part.resolution for part in parts] != [part.resolution for part in whole]:
                return parts
        return first

    def _of_all(self, part: SpokenPart) -> SpokenPart:
        """Return a part about all that fits, where it is not clear which of them is meant."""
        if not isinstance(part.resolution, Question) or "scope" not in INTENTS[part.action.intent]:
            return part
        slots = {**part.action.slots, "scope": "all"}
        action = replace(part.action, slots=slots)
        return replace(part, action=action, resolution=self._look_up(action))

    def _without(self, part: SpokenPart, about: str) -> SpokenPart:
        """Return a part without the things that an exception takes out."""
        kinds = {
            key: value
            for key, value in part.action.slots.items()
            if key in ("domain", "device_class")
        }
        kept = things_of(about, part.action.lang, kinds, self.home, self.here)
        return leaving(part, kept, about)

    def _at(self, part: SpokenPart, mark: Mark, marks: Iterable[Mark]) -> SpokenPart:
        """Return a part that is done at a moment instead of now."""
        resolution = part.resolution
        if not isinstance(resolution, Resolved) or mark.moment is None:
            return part
        now = self.home.clock()
        seconds = (mark.moment.at(now) - now).total_seconds()
        # exceptions are said again when the time has come
        spared = [other.words for other in marks if other.kind == "except"]
        command = " ".join([part.said, *spared])
        later = Resolved(
            _START_TIMER,
            part.action.lang,
            values={"seconds": round(seconds), "command": command},
            place=self.here,
        )
        return replace(part, resolution=later)


def _without_asides(clauses: Sequence[Clause]) -> list[Clause]:
    """Return the clauses of a sentence without `stop` and `no`, unless that is all that is said."""
    asides = common_words().nevermind
    return [clause for clause in clauses if spoken(clause.said) not in asides] or [*clauses]


def _within(said: str, action: Action, excepts: bool) -> Action:
    """Return an act with those of its slots whose words are in a clause.

    Args:
        said: the clause without its marks.
        action: what a model makes of the clause with them.
        excepts: whether something is taken out, so that the act is about all else that fits.
    """
    slots = action.slots.items()
    kept = {slot: words for slot, words in slots if slot in CLOSED or words in said}
    if excepts and "scope" in INTENTS[action.intent]:
        kept["scope"] = "all"
    ordered = {slot: kept[slot] for slot in INTENTS[action.intent] if slot in kept}
    return replace(action, slots=ordered)


def _is_for_later(action: Action) -> bool:
    """Whether an action is a command that a timer carries out."""
    return action.intent == _START_TIMER and "command" in action.slots


def _changes_something(action: Action) -> bool:
    """Whether an action is an act."""
    return action.intent in ACTS


def _reason_to_stop(action: Action, marks: Iterable[Mark]) -> Refusal | None:
    """Return why nothing is done now, if the marks say so."""
    for mark in marks:
        if mark.kind == "negative":
            return as_it_is(action)
    for mark in marks:
        if mark.kind in NO_COMMAND:
            return Refusal(NONE, action.lang, "not_home")
        if mark.kind in WAITING:
            return Refusal(action.intent, action.lang, "later", {"words": mark.words})
    return None
