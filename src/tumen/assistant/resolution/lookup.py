"""Lookup: one action that is looked up in one home, and what is known about it so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tumen.assistant.intents import ACTS_ON, ASKED_OF, DEVICE_CLASS_KINDS
from tumen.assistant.resolution.results import Candidate, Question, Refusal, Resolved, Unresolved
from tumen.assistant.values import Value
from tumen.home import Entity, Home, Index, Kind, NamedPlace, Phrase
from tumen.language import Action


@dataclass
class Lookup:
    """One action that is looked up in one home.

    Args:
        action: what was understood; steps may rewrite its slots.
        home: where it is looked up.
        here: the area of the speaker, if known.
        last: the ids that "it" stands for.
        values: the values read so far, slot -> number or text.
        place: the id of the place that was found.
        any_domain: whether a device of any domain may answer.
    """

    action: Action
    home: Home
    here: str | None = None
    last: tuple[str, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    place: str | None = None
    any_domain: bool = False

    # -- the action ------------------------------------------------------------------------------

    def slot(self, name: str) -> str:
        """Return the words of a slot, empty if the action does not have it."""
        return self.action.slots.get(name, "").strip()

    def rewrite(self, **slots: str) -> None:
        """Set slots of the action for the steps that follow."""
        self.action = replace(self.action, slots={**self.action.slots, **slots})

    @property
    def lang(self) -> str:
        """The speaker's language."""
        return self.action.lang

    @property
    def intent(self) -> str:
        """The intent of the action."""
        return self.action.intent

    @property
    def is_question(self) -> bool:
        """Whether it asks about states, which means the whole home unless a place is named."""
        return self.intent == "HassGetState"

    @property
    def kind(self) -> Kind | None:
        """The kind that the closed slots `domain` and `device_class` name."""
        domain = self.slot("domain")
        device_class = self.slot("device_class")
        # a window that is asked about may be a cover or a sensor; one that is opened is a cover
        if device_class and (self.is_question or not domain):
            return Kind.of(DEVICE_CLASS_KINDS.get(device_class, f"cover:{device_class}"))
        if domain:
            return Kind(frozenset((domain,)), device_class)
        return None

    @property
    def allowed(self) -> frozenset[str]:
        """The domains that this action may touch; empty means any."""
        if self.any_domain:
            return frozenset()
        if not self.is_question:
            return frozenset(ACTS_ON.get(self.intent, ()))
        # only people are somewhere
        if self.slot("zone") or self.slot("ask") == "where":
            return frozenset(("person",))
        return frozenset(ASKED_OF.get(self.slot("state"), ()))

    @property
    def all_meant(self) -> bool:
        """Whether all of several candidates are meant."""
        if self.slot("scope") == "all":
            return True
        # such questions are about every device that fits
        return self.is_question and self.slot("ask") in ("any", "all", "which", "how_many")

    # -- the home --------------------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """The names of the home."""
        return self.home.index

    def parse(self, words: str) -> Phrase:
        """Return a phrase taken apart, in the speaker's language."""
        return self.index.parse(words, self.lang)

    def entity(self, id_: str) -> Entity:
        """Return an entity of the home."""
        return self.home.entities[id_]

    def may_touch(self, entity: Entity) -> bool:
        """Return whether the action may touch an entity."""
        return not self.allowed or entity.domain in self.allowed

    def title(self, id_: str) -> str:
        """Return what a thing or place is called, in the speaker's language."""
        return self.home.title(id_, self.lang)

    def state_word(self, id_: str) -> str:
        """Return the state of an entity, such as `on`."""
        return str(self.home.state(id_).get("state"))

    @property
    def speakers_place(self) -> NamedPlace | None:
        """The area of the speaker as a place; None if it is not known."""
        if self.here is None:
            return None
        return NamedPlace(self.here, frozenset((self.here,)))

    # -- results ---------------------------------------------------------------------------------

    def resolved(self, targets: Iterable[str] = ()) -> Resolved:
        """Return the result with these targets."""
        ids = tuple(sorted(set(targets)))
        return Resolved(self.intent, self.lang, ids, self.values, self.place)

    def refusal(self, reason: str, **about: Value) -> Unresolved:
        """Return a refusal to raise."""
        return Unresolved(Refusal(self.intent, self.lang, reason, about, self.values))

    def question(self, reason: str, options: Sequence[Candidate] = ()) -> Unresolved:
        """Return a question to raise.

        Args:
            reason: what is missing.
            options: what the speaker may choose from.
        """
        return Unresolved(Question(self.intent, self.lang, tuple(options), self.values, reason))

    def only_option(self, options: Sequence[Candidate]) -> list[str]:
        """Return the ids of the only option; none if there are no options.

        Raises:
            Unresolved: the question which of several.
        """
        if len(options) > 1:
            raise self.question("which", options)
        if not options:
            return []
        return list(options[0].targets)

    def which(self, ids: Sequence[str]) -> Unresolved:
        """Return the question which of these is meant, to raise."""
        titles = [self.title(id_) for id_ in ids]
        options = []
        for id_, title in zip(ids, titles, strict=True):
            # equal names get their rooms added
            label = title
            if titles.count(title) > 1:
                label = self._with_area(id_, title)
            options.append(Candidate(label, (id_,)))
        return self.question("which", options)

    def _with_area(self, id_: str, title: str) -> str:
        """Return a title with its area, to distinguish it from the same title elsewhere."""
        entity = self.home.entities.get(id_)
        if entity is None or not entity.area:
            return title
        return f"{title} ({self.title(entity.area)})"
