"""Exams: cases from the run's own held-back templates and names, and from files a user has.

own         corpus artifact: templates and names that training never saw
ohf         a checkout of OHF-Voice/intents (CC BY 4.0): tests/<language>/<Intent>/*.yaml, Home Assistant's own sentences
slurp-home  SLURP jsonl (CC BY 4.0): scenario `iot` are requests to a home, all others are not
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.data.sources import read_slurp_rows
from tumen.eval.metrics import Case, same
from tumen.home import Home, at_home
from tumen.language import CLOSED, INTENTS, NONE, Action, Ontology, normalise, parse

UNSAID = ("ask", "domain", "scope")
OHF_LANGUAGES = {"en": "en", "zh-CN": "zh", "de": "de"}
OHF_SLOTS = {
    "floor": "area",
    "volume_level": "volume",
    "search_query": "query",
    "conversation_command": "command",
    "volume_step": "step",
}


def own(corpus: Path, languages: tuple[str, ...] = ()) -> Iterator[Case]:
    """The exam split of a corpus artifact, grouped by language and domain."""
    trees = json.loads((corpus / "homes.json").read_text("utf-8"))
    homes, ontology = [Home.of(tree) for tree in trees], Ontology.load(corpus)
    with open(corpus / "exam.jsonl", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            gold = parse(json.dumps(row["action"]), ontology)
            if not languages or gold.lang in languages:
                home = homes[row["home"]] if row["home"] >= 0 else None
                yield Case(row["sentence"], gold, home, (gold.lang, ontology.group(gold.intent)))


def ohf(folder: Path, values: Values) -> Iterator[Case]:
    """Home Assistant's test sentences for the intents and languages we have, each with the home its file declares.

    Raises:
        InputError: the folder has no tests/<language>, or a file is no YAML of that form.
    """
    yaml = need("yaml", "the suite ohf")
    tests = folder / "tests"
    known = [tests / name for name in OHF_LANGUAGES if (tests / name).is_dir()]
    if not known:
        raise InputError(
            f"{folder}: has no tests/en, tests/zh-CN or tests/de; --data names a checkout of OHF-Voice/intents"
        )
    for language in known:
        for path in sorted(language.glob("*/*.yaml")):
            intent = path.parent.name
            if intent not in INTENTS:
                continue
            try:
                tree = yaml.safe_load(path.read_text("utf-8"))
                yield from _ohf_cases(tree, intent, OHF_LANGUAGES[language.name], values)
            except (
                yaml.YAMLError,
                UnicodeDecodeError,
                AttributeError,
                KeyError,
                TypeError,
            ) as error:
                raise InputError(
                    f"{path}: not a test file of OHF-Voice/intents ({type(error).__name__}: {error})"
                ) from None


def _ohf_cases(tree: Mapping[str, Any], intent: str, lang: str, values: Values) -> Iterator[Case]:
    for test in tree.get("tests", ()):
        slots = dict(test.get("slots") or {})
        gold = _ohf_action(intent, lang, slots)
        home = Home.of(_ohf_home(tree, slots, test.get("context") or {}))
        for sentence in test["sentences"]:
            yield Case(
                normalise(sentence),
                gold,
                home,
                (lang, gold.domain, intent),
                _ohf_judge(gold, home, values),
            )


def _ohf_judge(gold: Action, home: Home, values: Values) -> Callable[[Action], tuple[bool, bool]]:
    """Only what a test file names counts: it leaves out what an answer may say besides (any or all, how many, the domain)."""

    def judge(given: Action) -> tuple[bool, bool]:
        if given.intent != gold.intent:
            return False, False
        spare = {
            slot: value
            for slot, value in given.slots.items()
            if slot in UNSAID and slot not in gold.slots
        }
        bare = replace(
            given, slots={slot: value for slot, value in given.slots.items() if slot not in spare}
        )
        fuller = replace(gold, slots={**gold.slots, **spare})
        return True, same(bare, gold, home, values) or same(given, fuller, home, values)

    return judge


def _ohf_action(intent: str, lang: str, slots: Mapping[str, Any]) -> Action:
    """Expected slots under our names; a volume step in percent is a direction and an amount, a time span one run of words."""
    found = spans(slots, intent)
    for name, value in slots.items():
        slot = OHF_SLOTS.get(name, name)
        if slot == "step" and isinstance(value, (int, float)):
            found["volume"], value = str(abs(value)), "up" if value > 0 else "down"
        if slot not in INTENTS[intent]:
            continue
        text = str(value)
        if slot not in CLOSED:
            found[slot] = normalise(text)
        elif text in CLOSED[slot]:
            found[slot] = text
        elif slot == "state":
            found["zone"] = normalise(text)
    return Action(intent, lang, found)


def spans(slots: Mapping[str, Any], intent: str) -> dict[str, str]:
    """Home Assistant's hours, minutes and seconds as our one run of words."""
    found = {}
    for slot, prefix in (("duration", ""), ("start", "start_")):
        parts = [
            f"{slots[prefix + unit]} {unit}"
            for unit in ("hours", "minutes", "seconds")
            if prefix + unit in slots
        ]
        if parts and slot in INTENTS[intent]:
            found[slot] = " ".join(parts)
    return found


def _ohf_home(
    tree: Mapping[str, Any], slots: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """A home file's tree from the areas, floors and entities a test file declares.

    An entity without an area stands in the area the test names with it: the sentence says so.
    """
    floors = {_name(row) for row in tree.get("floors") or ()} | (
        {str(slots["floor"])} if "floor" in slots else set()
    )
    floors |= {str(row["floor"]) for row in tree.get("areas") or () if "floor" in row}
    areas = {_name(row): row.get("floor") for row in tree.get("areas") or ()}
    for place in (
        slots.get("area"),
        context.get("area"),
        *(row.get("area") for row in tree.get("entities") or ()),
    ):
        if place is not None:
            areas.setdefault(str(place), None)
    floor_ids, area_ids = (
        {name: f"{kind}_{i}" for i, name in enumerate(sorted(names))}
        for kind, names in (("floor", floors), ("area", areas))
    )
    entities = []
    for number, row in enumerate(tree.get("entities") or ()):
        place = row.get("area") or (slots.get("area") if _name(row) == slots.get("name") else None)
        entity = {"id": f"{row['domain']}.e{number}", "name": _name(row)}
        entity |= {"area": area_ids[str(place)]} if place is not None else {}
        device_class = (row.get("attributes") or {}).get("device_class")
        entity |= {"device_class": device_class} if device_class else {}
        entities.append(entity)
    home: dict[str, Any] = {
        "name": "test",
        "floor": [{"id": id_, "name": name} for name, id_ in floor_ids.items()],
        "area": [
            {"id": id_, "name": name}
            | ({"floor": floor_ids[str(areas[name])]} if areas[name] is not None else {})
            for name, id_ in area_ids.items()
        ],
        "entity": entities,
    }
    if "area" in context:
        home["here"] = area_ids[str(context["area"])]
    return home


def _name(row: Mapping[str, Any]) -> str:
    name = row["name"]
    return str(name[0] if isinstance(name, list) else name)


Accept = Callable[[Action], bool]


def _light(*steps: str) -> Accept:
    """A light setting that goes in one of these directions, or to a level."""

    def accept(action: Action) -> bool:
        return action.intent == "HassLightSet" and (
            action.slots.get("step") in steps or "brightness" in action.slots
        )

    return accept


def _is(*intents: str) -> Accept:
    return lambda action: action.intent in intents


# SLURP's requests to a home -> the intents that do what is asked. `coffee` switches the machine on that the words name.
SLURP_HOME: dict[str, Accept] = {
    "hue_lightup": _light("up"),
    "hue_lightdim": _light("down"),
    "hue_lightchange": lambda action: (
        action.intent == "HassLightSet" and "step" not in action.slots
    ),
    "hue_lighton": lambda action: (
        action.intent == "HassTurnOn" or _light("up")(action)
    ),  # "it's dark in here" is both
    "hue_lightoff": _is("HassTurnOff"),
    "cleaning": _is("HassVacuumStart", "HassVacuumCleanArea"),
    "coffee": lambda action: action.intent == "HassTurnOn" and "name" in action.slots,
    "wemo_on": _is("HassTurnOn"),
    "wemo_off": _is("HassTurnOff"),
}
# Entities of SLURP -> the slot that must hold their words. Times and amounts change no device here and are not judged.
SLURP_ENTITIES = {
    "house_place": ("area", "name"),
    "device_type": ("name", "area"),
    "color_type": ("color",),
}
# Scenarios that ask for something this home does, under another name: an act of these intents is no false act there.
SLURP_OURS = {
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
    "play": tuple(name for name in INTENTS if "Media" in name),
    "music": tuple(name for name in INTENTS if "Media" in name),
}


def slurp_home(path: Path, home: Home) -> Iterator[Case]:
    """SLURP sentences: scenario `iot` with its mapping, all others as sentences that are not for the home.

    Raises:
        InputError: the file is missing, not UTF-8, or a line is no SLURP row.
    """
    for row, read in read_slurp_rows(str(path)):
        sentence, scenario, action = (
            normalise(read.sentence),
            str(row["scenario"]),
            str(row["action"]),
        )
        if scenario == "iot":
            entities = [
                (kind, normalise(words)) for kind, words in read.slots if kind in SLURP_ENTITIES
            ]
            yield Case(
                sentence,
                None,
                home,
                ("home", f"iot {action}"),
                _at_home(_slurp_judge(action, entities)),
            )
        else:
            yield Case(
                sentence,
                Action("none", "en"),
                home,
                ("not home", scenario),
                _at_home(_not_home(scenario)),
            )


Judge = Callable[[Action], tuple[bool, bool]]


def _at_home(judge: Judge) -> Judge:
    """The judge of a home's actions, for a bundle that may say them in SLURP's labels."""
    return lambda given: judge(at_home(given))


def _slurp_judge(
    action: str, entities: list[tuple[str, str]]
) -> Callable[[Action], tuple[bool, bool]]:
    accept = SLURP_HOME.get(action)

    def judge(given: Action) -> tuple[bool, bool]:
        right = bool(accept and accept(given))
        held = all(
            any(_shares(given.slots.get(slot, ""), words) for slot in SLURP_ENTITIES[kind])
            for kind, words in entities
        )
        return right, right and held

    return judge


def _shares(given: str, words: str) -> bool:
    """Whether the words of an entity were copied: at least its last word, which names the thing."""
    return bool(given) and words.split()[-1] in given.split()


def _not_home(scenario: str) -> Callable[[Action], tuple[bool, bool]]:
    ours = SLURP_OURS.get(scenario, ())
    return lambda given: (
        (given.intent == NONE or given.intent not in INTENTS or given.intent in ours,) * 2
    )
