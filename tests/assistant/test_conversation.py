"""Conversations: answers to questions, what is remembered, timers that run out, and errors."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.assistant.speech import action_of, states
from tests.homes import Clock, home_of, thing

from tumen.assistant import Candidate, Interpretation, Question, Reader, Session
from tumen.assistant.answers import options_meant
from tumen.assistant.dialogue import Dialogue
from tumen.core.errors import InputError, RunnerError
from tumen.home.home import Home
from tumen.language.action import HOME, Action, normalise


def session_of(home: Home, **said: str) -> Session:
    """A session whose model knows these sentences: words with `_` -> an action in short form.

    `turn_it_on="de TurnOn name=it"` is a German sentence; without a language it is English.
    """
    known: dict[str, Action] = {}
    for sentence, short in said.items():
        lang, _, rest = short.partition(" ")
        if lang not in ("en", "de", "zh"):
            lang, rest = "en", short
        known[normalise(sentence.replace("_", " "))] = action_of(rest, lang)

    def understand(sentence: str) -> Interpretation:
        if sentence not in known:
            raise RunnerError("the runner is gone; start it again\nsecond line")
        return Interpretation(known[sentence], "device", "sure", 0.9, {"prompt": 0.001})

    return Session(home, understand)


def two_lamps(clock: Clock | None = None) -> Home:
    return home_of(
        thing("light.left", "Left lamp", "den", state="off"),
        thing("light.right", "Right lamp", "hall", state="off"),
        thing("lock.safe", "Safe", "den", state="locked"),
        clock=clock,
    )


# -- answers to a question -----------------------------------------------------------------------

LABELS = ("Left bedside lamp", "Right bedside lamp", "Kitchen spot")


def options(*labels: str) -> Question:
    return Question("HassTurnOn", "en", tuple(Candidate(label, (label,)) for label in labels))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        # by number
        ("the first one", [0]),
        ("first", [0]),
        ("1", [0]),
        ("one", [0]),
        ("the second one please", [1]),
        ("number two", [1]),
        ("two", [1]),
        ("third", [2]),
        ("3", [2]),
        ("the last one", [2]),
        ("last", [2]),
        ("the fourth", []),
        ("die zweite", [1]),
        ("das letzte bitte", [2]),
        ("第二个", [1]),
        ("最后一个", [2]),
        # all of them
        ("all", [0, 1, 2]),
        ("both", [0, 1, 2]),
        ("all of them", [0, 1, 2]),
        ("the left one and the third", [0, 2]),
        ("no, the left one", [0]),
        ("alle bitte", [0, 1, 2]),
        ("全部", [0, 1, 2]),
        # by words that fit one alone
        ("left", [0]),
        ("the left one", [0]),
        ("i mean the right one", [1]),
        ("right bedside lamp", [1]),
        ("kitchen", [2]),
        ("the spots", [2]),
        ("spot in the kitchen", [2]),
        ("kitch", [2]),
        # four letters may be part of a word, fewer not
        ("side", []),
        ("bedside", []),
        ("lam", []),
        ("lamp", []),
        # nothing that fits
        ("the blue one", []),
        ("left spot", []),
        ("turn on the unicorn", []),
    ],
)
def test_which_options_an_answer_means(said: str, meant: list[int]) -> None:
    assert list(options_meant(options(*LABELS), normalise(said), home_of())) == meant


@pytest.mark.parametrize(
    ("said", "labels", "meant"),
    [
        # Chinese: characters in their order, `的` and `那个` aside
        ("左边的", ["左边床头灯", "右边床头灯"], [0]),
        ("右边那个", ["左边床头灯", "右边床头灯"], [1]),
        ("左边的那个", ["左边床头灯", "右边床头灯"], [0]),
        ("右", ["左边床头灯", "右边床头灯"], [1]),
        ("床头灯", ["左边床头灯", "右边床头灯"], []),
        ("中间的", ["左边床头灯", "右边床头灯"], []),
        # just these words win over these and more
        ("lamp", ["Lamp", "Red lamp"], [0]),
        ("red lamp", ["Lamp", "Red lamp"], [1]),
        ("bath", ["Bathroom", "Kitchen"], [0]),
        ("hall", ["Hall (Den)", "Hall (Attic)"], []),
        ("attic", ["Hall (Den)", "Hall (Attic)"], [1]),
        # a number that is no option
        ("second", ["Lamp"], []),
        ("second", ["First lamp", "Second lamp"], [1]),
        ("all", [], []),
        ("first", [], []),
    ],
)
def test_answers_with_other_options(said: str, labels: list[str], meant: list[int]) -> None:
    assert list(options_meant(options(*labels), said, home_of())) == meant


def test_an_answer_carries_out_what_was_asked_about() -> None:
    home = home_of(
        thing("fan.left", "Left fan", "den", state="off"),
        thing("fan.right", "Right fan", "hall", state="off"),
    )
    session = session_of(home, speed="FanSetSpeed percentage=40")
    asked = session.say("speed")
    assert asked.question is not None
    assert session.say("right").reply == "Set Right fan to 40 %."
    assert home.state("fan.right") == {"state": "on", "percentage": 40}
    assert home.state("fan.left") == {"state": "off"}


def test_a_question_waits_for_one_answer() -> None:
    home = home_of(
        thing("fan.a", "Left fan", "den", state="off"),
        thing("fan.b", "Right fan", "hall", state="off"),
        thing("light.c", "Lamp", "den", state="off"),
    )
    session = session_of(home, fan_on="TurnOn domain=fan", lamp_on="TurnOn name=lamp")
    asked = session.say("fan on")
    assert asked.reply == "Which one: Left fan or Right fan?"
    assert asked.changes == ()
    answered = session.say("the left one")
    assert answered.why == "answer to the question"
    assert answered.action is None
    assert [change.id for change in answered.changes] == ["fan.a"]
    # it is answered now: the same words are a new sentence
    assert session.say("the right one").error
    assert states(home, "fan.a", "fan.b") == "on off"


def test_another_command_drops_the_question() -> None:
    home = home_of(
        thing("fan.a", "Left fan", "den", state="off"),
        thing("fan.b", "Right fan", "hall", state="off"),
        thing("light.c", "Lamp", "den", state="off"),
    )
    session = session_of(home, fan_on="TurnOn domain=fan", lamp_on="TurnOn name=lamp")
    session.say("fan on")
    assert session.say("lamp on").reply == "Turned on Lamp."
    assert session.say("left").error
    assert states(home, "fan.a", "fan.b") == "off off"


def test_an_answer_that_is_not_understood_leaves_the_question() -> None:
    home = home_of(thing("fan.a", "Left fan", "den"), thing("fan.b", "Right fan", "hall"))
    session = session_of(home, fan_on="TurnOn domain=fan")
    session.say("fan on")
    assert session.say("hmm the green thing").error
    assert [change.id for change in session.say("right").changes] == ["fan.b"]


@pytest.mark.parametrize(
    "said", ["never mind", "no", "cancel", "egal", "vergiss es", "算了", "不用了"]
)
def test_a_question_may_be_dropped(said: str) -> None:
    home = home_of(thing("fan.a", "Left fan", "den"), thing("fan.b", "Right fan", "hall"))
    session = session_of(home, fan_on="TurnOn domain=fan")
    session.say("fan on")
    turn = session.say(said)
    assert turn.reply == "All right."
    assert turn.changes == ()
    assert session.dialogue.question is None


def test_a_missing_device_is_filled_in() -> None:
    home = two_lamps()
    session = session_of(home, turn_on="TurnOn", dim="LightSet brightness=20 area=here")
    assert session.say("dim").reply == "Which room do you mean?"
    filled = session.say("hall")
    assert filled.resolved is not None
    assert filled.resolved.targets == ("light.right",)
    assert home.state("light.right") == {"state": "on", "brightness": 20}
    assert session.say("turn on").reply == "Which device do you mean?"
    assert session.say("the left lamp").reply == "Turned on Left lamp."


def test_what_does_not_fill_the_gap_goes_to_the_model() -> None:
    home = two_lamps()
    session = session_of(home, turn_on="TurnOn", right_lamp="TurnOff name=right lamp")
    session.say("turn on")
    # words that name nothing: the model is asked, and it does not know them either
    assert session.say("narnia").error
    assert session.say("the left lamp").changes


def test_how_long_is_not_answered_with_a_name() -> None:
    session = session_of(two_lamps(), timer="StartTimer name=tea")
    assert session.say("timer").reply == "For how long?"
    assert session.say("left lamp").error


# -- what is remembered --------------------------------------------------------------------------


def test_it_is_what_was_acted_on_last() -> None:
    home = two_lamps()
    session = session_of(
        home,
        left_on="TurnOn name=left lamp",
        safe="GetState name=safe state=locked",
        it_red="LightSet name=it color=red",
        wrong="TurnOn name=unicorn",
    )
    assert session.say("it red").reply == "There is no it here."
    session.say("left on")
    assert [change.id for change in session.say("it red").changes] == ["light.left"]
    # a refusal is not what `it` is
    session.say("wrong")
    assert session.dialogue.last == ("light.left",)
    # a question about a thing is
    session.say("safe")
    assert session.dialogue.last == ("lock.safe",)


def test_the_room_spoken_of_is_meant_for_two_minutes() -> None:
    clock = Clock()
    home = home_of(
        thing("light.a", "Left lamp", "den", state="off"),
        thing("light.b", "Far lamp", "hall", state="off"),
        clock=clock,
    )
    session = session_of(home, left_on="TurnOn name=left lamp", lights="TurnOff domain=light")
    assert session.dialogue.area is None
    session.say("left on")
    assert session.dialogue.area == "den"
    clock.wind(120)
    assert session.say("lights").resolved.targets == ("light.a",)  # type: ignore[union-attr]
    clock.wind(121)
    assert session.dialogue.area is None
    asked = session.say("lights")
    assert asked.reply == "Which room do you mean?"
    assert session.say("hall").resolved.targets == ("light.b",)  # type: ignore[union-attr]


def test_things_of_several_rooms_leave_the_room_as_it_was() -> None:
    home = two_lamps()
    session = session_of(
        home, left_on="TurnOn name=left lamp", all_on="TurnOn name=all lamps", time="GetCurrentTime"
    )
    session.say("left on")
    session.say("all on")
    assert session.dialogue.area == "den"
    assert session.dialogue.last == ("light.left", "light.right")
    # an act on nothing leaves all of it
    session.say("time")
    assert session.dialogue.last == ("light.left", "light.right")


def test_the_home_that_knows_its_room_does_not_ask_the_dialogue() -> None:
    home = home_of(
        thing("light.a", "Left lamp", "den", state="off"),
        thing("light.b", "Far lamp", "hall", state="off"),
        here="hall",
    )
    session = session_of(home, left_on="TurnOn name=left lamp", lights="TurnOff domain=light")
    session.say("left on")
    assert session.say("lights").resolved.targets == ("light.b",)  # type: ignore[union-attr]


def test_a_things_without_a_room_is_no_room() -> None:
    home = home_of(thing("light.a", "Lamp", state="off"), thing("light.b", "Other", "den"))
    session = session_of(home, lamp="TurnOn name=lamp", lights="TurnOff domain=light")
    session.say("lamp")
    assert session.dialogue.area is None


def test_the_language_is_the_one_spoken_last() -> None:
    home = two_lamps()
    session = session_of(home, links="de TurnOn name=left lamp", left="TurnOff name=left lamp")
    assert session.say("links").reply == "Left lamp eingeschaltet."
    assert session.dialogue.lang == "de"
    session.say("left")
    assert session.dialogue.lang == "en"


# -- undo ----------------------------------------------------------------------------------------


def test_undo_goes_back_twenty_turns() -> None:
    home = two_lamps()
    session = session_of(home, on="TurnOn name=left lamp", off="TurnOff name=left lamp")
    for _ in range(11):
        session.say("on")
        session.say("off")
    replies = [session.say("undo").reply for _ in range(21)]
    assert replies[0] == "Undone: Left lamp (on)."
    assert replies[19] == "Undone: Left lamp (off)."
    assert replies[20] == "There is nothing to undo."


def test_undo_skips_turns_that_changed_nothing() -> None:
    home = two_lamps()
    session = session_of(
        home, on="TurnOn name=left lamp", safe="GetState name=safe state=locked", x="TurnOn name=x"
    )
    session.say("on")
    session.say("on")
    session.say("safe")
    session.say("x")
    assert session.say("undo").reply == "Undone: Left lamp (off)."
    assert session.say("undo").reply == "There is nothing to undo."


def test_undo_drops_the_question() -> None:
    home = home_of(thing("fan.a", "Left fan", "den"), thing("fan.b", "Right fan", "hall"))
    session = session_of(home, fan_on="TurnOn domain=fan")
    session.say("fan on")
    undone = session.say("undo")
    assert undone.why == "undo"
    assert undone.refusal is not None
    assert session.dialogue.question is None
    assert session.say("left").error


def test_an_undo_that_cannot_be_is_told() -> None:
    home = two_lamps()
    session = session_of(home, on="TurnOn name=left lamp")
    session.say("on")
    home.put("light.left", {"state": "on", "brightness": 5})
    assert session.say("undo").reply == ("Left lamp has been changed since; nothing was undone.")
    assert home.state("light.left") == {"state": "on", "brightness": 5}


# -- timers, errors, turns -----------------------------------------------------------------------


def test_a_timer_that_ran_out_is_told_and_carries_out_its_command() -> None:
    clock = Clock()
    home = two_lamps(clock)
    session = session_of(
        home,
        left_on="TurnOn name=left lamp",
        links_an="de TurnOn name=left lamp",
        in_10_minuten_links_an="de StartTimer duration=10 minuten command=links an",
        tea="StartTimer duration=5 minutes name=tea",
    )
    session.say("tea")
    session.say("in 10 minuten links an")
    assert session.due() == ()
    clock.wind(300)
    (tea,) = session.due()
    # in the language that was spoken last
    assert tea.reply == "Die Zeit ist um: Timer tea."
    assert tea.why == "a timer ran out"
    clock.wind(300)
    told, done = session.due()
    assert told.reply == "Die Zeit ist um: Timer über 10 min."
    assert done.reply == "Left lamp eingeschaltet."
    assert states(home, "light.left") == "on"
    assert session.due() == ()


def test_an_error_is_one_line() -> None:
    turn = session_of(two_lamps()).say("what is this")
    assert turn.reply == turn.error == "the runner is gone; start it again"
    assert turn.action is None
    assert turn.resolution is None
    assert set(turn.seconds) == {"understand"}


def test_an_error_without_words_is_told_by_its_kind() -> None:
    def understand(sentence: str) -> Interpretation:
        raise InputError("")

    assert Session(two_lamps(), understand).say("hello").reply == "InputError"


def test_a_turn_tells_what_came_of_it() -> None:
    home = two_lamps()
    session = session_of(home, on="TurnOn name=left lamp", gone="TurnOn name=x", loud="LightSet name=left lamp brightness=200")  # fmt: skip
    done = session.say("on")
    assert done.sentence == "on"
    assert (done.tier, done.why, done.confidence) == ("device", "sure", 0.9)
    assert done.action == Action("HassTurnOn", "en", {"name": "left lamp"})
    assert done.resolved is not None
    assert done.question is None
    assert done.refusal is None
    assert set(done.seconds) == {"prompt", "understand", "resolve", "act", "reply"}
    assert all(seconds >= 0 for seconds in done.seconds.values())
    refused = session.say("gone")
    assert refused.resolved is None
    assert refused.refusal is not None
    assert refused.refusal.reason == "absent"
    # resolved, but the act was refused
    loud = session.say("loud")
    assert loud.resolved is not None
    assert loud.refusal is not None
    assert loud.refusal.reason == "range"
    assert loud.changes == ()
    assert session.dialogue.last == ("light.left",)


def test_a_new_dialogue_remembers_nothing() -> None:
    dialogue = Dialogue(two_lamps())
    assert dialogue.area is None
    assert dialogue.question is None
    assert dialogue.last == ()
    assert dialogue.take_undoable() == []


# -- the reader ----------------------------------------------------------------------------------


class FakeRouter:
    """A router that answers with one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[tuple[str, bool]] = []
        self.closed = False
        self.device = SimpleNamespace(ontology=HOME)

    async def act(self, sentence: str, private: bool, names: Any) -> Any:
        await asyncio.sleep(0)
        self.names = names
        self.asked.append((sentence, private))
        completion = SimpleNamespace(text=self.text, confidence=0.7)
        return SimpleNamespace(
            completion=completion, tier="cloud", reason="unsure", seconds={"device": 0.1}
        )

    async def close(self) -> None:
        self.closed = True


def test_a_reader_in_a_home_says_which_words_are_its_names() -> None:
    router = FakeRouter('{"lang":"en","intent":"none"}')
    with Reader(router) as reader:  # type: ignore[arg-type]
        read = reader.of(Home.load())
        read("turn on the desk lamp in the office please")
        assert router.names == [(3, 5, ("name",)), (7, 8, ("area",))]
        read("tell me a joke")
        assert router.names == []
        reader("turn on the desk lamp")
        assert router.names == ()


def test_a_reader_interprets_through_the_router() -> None:
    router = FakeRouter('{"lang":"en","intent":"HassTurnOn","name":" desk lamp"}')
    with Reader(router, private=True) as reader:  # type: ignore[arg-type]
        found = reader("turn on the desk lamp")
        assert router.asked == [("turn on the desk lamp", True)]
        assert not router.closed
    assert found == Interpretation(
        Action("HassTurnOn", "en", {"name": "desk lamp"}), "cloud", "unsure", 0.7, {"device": 0.1}
    )
    assert router.closed


def test_a_reader_refuses_what_is_no_action() -> None:
    for text in ("", "{}", '{"lang":"en","intent":"HassMakeTea"}', "turn on the lamp"):
        with Reader(FakeRouter(text)) as reader, pytest.raises(InputError):  # type: ignore[arg-type]
            reader("turn on the desk lamp")


def test_a_language_that_no_reply_has_is_answered_in_the_first() -> None:
    router = FakeRouter('{"lang":"pt","intent":"none"}')
    router.device.ontology = HOME.model_copy(update={"languages": ("en", "pt")})
    with Reader(router) as reader:  # type: ignore[arg-type]
        assert reader("bom dia").action.lang == "en"
