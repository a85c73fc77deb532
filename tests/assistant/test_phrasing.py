"""Replies in each language: names, numbers, units, lists, and every kind of outcome."""

from __future__ import annotations

from typing import Any

import pytest
from tests.assistant.speech import answer, do
from tests.homes import Clock, home_of, thing

from tumen.assistant import Candidate, Question, Refusal, undo
from tumen.assistant.acts import Change
from tumen.assistant.replies import reply, reply_finished, reply_undone
from tumen.assistant.replies.phrasing import Phrasing
from tumen.home.entities import Timer
from tumen.home.home import Home


def lamps(count: int, **fields: Any) -> Home:
    names = ("One", "Two", "Three", "Four", "Five", "Six", "Seven")
    things = [thing(f"light.l{n}", names[n], "den", **fields) for n in range(count)]
    return home_of(*things)


def ids(count: int) -> tuple[str, ...]:
    return tuple(f"light.l{n}" for n in range(count))


@pytest.mark.parametrize(
    ("count", "lang", "told"),
    [
        (1, "en", "Turned on One."),
        (2, "en", "Turned on One and Two."),
        (3, "en", "Turned on One, Two and Three."),
        # more than three are counted
        (4, "en", "Turned on 4 lights."),
        (1, "de", "One eingeschaltet."),
        (3, "de", "One, Two und Three eingeschaltet."),
        (4, "de", "4 Lichter eingeschaltet."),
        (1, "zh", "已打开One。"),
        (3, "zh", "已打开One、Two和Three。"),
        (4, "zh", "已打开4个灯。"),
    ],
)
def test_a_few_are_named_and_many_are_counted(count: int, lang: str, told: str) -> None:
    home = lamps(count)
    assert reply(do(home, "TurnOn", *ids(count), lang=lang), home) == told


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("en", "Turned on 5 lights in Den."),
        ("de", "5 Lichter (Den) eingeschaltet."),
        ("zh", "已打开Den的5个灯。"),
    ],
)
def test_many_are_told_with_their_place(lang: str, told: str) -> None:
    assert answer(lamps(5), "TurnOn domain=light area=den", lang) == told


def test_two_places_are_told_as_two() -> None:
    things = [
        thing(f"light.{room}{n}", f"{room} {n}", room) for room in ("den", "hall") for n in (1, 2)
    ]
    home = home_of(*things)
    assert answer(home, "TurnOn domain=light area=den and hall") == (
        "Turned on 4 lights in Den and Hall."
    )


@pytest.mark.parametrize(
    ("things", "counted"),
    [
        (["light.a", "light.b"], "2 lights"),
        (["light.a"], "1 light"),
        (["light.a", "fan.b"], "2 devices"),
        (["cover.a:blind", "cover.b:blind"], "2 blinds"),
        (["cover.a:blind", "cover.b:curtain"], "2 covers"),
        (["cover.a", "cover.b"], "2 covers"),
        (["media_player.a:tv", "media_player.b:tv"], "2 media players"),
        # different domains of one class
        (["cover.a:window", "binary_sensor.b:window"], "2 windows"),
        (["script.a", "script.b"], "2 devices"),
    ],
)
def test_what_is_counted(things: list[str], counted: str) -> None:
    blocks = []
    for each in things:
        id_, _, device_class = each.partition(":")
        blocks.append(thing(id_, id_, device_class=device_class))
    phrasing = Phrasing(home_of(*blocks), "en")
    assert phrasing.counted([block["id"] for block in blocks]) == counted


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("en", "One, Two, Three, Four, Five and 2 more"),
        ("de", "One, Two, Three, Four, Five und 2 weitere"),
        # Chinese tells how many there are in all
        ("zh", "One、Two、Three、Four、Five等7个"),
    ],
)
def test_long_lists_are_shortened(lang: str, told: str) -> None:
    phrasing = Phrasing(lamps(7), lang)
    titles = phrasing.titles(ids(7))
    assert phrasing.shortened(titles) == told
    assert phrasing.shortened(titles[:5]) == phrasing.listed(titles[:5])
    assert phrasing.shortened([]) == ""


@pytest.mark.parametrize(
    ("seconds", "en", "de", "zh"),
    [
        (0, "0 s", "0 s", "0秒"),
        (1, "1 s", "1 s", "1秒"),
        (60, "1 min", "1 min", "1分钟"),
        (61, "1 min 1 s", "1 min 1 s", "1分钟1秒"),
        (3600, "1 h", "1 h", "1小时"),
        (3661, "1 h 1 min 1 s", "1 h 1 min 1 s", "1小时1分钟1秒"),
        (90_000, "25 h", "25 h", "25小时"),
        (59.6, "1 min", "1 min", "1分钟"),
    ],
)
def test_time_spans(seconds: float, en: str, de: str, zh: str) -> None:
    for lang, told in (("en", en), ("de", de), ("zh", zh)):
        assert Phrasing(home_of(), lang).time(seconds) == told


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("brightness", 40, "40 %"),
        ("humidity", 55.5, "55.5 %"),
        ("volume", 30.0, "30 %"),
        ("temperature", 20.5, "20.5 °C"),
        ("current_temperature", 19, "19 °C"),
        ("color_temperature", 2700, "2700 K"),
        ("color", "skyblue", "skyblue"),
        ("muted", True, "muted"),
        ("muted", False, "not muted"),
        ("items", ("tea", "milk"), "tea, milk"),
        ("items", (), "0"),
        ("state", "on", "on"),
        ("state", "heat", "heating"),
        ("state", "something else", "something else"),
        ("media_track", 4, "4"),
    ],
)
def test_quantities(field: str, value: Any, told: str) -> None:
    assert Phrasing(home_of(), "en").quantity(field, value) == told


def test_colours_and_states_are_told_in_the_speakers_language() -> None:
    german, chinese = Phrasing(home_of(), "de"), Phrasing(home_of(), "zh")
    assert german.quantity("color", "red") == "Rot"
    assert chinese.quantity("color", "red") == "红"
    assert german.quantity("color", "salmon") == "salmon"
    assert german.quantity("state", "locked") == "abgeschlossen"
    assert chinese.quantity("muted", True) == "静音"


def test_a_language_without_a_file_is_told_in_the_first_one() -> None:
    assert Phrasing(home_of(), "xx").reply("nevermind") == "All right."


def test_a_device_is_called_in_the_speakers_language() -> None:
    home = home_of(thing("light.a", "Lamp", "den", aliases={"de": ["Leuchte"], "zh": ["灯具"]}))
    assert reply(do(home, "TurnOn", "light.a", lang="de"), home) == "Leuchte eingeschaltet."
    assert reply(do(home, "TurnOff", "light.a", lang="zh"), home) == "已关闭灯具。"
    assert reply(do(home, "TurnOn", "light.a"), home) == "Turned on Lamp."


@pytest.mark.parametrize(
    ("id_", "before", "intent", "values", "told"),
    [
        ("light.a", {"state": "off"}, "TurnOn", {}, "Turned on Thing."),
        ("light.a", {"state": "on"}, "TurnOn", {}, "Thing was already on."),
        ("light.a", {"state": "off"}, "LightSet", {"brightness": 40}, "Set Thing to 40 %."),
        ("light.a", {"state": "off"}, "LightSet", {"brightness": 40, "color": "red"}, "Set Thing to 40 %, red."),
        ("light.a", {"state": "off"}, "LightSet", {"temperature": 2700}, "Set Thing to 2700 K."),
        ("light.a", {"state": "on", "brightness": 40}, "LightSet", {"step": "up"}, "Set Thing to 50 %."),
        ("light.a", {"state": "on", "brightness": 40}, "LightSet", {"brightness": 0}, "Turned off Thing."),
        ("light.a", {"state": "on", "brightness": 40}, "LightSet", {"brightness": 40}, "Thing was already 40 %."),
        ("light.a", {"state": "on", "brightness": 100}, "LightSet", {"step": "up"}, "Thing was already 100 %."),
        ("light.a", {"state": "off"}, "LightSet", {"step": "down"}, "Thing was already off."),
        ("cover.a", {"position": 0}, "TurnOn", {}, "Opened Thing."),
        ("cover.a", {"position": 9}, "TurnOff", {}, "Closed Thing."),
        ("cover.a", {"position": 9}, "SetPosition", {"position": 40}, "Set Thing to 40 %."),
        ("cover.a", {"position": 40}, "SetPosition", {"position": 40}, "Thing was already 40 %."),
        ("cover.a", {"position": 0}, "TurnOff", {}, "Thing was already closed."),
        ("lock.a", {"state": "unlocked"}, "TurnOn", {}, "Locked Thing."),
        ("lock.a", {"state": "locked"}, "TurnOff", {}, "Unlocked Thing."),
        ("lock.a", {"state": "locked"}, "TurnOn", {}, "Thing was already locked."),
        ("scene.a", {}, "TurnOn", {}, "Activated Thing."),
        ("script.a", {}, "TurnOn", {}, "Started Thing."),
        ("button.a", {}, "TurnOn", {}, "Pressed Thing."),
        ("climate.a", {"state": "off"}, "TurnOn", {}, "Turned on Thing."),
        ("climate.a", {"state": "heat"}, "ClimateSetTemperature", {"temperature": 20.5}, "Set Thing to 20.5 °C."),
        ("climate.a", {"state": "off"}, "ClimateSetTemperature", {"temperature": 20}, "Set Thing to 20 °C. It is off at the moment."),
        ("climate.a", {"state": "heat", "temperature": 20}, "ClimateSetTemperature", {"temperature": 20}, "Thing was already 20 °C."),
        ("climate.a", {"state": "heat"}, "ClimateSetFanMode", {"fan_mode": "low"}, "Set Thing to low."),
        ("fan.a", {"state": "off"}, "FanSetSpeed", {"percentage": 40}, "Set Thing to 40 %."),
        ("vacuum.a", {"state": "docked"}, "VacuumStart", {}, "Thing: cleaning."),
        ("vacuum.a", {"state": "docked"}, "VacuumCleanArea", {"area": "den"}, "Thing: cleaning Den."),
        ("vacuum.a", {"state": "cleaning"}, "VacuumReturnToBase", {}, "Thing: going back to the base."),
        ("vacuum.a", {"state": "docked"}, "VacuumReturnToBase", {}, "Thing was already docked."),
        ("lawn_mower.a", {"state": "docked"}, "LawnMowerStartMowing", {}, "Thing: mowing."),
        ("media_player.a", {"state": "playing"}, "MediaPause", {}, "Paused Thing."),
        ("media_player.a", {"state": "paused"}, "MediaPause", {}, "Thing was already paused."),
        ("media_player.a", {"state": "paused"}, "MediaUnpause", {}, "Playing on Thing."),
        ("media_player.a", {"state": "playing"}, "MediaNext", {}, "Next track on Thing."),
        ("media_player.a", {"state": "playing", "media_track": 4}, "MediaPrevious", {}, "Previous track on Thing."),
        ("media_player.a", {"state": "on"}, "MediaPlayerMute", {}, "Muted Thing."),
        ("media_player.a", {"state": "on", "muted": True}, "MediaPlayerMute", {}, "Thing was already muted."),
        ("media_player.a", {"state": "on", "muted": True}, "MediaPlayerUnmute", {}, "Unmuted Thing."),
        ("media_player.a", {"state": "off"}, "MediaSearchAndPlay", {"query": "jazz"}, "Playing jazz on Thing."),
        ("media_player.a", {"state": "on"}, "SetVolume", {"volume": 20}, "Set Thing to 20 %."),
        ("media_player.a", {"state": "on", "volume": 20}, "SetVolumeRelative", {"step": "up"}, "Set Thing to 30 %."),
        ("media_player.a", {"state": "on"}, "Broadcast", {"message": "hi"}, "Announced on Thing."),
    ],
)  # fmt: skip
def test_what_was_done_is_told(
    id_: str, before: dict[str, Any], intent: str, values: dict[str, Any], told: str
) -> None:
    home = home_of(thing(id_, "Thing", "den", **before))
    assert reply(do(home, intent, id_, **values), home) == told


@pytest.mark.parametrize(
    ("lang", "intent", "told"),
    [
        ("de", "TurnOff", "Lamp ausgeschaltet."),
        ("zh", "TurnOff", "已关闭Lamp。"),
        ("de", "TurnOn", "Lamp war schon an."),
        ("zh", "TurnOn", "Lamp本来就是开着的。"),
        ("en", "Nevermind", "All right."),
        ("de", "Nevermind", "In Ordnung."),
        ("zh", "Nevermind", "好的。"),
        ("en", "Respond", "Hello! Tell me what to switch, set or look up in your home."),
        ("de", "Respond", "Hallo! Sag mir, was ich im Haus schalten, einstellen oder nachsehen soll."),
        ("zh", "Respond", "你好！告诉我要开关、调节或查询家里的什么。"),
    ],
)  # fmt: skip
def test_short_replies_in_every_language(lang: str, intent: str, told: str) -> None:
    home = home_of(thing("light.a", "Lamp", "den", state="on"))
    targets = () if intent in ("Nevermind", "Respond") else ("light.a",)
    assert reply(do(home, intent, *targets, lang=lang), home) == told


def test_some_that_were_so_already_are_counted() -> None:
    home = home_of(
        thing("light.a", "One", "den", state="on"),
        thing("light.b", "Two", "den", state="off"),
        thing("light.c", "Three", "den", state="on"),
    )
    three = ("light.a", "light.b", "light.c")
    assert reply(do(home, "TurnOn", *three), home) == "Turned on Two. The other 2 already were."
    assert reply(do(home, "TurnOn", *three), home) == "One, Two and Three were already on."


def test_a_scene_tells_its_own_name_alone() -> None:
    home = home_of(
        thing("scene.a", "Party", sets={"light.b": {"state": "on"}}),
        thing("light.b", "Lamp", "den"),
    )
    assert answer(home, "TurnOn name=party") == "Activated Party."


def test_only_devices_that_are_off_are_told_to_be_off() -> None:
    home = home_of(
        thing("climate.a", "One", "den", state="off"),
        thing("climate.b", "Two", "den", state="heat"),
    )
    both = ("climate.a", "climate.b")
    told = reply(do(home, "ClimateSetTemperature", *both, temperature=20), home)
    assert told == "Set One and Two to 20 °C."
    told = reply(do(home, "ClimateSetTemperature", "climate.a", temperature=21, lang="zh"), home)
    assert told == "已把One调到21 °C。它现在关着。"


# -- undo, timers, questions, refusals -----------------------------------------------------------


def test_an_undo_tells_what_is_back() -> None:
    home = home_of(
        thing("light.a", "One", "den", state="off", brightness=40, color="red"),
        thing("light.b", "Two", "den", state="off"),
    )
    outcome = do(home, "TurnOn", "light.a", "light.b")
    assert reply_undone(undo(outcome, home), home) == "Undone: Two (off) and One (off)."
    outcome = do(home, "LightSet", "light.a", brightness=90, color="blue")
    assert reply_undone(undo(outcome, home), home) == "Undone: One (off, 40 %, red)."
    # a field that is gone again is not told
    outcome = do(home, "LightSet", "light.b", color="blue", lang="de")
    assert reply_undone(undo(outcome, home), home) == "Rückgängig gemacht: Two (aus)."
    assert reply_undone(undo(outcome, home), home) == (
        "Two wurde inzwischen geändert; nichts rückgängig gemacht."
    )


def test_a_change_tells_only_fields_that_differ() -> None:
    phrasing = Phrasing(home_of(), "en")
    change = Change("light.a", {"state": "on", "brightness": 5}, {"state": "on", "brightness": 9})
    assert phrasing.changed_fields(change) == "9 %"
    assert phrasing.changed_fields(Change("light.a", {"color": "red"}, {})) == ""


@pytest.mark.parametrize(
    ("name", "lang", "told"),
    [
        ("tea", "en", "Time is up: the tea timer."),
        ("", "en", "Time is up: the 1 min timer."),
        ("Tee", "de", "Die Zeit ist um: Timer Tee."),
        ("", "zh", "时间到：1分钟的计时器。"),
    ],
)
def test_a_timer_that_ran_out_is_told(name: str, lang: str, told: str) -> None:
    timer = Timer(id="timer.1", name=name, seconds=60)
    assert reply_finished(timer, home_of(), lang) == told


def test_timers_are_told_by_name_and_by_length() -> None:
    clock = Clock()
    home = home_of(clock=clock)
    assert answer(home, "StartTimer duration=5 minutes") == "Started a timer for 5 min."
    assert answer(home, "StartTimer duration=1 hour name=tea") == "Started the tea timer for 1 h."
    assert answer(home, "CancelAllTimers") == "Cancelled the 5 min timer and the tea timer."
    assert reply(do(home, "CancelAllTimers"), home) == "There was no timer to cancel."


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("en", "Which one: One, Two or Three?"),
        ("de", "Welches davon: One, Two oder Three?"),
        ("zh", "您指的是哪一个：One、Two，还是Three？"),
    ],
)
def test_a_question_lists_its_options(lang: str, told: str) -> None:
    options = tuple(Candidate(name, (f"light.{name}",)) for name in ("One", "Two", "Three"))
    assert reply(Question("HassTurnOn", lang, options), home_of()) == told


@pytest.mark.parametrize(
    ("reason", "en", "de", "zh"),
    [
        ("what", "Which device do you mean?", "Welches Gerät ist gemeint?", "您指的是哪个设备？"),
        ("where", "Which room do you mean?", "Welcher Raum ist gemeint?", "您指的是哪个房间？"),
        ("how_long", "For how long?", "Wie lange?", "要计时多久？"),
    ],
)
def test_other_questions(reason: str, en: str, de: str, zh: str) -> None:
    for lang, told in (("en", en), ("de", de), ("zh", zh)):
        assert reply(Question("HassTurnOn", lang, (), {}, reason), home_of()) == told


@pytest.mark.parametrize(
    ("reason", "about", "told"),
    [
        ("absent", {"words": "unicorn"}, "There is no unicorn here."),
        ("absent", {"words": "unicorn", "place": "den"}, "There is no unicorn in Den."),
        ("absent", {"kind": "fan"}, "There is no fan here."),
        ("absent", {"kind": "fan", "place": "den"}, "There is no fan in Den."),
        ("absent", {"kind": "something"}, "There is no device here."),
        ("absent", {}, "There is no device here."),
        ("place", {"words": "narnia"}, "There is no place called narnia here."),
        ("cannot", {"entity": "light.a"}, "Lamp cannot do that."),
        ("lacks", {"entity": "light.a", "slot": "color_temperature"}, "Lamp has no colour temperature to set."),
        ("value", {"slot": "brightness", "words": "loud"}, 'I did not understand "loud" as a value for brightness.'),
        ("range", {"entity": "light.a", "value": 130, "low": 0, "high": 100, "unit": "%"}, "130 % is out of range: Lamp takes 0 to 100 %."),
        ("mode", {"entity": "light.a", "words": "focus", "modes": "auto, low"}, "Lamp has no mode focus; it has auto, low."),
        ("mode", {"entity": "light.a", "words": "focus", "modes": ""}, "Lamp has no fan modes."),
        ("missing", {"slot": "query"}, "You did not say the value: what to play."),
        ("is_off", {"entity": "light.a"}, "Lamp is off."),
        ("unavailable", {"entity": "light.a"}, "Lamp cannot be reached."),
        ("unknown", {"entity": "light.a"}, "I cannot tell: Lamp does not measure it."),
        ("item", {"entity": "light.a", "words": "tea"}, "Lamp has no tea."),
        ("timer_short", {"seconds": 90}, "There are only 1 min 30 s left."),
        ("timer_range", {}, "A timer runs for a second to a week."),
        ("no_timer", {}, "There is no timer."),
        ("which_timer", {}, "There is no such timer."),
        ("changed", {"entity": "light.a"}, "Lamp has been changed since; nothing was undone."),
        ("nothing", {}, "There is nothing to undo."),
        ("not_home", {}, "That is nothing I can do in this home."),
    ],
)  # fmt: skip
def test_a_refusal_says_why(reason: str, about: dict[str, Any], told: str) -> None:
    home = home_of(thing("light.a", "Lamp", "den"))
    assert reply(Refusal("HassTurnOn", "en", reason, about), home) == told
    for lang in ("de", "zh"):
        other = reply(Refusal("HassTurnOn", lang, reason, about), home)
        assert other
        assert other != told
