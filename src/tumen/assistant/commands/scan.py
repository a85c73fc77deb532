"""Scan: a clause cut into pieces, each with what it may be: a thing, a place, a value, an act.

Names of the home come first, the longest of them, so that a lamp called `Open sesame` opens
nothing. Words that are none of these are unknown, and a reader must account for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tumen.assistant.commands.command_words import CommandWords, Role, words_of_commands
from tumen.assistant.values import Unknown, Values
from tumen.home import Home, Kind, NamedPlace, common_words, fold, kind_word, mentions_of, split
from tumen.language import is_cjk, units

_MOST_VALUE_UNITS = 6
_MOST_KIND_UNITS = 4
_MOST_COLOUR_UNITS = 4
_WARMEST_ROOM = 1_000  # a temperature above is that of a colour, in kelvin

THING = "thing"
PLACE = "place"
KIND = "kind"
VALUE = "value"
HERE = "here"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Piece:
    """Some units of a clause.

    Attributes:
        start: the first unit.
        end: the unit after the last.
        words: what was said.
        roles: what they may be, the likeliest first.
        entities: numbers of the things that are called so.
        place: the place that is called so.
        kind: the kind of device that they name.
        plural: whether a kind was said in another form than its own.
    """

    start: int
    end: int
    words: str
    roles: tuple[Role, ...]
    entities: tuple[int, ...] = ()
    place: NamedPlace | None = None
    kind: Kind | None = None
    plural: bool = False

    def may_be(self, name: str) -> bool:
        """Return whether a role is among its roles."""
        return any(role.name == name for role in self.roles)


def scan(said: str, home: Home, values: Values, lang: str) -> list[Piece]:
    """Return the pieces of a normalised clause, from left to right.

    Args:
        said: the clause.
        home: its names are looked for.
        values: reads numbers and colours.
        lang: the language of the speaker.
    """
    pieces = units(said)
    words = words_of_commands(lang)
    mentions = {mention.start: mention for mention in mentions_of(home.index, said, lang)}
    found: list[Piece] = []
    at = 0
    while at < len(pieces):
        mention = mentions.get(at)
        if mention:
            role = Role(THING if mention.entities else PLACE)
            found.append(
                Piece(at, mention.end, mention.words, (role,), mention.entities, mention.place)
            )
            at = mention.end
            continue
        # a value, a word or a kind ends where a name begins
        end = min((start for start in mentions if start > at), default=len(pieces))
        piece = _piece_at(pieces[:end], at, words, values, lang)
        found.append(piece)
        at = piece.end
    return found


def _piece_at(
    pieces: Sequence[str], at: int, words: CommandWords, values: Values, lang: str
) -> Piece:
    """Return the longest piece that starts at a unit and names nothing of the home."""
    value = _value_at(pieces, at, words, values, lang)
    known = _known_at(pieces, at, words)
    kind = _kind_at(pieces, at)
    best = max(
        (piece for piece in (known, value, kind) if piece),
        # the first of equals
        key=lambda piece: piece.end,
        default=None,
    )
    if best is None:
        return Piece(at, at + 1, pieces[at].strip(), (Role(UNKNOWN),))
    # `a` may begin a number, and `dim` may be an act and more
    roles = dict.fromkeys(
        role
        for piece in (known, value, kind)
        if piece and piece.end == best.end
        for role in piece.roles
    )
    return Piece(
        at,
        best.end,
        best.words,
        tuple(roles),
        kind=kind.kind if kind and kind.end == best.end else None,
        plural=bool(kind and kind.plural),
    )


def _known_at(pieces: Sequence[str], at: int, words: CommandWords) -> Piece | None:
    """Return the longest words of the vocabulary that start at a unit."""
    bare = tuple(piece.strip() for piece in pieces[at : at + words.longest])
    for width in range(len(bare), 0, -1):
        roles = words.roles.get(bare[:width])
        if roles:
            return Piece(at, at + width, _joined(pieces, at, at + width), roles)
    return _here_at(pieces, at)


def _here_at(pieces: Sequence[str], at: int) -> Piece | None:
    """Return words for the room of the speaker, or for the whole home."""
    common = common_words()
    for end in range(min(len(pieces), at + _MOST_KIND_UNITS), at, -1):
        said = fold(_joined(pieces, at, end))
        if said in common.here and said not in common.rooms:
            return Piece(at, end, _joined(pieces, at, end), (Role(HERE, "here"),))
        if said in common.everywhere:
            return Piece(at, end, _joined(pieces, at, end), (Role(HERE, "everywhere"),))
    return None


def _kind_at(pieces: Sequence[str], at: int) -> Piece | None:
    """Return the longest kind of device that starts at a unit."""
    for end in range(min(len(pieces), at + _MOST_KIND_UNITS), at, -1):
        said = "".join(split("".join(pieces[at:end])))
        known = kind_word(said)
        if known:
            kind, word = known
            plural = said != word
            roles = (Role(KIND),)
            return Piece(at, end, _joined(pieces, at, end), roles, kind=kind, plural=plural)
    return None


def _value_at(
    pieces: Sequence[str], at: int, words: CommandWords, values: Values, lang: str
) -> Piece | None:
    """Return the longest number, colour or white that starts at a unit."""
    first = pieces[at].strip()
    for end in range(_end_of_value(pieces, at, words), at, -1):
        said = _joined(pieces, at, end)
        sort = _sort_of(said, first, words, values, lang)
        if sort:
            return Piece(at, end, said, (Role(VALUE, sort),))
    return None


def _end_of_value(pieces: Sequence[str], at: int, words: CommandWords) -> int:
    """Return how far the words of a value may reach from a unit."""
    end = at
    while end < min(len(pieces), at + _MOST_VALUE_UNITS):
        unit = pieces[end].strip()
        begins = unit[0].isdigit() or unit.startswith(words.value_starts)
        if end == at:
            begins = begins or unit in words.value_first
        inside = end > at and (unit in words.units or unit in words.value_inner)
        if not (begins or inside):
            break
        end += 1
    # two words may be a colour
    return max(end, min(len(pieces), at + (_MOST_COLOUR_UNITS if is_cjk(pieces[at][0]) else 2)))


def _sort_of(said: str, first: str, words: CommandWords, values: Values, lang: str) -> str:
    """Return what kind of value words are; empty if they are none."""
    # `to forty`: the number begins after it
    if any(role.name == "to" for role in words.roles.get((first,), ())):
        return ""
    if not isinstance(_read(values, "color", said, lang), Unknown):
        return "color"
    if said in words.value_first:
        return ""
    starts = said[0].isdigit() or said.startswith(words.value_starts)
    if not (starts or first in words.value_first):
        return ""
    number = _read(values, "brightness", said, lang)
    if isinstance(number, (Unknown, str)):
        white = _read(values, "temperature", said, lang)
        return "white" if isinstance(white, (int, float)) and white > _WARMEST_ROOM else ""
    counted = {words.units[word] for word in _unit_words(said) if word in words.units}
    if "none" in counted:
        return ""
    return next(iter(counted), "number")


def _unit_words(said: str) -> list[str]:
    """Return the words of a value of which some may be its unit."""
    bare = [unit.strip() for unit in units(said)]
    if not is_cjk(said[-1]):
        return bare[1:][-2:]
    # `百分之` stands first
    return [bare[0], bare[-1], *("".join(bare[-n:]) for n in (2, 3))]


@lru_cache(maxsize=16384)
def _read(values: Values, slot: str, said: str, lang: str) -> float | str | Unknown:
    """Return the value of words; a reader of values says the same for the same words."""
    return values.read(slot, said, lang)


def _joined(pieces: Sequence[str], start: int, end: int) -> str:
    """Return the words of some units."""
    return "".join(pieces[start:end]).strip()
