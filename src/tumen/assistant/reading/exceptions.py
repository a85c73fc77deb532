"""Exceptions: a part of a sentence that says what stays as it is while the rest is acted on.

`lights off, only the hall stays on`; `turn everything off but leave the fan running`. Such a part
is found in the words; whether it takes anything out of what is done is seen in the home.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from tumen.assistant.modifiers import GAP, script_of, words_of
from tumen.assistant.reading.partition import SpokenPart
from tumen.assistant.resolution import Question, Refusal, Resolved, resolve
from tumen.core.errors import InputError
from tumen.home import Home, NamedPlace, common_words
from tumen.language import Action, is_cjk, normalise

_PUNCTUATION = re.compile(r"(?<!\d)[,;.!?:]+|[,;.!?:]+(?!\d)|[，；。！？：]+")
_CUT = " , "
_NAME = "(?P<words>[^,]+?)"


@dataclass(frozen=True)
class Spared:
    """A sentence with something that stays as it is.

    Attributes:
        core: what is to be done, in words, without it.
        about: the words of what stays.
    """

    core: str
    about: str


def spared_in(sentence: str) -> Iterator[Spared]:
    """Yield the ways in which a part of a sentence may say what stays as it is.

    Args:
        sentence: as it was said or typed.
    """
    parts = []
    for segment in _PUNCTUATION.split(sentence):
        try:
            parts.append(normalise(segment))
        # nothing between two marks
        except InputError:
            continue
    text = _CUT.join(parts)
    for pattern in _patterns(script_of(text)):
        for match in pattern.finditer(text):
            core = _rest(text, match.start(), match.end())
            about = match["words"].strip()
            if core:
                yield from _with_own_place(core, about, script_of(text))
                yield Spared(core, about)


def things_of(
    about: str, lang: str, kinds: Mapping[str, str], home: Home, here: str | None
) -> frozenset[str] | None:
    """Return what the words of an exception mean; None if that is not clear.

    Args:
        about: the words.
        lang: the language of the speaker.
        kinds: closed slots that say of what kind the things are that are acted on.
        home: the home that is spoken to.
        here: the area of the speaker, if known.
    """
    found: set[str] = set()
    for words in _apart(about):
        ids = _named(words, lang, kinds, home, here)
        if ids is None:
            return None
        found.update(ids)
    return frozenset(found)


def _apart(about: str) -> list[str]:
    """Return the things of an exception one by one (`the hall and the kitchen`)."""
    parts = [about]
    for joint in common_words().joints:
        parts = [one.strip() for part in parts for one in part.split(joint)]
    return [part for part in parts if part]


def _named(
    words: str, lang: str, kinds: Mapping[str, str], home: Home, here: str | None
) -> tuple[str, ...] | None:
    """Return the things that words name; None if they name none or are unclear."""
    place = _place(words, lang, home)
    # a place spares what is in it, also where the action would find nothing there
    if place:
        return tuple(e.id for e in home.entities.values() if e.area in place.areas)
    for name in dict.fromkeys((words, _without_ones(words))):
        for slots in ({**kinds, "name": name}, {"name": name}):
            # switching has the widest choice of things
            tried = Action("HassTurnOff", lang, {**slots, "scope": "all"})
            resolution = resolve(tried, home, here=here)
            if isinstance(resolution, Resolved):
                return resolution.targets
    return None


def _without_ones(words: str) -> str:
    """Return `the ceiling` for `the ceiling one`."""
    ones = common_words().answer_words
    kept = [word for word in words.split() if word not in ones]
    return " ".join(kept) or words


def _place(words: str, lang: str, home: Home) -> NamedPlace | None:
    """Return the place that words name: `the hall`, `the ones in the hall`."""
    for said in dict.fromkeys((words, _without_ones(words))):
        phrase = home.index.parse(said, lang)
        if len(phrase.places) == 1 and not phrase.kind and not phrase.core:
            return phrase.places[0]
        place = home.index.place(said, lang)
        if place:
            return place
    return None


def _with_own_place(core: str, about: str, script: str) -> Iterator[Spared]:
    """Yield `in the hall only the lamp` as a place for what is done and the lamp that stays."""
    for word in words_of(script, "spared_before"):
        place, _, name = about.partition(f" {word} ")
        if place and name:
            yield Spared(normalise(f"{place} {core}"), name)


def _rest(text: str, start: int, end: int) -> str:
    """Return a text without some of its characters, as it is normalised; empty if all go."""
    rest = [part.strip() for part in f"{text[:start]},{text[end:]}".split(",")]
    kept = " ".join(part for part in rest if part)
    return normalise(kept) if kept else ""


@cache
def _patterns(script: str) -> Sequence[re.Pattern[str]]:
    """Return the patterns of such parts, those with the most words first."""
    before = "|".join(re.escape(word) for word in words_of(script, "spared_before"))
    found = []
    for phrase in words_of(script, "spared"):
        first, last = (part.strip() for part in phrase.split(GAP))
        cjk = is_cjk((first or last)[0])
        gap = "" if cjk else " "
        words = gap.join(part for part in (re.escape(first), _NAME, re.escape(last)) if part)
        # a part begins at a comma or at a word that sets it apart
        led = rf"(?:(?:^|, )(?:(?:{before}){gap})*|(?:{before})+)"
        if not cjk:
            led = rf"(?:(?:^|, )(?:(?:{before}) )*|(?<= )(?:(?:{before}) )+)"
        # `in the hall only the lamp stays on` has such a word inside
        if set(first.split()) & set(words_of(script, "spared_before")):
            led = r"(?:^|(?<= ))"
        found.append(re.compile(rf"{led}(?:{words})(?= ,|$)"))
    return found


def leaving(part: SpokenPart, kept: frozenset[str] | None, about: str) -> SpokenPart:
    """Return a part that leaves some things as they are; a question if nobody knows which.

    Args:
        part: an act on all that fits.
        kept: the ids of what stays; None if it is not known.
        about: the words for them.
    """
    resolution = part.resolution
    if not isinstance(resolution, Resolved):
        return part
    if kept is None:
        intent, lang = part.action.intent, part.action.lang
        question = Question(intent, lang, reason="except", about={"words": about})
        return replace(part, resolution=question)
    targets = tuple(target for target in resolution.targets if target not in kept)
    if not targets:
        return replace(part, resolution=as_it_is(part.action))
    return replace(part, resolution=replace(resolution, targets=targets))


def is_wider(part: SpokenPart, kept: frozenset[str] | None) -> bool:
    """Whether a part is about things that stay as they are, and about more."""
    if not isinstance(part.resolution, Resolved) or len(part.resolution.targets) < 2:
        return False
    return kept is None or bool(kept & set(part.resolution.targets))


def as_it_is(action: Action) -> Refusal:
    """Return that everything stays as it is, as it was wanted."""
    return Refusal(action.intent, action.lang, "kept")
