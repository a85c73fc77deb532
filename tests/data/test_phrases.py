"""Our own templates: every one parses, speaks the language of actions, and gives sentences that can be copied from."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hassil.expression import Alternative, Expression, Group, ListReference, RuleReference

from tumen.data.sources.generated_homes import GeneratedHome, generate, names_of
from tumen.data.sources.templates import (
    HOME_LISTS,
    TIME,
    Example,
    Speaker,
    Template,
    load_templates,
    phrases,
)
from tumen.language.action import CLOSED, COPIED, INTENTS, LANGUAGES, MAX_SENTENCE, normalise, parse

# Lists that fill the wildcards of Home Assistant's templates (source.py).
WILDCARDS = {"message", "query", "zone", "timer_name", "command", "item", "todo_item"}
AREAS, FLOORS = 40, 6
MANY = {"light": 25, "switch": 25, "cover": 25}
DOMAINS = (
    *("light", "switch", "fan", "cover", "lock", "climate", "media_player", "vacuum", "lawn_mower"),
    *("todo", "scene", "script", "person", "sensor", "weather"),
)
DISTINCT = {"en": 200_000, "de": 80_000, "zh": 80_000}
WORDS = {
    "item": 60, "message": 60, "query": 60, "person": 60, "city": 60, "topic": 40, "color": 30,
    "lamp": 40, "appliance": 40, "plug": 15,
}  # fmt: skip


@functools.cache
def own(lang: str) -> list[Template]:
    return [template for template in load_templates(lang) if template.topic]


@functools.cache
def home(lang: str) -> GeneratedHome:
    return generate(random.Random(lang), lang, (200, 200), hold=0.2, held_out=False)


def say(template: Template, rng: random.Random) -> Example | None:
    return Speaker(rng, home(template.lang), {}).say(template)


def parts(found: Expression) -> Iterator[Expression]:
    yield found
    if isinstance(found, Group):
        for item in found.items:
            yield from parts(item)


def references(template: Template, found: Expression) -> Iterator[ListReference]:
    """The lists a template refers to, also through rules."""
    for part in parts(found):
        if isinstance(part, RuleReference):
            yield from references(template, template.grammar.rules[part.rule_name].expression)
        elif isinstance(part, ListReference):
            yield part


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rules_and_lists_exist_and_are_used(lang: str) -> None:
    rules, lists = own(lang)[0].grammar.rules, own(lang)[0].grammar.lists
    found = [part for t in own(lang) for part in parts(t.expression)]
    found += [part for rule in rules.values() for part in parts(rule.expression)]
    called = {part.rule_name for part in found if isinstance(part, RuleReference)}
    filled = {part.list_name for part in found if isinstance(part, ListReference)}
    assert called == set(rules)
    assert filled - set(HOME_LISTS) | WILDCARDS == set(lists)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_slots_belong_to_the_intent(lang: str) -> None:
    faults = []
    for template in own(lang):
        allowed = INTENTS[template.intent]
        faults += [
            f"{template.intent}: {slot}={value}"
            for slot, value in template.fixed.items()
            if value not in CLOSED[slot]
        ]
        faults += [
            f"{template.intent} cannot hold {slot}"
            for slot in template.fixed
            if slot not in allowed
        ]
        if template.intent in ("none", "NotPossible"):
            continue
        for reference in references(template, template.expression):
            name, slot = (
                reference.list_name,
                "area" if reference.slot_name == "floor" else reference.slot_name,
            )
            slot = TIME.get(slot, slot)
            if slot not in allowed and (slot != name or slot in (*CLOSED, *COPIED)):
                faults.append(f"{template.intent} has no slot {slot}")
            if name == "name" and not template.domains:
                faults.append(f"{template.intent}: a {{name}} of which domain?")
    assert not faults


@pytest.mark.parametrize("lang", LANGUAGES)
def test_lists_are_words(lang: str) -> None:
    lists = phrases(lang)["lists"]
    for name, entries in lists.items():
        for entry in entries:
            words = entry["in"] if isinstance(entry, dict) else entry
            assert isinstance(words, str), (name, entry, "quote it")
            assert normalise(words), (name, entry)
            assert not set("()[]{}<>|") & set(words), (name, entry)
            assert not isinstance(entry, dict) or any(
                entry["out"] in values for values in CLOSED.values()
            ), (name, entry)
        assert len({str(entry) for entry in entries}) >= WORDS.get(name, 0), name


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_template_can_be_said_and_copied_from(lang: str) -> None:
    rng = random.Random(lang)
    for template in own(lang):
        example = next((found for _ in range(40) if (found := say(template, rng))), None)
        assert example is not None, (template.intent, template.fixed, template.expression)
        assert len(example.sentence) <= MAX_SENTENCE
        assert parse(example.action.wire()) == example.action


@pytest.mark.parametrize("lang", LANGUAGES)
def test_sentences_are_rarely_lost(lang: str) -> None:
    rng = random.Random(lang)
    said = [say(rng.choice(own(lang)), rng) for _ in range(2000)]
    assert sum(example is None for example in said) < 0.02 * len(said)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_sentence_means_two_things(lang: str) -> None:
    rng = random.Random(lang)
    meaning: dict[str, str] = {}
    clashes = []
    for template in own(lang) * 4:
        example = say(template, rng)
        if example is None:
            continue
        intent = example.action.intent
        if meaning.setdefault(example.sentence, intent) != intent:
            clashes.append((example.sentence, meaning[example.sentence], intent))
    assert not clashes


def ways(template: Template, found: Expression) -> int:
    """In how many ways an expression can be said: an upper bound of its distinct sentences."""
    if isinstance(found, RuleReference):
        return ways(template, template.grammar.rules[found.rule_name].expression)
    if isinstance(found, ListReference):
        return (
            1
            if found.list_name in HOME_LISTS
            else len(set(map(str, template.grammar.lists[found.list_name])))
        )
    if isinstance(found, Group):
        each = [ways(template, item) for item in found.items]
        return sum(each) if isinstance(found, Alternative) else math.prod(each)
    return 1


@pytest.mark.parametrize("lang", LANGUAGES)
def test_there_is_far_more_to_say_than_is_asked_for(lang: str) -> None:
    assert (
        sum(min(ways(template, template.expression), 5000) for template in own(lang))
        > 3 * DISTINCT[lang]
    )
    rng = random.Random(0)
    some = [example.sentence for _ in range(4000) if (example := say(rng.choice(own(lang)), rng))]
    assert len(set(some)) > 0.95 * len(some)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_topic_is_thin(lang: str) -> None:
    assert len(phrases(lang)["none"]) >= 18
    assert all(len(texts) >= 6 for texts in phrases(lang)["none"].values())
    assert {template.intent for template in own(lang)} == set(INTENTS)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_template_is_written_once(lang: str) -> None:
    texts = [
        text
        for blocks in phrases(lang)["intents"].values()
        for block in blocks
        for text in block["sentences"]
    ]
    texts += [text for found in phrases(lang)["none"].values() for text in found]
    assert sorted(texts) == sorted(set(texts))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_homes_have_enough_names(lang: str) -> None:
    words: dict[str, Any] = dict(names_of(lang))
    assert len(set(words["areas"])) >= AREAS
    assert len(set(words["floors"])) >= FLOORS
    for domain in DOMAINS:
        assert len(set(words["names"][domain])) >= MANY.get(domain, 10), domain
    for group in (words["areas"], words["floors"], *words["names"].values()):
        assert all(isinstance(word, str) and normalise(word) for word in group)
        assert len(group) == len(set(group))
