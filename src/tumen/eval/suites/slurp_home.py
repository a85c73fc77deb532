"""Suite `slurp-home`: SLURP's scenario `iot` as requests to a home, all others as not for it.

Data: a JSONL file of SLURP (github.com/pswietojanski/slurp, CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tumen.assistant.values import Values
from tumen.data.sources import read_slurp_rows
from tumen.eval.eval_case import EvalCase, Grade, case_sentence
from tumen.eval.suites.suite import Suite
from tumen.home import Home, at_home
from tumen.language import INTENTS, NONE, Action

Accept = Callable[[Action], bool]


def _sets_light(*steps: str) -> Accept:
    """Accept a light setting in one of these directions, or to a level."""

    def accept(action: Action) -> bool:
        if action.intent != "HassLightSet":
            return False
        return action.slots.get("step") in steps or "brightness" in action.slots

    return accept


def _has_intent(*intents: str) -> Accept:
    def accept(action: Action) -> bool:
        return action.intent in intents

    return accept


def _changes_light(action: Action) -> bool:
    return action.intent == "HassLightSet" and "step" not in action.slots


def _lights_up(action: Action) -> bool:
    """Accept more light: "it's dark in here" asks to switch on or to brighten."""
    return action.intent == "HassTurnOn" or _sets_light("up")(action)


def _starts_coffee_machine(action: Action) -> bool:
    return action.intent == "HassTurnOn" and "name" in action.slots


# SLURP's requests to a home -> actions that do what is asked.
REQUESTS: dict[str, Accept] = {
    "hue_lightup": _sets_light("up"),
    "hue_lightdim": _sets_light("down"),
    "hue_lightchange": _changes_light,
    "hue_lighton": _lights_up,
    "hue_lightoff": _has_intent("HassTurnOff"),
    "cleaning": _has_intent("HassVacuumStart", "HassVacuumCleanArea"),
    "coffee": _starts_coffee_machine,
    "wemo_on": _has_intent("HassTurnOn"),
    "wemo_off": _has_intent("HassTurnOff"),
}
# Entities of SLURP -> slots of which one must hold their words. Times and amounts change no device
# here and are not graded.
ENTITY_SLOTS = {
    "house_place": ("area", "name"),
    "device_type": ("name", "area"),
    "color_type": ("color",),
}
_MEDIA = tuple(name for name in INTENTS if "Media" in name)
# Scenarios that ask for something this home does as well: these intents are not false acts there.
HOME_INTENTS_OF_SCENARIO = {
    "lists": (
        "HassShoppingListAddItem",
        "HassShoppingListCompleteItem",
        "HassListAddItem",
        "HassListRemoveItem",
        "HassListCompleteItem",
    ),
    "audio": (
        "HassSetVolume",
        "HassSetVolumeRelative",
        "HassMediaPlayerMute",
        "HassMediaPlayerUnmute",
        "HassMediaPause",
    ),
    "weather": ("HassGetWeather", "HassClimateGetTemperature"),
    "datetime": ("HassGetCurrentTime", "HassGetCurrentDate", "HassTimerStatus"),
    "play": _MEDIA,
    "music": _MEDIA,
}
HOME_SCENARIO = "iot"


def slurp_home_cases(path: Path, home: Home, broken: list[str] | None = None) -> Iterator[EvalCase]:
    """Yield every row of a SLURP file, grouped by whether it is for the home.

    Args:
        path: JSONL file.
        home: the home that the sentences are said in.
        broken: takes one line for each row of another form; None: the first one raises.

    Raises:
        InputError: the file is missing, not UTF-8, or a line is not a row of SLURP.
    """
    for row, labelled in read_slurp_rows(str(path), broken):
        sentence = case_sentence(labelled.sentence)
        scenario = str(row["scenario"])
        action = str(row["action"])
        if scenario == HOME_SCENARIO:
            entities = [
                (kind, case_sentence(words))
                for kind, words in labelled.slots
                if kind in ENTITY_SLOTS
            ]
            grade = _grade_request(action, entities)
            yield EvalCase(sentence, None, home, ("home", f"iot {action}"), _with_labels(grade))
        else:
            grade = _grade_not_home(scenario)
            groups = ("not home", scenario)
            yield EvalCase(sentence, Action(NONE), home, groups, _with_labels(grade))


def _cases(path: Path, values: Values, broken: list[str]) -> Iterator[EvalCase]:
    return slurp_home_cases(path, Home.load(), broken)


SUITE = Suite(_cases, headline="home", not_home="not home", of_home=True)


def _with_labels(grade: Grade) -> Grade:
    """Grade a bundle that may answer with SLURP's labels as well."""

    def graded(given: Action) -> tuple[bool, bool]:
        return grade(at_home(given))

    return graded


def _grade_request(action: str, entities: list[tuple[str, str]]) -> Grade:
    accept = REQUESTS.get(action)

    def grade(given: Action) -> tuple[bool, bool]:
        intent_right = accept is not None and accept(given)
        return intent_right, intent_right and all(_holds(given, *entity) for entity in entities)

    return grade


def _holds(given: Action, kind: str, words: str) -> bool:
    """Return whether a slot holds an entity: at least its last word, which names the thing."""
    last = words.split()[-1]
    return any(last in given.slots.get(slot, "").split() for slot in ENTITY_SLOTS[kind])


def _grade_not_home(scenario: str) -> Grade:
    ours = HOME_INTENTS_OF_SCENARIO.get(scenario, ())

    def grade(given: Action) -> tuple[bool, bool]:
        right = given.intent == NONE or given.intent not in INTENTS or given.intent in ours
        return right, right

    return grade
