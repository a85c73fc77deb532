"""CommandWords: the words of plain commands, by what they do in a sentence.

A language is one file, `languages/<lang>.toml`. A list there is a role that words may have:

- `small`: says nothing. `follows`: goes on from what was said before. `to`: stands before the
  number that something is set to. `by`: stands before the number by which something changes.
- `joints`: between two things. `all`, `everything`, `rest`: all that fits. `counts`: so many.
- `pronouns`, `plurals`, `other`, `ones`: what was spoken of last, all that was spoken of, the other
  of two, a thing of that kind.
- `also`: the last act, with another thing. `again`: the last act once more. `corrections`: it was
  about another thing.
- `a_bit`: how much, without a number. `attributes`: which value is meant. `units`: after a number.
- `value_starts`: how words of a value begin. `value_first`, `value_inner`: small words that may
  begin one, and that may stand inside. Other words are not tried, because the tables of number
  words take long to load.
- `acts`: what is left of a command -> what is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tumen.home import read_language_tables
from tumen.language import normalise, units

_LISTS = (
    "small",
    "follows",
    "to",
    "by",
    "joints",
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
)
_TABLES = ("counts", "attributes")
ACT = "act"
"""The role of words that say what is done."""


@dataclass(frozen=True)
class Role:
    """What words may do in a command: a list of the language file, and what they stand for."""

    name: str
    meaning: str = ""


@dataclass(frozen=True)
class CommandWords:
    """The words of one language.

    Attributes:
        roles: words, as units without their spaces -> their roles.
        longest: the most units of such words.
        acts: the words that say what is done, in their order -> the acts they may be.
        units: a word after a number -> what it counts.
        to: words before what something is set to.
        value_starts: how a word of a value begins.
        value_first: small words that may begin a value of several words.
        value_inner: words that may stand inside a value.
    """

    roles: Mapping[tuple[str, ...], tuple[Role, ...]]
    longest: int
    acts: Mapping[tuple[tuple[str, ...], ...], tuple[str, ...]]
    units: Mapping[str, str]
    to: tuple[str, ...]
    value_starts: tuple[str, ...]
    value_first: frozenset[str]
    value_inner: frozenset[str]


@cache
def words_of_commands(lang: str) -> CommandWords:
    """Return the words of a language."""
    table = read_language_tables("tumen.assistant.commands")[lang]
    roles: dict[tuple[str, ...], dict[Role, None]] = {}

    def add(words: tuple[str, ...], role: Role) -> None:
        roles.setdefault(words, {})[role] = None

    act_words = _act_words(table["acts"])
    for words in act_words:
        add(words, Role(ACT))
    for name in _LISTS:
        for phrase in table.get(name, ()):
            add(bare_units(phrase), Role(name))
    for name in _TABLES:
        for meaning, phrases in table[name].items():
            for phrase in phrases:
                add(bare_units(phrase), Role(name, meaning))
    acts: dict[tuple[tuple[str, ...], ...], dict[str, None]] = {}
    for act, phrases in table["acts"].items():
        for phrase in phrases:
            key = tuple(_cut(bare_units(phrase), act_words))
            acts.setdefault(key, {})[act] = None
    return CommandWords(
        {words: tuple(found) for words, found in roles.items()},
        max(len(words) for words in roles),
        {key: tuple(found) for key, found in acts.items()},
        {word: unit for unit, words in table["units"].items() for word in words},
        tuple(table["to"]),
        tuple(table["value_starts"]),
        frozenset(table["value_first"]),
        frozenset(table["value_inner"]),
    )


def bare_units(phrase: str) -> tuple[str, ...]:
    """Return the units of a phrase without their spaces."""
    return tuple(unit.strip() for unit in units(normalise(phrase)))


def _act_words(acts: Mapping[str, Sequence[str]]) -> frozenset[tuple[str, ...]]:
    """Return the words that acts are made of: spaced words, and whole phrases of the others."""
    found: set[tuple[str, ...]] = set()
    for phrases in acts.values():
        for phrase in phrases:
            found.update(bare_units(word) for word in phrase.split())
    return frozenset(found)


def _cut(said: tuple[str, ...], known: frozenset[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the words of an act, the longest first."""
    at = 0
    while at < len(said):
        for end in range(len(said), at, -1):
            if said[at:end] in known:
                yield said[at:end]
                at = end
                break
        else:
            return
