"""Suite `ohf`: Home Assistant's own test sentences, each with the home that its file declares.

Data: a checkout of github.com/OHF-Voice/intents (CC BY 4.0), tests/<language>/<Intent>/*.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tumen.assistant import SLOT_NAMES, time_spans
from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.data.sources import home_assistant_codes
from tumen.eval.equivalence import same_action
from tumen.eval.eval_case import EvalCase, Grade, case_sentence
from tumen.eval.suites.suite import Suite
from tumen.home import Home
from tumen.language import CLOSED, INTENTS, Action

# Slots that a test file leaves out where they follow from the rest: an answer may have them.
OPTIONAL_SLOTS = ("ask", "domain", "scope")


def home_assistant_cases(
    folder: Path, values: Values, broken: list[str] | None = None
) -> Iterator[EvalCase]:
    """Yield the test sentences of the intents and languages that we have.

    Args:
        folder: a checkout of OHF-Voice/intents.
        values: lexicon that knows what copied words are worth.
        broken: takes one line for each file of another form; None: the first one raises.

    Raises:
        InputError: the folder has no tests of our languages, or a file is not of their form.
        MissingExtra: pyyaml is not installed.
    """
    yaml = need("yaml", "the suite ohf")
    tests = folder / "tests"
    codes = home_assistant_codes()
    found = [tests / code for code in codes if (tests / code).is_dir()]
    if not found:
        names = [f"tests/{code}" for code in codes]
        raise InputError(
            f"{folder}: has no {', '.join(names[:-1])} or {names[-1]}; "
            "--data names a checkout of OHF-Voice/intents"
        )
    for language in found:
        for path in sorted(language.glob("*/*.yaml")):
            intent = path.parent.name
            if intent not in INTENTS:
                continue
            try:
                tree = yaml.safe_load(path.read_text("utf-8"))
                cases = list(_cases_of_file(tree, intent, codes[language.name], values))
            except (
                yaml.YAMLError,
                UnicodeDecodeError,
                AttributeError,
                KeyError,
                TypeError,
            ) as error:
                why = " ".join(f"{type(error).__name__}: {error}".split())
                fault = f"{path}: not a test file of OHF-Voice/intents ({why})"
                if broken is None:
                    raise InputError(fault) from None
                broken.append(fault)
                continue
            yield from cases


SUITE = Suite(home_assistant_cases, of_home=True)


def _cases_of_file(
    tree: Mapping[str, Any], intent: str, lang: str, values: Values
) -> Iterator[EvalCase]:
    for test in tree.get("tests", ()):
        golds = [expected_action(intent, lang, slots) for slots in _alternatives(test)]
        gold = golds[0]
        home = Home.of(_TestHome(tree, _alternatives(test)[0], test.get("context") or {}).home())
        groups = (lang, gold.domain, intent)
        grade = _grade_of_any([_grade(one, home, values) for one in golds])
        for sentence in test["sentences"]:
            yield EvalCase(case_sentence(sentence), gold, home, groups, grade)


def _alternatives(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the slots of a test; a slot with a list has any one of its values."""
    slots: Mapping[str, Any] = test.get("slots") or {}
    values = [value if isinstance(value, list) else [value] for value in slots.values()]
    return [dict(zip(slots, chosen, strict=True)) for chosen in product(*values)]


def _grade_of_any(grades: Sequence[Grade]) -> Grade:
    """Grade against several answers, any of which is right."""

    def grade(given: Action) -> tuple[bool, bool]:
        results = [one(given) for one in grades]
        return any(intent for intent, _ in results), any(exact for _, exact in results)

    return grade


def _grade(gold: Action, home: Home, values: Values) -> Grade:
    """Grade what a test file names; optional slots that it leaves out may be there or not."""

    def grade(given: Action) -> tuple[bool, bool]:
        if given.intent != gold.intent:
            return False, False
        named, extra = _apart(given, gold)
        if same_action(replace(given, slots=named), gold, home, values):
            return True, True
        gold_with_extra = replace(gold, slots={**gold.slots, **extra})
        return True, same_action(given, gold_with_extra, home, values)

    return grade


def _apart(given: Action, gold: Action) -> tuple[dict[str, str], dict[str, str]]:
    """Return an answer's slots that the gold could have, and optional ones that it leaves out."""
    named = {}
    extra = {}
    for slot, value in given.slots.items():
        if slot in OPTIONAL_SLOTS and slot not in gold.slots:
            extra[slot] = value
        else:
            named[slot] = value
    return named, extra


def expected_action(intent: str, lang: str, slots: Mapping[str, Any]) -> Action:
    """Return a test's expected slots under our names.

    A volume step in percent is a direction and an amount; a time span is one run of words.
    """
    found = time_spans(slots, intent)
    for name, value in slots.items():
        slot = SLOT_NAMES.get(name, name)
        if slot == "step" and isinstance(value, (int, float)):
            found["volume"] = str(abs(value))
            value = "up" if value > 0 else "down"
        if slot not in INTENTS[intent]:
            continue
        text = str(value)
        if slot not in CLOSED:
            found[slot] = case_sentence(text)
        elif text in CLOSED[slot]:
            found[slot] = text
        elif slot == "state":
            # A state that is not of the closed set is the name of a zone: "is anna at work".
            found["zone"] = case_sentence(text)
    return Action(intent, lang, found)


@dataclass(frozen=True)
class _TestHome:
    """The home of one test.

    Attributes:
        tree: the test file, with the floors, areas and entities it declares.
        slots: the expected slots; their area and floor exist as well.
        context: where the sentence is said.
    """

    tree: Mapping[str, Any]
    slots: Mapping[str, Any]
    context: Mapping[str, Any]

    def home(self) -> dict[str, Any]:
        """Return the tree of a home file."""
        areas = self._areas()
        floor_ids = {name: f"floor_{i}" for i, name in enumerate(sorted(self._floors()))}
        area_ids = {name: f"area_{i}" for i, name in enumerate(sorted(areas))}
        area_rows = []
        for name, id_ in area_ids.items():
            row = {"id": id_, "name": name}
            if areas[name] is not None:
                row["floor"] = floor_ids[str(areas[name])]
            area_rows.append(row)
        home: dict[str, Any] = {
            "name": "test",
            "floor": [{"id": id_, "name": name} for name, id_ in floor_ids.items()],
            "area": area_rows,
            "entity": list(self._entities(area_ids)),
        }
        if "area" in self.context:
            home["here"] = area_ids[str(self.context["area"])]
        return home

    def _floors(self) -> set[str]:
        floors = {_name(row) for row in self.tree.get("floors") or ()}
        floors |= {str(row["floor"]) for row in self.tree.get("areas") or () if "floor" in row}
        if "floor" in self.slots:
            floors.add(str(self.slots["floor"]))
        return floors

    def _areas(self) -> dict[str, Any]:
        """Return {area: floor or None}: those declared, and those that are only mentioned."""
        areas = {_name(row): row.get("floor") for row in self.tree.get("areas") or ()}
        mentioned = [self.slots.get("area"), self.context.get("area")]
        mentioned += [row.get("area") for row in self.tree.get("entities") or ()]
        for area in mentioned:
            if area is not None:
                areas.setdefault(str(area), None)
        return areas

    def _entities(self, area_ids: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.tree.get("entities") or ()):
            entity = {"id": f"{row['domain']}.e{number}", "name": _name(row)}
            area = row.get("area")
            if not area and _name(row) == self.slots.get("name"):
                # The sentence says where the entity is.
                area = self.slots.get("area")
            if area:
                entity["area"] = area_ids[str(area)]
            device_class = (row.get("attributes") or {}).get("device_class")
            if device_class:
                entity["device_class"] = device_class
            yield entity


def _name(row: Mapping[str, Any]) -> str:
    """Return the first name of a floor, area or entity."""
    name = row["name"]
    return str(name[0] if isinstance(name, list) else name)
