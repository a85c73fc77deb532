"""Templates of Home Assistant have the first word where they are installed."""

import pytest
from tests.assistant.speech import action_of
from tests.homes import home_of, thing

from tumen.assistant import Interpretation, TemplateMatcher, templates_first
from tumen.assistant import matcher as module
from tumen.core.errors import MissingExtra, RunnerError
from tumen.home.home import Home
from tumen.language.action import normalise


@pytest.fixture(scope="module")
def matcher() -> TemplateMatcher:
    return TemplateMatcher(Home.load())


@pytest.mark.parametrize(
    ("sentence", "lang", "action"),
    [
        ("turn on the kitchen lights", "en", "TurnOn area=kitchen domain=light"),
        ("set a timer for five minutes", "en", "StartTimer duration=5 minutes"),
        ("mach das Licht im Flur aus", "de", "TurnOff area=flur domain=light"),
        ("打开客厅的灯", "zh", "TurnOn area=客厅 domain=light"),
        # all of them, not those of this room
        ("turn off all the lights", "en", "TurnOff domain=light scope=all"),
        ("关掉所有的灯", "zh", "TurnOff domain=light scope=all"),
        # a step in percent has a direction and an amount
        (
            "turn up kitchen speaker volume by 5",
            "en",
            "SetVolumeRelative step=up name=kitchen speaker volume=5",
        ),
        # which answer is wanted
        ("are all the lights on", "en", "GetState domain=light state=on ask=all"),
        ("how many lights are on", "en", "GetState domain=light state=on ask=how_many"),
        # a template that takes the room for granted; the room is found out later
        ("next track", "en", "MediaNext"),
        ("下一首", "zh", "MediaNext"),
        # templates have no space between scripts, sentences have
        ("把音量设置到50%", "zh", "SetVolume volume=50"),
        # a place of a person is no state of a thing
        ("is anyone home", "en", "GetState domain=person ask=any zone=home"),
    ],
)
def test_a_template_fits(matcher: TemplateMatcher, sentence: str, lang: str, action: str) -> None:
    assert matcher.match(normalise(sentence), lang) == action_of(action, lang)


@pytest.mark.parametrize(
    "sentence",
    ["don't turn on the kitchen lights", "could we have some light", "turn on the unicorn"],
)
def test_no_template_fits(matcher: TemplateMatcher, sentence: str) -> None:
    assert matcher.match(normalise(sentence), "en") is None


@pytest.mark.parametrize(
    ("intent", "tier", "query"),
    [("MediaSearchAndPlay query=abba", "templates", "abba gold"), ("none", "device", None)],
)
def test_a_template_for_any_words_needs_the_model_to_agree(
    home: Home, intent: str, tier: str, query: str | None
) -> None:
    def model(said: str) -> Interpretation:
        return Interpretation(action_of(intent), "device", "sure", 0.9)

    found = templates_first(home, model)("play abba gold")
    assert (found.tier, found.action.slots.get("query")) == (tier, query)


def test_a_bare_stop_is_the_models(home: Home) -> None:
    # it fits `pause`, and so does a pause in the middle of another sentence
    nothing = Interpretation(action_of("none"), "device", "sure", 0.9)
    assert templates_first(home, lambda said: nothing)("stop").action.intent == "none"


def test_a_name_with_marks_is_found_as_it_is_said() -> None:
    matcher = TemplateMatcher(home_of(thing("todo.list", "To-Do")))
    found = matcher.match(normalise("Füge Putzen zur To-Do-Liste hinzu"), "de")
    assert found == action_of("ListAddItem name=to do item=putzen", "de")


def guess(said: str) -> Interpretation:
    """A model that is sure of something else."""
    return Interpretation(action_of("TurnOn name=fan"), "device", "sure", 0.9, {"device": 0.004})


def test_templates_come_before_the_model(home: Home) -> None:
    read = templates_first(home, guess)
    found = read("turn on the kitchen lights")
    assert found.action == action_of("TurnOn area=kitchen domain=light")
    assert (found.tier, found.why, found.confidence) == ("templates", "exact", 1.0)
    # nobody was asked
    assert found.seconds.keys() == {"templates"}
    assert read("could we have some light").tier == "device"


@pytest.mark.parametrize(
    ("sentence", "lang"),
    [
        ("turn on the light", "en"),
        ("mach das licht in der küche an", "de"),
        ("mach bitte mehr licht", "de"),
        ("lights off", "en"),
        ("打开灯", "zh"),
    ],
)
def test_the_language_by_small_words(sentence: str, lang: str) -> None:
    assert module.likely_language(sentence) == lang


def test_the_model_corrects_the_language(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without small words of its own a sentence is tried as English first."""
    monkeypatch.setattr(module, "likely_language", lambda said: "en")

    def hear(said: str) -> Interpretation:
        return Interpretation(action_of("none", "de"), "device", "sure", 0.9, {"device": 0.1})

    found = templates_first(home, hear)("flur licht aus")
    assert (found.tier, found.action.lang) == ("templates", "de")
    assert found.seconds.keys() == {"device", "templates"}


def test_the_model_knows_the_direction(home: Home) -> None:
    """The Chinese template of a step in percent knows upwards only."""

    def hear(said: str) -> Interpretation:
        action = action_of("SetVolumeRelative step=down name=x", "zh")
        return Interpretation(action, "device", "sure", 0.9)

    found = templates_first(home, hear)("给厨房音箱声音调小百分之二十")
    assert found.tier == "templates"
    assert found.action.slots["step"] == "down"


def test_templates_answer_where_no_model_does(home: Home) -> None:
    def gone(said: str) -> Interpretation:
        raise RunnerError("the runner is gone; start it again")

    read = templates_first(home, gone)
    assert read("mach das licht im flur aus").action.lang == "de"
    with pytest.raises(RunnerError, match="start it again"):
        read("could we have some light")


def test_without_the_extra_the_model_answers_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str, purpose: str) -> None:
        raise MissingExtra(f"{purpose} needs {package}")

    monkeypatch.setattr(module, "need", missing)
    assert templates_first(home, guess) is guess
