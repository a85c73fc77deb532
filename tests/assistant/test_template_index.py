"""The index leaves out templates that cannot match, and no others."""

from __future__ import annotations

import random

import pytest
from tests.homes import home_of, thing

from tumen.assistant import TemplateMatcher
from tumen.assistant.template_index import HomeNames, TemplateIndex, letters
from tumen.data.sources import language_data
from tumen.data.sources.generated_homes import generate
from tumen.data.sources.templates import Speaker, load_templates
from tumen.home import Home
from tumen.language import LANGUAGES, normalise

hassil = pytest.importorskip("hassil")
home_assistant_intents = pytest.importorskip("home_assistant_intents")

TREE = {
    "language": "en",
    "intents": {
        "On": {"data": [{"sentences": ["(turn|switch) on [the] {name}", "<light>s on"]}]},
        "Set": {"data": [{"sentences": ["{name} to {level}[%| percent]"]}]},
        "Colour": {"data": [{"sentences": ["make {name} {colour}"]}]},
        "Say": {"data": [{"sentences": ["say {words}[ loudly]", "tell|{words} is said"]}]},
        "Home": {"data": [{"sentences": ["{name}[ ]licht an"]}]},
    },
    "lists": {
        "level": {"range": {"from": 0, "to": 100}},
        "words": {"wildcard": True},
        "colour": {"values": [{"in": "[dark ]red", "out": "red"}, "blue"]},
    },
    "expansion_rules": {"light": "(light|lamp)"},
    "skip_words": ["please", "now"],
}


@pytest.fixture(scope="module")
def index() -> TemplateIndex:
    return TemplateIndex(TREE, "en")


@pytest.mark.parametrize(
    ("said", "intents"),
    [
        ("turn on the fan", {"On"}),
        ("please switch on fan now", {"On"}),
        ("lamps on", {"On"}),
        ("lamp on", set()),
        ("fan to 20 %", {"Set"}),
        ("fan to twenty percent", {"Set"}),
        ("fan to blue", set()),
        ("make fan dark red", {"Colour"}),
        ("make fan dark blue", {"Colour"}),  # its words are there; hassil says no
        ("make fan green", set()),
        ("say anything at all", {"Say"}),
        ("fan licht an", {"Home"}),
        ("fanlicht an", {"Home"}),
        ("turn on the oven", set()),
    ],
)
def test_what_can_match_is_tried(index: TemplateIndex, said: str, intents: set[str]) -> None:
    names = {"name": [("fan", "fan")]}
    chosen = set(index.chosen(said, names).intents)
    # `tell|{words} is said` has no word that it needs
    assert chosen - {"Say"} == intents - {"Say"}
    assert "Say" in chosen


def test_the_templates_themselves_are_left_as_they_are(index: TemplateIndex) -> None:
    before = len(index.intents.intents["On"].data[0].sentences)
    chosen = index.chosen("lamps on", {})
    assert len(chosen.intents["On"].data[0].sentences) == 1
    assert len(index.intents.intents["On"].data[0].sentences) == before == 2


def test_letters_are_what_is_compared() -> None:
    assert letters("What's the TÜR-Straße, 5 %?") == "whatsthetürstrasse5"


def test_names_that_are_not_said_are_not_tried() -> None:
    names = HomeNames({"name": [("Floor Lamp", 1), ("Lamp", 2), ("Fan", 3)], "area": [("Hall", 4)]})
    said = names.said("turn the floor lamp on")
    assert said == {"name": [("Floor Lamp", 1), ("Lamp", 2)], "area": []} or said == {
        "name": [("Lamp", 2), ("Floor Lamp", 1)],
        "area": [],
    }


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_answer_is_that_of_all_templates(lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    made = generate(rng, lang, (40, 40), 0.0, held_out=False)
    matcher = TemplateMatcher(Home.of(made.tree))
    code = language_data(lang).home_assistant
    every = hassil.Intents.from_dict(home_assistant_intents.get_intents(code))
    templates = [one for one in load_templates(lang) if one.intent != "none"]
    said = []
    while len(said) < 40:
        example = Speaker(rng, made, {}).say(rng.choice(templates))
        if example is not None:
            said.append(normalise(example.sentence))
    said += ["set brightness to twenty point five percent", "licht auf einundzwanzig prozent"]
    chosen = [matcher.match(sentence, lang) for sentence in said]
    monkeypatch.setattr(TemplateIndex, "chosen", lambda *_: every)
    monkeypatch.setattr(HomeNames, "said", lambda names, _: names.lists)
    assert [matcher.match(sentence, lang) for sentence in said] == chosen
    assert sum(action is not None for action in chosen) > 5


def test_a_number_in_words_may_be_the_longest_of_all() -> None:
    index = TemplateIndex(TREE, "en")
    found = index.chosen("lamp to ninety nine percent", {"name": [("lamp", "lamp")]})
    assert "Set" in found.intents


def test_five_thousand_names_cost_no_more_than_a_few() -> None:
    many = home_of(*[thing(f"light.l{n}", f"Lamp {n} of Room {n % 70}") for n in range(5000)])
    names = HomeNames({"name": [(entity.name, entity.name) for entity in many.entities.values()]})
    assert len(names.said("turn on lamp 4321 of room 51")["name"]) == 1
