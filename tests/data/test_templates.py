"""Templates: what is said means what the action says, and its free words stand in the sentence."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from tests.language.gbnf import Grammar

from tumen.core.errors import InputError
from tumen.data.sources.generated_homes import generate
from tumen.data.sources.source import SMALL_INTENT, split_templates
from tumen.data.sources.templates import (
    Example,
    Speaker,
    Template,
    copied_words,
    load_templates,
    skip_words,
)
from tumen.language.action import CLOSED, COPIED, INTENTS, NUMBERS, grammar, normalise, parse, units

LANGUAGES = ("en", "zh", "de")
FILLERS = {
    name: ["milk", "two words", "牛奶"]
    for name in (
        "message",
        "search_query",
        "zone",
        "timer_name",
        "timer_command",
        "shopping_list_item",
        "todo_list_item",
    )
}


@pytest.fixture(scope="module", params=LANGUAGES)
def templates(request: pytest.FixtureRequest) -> list[Template]:
    return load_templates(request.param)


@pytest.fixture(scope="module")
def said(templates: list[Template]) -> list[Example]:
    """Two tries with every template."""
    rng, lang = random.Random(5), templates[0].lang
    speaker = Speaker(rng, generate(rng, lang, (80, 90), 0.2, held_out=False), FILLERS)
    return [example for template in templates * 2 if (example := speaker.say(template))]


def test_templates_are_known_intents_with_known_slots(templates: list[Template]) -> None:
    assert len(templates) > 100
    for template in templates:
        assert template.intent in INTENTS
        for slot, value in template.fixed.items():
            assert slot in INTENTS[template.intent], template
            assert value in CLOSED[slot], template


def test_ids_are_of_the_text(templates: list[Template]) -> None:
    again = load_templates(templates[0].lang)
    assert [template.id for template in templates] == [template.id for template in again]
    doubles = [
        name for name, count in Counter(template.id for template in templates).items() if count > 1
    ]
    assert len(doubles) < 0.05 * len(templates)


def test_nearly_every_template_can_be_said(templates: list[Template], said: list[Example]) -> None:
    """A template that never speaks is lost work; some need a device the home may lack."""
    speaking = {example.template for example in said}
    silent = {template.id for template in templates} - speaking
    assert len(silent) < 0.15 * len(templates)


def test_copied_words_stand_in_the_sentence(said: list[Example]) -> None:
    for example in said:
        assert normalise(example.sentence) == example.sentence
        runs = units(example.sentence)
        for slot, words in example.action.slots.items():
            if slot in COPIED:
                spans = (
                    "".join(runs[i:j]).strip()
                    for i in range(len(runs))
                    for j in range(i + 1, len(runs) + 1)
                )
                assert words in spans, example


def test_actions_are_of_the_language_and_can_be_read_back(
    said: list[Example], templates: list[Template]
) -> None:
    for example in said:
        assert example.action.lang == templates[0].lang
        assert parse(example.action.wire()) == example.action


def test_the_grammar_of_a_sentence_allows_its_action(said: list[Example]) -> None:
    for example in random.Random(1).sample(said, 60):
        assert Grammar(grammar(example.sentence)).accepts(example.action.wire()), example


def test_numbers_are_said_as_numbers(said: list[Example], templates: list[Template]) -> None:
    """At least some as digits and some as words."""
    values = [words for e in said for slot, words in e.action.slots.items() if slot in NUMBERS]
    digits = sum(any(char.isdigit() for char in value) for value in values)
    assert 0 < digits < len(values)


def test_the_split_holds_whole_templates_back(templates: list[Template]) -> None:
    trained, held = split_templates(templates, 0.1)
    assert not {template.id for template in trained} & {template.id for template in held}
    assert len(trained) + len(held) == len(templates)
    assert held
    sizes = Counter((template.intent, template.topic) for template in templates)
    assert all(sizes[template.intent, template.topic] >= SMALL_INTENT for template in held)
    intents = {template.intent for template in trained}
    assert intents == {template.intent for template in templates}, "every intent is trained"


def test_nothing_held_back() -> None:
    templates = load_templates("en")
    assert split_templates(templates, 0.0) == (templates, [])


@pytest.mark.parametrize(
    ("sentence", "words", "found"),
    [
        ("turn on the kitchen light", "Kitchen", "kitchen"),
        ("schalte das küchenlicht an", "Küchen", "küchenlicht"),
        ("调到 80 %", "80", "80"),
        ("打开厨房的灯", "厨房", "厨房"),
        ("turn on the on lamp", "on lamp", "on lamp"),
        ("turn on the light", "kitchen", None),
        ("turn on the light", "!!", None),
        ("a kitchen and a kit", "kit", "kit"),
    ],
)
def test_copied_words(sentence: str, words: str, found: str | None) -> None:
    assert copied_words(sentence, words) == found


def test_skip_words_are_words() -> None:
    assert all(skip_words(lang) for lang in LANGUAGES)
    with pytest.raises(KeyError):
        skip_words("tlh")


def test_unknown_language_of_the_package() -> None:
    with pytest.raises((InputError, KeyError)):
        load_templates("tlh")


def test_json_of_a_sentence_is_short(said: list[Example]) -> None:
    """What a model has to write; the device's context is 512 tokens."""
    assert max(len(json.dumps(example.action.json())) for example in said) < 600
