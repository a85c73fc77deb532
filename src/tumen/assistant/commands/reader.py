"""Reader: plain commands read by their words and the names of the home, without a model.

A clause is read only if every word of it has a role, so nothing that was said is dropped. What is
not read here is left to the templates and the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tumen.assistant.commands.command import Command, Named, commands_of
from tumen.assistant.commands.command_words import ACT, bare_units, words_of_commands
from tumen.assistant.commands.list_commands import list_actions, more_items
from tumen.assistant.commands.meaning import actions_of, domains_of
from tumen.assistant.commands.recent import NOTHING, Recent, like_last_in, others_of, several_of
from tumen.assistant.commands.scan import PLACE, THING, UNKNOWN, scan
from tumen.assistant.intents import ACTS_ON
from tumen.assistant.modifiers import languages_of, script_of
from tumen.assistant.resolution import Candidate, Question, Refusal, Resolution, Resolved, resolve
from tumen.assistant.values import Values
from tumen.home import Home, Kind, common_words, split
from tumen.language import INTENTS, LANGUAGES, NUMBERS, Action

Read = tuple[Action, Resolution]
"""An act and what it means in the home."""

_IT = "it"
_ADDS = ("HassListAddItem", "HassShoppingListAddItem")
_NO_ITEM = (ACT, THING, PLACE, "pronouns")
_LIGHTS = frozenset(("light",))
_STEPS = frozenset(
    ("brighter", "darker", "louder", "quieter", "warmer", "cooler", "faster", "slower")
)
_TRIED = ("light", "cover", "lock", "media_player", "climate", "fan", "vacuum", "lawn_mower")
"""Domains that an unknown name may be of, as far as they give a word another meaning."""


@dataclass(frozen=True)
class CommandReader:
    """Reads commands for one conversation.

    Args:
        home: the home that is spoken to.
        values: the lexicon of the bundle.
        here: the area of the speaker, if known.
        recent: what was spoken of before.
        spared: the ids that stay as they are, so that `the rest` is all else.
    """

    home: Home
    values: Values
    here: str | None = None
    recent: Recent = NOTHING
    spared: frozenset[str] = frozenset()

    def read(self, said: str) -> list[Read] | None:
        """Return the acts of a normalised clause; None if a word of it has no role.

        Args:
            said: the clause, without negations, exceptions and times.
        """
        for lang in _languages(said):
            found = self._read(said, lang)
            if found:
                return found
        return None

    def correction(self, said: str) -> list[Read] | None:
        """Return the last act on another thing, if a sentence corrects it (`no, the lamp`)."""
        for lang in _languages(said):
            for command in self._commands(said, lang):
                if "corrections" in command.flags and not command.says_what:
                    found = self._repeated(command, lang)
                    if found:
                        return found
        return None

    def unaccounted(self, said: str) -> list[str]:
        """Return the words of a command that have no role, if all its other words have one.

        `turn on the lamp for sewing` is about one lamp, or none, but not about all of them.
        """
        for lang in _languages(said):
            pieces = scan(said, self.home, self.values, lang)
            for command in commands_of(pieces, words_of_commands(lang)):
                if command.unknown and command.acts:
                    return [piece.words for piece in pieces if piece.may_be(UNKNOWN)]
        return []

    def _read(self, said: str, lang: str) -> list[Read] | None:
        """Return the acts of a clause in one language."""
        listed = list_actions(said, lang, self.home)
        if listed:
            return [(action, self._look_up_item(action)) for action in listed]
        for command in self._commands(said, lang):
            found = self._meant(command, lang)
            if found:
                return found
        return self._more_items(said, lang)

    def _look_up_item(self, action: Action) -> Resolution:
        """Return what an act on a list means; `it` is nothing to write down."""
        words = bare_units(action.slots["item"])
        roles = words_of_commands(action.lang).roles.get(words, ())
        if any(role.name == "pronouns" for role in roles):
            return Question(action.intent, action.lang, reason="what")
        return self._look_up(action)

    def _more_items(self, said: str, lang: str) -> list[Read] | None:
        """Return `and tomatoes` as more items for the list that was spoken of last."""
        last = self.recent.acts[-1] if self.recent.acts else None
        if last is None or last.intent not in _ADDS:
            return None
        known = scan(said, self.home, self.values, lang)
        if any(piece.may_be(role) for piece in known for role in _NO_ITEM):
            return None
        found: list[Read] = []
        for item in more_items(said, lang):
            slots = {"item": item} if "Shopping" in last.intent else {"name": _IT, "item": item}
            action = Action(last.intent, lang, slots)
            found.append((action, replace(last, lang=lang, values={**last.values, "item": item})))
        return found or None

    def _commands(self, said: str, lang: str) -> Iterator[Command]:
        """Yield the readings of a clause in which every word has a role."""
        yield from commands_of(scan(said, self.home, self.values, lang), words_of_commands(lang))

    def _meant(self, command: Command, lang: str) -> list[Read] | None:
        """Return what one reading means; None if it means nothing here."""
        if command.unknown and command.says_what:
            return self._of_unknown(command, lang)
        if not command.says_what:
            follows = command.flags & {"also", "again", "corrections"} or command.leads
            return self._repeated(command, lang) if follows else None
        if command.flags & {"other", "pronouns", "plurals"}:
            # `make it brighter in here` is about this room
            return None if command.targets else self._of_last(command, lang)
        if not command.targets:
            if command.flags & {"everything", "rest"}:
                return self._plain(command, (Named(),), lang)
            return self._of_last(command, lang) if self._goes_on(command) else None
        if command.flags & {"ones", "also"} and all(t.is_place for t in command.targets):
            return self._like_last(command, lang)
        return self._plain(command, command.targets, lang)

    def _goes_on(self, command: Command) -> bool:
        """Whether a command without a target goes on from what was said before.

        `turn on` alone does not; `off again` and `a bit brighter` do.
        """
        if not self.recent.fresh:
            return False
        if self.recent.same_sentence or command.values or command.leads or command.count:
            return True
        if command.flags & {"follows", "again", "also", "a_bit"}:
            return True
        return bool(set(command.acts) & _STEPS)

    # -- named targets ---------------------------------------------------------------------------

    def _plain(self, command: Command, targets: Sequence[Named], lang: str) -> list[Read] | None:
        """Return what is done to targets that were named."""
        if "rest" in command.flags:
            # the rest of what?
            if not self.spared:
                return None
            targets = [self._of_the_rest(target) for target in targets]
        targets = [self._in_own_room(command, target) for target in targets]
        with_domains = [(target, domains_of(target, self.home)) for target in targets]
        actions = actions_of(command, with_domains, lang, self.values)
        if not actions:
            return None
        found = [(action, self._look_up(action)) for action in actions]
        return self._counted(command, found)

    def _of_the_rest(self, target: Named) -> Named:
        """Return `the rest` as things of the kind of those that stay as they are."""
        entities = self.home.entities
        domains = frozenset(entities[id_].domain for id_ in self.spared if id_ in entities)
        if target.name or target.kind or len(domains) != 1:
            return target
        return replace(target, kind=Kind(domains))

    def _in_own_room(self, command: Command, target: Named) -> Named:
        """Return `all the lights` as those of the speaker's room, if it is known."""
        if target.area or target.name or target.kind is None or self.here is None:
            return target
        if "everywhere" in command.flags or not command.flags & {"all", "rest"}:
            return target
        area = self.home.areas.get(self.here)
        if area is None or target.kind.domains != _LIGHTS:
            return target
        return replace(target, area=area.name)

    def _counted(self, command: Command, found: list[Read]) -> list[Read] | None:
        """Return acts on as many things as were said; others become a question."""
        if not command.count:
            return found
        targets = {
            target
            for _, resolution in found
            if isinstance(resolution, Resolved)
            for target in resolution.targets
        }
        if len(targets) == command.count or len(found) == command.count:
            return found
        action, resolution = found[0]
        return [(action, self._which(action, tuple(sorted(targets)), resolution))]

    def _of_unknown(self, command: Command, lang: str) -> list[Read] | None:
        """Return what is done to a thing whose name was said in part or misspelt."""
        if command.flags & {"pronouns", "other", "ones", "corrections", "everything", "rest"}:
            return None
        for words in dict.fromkeys(command.unknown):
            found = self._of_name(command, words, lang)
            if found:
                return found
        return None

    def _of_name(self, command: Command, words: str, lang: str) -> list[Read] | None:
        """Return what is done to a thing by some words; None if they find nothing."""
        tried: set[str] = set()
        for domain in _TRIED:
            named = (Named(words), frozenset((domain,)))
            actions = actions_of(command, [named], lang, self.values)
            if not actions or str(actions) in tried:
                continue
            tried.add(str(actions))
            found = [(action, self._look_up(action)) for action in actions]
            if all(self._is_meant_so(command, words, read, lang) for read in found):
                return found
        return None

    def _is_meant_so(self, command: Command, words: str, read: Read, lang: str) -> bool:
        """Whether what was found by some words is of a kind for which the act means the same."""
        action, resolution = read
        if isinstance(resolution, Refusal):
            return False
        ids = (
            [id_ for option in resolution.options for id_ in option.targets]
            if isinstance(resolution, Question)
            else list(resolution.targets)
        )
        domains = frozenset(self.home.entities[id_].domain for id_ in ids)
        again = actions_of(command, [(Named(words), domains)], lang, self.values) or []
        return action in again

    # -- targets of the turns before -------------------------------------------------------------

    def _of_last(self, command: Command, lang: str) -> list[Read] | None:
        """Return what is done to `it`, to `the other one`, or to what was spoken of last."""
        ids = self.recent.targets
        if command.count or "plurals" in command.flags:
            ids = several_of(self.recent, command.count)
        if "other" in command.flags:
            ids = others_of(self.recent, self.home)
        return self._to(command, ids, lang, several="other" not in command.flags)

    def _like_last(self, command: Command, lang: str) -> list[Read] | None:
        """Return what is done to a thing like the last one in another place."""
        found: list[Read] = []
        for target in command.targets:
            place = self.home.index.place(target.area, lang)
            if place is None or not self.recent.targets:
                return None
            ids = like_last_in(self.recent, self.home, place)
            read = self._to(command, ids, lang, several=len(self.recent.targets) > 1)
            if not read:
                return None
            found += read
        return found

    def _to(
        self, command: Command, ids: Sequence[str], lang: str, several: bool
    ) -> list[Read] | None:
        """Return what is done to things by their ids.

        Args:
            command: what was said.
            ids: the things.
            lang: the language of the speaker.
            several: whether several of them may be meant.
        """
        entities = [self.home.entities[id_] for id_ in ids if id_ in self.home.entities]
        domains = frozenset(entity.domain for entity in entities)
        if not domains:
            return None
        actions = actions_of(command, [(Named(_IT), domains)], lang, self.values)
        if not actions:
            return None
        reader = replace(self, recent=replace(self.recent, targets=tuple(ids)))
        found = [(action, reader._look_up(action)) for action in actions]
        if several or all(_is_of_one(resolution) for _, resolution in found):
            return found
        action, resolution = found[0]
        return [(action, self._which(action, tuple(ids), resolution))]

    # -- the last act again ----------------------------------------------------------------------

    def _repeated(self, command: Command, lang: str) -> list[Read] | None:
        """Return the last acts once more, or with other things."""
        acts = self.recent.acts
        if not acts:
            return None
        if not command.targets and "other" not in command.flags and not command.unknown:
            if "again" not in command.flags:
                return None
            return [(_action_of(act, lang), replace(act, lang=lang)) for act in acts]
        # of several acts the last one is meant
        last = acts[-1]
        found: list[Read] = []
        for target in command.targets or (Named(),):
            read = self._with_target(last, command, target, lang)
            if read is None:
                return None
            found.append(read)
        return found

    def _with_target(
        self, act: Resolved, command: Command, target: Named, lang: str
    ) -> Read | None:
        """Return an act with another thing."""
        action = _action_of(act, lang)
        if command.unknown:
            return self._with_name(act, command.unknown, lang)
        if "other" in command.flags:
            if target != Named():
                return None
            ids = others_of(self.recent, self.home)
            return self._with_ids(act, action, ids, several=False)
        if target.is_place or "ones" in command.flags:
            place = self.home.index.place(target.area, lang) if target.area else None
            if place is None:
                return None
            ids = like_last_in(self.recent, self.home, place)
            # a temperature is one of a room, whatever measures it
            # what was found by its kind in one place is looked for by it in another
            several = len(act.targets) > 1 or act.place is not None
            read = self._with_ids(act, action, ids, several)
            if read and isinstance(read[1], Resolved):
                return read[0], replace(read[1], place=place.id)
            return read
        domains = domains_of(target, self.home)
        if not domains & frozenset(ACTS_ON.get(act.intent, ())):
            return None
        which = {"area": target.area} if target.area else {}
        which["name"] = target.name or target.kind_words
        return self._with_which(act, which, lang)

    def _with_name(self, act: Resolved, names: Sequence[str], lang: str) -> Read | None:
        """Return an act with a thing whose name was said in part (`the right one`)."""
        areas = {self.home.entities[id_].area for id_ in act.targets if id_ in self.home.entities}
        for name in dict.fromkeys(names):
            # one beside the last one comes first
            for area in (*sorted(area for area in areas if area), ""):
                near = {"area": self.home.areas[area].name} if area else {}
                read = self._with_which(act, {**near, "name": name}, lang)
                if isinstance(read[1], (Resolved, Question)):
                    return read
        return None

    def _with_which(self, act: Resolved, which: Mapping[str, str], lang: str) -> Read:
        """Return an act with things that slots name."""
        named = Action(act.intent, lang, {s: which[s] for s in INTENTS[act.intent] if s in which})
        resolution = self._look_up(named)
        if isinstance(resolution, (Resolved, Question)):
            return named, replace(resolution, values=act.values)
        return named, resolution

    def _with_ids(
        self, act: Resolved, action: Action, ids: Sequence[str], several: bool
    ) -> Read | None:
        """Return an act on other things by their ids; a question where one of several is meant."""
        if not ids:
            return None
        if len(ids) > 1 and not several:
            return action, self._which(action, tuple(ids), act)
        return action, replace(act, lang=action.lang, targets=tuple(sorted(ids)), place=None)

    # -- looking up ------------------------------------------------------------------------------

    def _which(self, action: Action, ids: tuple[str, ...], resolution: Resolution) -> Question:
        """Return the question which of several things is meant."""
        titles = [self.home.title(id_, action.lang) for id_ in ids]
        options = tuple(Candidate(title, (id_,)) for title, id_ in zip(titles, ids, strict=True))
        reason = "which" if options else "what"
        return Question(action.intent, action.lang, options, resolution.values, reason)

    def _look_up(self, action: Action) -> Resolution:
        """Return what an action means in the home."""
        return resolve(action, self.home, self.values, self.here, self.recent.targets)


def names_one(action: Action) -> bool:
    """Return whether a number of an action is the `one` of `the kitchen one`."""
    words = words_of_commands(action.lang).roles
    return any(
        role.name == "ones"
        for slot in NUMBERS & action.slots.keys()
        for role in words.get(bare_units(action.slots[slot]), ())
    )


def _is_of_one(resolution: Resolution) -> bool:
    """Whether an act is about one thing."""
    return isinstance(resolution, Resolved) and len(resolution.targets) == 1


def _action_of(act: Resolved, lang: str) -> Action:
    """Return an act that is done again as an action about what was spoken of last."""
    slots = {"name": _IT} if "name" in INTENTS[act.intent] else {}
    return Action(act.intent, lang, slots)


def _languages(said: str) -> list[str]:
    """Return the languages that a sentence may be in, the likeliest first."""
    languages = languages_of(script_of(said))
    # `turn on 阅读灯`: a name may be in another script than the command
    if any(char.isascii() and char.isalpha() for char in said):
        languages = tuple(dict.fromkeys((*languages, *LANGUAGES)))
    pieces = split(said)
    stops = common_words().stop
    return sorted(languages, key=lambda lang: -sum(piece in stops[lang] for piece in pieces))
