"""Command: the pieces of a clause put together as an act, its targets and its values.

Every word must have a role. Words may have several (`on` is an act and a small word), so the roles
are tried in turn until the words that are left say an act that the vocabulary has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tumen.assistant.commands.command_words import ACT, CommandWords, Role, bare_units
from tumen.assistant.commands.scan import HERE, KIND, PLACE, THING, UNKNOWN, VALUE, Piece
from tumen.home import Kind
from tumen.language import is_cjk, normalise

_MOST_READINGS = 256
_GOES_ON = ("also", "ones", "corrections")
"""Roles by which a sentence without an act goes on from the one before."""

_FLAGS = frozenset(
    (
        "pronouns",
        "plurals",
        "other",
        "ones",
        "also",
        "again",
        "corrections",
        "all",
        "everything",
        "rest",
        "a_bit",
        "follows",
        "by",
    )
)


@dataclass(frozen=True)
class Named:
    """What one part of an enumeration names.

    Attributes:
        name: the words of a name; empty for a kind or a place.
        entities: numbers of the things that are called so.
        kind: the kind of device, with its words.
        kind_words: what was said for the kind.
        area: the words of its place.
    """

    name: str = ""
    entities: tuple[int, ...] = ()
    kind: Kind | None = None
    kind_words: str = ""
    area: str = ""

    @property
    def is_place(self) -> bool:
        """Whether it names a place and nothing there."""
        return bool(self.area) and not self.name and self.kind is None


@dataclass(frozen=True)
class SaidValue:
    """A value that was said: a number with its unit, or a colour.

    Attributes:
        sort: `number`, `percent`, `degrees`, `color` or `white`.
        words: what was said.
        to: whether it is what something is set to, not by how much it changes.
    """

    sort: str
    words: str
    to: bool = False


@dataclass(frozen=True)
class Command:
    """One reading of a clause.

    Attributes:
        acts: what may be done; none where the words say no act.
        targets: what it is done to, in order.
        values: what it is set to.
        attribute: which value is meant, if it was said.
        count: how many things there must be; 0 if nobody said.
        flags: roles of words that stand in it.
        all_words: the word for all.
        leads: whether it begins with a word that joins it to what was said before.
        unknown: the words that nothing accounts for, with the name they belong to; as they were
            said, and without small words.
    """

    acts: tuple[str, ...] = ()
    targets: tuple[Named, ...] = ()
    values: tuple[SaidValue, ...] = ()
    attribute: str = ""
    count: int = 0
    flags: frozenset[str] = frozenset()
    all_words: str = ""
    leads: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def says_what(self) -> bool:
        """Whether it says what is to be done."""
        return bool(self.acts or self.values)


@dataclass(frozen=True)
class _Chosen:
    """A piece with the role it has in one reading."""

    piece: Piece
    role: Role


def commands_of(pieces: Sequence[Piece], words: CommandWords) -> Iterator[Command]:
    """Yield the readings of a clause in which every word has a role, the likeliest first.

    Args:
        pieces: the pieces of the clause.
        words: the words of its language.
    """
    choices = itertools.product(*(piece.roles for piece in pieces))
    seen: set[Command] = set()
    for roles in itertools.islice(choices, _MOST_READINGS):
        read = [_Chosen(piece, role) for piece, role in zip(pieces, roles, strict=True)]
        command = _command(read, words)
        if command is not None and command not in seen:
            seen.add(command)
            yield command


def _command(read: Sequence[_Chosen], words: CommandWords) -> Command | None:
    """Return one reading as a command; None if the words do not go together."""
    if not _small_words_are_small(read):
        return None
    said = _act_words(read)
    acts = words.acts.get(said, ())
    if said and not acts:
        return None
    unknown = _unknown(read)
    if unknown is None:
        return None
    values = _values(read, words)
    # words that say nothing about an act may be about anything
    if unknown and not said and not any(each.role.name in _GOES_ON for each in read):
        return None
    targets = _targets(read) if not unknown else ()
    if targets is None:
        return None
    attributes = {each.role.meaning for each in read if each.role.name == "attributes"}
    counts = {int(each.role.meaning) for each in read if each.role.name == "counts"}
    flags = {each.role.name for each in read if each.role.name in _FLAGS}
    flags |= {each.role.meaning for each in read if each.role.name == HERE}
    if len(attributes) > 1 or len(counts) > 1 or not _in_front(read, "corrections"):
        return None
    return Command(
        acts,
        targets,
        values,
        next(iter(attributes), ""),
        next(iter(counts), 0),
        frozenset(flags),
        next((each.piece.words for each in read if each.role.name == "all"), ""),
        bool(read) and read[0].role.name == "joints",
        unknown,
    )


def _act_words(read: Sequence[_Chosen]) -> tuple[tuple[str, ...], ...]:
    """Return the words that say what is done, in order; one that is said twice counts once."""
    said: list[tuple[str, ...]] = []
    for each in read:
        if each.role.name == ACT:
            word = bare_units(each.piece.words)
            if not said or said[-1] != word:
                said.append(word)
    return tuple(said)


def _small_words_are_small(read: Sequence[_Chosen]) -> bool:
    """Whether every act word that is taken for a small word stands before a place or a value.

    `on` says nothing in `the lamp on the desk`, but a lot in `switch the lights on`.
    """
    for n, each in enumerate(read):
        if each.role.name not in ("small", "to") or not each.piece.may_be(ACT):
            continue
        rest = itertools.dropwhile(lambda one: one.role.name in ("small", "to"), read[n + 1 :])
        following = next(rest, None)
        if following is None or following.role.name not in (PLACE, HERE, VALUE, UNKNOWN):
            return False
    return True


def _in_front(read: Sequence[_Chosen], name: str) -> bool:
    """Whether words of a role stand before all that means something."""
    passed = False
    for each in read:
        if each.role.name == name and passed:
            return False
        passed = passed or each.role.name not in (name, "small", "follows", "joints", "to")
    return True


def _unknown(read: Sequence[_Chosen]) -> tuple[str, ...] | None:
    """Return the words around the unknown ones that make one name; None if they are apart.

    They are returned as they were said, then without small words.
    """
    unknown = [n for n, each in enumerate(read) if each.role.name == UNKNOWN]
    if not unknown:
        return ()
    first, last = unknown[0], unknown[-1]
    named = (UNKNOWN, THING, PLACE, KIND, "small", VALUE)
    # `the strip behind the TV`: what stands beside unknown words belongs to their name
    while first > 0 and read[first - 1].role.name in named[:-1]:
        first -= 1
    while last + 1 < len(read) and read[last + 1].role.name in named[:-1]:
        last += 1
    inside = read[first : last + 1]
    if any(each.role.name not in named for each in inside):
        return None
    outside = [*read[:first], *read[last + 1 :]]
    if any(each.role.name in (THING, PLACE, KIND, HERE) for each in outside):
        return None
    bare = [each.piece for each in inside if each.role.name != "small"]
    return _joined([each.piece for each in inside]), _joined(bare)


def _joined(pieces: Sequence[Piece]) -> str:
    """Return the words of pieces one after the other."""
    return normalise(" ".join(piece.words for piece in pieces))


def _values(read: Sequence[_Chosen], words: CommandWords) -> tuple[SaidValue, ...]:
    """Return the values of a reading."""
    found = []
    for n, each in enumerate(read):
        if each.role.name != VALUE:
            continue
        before = read[n - 1].piece if n else None
        to = before is not None and (before.may_be("to") or _ends_in_to(before, words))
        found.append(SaidValue(each.role.meaning, each.piece.words, to))
    return tuple(found)


def _ends_in_to(piece: Piece, words: CommandWords) -> bool:
    """Whether an act itself says what something is set to (`调到`)."""
    return is_cjk(piece.words[-1]) and piece.words.endswith(words.to)


# -- targets -------------------------------------------------------------------------------------


def _targets(read: Sequence[_Chosen]) -> tuple[Named, ...] | None:
    """Return what a reading is about; None if its names do not go together."""
    phrases = [_phrase(phrase) for phrase in _noun_phrases(read)]
    targets = []
    for target in phrases:
        if target is None:
            return None
        if target != Named():
            targets.append(target)
    return tuple(_shared(targets))


def _noun_phrases(read: Sequence[_Chosen]) -> Iterator[list[_Chosen]]:
    """Yield the names, kinds and places of a reading, cut where `and` stands between them."""
    phrase: list[_Chosen] = []
    for each in read:
        if each.role.name == "joints" and phrase:
            yield phrase
            phrase = []
        if each.role.name in (THING, KIND, PLACE, HERE):
            phrase.append(each)
    yield phrase


def _phrase(read: Sequence[_Chosen]) -> Named | None:
    """Return one name with its kind and place; None if there is more than one of each."""
    things = [each.piece for each in read if each.role.name == THING]
    kinds = [each.piece for each in read if each.role.name == KIND]
    places = [
        each.piece.words for each in read if each.role.name == PLACE or each.role.meaning == "here"
    ]
    if len(things) > 1 or len(kinds) > 1 or len(places) > 1:
        return None
    area = places[0] if places else ""
    kind = kinds[0] if kinds else None
    kind_words = kind.words if kind else ""
    if things:
        # a kind beside a name says what it is: `the Owl lamp`
        return Named(
            things[0].words, things[0].entities, kind.kind if kind else None, kind_words, area
        )
    return Named("", (), kind.kind if kind else None, kind_words, area)


def _shared(targets: Sequence[Named]) -> Iterator[Named]:
    """Yield targets with the kind and place that several of them share.

    `the lights in the kitchen and the hall` are both lights, `bathroom light and fan` are both
    in the bathroom.
    """
    kinds = {(t.kind, t.kind_words) for t in targets if t.kind and not t.name}
    areas = {t.area for t in targets if t.area}
    for target in targets:
        if target.is_place and len(kinds) == 1:
            (kind, kind_words), *_ = kinds
            yield Named("", (), kind, kind_words, target.area)
        elif target.kind and not target.name and not target.area and len(areas) == 1:
            yield Named("", (), target.kind, target.kind_words, next(iter(areas)))
        else:
            yield target
