"""Generated homes: 50 to 200 entities with areas, floors and aliases.

They have the form of `tumen.assistant`'s home files.

Names are split once, by hash: a name that is held out, whether listed, composed or invented,
appears in homes of the eval suite alone, and all others only in training homes. Many names of
training homes are invented from syllables, so that a model learns to copy unknown names.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from tumen.data.sources.languages import language_data
from tumen.data.sources.templates import phrases

TRIES = 30  # draws until a name is on the wanted side of the split
# Share of invented names in training homes (False) and in homes of the eval suite (True).
INVENTED = {False: 0.5, True: 0.1}
INVENTED_WITH_NOUN = 0.4  # share of invented names of things that end in what the thing is
LISTED = 0.6  # share of listed names among the names that are not invented
# How often each domain is drawn, relative to the others.
SHARE_OF_DOMAIN = {
    "light": 30,
    "switch": 14,
    "cover": 9,
    "fan": 6,
    "media_player": 7,
    "climate": 5,
    "lock": 5,
    "vacuum": 3,
    "scene": 6,
    "script": 3,
    "todo": 4,
    "lawn_mower": 1,
    "person": 4,
    "sensor": 4,
    "binary_sensor": 4,
    "button": 2,
    "input_boolean": 2,
    "valve": 2,
    "weather": 2,
    "timer": 0,
}
STATES = {
    "light": ("on", "off"),
    "switch": ("on", "off"),
    "fan": ("on", "off"),
    "cover": ("open", "closed"),
    "lock": ("locked", "unlocked"),
    "media_player": ("playing", "paused", "idle"),
    "climate": ("heat", "off"),
    "vacuum": ("docked",),
    "lawn_mower": ("docked",),
    "person": ("home", "not_home"),
    "binary_sensor": ("on", "off"),
    "valve": ("open", "closed"),
    "input_boolean": ("on", "off"),
}
GRAMMAR_MARKS = set("0123456789[](){}<>|")  # characters of a template's grammar, and digits


@cache
def names_of(lang: str) -> Mapping[str, Any]:
    """Return the lists of names of a language, from `names/<lang>.yaml`."""
    return phrases(lang, "names")


def _listed(lang: str) -> set[str]:
    """Return the words in our phrases' lists.

    They are trained on, so no device in a home of the eval suite has such a name.
    """
    lists = phrases(lang).get("lists", {})
    return {str(word).casefold() for words in lists.values() for word in words}


def is_held(text: str, share: float) -> bool:
    """Return whether a template or name is held out, by the hash of its text in lower case."""
    return rank(text) < share * 2**32


def rank(text: str) -> int:
    """Return 32 bits of a text's hash: its place in a fixed random order."""
    digest = hashlib.sha256(text.casefold().encode()).hexdigest()
    return int(digest[:8], 16)


def invented(rng: random.Random, lang: str) -> str:
    """Return a name that no list has.

    It is made of two or three syllables (in Chinese, rare characters), or of real words that name
    something else.
    """
    written = language_data(lang)
    if rng.random() < 0.5:
        count = rng.choice((1, 1, 2))
        words = [rng.choice(strange_words(lang)) for _ in range(count)]
        return written.join(*words)
    count = rng.choice((2, 2, 3))
    return "".join(rng.choice(written.syllables) for _ in range(count))


@cache
def strange_words(lang: str) -> tuple[str, ...]:
    """Return words of the phrases' lists that are not names of devices or rooms.

    As names they teach that a word alone does not decide its slot.
    """
    words: set[str] = set()
    for entries in phrases(lang)["lists"].values():
        words.update(entry for entry in entries if isinstance(entry, str))
    plain = [word for word in words if len(word) > 1 and not set(word) & GRAMMAR_MARKS]
    if language_data(lang).spaced:
        fit = [word for word in plain if word.isalpha() and len(word) > 2]
    else:
        fit = [word for word in plain if len(word) <= 4]
    return tuple(sorted(fit))


@dataclass(frozen=True)
class GeneratedHome:
    """A home in one language.

    Attributes:
        lang: its language.
        tree: a home file as a dict.
        by_domain: names of its entities.
        areas: names.
        floors: names.
    """

    lang: str
    tree: Mapping[str, Any]
    by_domain: Mapping[str, Sequence[str]]
    areas: Sequence[str]
    floors: Sequence[str]

    def name(self, rng: random.Random, lang: str, kind: str, domains: Sequence[str]) -> str | None:
        """Draw a floor, an area, or the name of an entity.

        Args:
            rng: source of chance.
            lang: unused, a home has one language.
            kind: floor, area or name.
            domains: of the entity; empty: any.

        Returns:
            None when this home has no such entity.
        """
        if kind == "floor":
            return rng.choice(self.floors)
        if kind == "area":
            return rng.choice(self.areas)
        known = [domain for domain in domains or self.by_domain if domain in self.by_domain]
        if not known:
            return None
        return rng.choice(self.by_domain[rng.choice(known)])


def generate(
    rng: random.Random, lang: str, entities: tuple[int, int], hold: float, held_out: bool
) -> GeneratedHome:
    """Make a home of between `entities[0]` and `entities[1]` devices.

    Args:
        rng: source of chance.
        lang: language of all names.
        entities: least and most devices.
        hold: share of names that are held out.
        held_out: make a home of the eval suite, with held-out names alone; else one with all
            other names.
    """
    maker = _HomeMaker(rng, lang, hold, held_out)
    maker.make_rooms()
    maker.make_entities(rng.randint(*entities))
    return maker.home()


@dataclass
class _HomeMaker:
    """A home while it is being made; see `generate` for the fields."""

    rng: random.Random
    lang: str
    hold: float
    held_out: bool
    areas: list[str] = field(default_factory=list)
    floors: list[str] = field(default_factory=list)
    entities: list[dict[str, Any]] = field(default_factory=list)
    by_domain: dict[str, list[str]] = field(default_factory=dict)

    def make_rooms(self) -> None:
        """Draw areas and floors."""
        words = names_of(self.lang)
        listed = self._side(words["areas"], least=1)
        self.areas = _some(self.rng, listed, 6, 14)
        count = max(1, round(INVENTED[self.held_out] * len(self.areas)))
        made = []
        for _ in range(count):
            name = self._on_side(lambda: invented(self.rng, self.lang))
            made.append(name or self.areas[0])
        self.areas += made
        self.floors = _some(self.rng, self._side(words["floors"], least=2), 2, 3)

    def make_entities(self, count: int) -> None:
        """Draw `count` entities; those whose name is taken are left out."""
        rng = self.rng
        taken = {name.casefold() for name in self.areas + self.floors}
        if self.held_out:
            taken |= _listed(self.lang)
        listed = names_of(self.lang)["names"]
        domains = [domain for domain in SHARE_OF_DOMAIN if listed.get(domain)]
        shares = [SHARE_OF_DOMAIN[domain] for domain in domains]
        for number in range(count):
            domain = rng.choices(domains, shares)[0]
            name = self._on_side(partial(self._entity_name, domain))
            if name is None or name.casefold() in taken:
                continue
            taken.add(name.casefold())
            self.by_domain.setdefault(domain, []).append(name)
            area = f"area_{rng.randrange(len(self.areas))}"
            entity = {"id": f"{domain}.e{number}", "name": name, "area": area}
            if domain in STATES:
                entity["state"] = rng.choice(STATES[domain])
            self.entities.append(entity)

    def home(self) -> GeneratedHome:
        """Return the home as a home file and lists of names."""
        floors = [{"id": f"floor_{i}", "name": name} for i, name in enumerate(self.floors)]
        areas = []
        for i, name in enumerate(self.areas):
            floor = f"floor_{i % len(self.floors)}"
            areas.append({"id": f"area_{i}", "name": name, "floor": floor})
        tree = {
            "name": f"{self.lang} home",
            "here": "area_0",
            "floor": floors,
            "area": areas,
            "entity": self.entities,
        }
        return GeneratedHome(self.lang, tree, self.by_domain, self.areas, self.floors)

    def _side(self, names: Sequence[str], least: int) -> list[str]:
        """Return the names on this home's side of the split; all names where those are too few."""
        mine = [name for name in names if is_held(name, self.hold) == self.held_out]
        return mine if len(mine) >= least else list(names)

    def _on_side(self, draw: Callable[[], str]) -> str | None:
        """Draw a name on this home's side of the split; None after `TRIES` names on the other.

        Nothing or everything held out is no split.
        """
        for _ in range(TRIES):
            name = draw()
            if self.hold in (0, 1) or is_held(name, self.hold) == self.held_out:
                return name
        return None

    def _entity_name(self, domain: str) -> str:
        """Return a listed or invented name, or one by a pattern such as `{adjective} {thing}`."""
        rng = self.rng
        words = names_of(self.lang)
        more = words["more"]
        nouns = more.get(domain)
        if domain != "person" and rng.random() < INVENTED[self.held_out]:
            base = invented(rng, self.lang)
            if nouns and rng.random() < INVENTED_WITH_NOUN:
                return language_data(self.lang).join(base, rng.choice(nouns))
            return base
        if not nouns or rng.random() < LISTED:
            return str(rng.choice(words["names"][domain]))
        parts = {"thing": nouns, "area": self.areas}
        for key in ("adjective", "place"):
            if key in more:
                parts[key] = more[key]
        pattern = str(rng.choice(more["alias"]))
        drawn = {key: rng.choice(options) for key, options in parts.items()}
        return pattern.format(**drawn)


def _some(rng: random.Random, names: Sequence[str], low: int, high: int) -> list[str]:
    """Draw between `low` and `high` different names, or all where there are fewer."""
    count = rng.randint(low, high)
    return rng.sample(list(names), min(len(names), count))
