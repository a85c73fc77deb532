"""Conversations: one turn a sentence, replies in the speaker's language, nothing raised."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tumen.assistant import Session, Turn
from tumen.core.errors import RunnerError
from tumen.home.home import Home
from tumen.language.action import Action, normalise

SAID = {
    "turn on the kitchen light": Action("HassTurnOn", "en", {"domain": "light", "area": "kitchen"}),
    "打开厨房的灯": Action("HassTurnOn", "zh", {"domain": "light", "area": "厨房"}),
    "mach das licht in der küche an": Action(
        "HassTurnOn", "de", {"domain": "light", "area": "küche"}
    ),
    "turn on the desk lamp": Action("HassTurnOn", "en", {"name": "desk lamp"}),
    "schalte die schreibtischlampe ein": Action("HassTurnOn", "de", {"name": "schreibtischlampe"}),
    "打开台灯": Action("HassTurnOn", "zh", {"name": "台灯"}),
    "turn on the bedside lamp": Action("HassTurnOn", "en", {"name": "bedside lamp"}),
    "打开床头灯": Action("HassTurnOn", "zh", {"name": "床头灯"}),
    "unlock the door": Action("HassTurnOff", "en", {"name": "door"}),
    "turn off all office lights": Action(
        "HassTurnOff", "en", {"domain": "light", "area": "office"}
    ),
    "turn on the office lights": Action("HassTurnOn", "en", {"domain": "light", "area": "office"}),
    "make it blue": Action("HassLightSet", "en", {"name": "it", "color": "blue"}),
    "set the desk lamp to 150": Action(
        "HassLightSet", "en", {"name": "desk lamp", "brightness": "150"}
    ),
    "turn on the unicorn": Action("HassTurnOn", "en", {"name": "unicorn"}),
    "打开独角兽": Action("HassTurnOn", "zh", {"name": "独角兽"}),
    "schalte das einhorn ein": Action("HassTurnOn", "de", {"name": "einhorn"}),
    "who was napoleon": Action("none", "en"),
    "what is the capital": Action("none", "de"),
    "turn off the lights": Action("HassTurnOff", "en", {"domain": "light"}),
    "any lights on in the office": Action(
        "HassGetState", "en", {"domain": "light", "state": "on", "ask": "any", "area": "office"}
    ),
    "how warm is the living room": Action(
        "HassClimateGetTemperature", "en", {"area": "living room"}
    ),
    "what time is it": Action("HassGetCurrentTime", "en"),
    "turn off desk lamp in 10 minutes": Action(
        "HassStartTimer", "en", {"duration": "10 minutes", "command": "turn off desk lamp"}
    ),
    "turn it on": Action("HassTurnOn", "en"),
    "lights on in here": Action("HassTurnOn", "en", {"domain": "light", "area": "here"}),
    "turn off desk lamp": Action("HassTurnOff", "en", {"name": "desk lamp"}),
    "pizza timer for five minutes": Action(
        "HassStartTimer", "en", {"duration": "five minutes", "name": "pizza"}
    ),
}


@dataclass(frozen=True)
class Read:
    """What a model would have understood."""

    action: Action
    tier: str = "device"
    why: str = "sure"
    confidence: float = 0.97
    seconds: Mapping[str, float] = field(default_factory=lambda: {"prompt": 0.001})


def understand(sentence: str) -> Read:
    if sentence not in SAID_NORMAL:
        raise RunnerError("the runner is gone; start it again")
    return Read(SAID_NORMAL[sentence])


SAID_NORMAL = {normalise(sentence): action for sentence, action in SAID.items()}


@pytest.fixture
def session(home: Home) -> Session:
    return Session(home, understand)


def replies(session: Session, *sentences: str) -> list[str]:
    return [session.say(sentence).reply for sentence in sentences]


@pytest.mark.parametrize(
    "sentence", ["turn on the kitchen light", "打开厨房的灯", "mach das Licht in der Küche an!"]
)
def test_three_languages_switch_the_same_lights(session: Session, sentence: str) -> None:
    turn = session.say(sentence)
    assert {change.id for change in turn.changes} == {
        "light.kitchen_ceiling",
        "light.kitchen_counter",
    }
    assert all(change.fields() == {"state": ("off", "on")} for change in turn.changes)
    assert (turn.tier, turn.why, turn.confidence) == ("words", "every word is known", 1.0)
    assert {"understand", "resolve", "act", "reply"} <= turn.seconds.keys()


def test_a_model_reads_what_words_alone_do_not(session: Session) -> None:
    turn = session.say("how warm is the living room")
    assert (turn.tier, turn.why, turn.confidence) == ("device", "sure", 0.97)
    assert {"understand", "resolve", "act", "reply", "prompt"} <= turn.seconds.keys()


def test_it_was_already_so(session: Session) -> None:
    assert replies(
        session, "turn on the desk lamp", "打开台灯", "schalte die Schreibtischlampe ein"
    ) == ["Desk lamp was already on.", "台灯本来就是开着的。", "Schreibtischlampe war schon an."]
    assert session.say("turn on the desk lamp").changes == ()


def test_replies_say_what_happened(session: Session) -> None:
    assert replies(
        session,
        "turn on the kitchen light",
        "打开厨房的灯",
        "dance around the desk lamp",
        "turn off desk lamp",
        "turn on the office lights",
        "set the desk lamp to 150",
        "turn on the unicorn",
        "打开独角兽",
        "schalte das Einhorn ein",
        "any lights on in the office",
        "how warm is the living room",
        "what time is it",
    ) == [
        "Turned on Kitchen ceiling light and Kitchen counter light.",
        "厨房吸顶灯和厨房台面灯本来就是开着的。",
        "the runner is gone; start it again",
        "Turned off Desk lamp.",
        "Turned on Desk lamp. The other 1 already were.",
        "150 % is out of range: Desk lamp takes 0 to 100 %.",
        "There is no unicorn here.",
        "这里没有独角兽。",
        "Einhorn gibt es hier nicht.",
        "Yes: Desk lamp and Office ceiling light.",
        "Living room: 20.5 °C.",
        "It is 20:15.",
    ]


@pytest.mark.parametrize("sentence", ["who was Napoleon", "what is the capital"])
def test_what_is_not_for_the_home_is_refused(session: Session, sentence: str) -> None:
    turn = session.say(sentence)
    assert turn.reply
    assert turn.refusal is not None
    assert turn.changes == ()


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("the second one", "light.bedside_right"),
        ("the first", "light.bedside_left"),
        ("2", "light.bedside_right"),
        ("the last one", "light.bedside_right"),
        ("the left one", "light.bedside_left"),
        ("the right one please", "light.bedside_right"),
        ("Right bedside lamp", "light.bedside_right"),
    ],
)
def test_a_question_is_answered_without_the_model(
    session: Session, answer: str, target: str
) -> None:
    asked = session.say("turn on the bedside lamp")
    assert asked.question is not None
    assert asked.reply == "Which one: Left bedside lamp or Right bedside lamp?"
    turn = session.say(answer)
    assert [change.id for change in turn.changes] == [target]
    assert turn.action is None


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("左边的", "light.bedside_left"),
        ("右边那个", "light.bedside_right"),
        ("第二个", "light.bedside_right"),
    ],
)
def test_a_chinese_answer(session: Session, answer: str, target: str) -> None:
    session.say("打开床头灯")
    assert [change.id for change in session.say(answer).changes] == [target]


def test_it_is_asked_for_where_nothing_was_spoken_of_yet(session: Session) -> None:
    assert session.say("turn it on").reply == "Which device do you mean?"
    assert [change.id for change in session.say("the reading lamp").changes] == [
        "light.reading_lamp"
    ]


def test_a_missing_device_or_room_is_filled_in(session: Session) -> None:
    assert session.say("lights on in here").reply == "Which room do you mean?"
    assert {change.id for change in session.say("bathroom").changes} == {
        "light.bathroom",
        "light.mirror",
    }
    # what was spoken of last
    assert session.say("turn it on").reply == "Bathroom light and Mirror light were already on."
    assert session.say("turn on the kitchen light").action is not None


def test_both_and_neither(session: Session) -> None:
    session.say("turn on the bedside lamp")
    assert len(session.say("both").changes) == 2
    session.say("unlock the door")
    turn = session.say("never mind")
    assert turn.changes == ()
    assert session.dialogue.question is None


def test_another_command_lets_the_question_go(session: Session) -> None:
    session.say("turn on the bedside lamp")
    assert session.say("turn on the kitchen light").changes
    assert session.dialogue.question is None
    assert session.say("the second one").error


def test_undo_takes_back_turn_by_turn(session: Session, home: Home) -> None:
    was = home.snapshot()
    session.say("turn on the kitchen light")
    session.say("turn off desk lamp")
    assert replies(session, "undo", "撤销", "mach das rückgängig") == [
        "Undone: Desk lamp (on).",
        "Undone: Kitchen counter light (off) and Kitchen ceiling light (off).",
        "There is nothing to undo.",
    ]
    assert home.snapshot() == was


def test_it_and_the_room_spoken_of(session: Session, clock: Any) -> None:
    session.say("turn off desk lamp")
    assert [change.id for change in session.say("make it blue").changes] == ["light.desk_lamp"]
    assert session.say("turn off the lights").resolved.targets == (
        "light.desk_lamp",
        "light.office_ceiling",
    )  # type: ignore[union-attr]
    clock.wind(600)
    assert session.say("turn off the lights").reply == "Which room do you mean?"


def test_a_timer_carries_out_its_command(session: Session, home: Home, clock: Any) -> None:
    assert session.say("turn off desk lamp in 10 minutes").reply == "In 10 min: turn off desk lamp."

    session.say("pizza timer for five minutes")
    assert session.due() == ()
    clock.wind(301)
    assert [turn.reply for turn in session.due()] == ["Time is up: the pizza timer."]
    clock.wind(300)
    assert [turn.reply for turn in session.due()][-1] == "Turned off Desk lamp."
    assert home.timers == {}


@pytest.mark.parametrize(
    "sentence", ["", "   ", "?!", "x" * 10_000, "lamp " * 80, "\x00", "\ud800", "{}[]"]
)
def test_no_sentence_raises(session: Session, sentence: str) -> None:
    turn = session.say(sentence)
    assert isinstance(turn, Turn)
    assert turn.error
    assert turn.reply == turn.error
    assert "\n" not in turn.reply
    assert turn.changes == ()


def test_the_names_of_a_home_are_read_before_its_first_sentence() -> None:
    home = Home.load()
    Session(home, lambda sentence: None)  # type: ignore[arg-type, return-value]
    assert "index" in vars(home)
