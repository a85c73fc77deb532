"""Words that are written down or said again keep the form in which they were typed."""

from __future__ import annotations

import pytest
from tests.assistant.conftest import Clock
from tests.assistant.speech import action_of

from tumen.assistant import Interpretation, Session, typed_spans
from tumen.assistant.as_typed import as_typed
from tumen.home import Home
from tumen.language import normalise


@pytest.mark.parametrize(
    ("typed", "run", "written"),
    [
        ("Setz Öl und Müsli auf die Liste", "müsli", "Müsli"),
        ("Setz Öl und Müsli auf die Liste", "öl", "Öl"),
        ('add "Rosa\'s  Bread" to my list', "rosa's bread", "Rosa's Bread"),
        ("把iPhone 15加到购物清单", "iphone 15", "iPhone 15"),
        ("Put 7UP on the list", "7 up", "7UP"),
        ("cream with 30% fat", "30 %", "30%"),
        ("in the inn", "inn", "inn"),
        ("Café, bitte", "café", "Café"),
        ("Cafe\u0301 auf die Liste", "café", "Cafe\u0301"),
        ("ＭＩＬＫ on the list", "milk", "ＭＩＬＫ"),
        ("Oat\u200b Milk", "oat milk", "Oat Milk"),
        ("no such word", "tea", "tea"),
    ],
)  # fmt: skip
def test_copied_words_are_found_by_position(typed: str, run: str, written: str) -> None:
    assert as_typed(typed, normalise(typed), run) == written


def test_every_place_is_found_as_whole_words() -> None:
    typed = "In an Inn, in Wien"
    assert typed_spans(typed, normalise(typed), "in") == [(0, 2), (11, 13)]
    assert typed_spans(typed, "something else", "in") == []
    assert typed_spans(typed, normalise(typed), "") == []


def session(home: Home, action: str, lang: str) -> Session:
    found = action_of(action, lang)
    return Session(home, lambda said: Interpretation(found, "device", "sure", 1.0))


def test_a_list_has_the_item_as_it_was_typed(home: Home) -> None:
    said = session(home, "ShoppingListAddItem item=haferflocken für müsli", "de")
    turn = said.say("Setz Haferflocken für Müsli auf die Einkaufsliste!")
    assert home.state("todo.shopping_list")["items"][-1] == "Haferflocken für Müsli"
    assert "Haferflocken für Müsli" in turn.reply


def test_a_message_is_announced_as_it_was_typed(home: Home) -> None:
    session(home, "Broadcast message=anna's dinner is ready", "en").say(
        "Broadcast Anna's dinner is READY"
    )
    announced = [home.state(id_).get("announced") for id_ in home.entities]
    assert "Anna's dinner is READY" in announced


def test_a_timer_has_its_name_as_it_was_typed(home: Home, clock: Clock) -> None:
    session(home, "StartTimer name=spätzle duration=10 minuten", "de").say(
        "Stell einen Timer Spätzle auf 10 Minuten"
    )
    (timer,) = home.timers.values()
    assert timer.name == "Spätzle"
    session(home, "CancelTimer name=spätzle", "de").say("lösche den timer spätzle")
    assert not home.timers
