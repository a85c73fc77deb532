"""Sentences with not, except, later and several commands, through a session.

The model here knows a few plain commands and does not hear the rest, as a small model does.
"""

import pytest
from tests.assistant.speech import action_of
from tests.homes import Clock

from tumen.assistant import Interpretation, Session
from tumen.assistant.modifiers import clauses_of
from tumen.assistant.reading.sentence import _without_asides
from tumen.core.errors import RunnerError
from tumen.home.home import Home

DEAF = {
    "unlock": "TurnOff name=front door",
    "garage": "TurnOn domain=cover device_class=garage",
    "hall light": "TurnOff domain=light area=hallway",
    "lights are off": "TurnOff domain=light scope=all",
    "lights off": "TurnOff domain=light scope=all",
    "all lights": "TurnOff domain=light scope=all",
    "office": "TurnOff domain=light area=office",
    "desk lamp": "TurnOff name=desk lamp",
    "milk": "ShoppingListAddItem item=milk",
    "dark": "LightSet step=down domain=light",
    "volume": "SetVolume volume=8",
    "is the": "GetState domain=lock state=locked ask=all",
    "车库": "TurnOn domain=cover device_class=garage",
    "灯": "TurnOff domain=light scope=all",
    "都关掉": "TurnOff domain=light scope=all",
    "lichter": "TurnOff domain=light scope=all",
    "haustür": "TurnOff name=haustür",
    "door": "TurnOn domain=cover device_class=garage",
}


def understand(said: str) -> Interpretation:
    """What the first known words mean, whatever stands beside them."""
    lang = "zh" if said[-1] > "\u3400" else "en"
    for words, meaning in DEAF.items():
        if words in said:
            return Interpretation(action_of(meaning, lang), "device", "sure", 0.95)
    raise RunnerError(f"not understood: {said}")


@pytest.fixture
def session(home: Home) -> Session:
    for id_ in home.entities:
        if id_.startswith("light."):
            home.put(id_, {**home.state(id_), "state": "on"})
    return Session(home, understand)


def lit(home: Home) -> set[str]:
    return {
        id_
        for id_ in home.entities
        if id_.startswith("light.") and home.state(id_)["state"] == "on"
    }


@pytest.mark.parametrize(
    "sentence",
    [
        "don't unlock the front door",
        "never open the garage",
        "please do not switch the hall light off",
        "don't unlock the door and open the garage",
        "don't unlock the door or the garage",
        "leave the hall light on",
        "不要打开车库门",
        "keine Lichter ausmachen",
        "die Haustür nicht aufmachen",
    ],
)
def test_what_must_not_be_done_is_not_done(session: Session, sentence: str) -> None:
    turn = session.say(sentence)
    assert turn.changes == ()
    assert turn.refusal is not None
    assert turn.refusal.reason == "kept"
    assert not turn.error


@pytest.mark.parametrize(
    "sentence",
    [
        "unlock the door when i get home",
        "if it rains open the garage",
        "if it rains open the garage and switch the hall light off",
        "open the garage and unlock the door if somebody rings",
        "every morning unlock the front door",
        "unlock the door later",
        "unlock the door for ten minutes",
        "如果下雨就打开车库门",
        "alle Lichter aus wenn ich gehe",
    ],
)
def test_what_has_to_wait_is_not_done_now(session: Session, sentence: str) -> None:
    turn = session.say(sentence)
    assert turn.changes == ()
    assert all(part.refusal and part.refusal.reason == "later" for part in turn.parts or (turn,))


def test_but_ends_a_negation(session: Session, home: Home) -> None:
    turn = session.say("don't unlock the front door but switch the hall light off")
    assert [change.id for change in turn.changes] == ["light.hallway"]
    assert turn.reply == "All right, I leave that as it is. Turned off Hallway light."


@pytest.mark.parametrize(
    ("sentence", "spared"),
    [
        ("lights off except the hallway", {"light.hallway"}),
        ("all lights off but the hallway", {"light.hallway"}),
        (
            "all lights off except the desk lamp and the hallway",
            {"light.hallway", "light.desk_lamp"},
        ),
        (
            "except for the office switch all lights off",
            {"light.desk_lamp", "light.office_ceiling"},
        ),
        ("除了走廊的灯都关掉", {"light.hallway"}),
        ("alle lichter aus außer im Flur", {"light.hallway"}),
    ],
)
def test_exceptions_stay_as_they_are(
    session: Session, home: Home, sentence: str, spared: set[str]
) -> None:
    turn = session.say(sentence)
    assert turn.changes
    assert lit(home) == spared


def test_an_unknown_exception_stops_the_act(session: Session, home: Home) -> None:
    turn = session.say("all lights off except the unicorn")
    assert turn.changes == ()
    assert turn.question is not None
    assert turn.reply == (
        'I do not know what "the unicorn" is, so nothing was done. What shall stay as it is?'
    )


def test_a_clock_time_is_waited_for(session: Session, home: Home, clock: Clock) -> None:
    turn = session.say("switch the hall light off in five minutes")
    assert [change.id for change in turn.changes] == ["timer.1"]
    assert turn.reply == "In 5 min: switch the hall light off."
    clock.wind(299)
    assert session.due() == ()
    assert "light.hallway" in lit(home)
    clock.wind(2)
    assert session.due()[-1].reply == "Turned off Hallway light."
    assert "light.hallway" not in lit(home)


def test_exceptions_are_kept_until_then(session: Session, home: Home, clock: Clock) -> None:
    session.say("all lights off except the hallway in five minutes")
    clock.wind(301)
    session.due()
    assert lit(home) == {"light.hallway"}


def test_a_time_at_the_start_is_about_every_command(session: Session, home: Home) -> None:
    turn = session.say("in five minutes switch the hall light off and unlock the front door")
    assert {change.id for change in turn.changes} == {"timer.1", "timer.2"}
    assert home.state("lock.front_door")["state"] == "locked"


def test_what_cannot_be_done_then_is_said_now(session: Session, home: Home) -> None:
    del DEAF["milk"]
    try:
        turn = session.say("add milk at ten")
        assert turn.error
        assert home.timers == {}
    finally:
        DEAF["milk"] = "ShoppingListAddItem item=milk"


def test_a_number_after_at_may_be_the_value(session: Session, home: Home) -> None:
    turn = session.say("set the volume at 8")
    assert home.timers == {}
    assert turn.action is not None
    assert turn.action.intent == "HassSetVolume"


def test_a_question_is_answered_whatever_it_says(session: Session) -> None:
    turn = session.say("is the front door not locked when nobody is home")
    assert turn.outcome is not None
    assert turn.changes == ()


def test_a_complaint_asks_for_the_opposite_of_its_words(session: Session, home: Home) -> None:
    before = home.state("light.desk_lamp")["brightness"]
    turn = session.say("it's too dark in the office")
    assert turn.action == action_of("LightSet domain=light step=up area=office")
    assert home.state("light.desk_lamp")["brightness"] > before


def test_several_commands_are_one_turn(session: Session, home: Home) -> None:
    turn = session.say("switch the hall light off and unlock the front door")
    assert [part.sentence for part in turn.parts] == [
        "switch the hall light off",
        "unlock the front door",
    ]
    assert {change.id for change in turn.changes} == {"light.hallway", "lock.front_door"}
    assert turn.reply == "Turned off Hallway light. Unlocked Front door."


def test_undo_takes_back_the_whole_turn(session: Session, home: Home) -> None:
    session.say("switch the hall light off and unlock the front door")
    session.say("undo")
    assert "light.hallway" in lit(home)
    assert home.state("lock.front_door")["state"] == "locked"


def test_a_pronoun_is_what_the_command_before_was_about(session: Session, home: Home) -> None:
    DEAF["switch it"] = "TurnOn domain=light"
    try:
        turn = session.say("switch the desk lamp off and switch it on")
        assert turn.parts[1].resolved is not None
        assert turn.parts[1].resolved.targets == ("light.desk_lamp",)
    finally:
        del DEAF["switch it"]


def test_here_is_the_room_and_not_the_house(session: Session, home: Home) -> None:
    home.here = "office"
    session.say("lights off in here")
    assert "light.desk_lamp" not in lit(home)
    assert "light.hallway" in lit(home)


def test_a_pronoun_is_put_on_no_list(session: Session, home: Home) -> None:
    DEAF["add it"] = "ShoppingListAddItem item=it"
    try:
        turn = session.say("add it to the list")
        assert turn.changes == ()
        assert turn.question is not None
    finally:
        del DEAF["add it"]


def test_a_time_that_a_model_made_up_starts_nothing(session: Session, home: Home) -> None:
    DEAF["quarter"] = "StartTimer duration=quarter command=lamp"
    try:
        assert session.say("lamp to a quarter").changes == ()
        assert home.timers == {}
    finally:
        del DEAF["quarter"]


def test_a_time_never_widens_an_act(session: Session, home: Home, clock: Clock) -> None:
    """A model that knows the act only with its time, and takes the time for a place."""
    DEAF["lamps at ten"] = "TurnOff domain=light area=ten"
    DEAF["lamps"] = "GetState domain=light"
    try:
        turn = session.say("lamps at ten pm")
        assert turn.question is not None
        assert home.timers == {}
    finally:
        del DEAF["lamps at ten"], DEAF["lamps"]


def test_it_in_here_is_this_room_and_not_the_last_thing(session: Session, home: Home) -> None:
    home.here = "office"
    session.say("switch the hall light off")
    DEAF["make it"] = "LightSet domain=light brightness=30"
    try:
        turn = session.say("make it 30 in here")
        assert {change.id for change in turn.changes} == {"light.desk_lamp", "light.office_ceiling"}
    finally:
        del DEAF["make it"]


def test_a_timers_command_answers_no_question(session: Session, home: Home, clock: Clock) -> None:
    """Its words name a lamp that may be dimmed; the timer was set to switch it off."""
    DEAF["left bedside"] = "TurnOff name=left bedside lamp"
    DEAF["which"] = "LightSet name=bedside lamp brightness=5"
    try:
        session.say("left bedside lamp in five minutes")
        asked = session.say("which").question
        assert asked is not None
        assert "Left bedside lamp" in [option.label for option in asked.options]
        clock.wind(301)
        _, done = session.due()
        assert [change.id for change in done.changes] == ["light.bedside_left"]
        assert home.state("light.bedside_left")["state"] == "off"
    finally:
        del DEAF["left bedside"], DEAF["which"]


def test_stop_before_a_command_is_no_command() -> None:
    kept = _without_asides(clauses_of("stop, don't dim the lamp"))
    assert [clause.said for clause in kept] == ["don't dim the lamp"]
    assert [clause.said for clause in _without_asides(clauses_of("stop"))] == ["stop"]


@pytest.mark.parametrize(
    "sentence", ["yesterday the office was dark", "gestern waren alle Lichter aus", "昨天灯都关了"]
)
def test_what_is_told_or_asked_for_advice_is_no_command(
    session: Session, home: Home, sentence: str
) -> None:
    before = lit(home)
    reply = session.say(sentence)
    assert lit(home) == before
    assert reply.refusal is not None


def test_a_word_left_over_asks_which_of_several_is_meant(home: Home) -> None:
    def deaf(said: str) -> Interpretation:
        return Interpretation(action_of("TurnOn name=kitchen"), "device", "unsure", 0.01)

    before = lit(home)
    reply = Session(home, deaf).say("kitchen counter lite on")
    assert lit(home) == before
    assert reply.question is not None


@pytest.mark.parametrize("sentence", ["make sure all lights are off", "帮我把灯都关掉"])
def test_a_wish_is_a_command_all_the_same(session: Session, home: Home, sentence: str) -> None:
    session.say(sentence)
    assert not lit(home)
