"""Marks: what says not, except and later is found in the words, in every language."""

from datetime import datetime, timedelta, timezone

import pytest

from tumen.assistant import marks_in
from tumen.assistant.modifiers import clauses_of, marks_of, without_marks
from tumen.core.errors import InputError
from tumen.language.action import normalise

TUESDAY = datetime(2026, 12, 1, 14, 0, tzinfo=timezone(timedelta(hours=1)))


def kinds(sentence: str) -> set[str]:
    return {mark.kind for mark in marks_of(normalise(sentence))}


@pytest.mark.parametrize(
    "sentence",
    [
        "don't unlock the front door",
        "Don’t open the garage",
        "dont open the garage",
        "do not turn the heater on",
        "please never open the gate",
        "leave the hallway lamp on",
        "keep the back door locked",
        "you shouldn't switch the oven on",
        "turn on the fan instead of the light",
        "mach die Tür nicht auf",
        "Schalte bitte kein Licht ein",
        "lass das Licht im Flur an",
        "niemals das Garagentor öffnen",
        "das Licht bleibt an",
        "不要打开车库门",
        "别开门",
        "先不关灯",
        "门不用锁",
        "千万别把空调关了",
    ],
)
def test_a_negation_is_found(sentence: str) -> None:
    assert "negative" in kinds(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "don't forget to lock the door",
        "why don't you turn on the light",
        "it's not bright enough",
        "I can't see anything",
        "unlock the door",
        "turn on the note light",
        "vergiss nicht das Licht auszumachen",
        "kannst du nicht das Licht anmachen",
        "ich kann nichts sehen",
        "mach das Notlicht an",
        "别忘了关灯",
        "能不能把灯打开",
        "灯不够亮",
        "打开别墅的灯",
        "特别亮",
        "把差不多的都打开",
    ],
)
def test_no_negation_is_invented(sentence: str) -> None:
    assert "negative" not in kinds(sentence)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("turn on the light every morning", "every"),
        ("open the blinds daily", "every"),
        ("close the windows if it rains", "condition"),
        ("turn on the light when I get home", "event"),
        ("turn off the tv as soon as the film ends", "event"),
        ("close the blinds at sunset", "event"),
        ("turn off the heater later", "vague"),
        ("turn on the heater tomorrow morning", "vague"),
        ("run the fan for ten minutes", "lasting"),
        ("mach jeden Abend das Licht an", "every"),
        ("schalte täglich die Pumpe ein", "every"),
        ("mach das Licht an wenn ich heimkomme", "event"),
        ("schließ die Fenster falls es regnet", "condition"),
        ("bei Sonnenuntergang die Rollos runter", "event"),
        ("mach nachher das Licht aus", "vague"),
        ("每天早上打开窗帘", "every"),
        ("如果下雨就关窗", "condition"),
        ("下雨的话关窗", "condition"),
        ("到家的时候开灯", "event"),
        ("日落时拉上窗帘", "event"),
        ("待会儿关灯", "vague"),
        ("明天开空调", "vague"),
        ("last summer we painted the kitchen", "past"),
        ("wir haben gestern im Garten gegrillt", "past"),
        ("去年我们把厨房刷成了白色", "past"),
    ],
)
def test_another_time_is_found(sentence: str, kind: str) -> None:
    assert kind in kinds(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "turn on the night light",
        "good morning",
        "turn it on once more",
        "Guten Morgen",
        "dreh die Heizung bis zum Anschlag auf",
        "晚安",
        "早上好",
    ],
)
def test_nothing_waits_without_a_reason(sentence: str) -> None:
    assert not kinds(sentence)


def test_a_name_of_the_home_is_no_mark() -> None:
    said = normalise("activate do not enter")
    start = said.index("do not enter")
    assert not marks_of(said, [(start, start + len("do not enter"))])
    assert marks_of(said)


@pytest.mark.parametrize(
    ("sentence", "about", "rest"),
    [
        ("all lights off except the hallway", "the hallway", "all lights off"),
        ("except the hallway turn off all lights", "the hallway", "turn off all lights"),
        ("everything off but the tv", "the tv", "everything off"),
        (
            "turn off all lights apart from the kitchen and hall",
            "the kitchen and hall",
            "turn off all lights",
        ),
        ("alle Lichter aus außer im Flur", "im flur", "alle lichter aus"),
        ("mach alles aus bis auf den Fernseher", "den fernseher", "mach alles aus"),
        ("除了走廊的灯都关掉", "走廊的灯", "都关掉"),
        ("除了客厅以外所有灯关掉", "客厅", "所有灯关掉"),
        ("关掉所有灯除了走廊", "走廊", "关掉所有灯"),
    ],
)
def test_an_exception_and_what_is_left(sentence: str, about: str, rest: str) -> None:
    said = normalise(sentence)
    (mark,) = marks_of(said)
    assert (mark.kind, mark.about) == ("except", about)
    assert without_marks(said, [mark]) == rest


def test_but_is_an_exception_only_after_all() -> None:
    assert kinds("turn on the light but the old one") == set()


@pytest.mark.parametrize(
    ("sentence", "at", "rest"),
    [
        ("unlock the door at eight am", "2 08:00", "unlock the door"),
        ("lights off at 10 pm", "1 22:00", "lights off"),
        ("lights off at 10 p.m.", "1 22:00", "lights off"),
        ("turn it on at half past six", "1 18:30", "turn it on"),
        ("turn it on at quarter to nine", "1 20:45", "turn it on"),
        ("turn it on at ten to five", "1 16:50", "turn it on"),
        ("turn it on at 16:05", "1 16:05", "turn it on"),
        ("turn it on at seven thirty", "1 19:30", "turn it on"),
        ("turn it on at 5 o'clock", "1 17:00", "turn it on"),
        ("turn it on tomorrow at 7", "2 07:00", "turn it on"),
        ("tonight at ten turn it on", "1 22:00", "turn it on"),
        ("turn on the lamp on friday at noon", "4 12:00", "turn on the lamp"),
        ("turn it on at midnight", "2 00:00", "turn it on"),
        ("turn it on in five minutes", "1 14:05", "turn it on"),
        ("turn it on in an hour and a half", "1 15:30", "turn it on"),
        ("turn it on 20 minutes from now", "1 14:20", "turn it on"),
        ("mach es um halb sieben an", "1 18:30", "mach es an"),
        ("mach es um 20 Uhr 15 an", "1 20:15", "mach es an"),
        ("mach es um Viertel nach drei an", "1 15:15", "mach es an"),
        ("mach es um fünf vor acht an", "1 19:55", "mach es an"),
        ("mach es morgen um sieben an", "2 07:00", "mach es an"),
        ("mach es am Freitag um 8 Uhr an", "4 08:00", "mach es an"),
        ("mach es in zwei Stunden an", "1 16:00", "mach es an"),
        ("早上八点半开灯", "2 08:30", "开灯"),
        ("晚上十点关灯", "1 22:00", "关灯"),
        ("明天早上7点开灯", "2 07:00", "开灯"),
        ("下午三点一刻开灯", "1 15:15", "开灯"),
        ("五分钟后关灯", "1 14:05", "关灯"),
        ("过十分钟关灯", "1 14:10", "关灯"),
        ("周五晚上8点关灯", "4 20:00", "关灯"),
    ],
)
def test_a_moment(sentence: str, at: str, rest: str) -> None:
    """The day of December 2026, on whose first day it is two in the afternoon, and the time."""
    said = normalise(sentence)
    (mark,) = [mark for mark in marks_of(said) if mark.kind == "moment"]
    assert mark.moment is not None
    moment = mark.moment.at(TUESDAY)
    assert f"{moment.day} {moment:%H:%M}" == at
    assert without_marks(said, [mark]) == rest


@pytest.mark.parametrize(
    "sentence",
    [
        "set the heating to 20 degrees",
        "set it at 21 degrees",
        "brightness at fifty percent",
        "dim the lights by 20",
        "stell die Heizung um 2 Grad höher",
        "dimme das Licht um 10 Prozent",
        "把空调调到26度",
        "把温度调到二十六点五度",
        "turn on lamp two",
        "play radio four",
    ],
)
def test_a_value_is_no_time(sentence: str) -> None:
    assert "moment" not in kinds(sentence)


@pytest.mark.parametrize(
    ("sentence", "commands"),
    [
        ("turn on the light", ["turn on the light"]),
        (
            "close the garage and turn the hall light off",
            ["close the garage", "turn the hall light off"],
        ),
        ("open the blinds, then play some music", ["open the blinds", "play some music"]),
        ("kitchen light on and hall light off", ["kitchen light on", "hall light off"]),
        ("turn the lamp and the fan on", ["turn the lamp and the fan on"]),
        ("turn on the lamp, the fan and the tv", ["turn on the lamp and the fan and the tv"]),
        ("turn on the light, please", ["turn on the light please"]),
        ("at ten turn off the tv and lock the door", ["at ten turn off the tv", "lock the door"]),
        ("don't open the door but turn on the light", ["don't open the door", "turn on the light"]),
        ("mach das Licht an und die Heizung aus", ["mach das licht an", "die heizung aus"]),
        ("Licht aus im Büro und im Flur", ["licht aus im büro und im flur"]),
        ("打开空调然后关窗帘", ["打开空调", "关窗帘"]),
        ("把灯关掉，再把门锁上", ["把灯关掉", "把门锁上"]),
        ("打开客厅和卧室的灯", ["打开客厅和卧室的灯"]),
        ("打开台灯、风扇", ["打开台灯和风扇"]),
    ],
)
def test_commands_of_a_sentence(sentence: str, commands: list[str]) -> None:
    assert [clause.said for clause in clauses_of(sentence)] == commands


def test_a_fifth_command_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="has 5 commands, 4 is the most"):
        clauses_of("; ".join(["turn on the light"] * 5))


def test_numbers_keep_their_commas() -> None:
    (clause,) = clauses_of("set it to 21,5 degrees")
    assert clause.said == "set it to 21,5 degrees"


@pytest.mark.parametrize("sentence", ["灯调亮一点", "再亮一点", "开大一点"])
def test_a_bit_is_no_hour(sentence: str) -> None:
    assert not kinds(sentence)


@pytest.mark.parametrize("sentence", ["下午一点开灯", "凌晨一点关灯", "一点半开灯"])
def test_one_o_clock_is_an_hour(sentence: str) -> None:
    assert kinds(sentence) == {"moment"}


@pytest.mark.parametrize(
    ("sentence", "about"),
    [
        ("打开卧室的灯，吸顶灯除外", "吸顶灯"),
        ("alle Lampen aus, den Kronleuchter ausgenommen", "den kronleuchter"),
    ],
)
def test_an_exception_that_is_said_last(sentence: str, about: str) -> None:
    (clause,) = clauses_of(sentence)
    (mark,) = [mark for mark in marks_of(clause.said) if mark.kind == "except"]
    assert mark.about == about


def test_marks_as_plain_data() -> None:
    assert marks_in("don't unlock the door") == [{"kind": "negative", "words": "don't"}]
    assert [mark["kind"] for mark in marks_in("turn it off at ten pm")] == ["moment"]
    assert marks_in("all lights off except the hall") == [
        {"kind": "except", "words": "except the hall", "about": "the hall"}
    ]
    assert marks_in("turn on the light") == []
