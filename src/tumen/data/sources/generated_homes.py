"""Generated homes: 50 to 200 entities with areas, floors and aliases, in the schema of `tumen.assistant`'s home files.

Names are split once, by hash: a name that is held back, be it listed, composed or invented, appears in exam homes alone, and the
others never do. Many names of training homes are invented from syllables, so that a model learns to copy what it has never seen
instead of what it has.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from tumen.data.sources.languages import language_data
from tumen.data.sources.templates import phrases

TRIES = 30  # draws until a name lies on the wanted side of the split
INVENTED = {False: 0.5, True: 0.1}  # share of invented names in training homes and in exam homes
SHARE_OF_DOMAIN = {
    "light": 30, "switch": 14, "cover": 9, "fan": 6, "media_player": 7, "climate": 5, "lock": 5, "vacuum": 3, "scene": 6,
    "script": 3, "todo": 4, "lawn_mower": 1, "person": 4, "sensor": 4, "binary_sensor": 4, "button": 2, "input_boolean": 2,
    "valve": 2, "weather": 2, "timer": 0,
}  # fmt: skip
STATES = {
    "light": ("on", "off"), "switch": ("on", "off"), "fan": ("on", "off"), "cover": ("open", "closed"),
    "lock": ("locked", "unlocked"), "media_player": ("playing", "paused", "idle"), "climate": ("heat", "off"),
    "vacuum": ("docked",), "lawn_mower": ("docked",), "person": ("home", "not_home"), "binary_sensor": ("on", "off"),
    "valve": ("open", "closed"), "input_boolean": ("on", "off"),
}  # fmt: skip


@cache
def names_of(lang: str) -> Mapping[str, Any]:
    """Return the lists of names of a language, from `names/<lang>.yaml`."""
    return phrases(lang, "names")


def _listed(lang: str) -> set[str]:
    """Words that our phrases say by themselves. They are trained on, so no exam home has a device of such a name."""
    return {
        str(word).casefold() for words in phrases(lang).get("lists", {}).values() for word in words
    }


def is_held(text: str, share: float) -> bool:
    """Whether a template or name belongs to the exam; depends on the text alone, whatever its case."""
    return rank(text) < share * 2**32


def rank(text: str) -> int:
    """Where a text stands in an order that nothing but the text decides: 32 bits of its hash."""
    return int(hashlib.sha256(text.casefold().encode()).hexdigest()[:8], 16)


def invented(rng: random.Random, lang: str) -> str:
    """A name nobody has: two or three syllables (rare characters in Chinese), or real words that name something else."""
    written = language_data(lang)
    if rng.random() < 0.5:
        count = rng.choice((1, 1, 2))
        return written.join(*(rng.choice(strange_words(lang)) for _ in range(count)))
    count = rng.choice((2, 2, 3))
    return "".join(rng.choice(written.syllables) for _ in range(count))


@cache
def strange_words(lang: str) -> tuple[str, ...]:
    """Words of the phrases' lists that are no names of devices or rooms: what a word is called says nothing of its slot."""
    words = {
        str(entry)
        for entries in phrases(lang)["lists"].values()
        for entry in entries
        if isinstance(entry, str)
    }
    fit = (word for word in words if len(word) > 1 and not set(word) & set("0123456789[](){}<>|"))
    if language_data(lang).spaced:
        return tuple(sorted(word for word in fit if word.isalpha() and len(word) > 2))
    return tuple(sorted(word for word in fit if len(word) <= 4))


@dataclass(frozen=True)
class GeneratedHome:
    """A home in one language. `tree` is a home file as a dict; `names` lists what can be said, by domain."""

    lang: str
    tree: Mapping[str, Any]
    by_domain: Mapping[str, Sequence[str]]
    areas: Sequence[str]
    floors: Sequence[str]

    def name(self, rng: random.Random, lang: str, kind: str, domains: Sequence[str]) -> str | None:
        """A floor, an area, or the name of an entity of one of `domains`; None when this home has none."""
        if kind == "floor":
            return rng.choice(self.floors)
        if kind == "area":
            return rng.choice(self.areas)
        known = [domain for domain in domains or self.by_domain if domain in self.by_domain]
        return rng.choice(self.by_domain[rng.choice(known)]) if known else None


def generate(
    rng: random.Random, lang: str, entities: tuple[int, int], hold: float, exam: bool
) -> GeneratedHome:
    """A home of between `entities[0]` and `entities[1]` devices.

    Args:
        hold: share of names kept for exams.
        exam: whether this home is for an exam (held-back names only) or for training (the others only).
    """
    words = names_of(lang)
    areas = _some(rng, _side(words["areas"], hold, exam), 6, 14)
    areas += [
        _on_side(lambda: invented(rng, lang), hold, exam) or areas[0]
        for _ in range(max(1, round(INVENTED[exam] * len(areas))))
    ]
    floors = _some(rng, _side(words["floors"], hold, exam, least=2), 2, 3)
    tree: dict[str, Any] = {
        "name": f"{lang} home",
        "here": "area_0",
        "floor": [{"id": f"floor_{i}", "name": name} for i, name in enumerate(floors)],
        "area": [
            {"id": f"area_{i}", "name": name, "floor": f"floor_{i % len(floors)}"}
            for i, name in enumerate(areas)
        ],
        "entity": [],
    }
    by_domain: dict[str, list[str]] = {}
    taken = {name.casefold() for name in areas + floors} | (_listed(lang) if exam else set())
    domains = [d for d in SHARE_OF_DOMAIN if words["names"].get(d)]
    for number in range(rng.randint(*entities)):
        domain = rng.choices(domains, [SHARE_OF_DOMAIN[d] for d in domains])[0]
        name = _on_side(partial(_entity_name, rng, lang, words, domain, areas, exam), hold, exam)
        if name is None or name.casefold() in taken:
            continue
        taken.add(name.casefold())
        by_domain.setdefault(domain, []).append(name)
        area = f"area_{rng.randrange(len(areas))}"
        entity: dict[str, Any] = {"id": f"{domain}.e{number}", "name": name, "area": area}
        if domain in STATES:
            entity["state"] = rng.choice(STATES[domain])
        tree["entity"].append(entity)
    return GeneratedHome(lang, tree, by_domain, areas, floors)


def _side(names: Sequence[str], hold: float, exam: bool, least: int = 1) -> list[str]:
    """The names of one side of the split; all of them where a side would be too small to speak of."""
    mine = [name for name in names if is_held(name, hold) == exam]
    return mine if len(mine) >= least else list(names)


def _on_side(draw: Callable[[], str], hold: float, exam: bool) -> str | None:
    """A name of this side of the split, or None when there seems to be none. Nothing or everything held back is no split."""
    names = (draw() for _ in range(TRIES))
    return next((name for name in names if hold in (0, 1) or is_held(name, hold) == exam), None)


def _some(rng: random.Random, names: Sequence[str], low: int, high: int) -> list[str]:
    return rng.sample(list(names), min(len(names), rng.randint(low, high)))


def _entity_name(
    rng: random.Random,
    lang: str,
    words: Mapping[str, Any],
    domain: str,
    areas: Sequence[str],
    exam: bool,
) -> str:
    """A listed name, one composed from a pattern (`{adjective} {thing}`), or an invented one."""
    more = words["more"]
    nouns = more.get(domain)
    if domain != "person" and rng.random() < INVENTED[exam]:
        base = invented(rng, lang)
        if nouns and rng.random() < 0.4:
            return language_data(lang).join(base, rng.choice(nouns))
        return base
    if not nouns or rng.random() < 0.6:
        return str(rng.choice(words["names"][domain]))
    parts = {"thing": nouns, "area": areas} | {
        key: more[key] for key in ("adjective", "place") if key in more
    }
    return str(rng.choice(more["alias"])).format(
        **{key: rng.choice(options) for key, options in parts.items()}
    )
