"""Plain commands are read by their words and the names of the home, without a model."""

from __future__ import annotations

import pytest
from tests.homes import Clock

from tumen.assistant import Interpretation, Question, Session, Turn
from tumen.home import Home
from tumen.language import Action


def no_model(sentence: str) -> Interpretation:
    return Interpretation(Action("none", "en"), "model", "test", 0.5)


@pytest.fixture
def session(home: Home) -> Session:
    return Session(home, no_model)


def did(turn: Turn) -> str:
    """What was read, in short: intent, targets and values of each part."""
    found = []
    for part in turn.parts or (turn,):
        if part.resolved is None:
            reason = getattr(part.resolution, "reason", "")
            found.append(("?" if isinstance(part.resolution, Question) else "!") + reason)
            continue
        values = " ".join(f"{slot}={value}" for slot, value in part.resolved.values.items())
        intent = part.resolved.intent.removeprefix("Hass")
        found.append(" ".join([intent, *part.resolved.targets, values]).strip())
    return "; ".join(found)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("reading lamp on", "TurnOn light.reading_lamp"),
        ("could you please switch the reading lamp off", "TurnOff light.reading_lamp"),
        ("reading lamp to forty", "LightSet light.reading_lamp brightness=40"),
        ("make the night light green", "LightSet light.night_light color=green"),
        ("open the garage door halfway", "SetPosition cover.garage_door position=50"),
        ("office blind half open", "SetPosition cover.office_blind position=50"),
        ("bathroom at 23 degrees", "ClimateSetTemperature climate.bathroom temperature=23"),
        ("lock the back door", "TurnOn lock.back_door"),
        ("Leselampe an", "TurnOn light.reading_lamp"),
        ("Stell die Leselampe auf 40 Prozent", "LightSet light.reading_lamp brightness=40"),
        ("Schließ die Hintertür ab", "TurnOn lock.back_door"),
        ("把阅读灯打开", "TurnOn light.reading_lamp"),
        ("阅读灯调到百分之四十", "LightSet light.reading_lamp brightness=40"),
        ("关上客厅窗帘", "TurnOff cover.living_curtains"),
        ("turn on the bedside lamp", "?which"),
        (
            "make the desk lamp 20 percent darker",
            "LightSet light.desk_lamp step=down brightness=20",
        ),
        (
            "kitchen speaker up by 15",
            "SetVolumeRelative media_player.kitchen_speaker step=up volume=15",
        ),
        ("start a timer", "?how_long"),
        # a name may be said in part, and small words may stand inside
        ("switch the strip behind the TV on", "TurnOn light.tv_strip"),
        # `Badlicht` is one lamp, this is every light of the room
        ("Mach im Bad das Licht an", "TurnOn light.bathroom light.mirror"),
    ],
)
def test_every_word_has_a_role(session: Session, said: str, expected: str) -> None:
    assert did(session.say(said)) == expected


@pytest.mark.parametrize(
    "said",
    [
        "any lights on in the office",
        "is the reading lamp on",
        "the reading lamp is broken",
        "he left the reading lamp on",
        "make the floor lamp 20 percent unicorn",
        "turn on",
        "厨房的灯开着吗",
        "ist die Leselampe an",
    ],
)
def test_a_word_without_a_role_leaves_it_to_the_model(session: Session, said: str) -> None:
    assert session.say(said).tier == "model"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "turn off the desk lamp, the hallway light and the floor lamp",
            "TurnOff light.desk_lamp; TurnOff light.hallway; TurnOff light.floor_lamp",
        ),
        ("kettle on, desk lamp off", "TurnOn switch.kettle; TurnOff light.desk_lamp"),
        (
            "Fernseher an und Stehlampe auf 15 Prozent",
            "TurnOn media_player.tv; LightSet light.floor_lamp brightness=15",
        ),
        (
            "小夜灯调成绿色，亮度百分之二十",
            "LightSet light.night_light color=green; LightSet light.night_light brightness=20",
        ),
        (
            "lights on in the bathroom and the laundry room",
            "TurnOn light.bathroom light.mirror; TurnOn light.laundry",
        ),
        ("reading lamp on and unicorn off", "TurnOn light.reading_lamp; !not_home"),
    ],
)
def test_several_commands_are_cut_where_each_is_one(
    session: Session, said: str, expected: str
) -> None:
    assert did(session.say(said)) == expected


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ("turn on the left bedside lamp", "and the other one", "TurnOn light.bedside_right"),
        ("turn on the left bedside lamp", "off again", "TurnOff light.bedside_left"),
        ("close the office blind", "and the kitchen one too", "TurnOff cover.kitchen_blind"),
        (
            "set the desk lamp to 30 percent",
            "no, the reading lamp",
            "LightSet light.reading_lamp brightness=30",
        ),
        ("dim the floor lamp to 20", "a bit brighter", "LightSet light.floor_lamp step=up"),
        ("make the floor lamp brighter", "again", "LightSet light.floor_lamp step=up"),
        ("Mach die Leselampe an", "mach sie wieder aus", "TurnOff light.reading_lamp"),
        ("打开左边床头灯", "另一个也打开", "TurnOn light.bedside_right"),
        ("打开厨房的灯", "浴室也一样", "TurnOn light.bathroom light.mirror"),
        ("turn on the left bedside lamp", "the right one as well", "TurnOn light.bedside_right"),
        ("Linke Nachttischlampe an", "nein, die rechte", "TurnOn light.bedside_right"),
    ],
)
def test_what_was_spoken_of_before_is_meant(
    session: Session, first: str, then: str, expected: str
) -> None:
    session.say(first)
    assert did(session.say(then)) == expected


@pytest.mark.parametrize("both", ["switch both off", "beide aus", "把两个都关掉", "turn them off"])
def test_several_are_what_turns_in_a_row_were_about(session: Session, both: str) -> None:
    session.say("turn on the coffee machine")
    session.say("and the kettle")
    assert did(session.say(both)) == "TurnOff switch.coffee_machine switch.kettle"


def test_a_part_of_a_name_is_of_the_kind_that_the_act_is_about(session: Session) -> None:
    """`the radio` is in `kitchen radio`, whose `down` is its volume."""
    said = "turn the radio down"
    assert did(session.say(said)) == "SetVolumeRelative media_player.kitchen_speaker step=down"


def test_a_place_holds_for_the_rest_of_the_sentence(session: Session) -> None:
    said = "alle Lichter im Büro aus und die Jalousie runter"
    assert did(session.say(said)).endswith("TurnOff cover.office_blind")


def test_what_was_said_long_ago_is_not_meant(session: Session, clock: Clock) -> None:
    session.say("turn on the reading lamp")
    clock.wind(3600)
    assert session.say("off again").tier == "model"


def test_how_it_is_is_no_command(session: Session) -> None:
    """`a bit cold` asks for heat, though `cold` is said."""
    turn = session.say("浴室里有点凉")
    assert turn.tier != "words"


def test_all_lights_are_those_of_a_known_room(home: Home) -> None:
    tree = {**home.snapshot(), "here": "kitchen"}
    session = Session(Home.of(tree), no_model)
    expected = "TurnOff light.kitchen_ceiling light.kitchen_counter"
    assert did(session.say("all lights off")) == expected
    everywhere = session.say("all lights off everywhere").resolved
    assert everywhere is not None
    assert len(everywhere.targets) > 10


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "bedroom lights on, only the ceiling one stays off",
            "light.bedside_left light.bedside_right",
        ),
        (
            "in the bedroom only the ceiling light stays off, turn the rest on",
            "light.bedside_left light.bedside_right",
        ),
        (
            "turn on the bedroom lights but leave the left bedside lamp off",
            "light.bedroom_ceiling light.bedside_right",
        ),
        (
            "Im Schlafzimmer Licht an, nur die Deckenlampe bleibt aus",
            "light.bedside_left light.bedside_right",
        ),
        ("卧室的灯都打开，左边床头灯不用", "light.bedroom_ceiling light.bedside_right"),
    ],
)
def test_what_stays_as_it_is_is_left_out(session: Session, said: str, expected: str) -> None:
    assert did(session.say(said)) == f"TurnOn {expected}"


def test_a_part_that_stays_and_is_unknown_is_asked_about(session: Session) -> None:
    assert did(session.say("bedroom lights on, only the unicorn stays off")) == "?except"


def test_an_exception_in_another_room_is_about_the_whole_home(home: Home) -> None:
    session = Session(Home.of({**home.snapshot(), "here": "kitchen"}), no_model)
    turn = session.say("turn off all lights except the hallway")
    assert turn.resolved is not None
    assert "light.desk_lamp" in turn.resolved.targets
    assert "light.hallway" not in turn.resolved.targets


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("the one in the bathroom", "TurnOn fan.bathroom"),
        ("der im Schlafzimmer", "TurnOn fan.bedroom"),
        ("浴室里的那个", "TurnOn fan.bathroom"),
        ("all of them", "TurnOn fan.bathroom fan.bedroom fan.living_room"),
        ("the ceiling fan", "TurnOn fan.living_room"),
        ("neither", "Nevermind"),
        ("都不要", "Nevermind"),
    ],
)
def test_answers_to_which_fan(session: Session, answer: str, expected: str) -> None:
    assert did(session.say("turn the fan on")) == "?which"
    assert did(session.say(answer)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "put flour, sugar and vanilla on the shopping list",
            "ListAddItem todo.shopping_list item=flour; ListAddItem todo.shopping_list item=sugar; "
            "ListAddItem todo.shopping_list item=vanilla",
        ),
        (
            "Eier und Zucker auf die Einkaufsliste",
            "ListAddItem todo.shopping_list item=Eier; ListAddItem todo.shopping_list item=Zucker",
        ),
        ("购物清单加上鸡蛋", "ListAddItem todo.shopping_list item=鸡蛋"),
        ("take milk off the list", "ListRemoveItem todo.shopping_list item=milk"),
        (
            "we've got milk, tick it off the shopping list",
            "ListCompleteItem todo.shopping_list item=milk",
        ),
        ("take out the trash is done", "ListCompleteItem todo.chores item=take out the trash"),
        ("add it to the shopping list", "?what"),
    ],
)
def test_items_of_lists(session: Session, said: str, expected: str) -> None:
    assert did(session.say(said)) == expected


def test_one_more_item_goes_on_the_same_list(session: Session) -> None:
    session.say("add pasta to the shopping list")
    assert did(session.say("and tomatoes")) == "ListAddItem todo.shopping_list item=tomatoes"
    assert session.say("and what time is it").tier == "model"


def test_a_time_of_tomorrow_is_said(session: Session) -> None:
    """It is a quarter past eight in the evening."""
    assert session.say("turn the desk lamp off at 3 am").reply.startswith("Tomorrow, in ")
    assert session.say("turn the desk lamp off at ten pm").reply.startswith("In ")


def test_a_script_is_not_turned_off(session: Session) -> None:
    assert did(session.say("water the plants on")) == "TurnOn script.water_plants"
    assert session.say("water the plants off").changes == ()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("除了走廊和书房，其他灯都关掉", "light.floor_lamp"),
        ("turn on 阅读灯", "light.reading_lamp"),
    ],
)
def test_the_rest_and_names_in_another_script(session: Session, said: str, expected: str) -> None:
    assert [change.id for change in session.say(said).changes] == [expected]


def test_one_is_no_number_without_a_question(home: Home) -> None:
    def percent(sentence: str) -> Interpretation:
        slots = {"area": "kitchen", "brightness": "one"}
        return Interpretation(Action("HassLightSet", "en", slots), "templates", "test", 1.0)

    assert Session(home, percent).say("the kitchen one").changes == ()


def test_a_word_that_nothing_accounts_for_asks_instead_of_meaning_all(home: Home) -> None:
    def all_lights(sentence: str) -> Interpretation:
        return Interpretation(Action("HassTurnOn", "en", {"domain": "light"}), "model", "", 0.9)

    session = Session(Home.of({**home.snapshot(), "here": "living_room"}), all_lights)
    assert did(session.say("turn on the lamp for sewing")) == "?which"


def test_a_name_may_sound_like_a_time(clock: Clock) -> None:
    lamp = {"id": "light.dawn", "name": "Sunrise", "state": "off"}
    session = Session(Home.of({"entity": [lamp]}, clock), no_model)
    assert did(session.say("turn on Sunrise")) == "TurnOn light.dawn"
    assert session.say("turn off Sunrise at sunrise").changes == ()
