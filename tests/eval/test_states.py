"""The suite of end states: rows of a file, played by a scripted assistant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumen.assistant import Interpretation
from tumen.assistant.values import Values
from tumen.core.errors import InputError, RunnerError
from tumen.eval.states import (
    BrokenRow,
    StateRow,
    evaluate_states,
    read_state_rows,
    states_lines,
    understanding_of,
)
from tumen.home import Home
from tumen.language import Action

HOME = {
    "floor": [{"id": "ground", "name": "Ground floor"}],
    "area": [{"id": "den", "name": "Den", "floor": "ground"}, {"id": "loft", "name": "Loft"}],
    "entity": [
        {"id": "light.left", "name": "Left lamp", "area": "den"},
        {"id": "light.right", "name": "Right lamp", "area": "den", "state": "on"},
        {"id": "light.loft", "name": "Loft lamp", "area": "loft", "brightness": 30},
        {"id": "cover.blind", "name": "Blind", "area": "den", "position": 100},
        {"id": "scene.film", "name": "Film", "sets": {"light.left": {"state": "off"}}},
    ],
}
Script = dict[str, Action]


def understanding(script: Script) -> Callable[[Home, str], Callable[[str], Interpretation]]:
    """An assistant that understands the sentences of a script; others are nothing for a home."""

    def read(sentence: str) -> Interpretation:
        action = script.get(sentence, Action("none", "en"))
        return Interpretation(action, "device", "script", 0.9)

    return lambda home, lang: read


def row(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "r", "lang": "en", "kind": "plain", "home": HOME, "turns": list(turns), **fields}


def turn(say: str | None, expect: Any = None, **fields: Any) -> dict[str, Any]:
    return {"say": say, "expect": {} if expect is None else expect, **fields}


def write(path: Path, *rows: Any) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def play(tmp_path: Path, script: Script, *rows: Any) -> dict[str, Any]:
    data = write(tmp_path / "rows.jsonl", *rows)
    return evaluate_states(data, understanding(script), Values())


def on(name: str) -> Action:
    return Action("HassTurnOn", "en", {"name": name})


LEFT_ON = {"light.left": {"state": "on"}}
RIGHT = {
    "left lamp": on("left lamp"),
    "film": Action("HassTurnOn", "en", {"name": "film"}),
    "brighter": Action("HassLightSet", "en", {"name": "right lamp", "step": "up"}),
    "timer": Action("HassStartTimer", "en", {"duration": "5 minutes", "name": "egg"}),
    "left lamp in 60 seconds": Action(
        "HassStartTimer", "en", {"duration": "60 seconds", "command": "left lamp"}
    ),
    "cancel": Action("HassCancelTimer", "en", {}),
    "new timer": Action("HassStartTimer", "en"),
}
ROWS = (
    row(turn("left lamp", LEFT_ON)),
    row(turn("left lamp", [{}, LEFT_ON], reply="left"), kind="alternatives"),
    row(turn("film", {"light.left": {"state": "off"}}), set={"light.left": {"state": "on"}}),
    row(
        turn("timer", {"timer": {"seconds": 300, "name": "egg"}}),
        turn(None, {}, wait_seconds=301, reply="egg"),
        kind="time",
    ),
    row(
        turn("left lamp in 60 seconds", {}, ignore=["timer"]),
        turn(None, {}, wait_seconds=30),
        turn(None, LEFT_ON, wait_seconds=31),
        kind="time",
    ),
    row(turn("cancel", {"timer": {"state": "cancelled"}}), timers=[{"seconds": 60}], lang="de"),
    row(turn("what now", {}), turn("what now", answer="refuse")),
    row(turn("new timer", {}, answer="ask"), turn("left lamp", LEFT_ON), kind="ask"),
)


class TestPlaying:
    def test_all_right_is_exact(self, tmp_path: Path) -> None:
        result = play(tmp_path, RIGHT, *ROWS)
        assert result["faults"] == []
        assert (result["n"], result["exact"]) == (len(ROWS), 1.0)
        assert (result["turns"], result["turns_exact"]) == (13, 1.0)
        assert result["wrong_device"] == result["false_acts"] == result["crashed"] == 0
        assert result["broken"] == 0
        assert result["asked"] == 1
        assert result["acts"] == 7

    def test_one_that_does_nothing_is_wrong_but_harmless(self, tmp_path: Path) -> None:
        result = play(tmp_path, {}, *ROWS)
        assert result["exact"] < 0.4
        assert result["acts"] == result["wrong_device"] == result["false_acts"] == 0

    def test_one_that_acts_on_everything_is_counted(self, tmp_path: Path) -> None:
        everything = Action("HassTurnOn", "en", {"domain": "light", "scope": "all"})
        said = "all the lights on"
        rows = (row(turn(said, LEFT_ON)), row(turn(said, {})), row({"say": said}))
        result = play(tmp_path, {said: everything}, *rows)
        assert result["exact"] == 0
        assert (result["acts"], result["wrong_device"], result["false_acts"]) == (3, 3, 2)

    def test_by_language_and_kind(self, tmp_path: Path) -> None:
        result = play(tmp_path, RIGHT, *ROWS)
        assert {name: group["n"] for name, group in result["by"]["lang"].items()} == {
            "de": 1,
            "en": 7,
        }
        assert result["by"]["kind"]["time"]["turns"] == 5
        assert set(result["by"]["kind"]["ask"]) == {
            *("n", "exact", "turns", "turns_exact"),
            *("wrong_device", "acts", "false_acts", "asked", "crashed"),
        }

    def test_a_home_that_is_not_judged(self, tmp_path: Path) -> None:
        result = play(tmp_path, RIGHT, row({"say": "left lamp", "expect": None}))
        assert result["exact"] == 1.0
        assert (result["acts"], result["wrong_device"], result["false_acts"]) == (1, 0, 0)

    def test_a_question_or_a_refusal_instead(self, tmp_path: Path) -> None:
        asks = row(turn("new timer", LEFT_ON, or_answer="ask"))
        refuses = row(turn("what now", LEFT_ON, or_answer="refuse"))
        acts = row(turn("left lamp", {}, or_answer="ask"))
        result = play(tmp_path, RIGHT, asks, refuses, acts)
        assert [fault["where"][-1] for fault in result["faults"]] == ["3"]

    def test_an_answer_that_does_not_come(self, tmp_path: Path) -> None:
        result = play(
            tmp_path,
            RIGHT,
            row(turn("left lamp", LEFT_ON, answer="ask")),
            row(turn("left lamp", LEFT_ON, answer="refuse")),
            row(turn("left lamp", LEFT_ON, reply="^no way$")),
        )
        whys = [fault["why"] for fault in result["faults"]]
        assert whys[:2] == ["asked nothing", "declined nothing"]
        assert "no way" in whys[2]

    def test_the_speaker_s_area_and_the_states_before(self, tmp_path: Path) -> None:
        script = {"lights": Action("HassTurnOn", "en", {"domain": "light"})}
        lights = row(turn("lights", {"light.loft": {"state": "on"}}), here="loft")
        closed = row(turn("x"), set={"cover.blind": {"state": "closed"}})
        result = play(tmp_path, script, lights, closed)
        assert result["exact"] == 1.0
        rows = list(read_state_rows(tmp_path / "rows.jsonl"))
        assert isinstance(rows[1], StateRow)
        assert Home.of(rows[1].home).state("cover.blind") == {"state": "closed", "position": 0}


class TestCrashes:
    def test_a_crash_is_counted_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        def read(sentence: str) -> Interpretation:
            if sentence == "boom":
                raise ZeroDivisionError("by zero")
            if sentence == "gone":
                raise RunnerError("the model is gone")
            return Interpretation(on("left lamp"), "device", "script", 0.9)

        data = write(
            tmp_path / "rows.jsonl",
            row(turn("boom", {})),
            row(turn("gone", {})),
            row(turn("left lamp", LEFT_ON)),
        )
        result = evaluate_states(data, lambda home, lang: read, Values())
        assert (result["n"], result["crashed"], result["turns_exact"]) == (3, 2, 0.3333)
        assert "by zero" in result["faults"][0]["why"]
        assert result["faults"][0]["where"].endswith("rows.jsonl:1")

    def test_a_sentence_that_is_too_long_is_wrong(self, tmp_path: Path) -> None:
        result = play(tmp_path, RIGHT, row(turn("please " * 60, {})), ROWS[0])
        assert (result["n"], result["exact"], result["crashed"]) == (2, 0.5, 1)


class TestRows:
    @pytest.mark.parametrize(
        ("broken", "why"),
        [
            ("{", "not JSON"),
            ("[1]", "a row: must be an object"),
            (row(), "turns: at least one"),
            (row("on"), "a turn: must be an object"),
            ({"home": HOME}, "turns: must be a list"),
            (row({"expect": {}}), "say: is missing"),
            (row(turn("x", {"light.x": {}})), "expect: light.x is not in the home"),
            (row(turn("x", ignore=["light.x"])), "ignore: light.x is not in the home"),
            (row(turn("x", {"light.left": {"brightness": {"nere": 4}}})), "unknown field 'nere'"),
            (row(turn("x", {"light.left": {"brightness": {}}})), "a value needs one of"),
            (row(turn("x", {"light.left": "on"})), "must be an object"),
            (row(turn("x", {"timer": {"length": 4}})), "unknown field 'length'"),
            (row(turn("x", expct={})), "unknown field 'expct'"),
            (row(turn("x", answer="maybe")), "answer: must be one of ask, refuse"),
            (row(turn("x", reply="(")), "reply: no regular expression"),
            (row(turn("x", wait_seconds=-1)), "wait_seconds"),
            (row(turn(7)), "say: must be text or null"),
            (row(turn("x"), set={"light.x": {}}), "set: light.x is not in the home"),
            (row(turn("x"), set={"light.left": {"state": "blue"}}), "has no state 'blue'"),
            (row(turn("x"), here="moon"), "unknown area 'moon'"),
            (row(turn("x"), timers=[{"name": "egg"}]), "timers: seconds"),
            (row(turn("x"), timers=[{"seconds": 5, "nam": "egg"}]), "unknown field 'nam'"),
            (row(turn("x"), home="nowhere.toml"), "no such home file"),
            (row(turn("x"), home=7), "home: must be null, a path or an object"),
            (row(turn("x", {"group": "light@moon", "direction": "up"})), "no area or floor"),
            (row(turn("x", {"group": "fan@den", "direction": "up"})), "is empty"),
            (row(turn("x", {"group": "light@den", "direction": "on"})), "must be up or down"),
        ],
    )
    def test_a_broken_row_is_counted_with_its_line(
        self, tmp_path: Path, broken: Any, why: str
    ) -> None:
        result = play(tmp_path, RIGHT, ROWS[0], broken, ROWS[1])
        assert (result["n"], result["broken"], result["exact"]) == (2, 1, 1.0)
        (fault,) = result["faults"]
        assert fault["where"].endswith("rows.jsonl:2")
        assert why in fault["why"]
        assert any(why in line for line in states_lines(result))

    def test_bytes_that_are_not_utf_8(self, tmp_path: Path) -> None:
        data = tmp_path / "rows.jsonl"
        data.write_bytes(b'{"id": "\xff"}\n' + json.dumps(ROWS[0]).encode() + b"\n\n")
        first, second = read_state_rows(data)
        assert first == BrokenRow(f"{data}:1", "not UTF-8")
        assert isinstance(second, StateRow)

    def test_homes_by_path_and_groups_by_place(self, tmp_path: Path) -> None:
        (tmp_path / "home.json").write_text(json.dumps(HOME), "utf-8")
        Home.of(HOME).save(tmp_path / "home.toml")
        wanted = {"group": "light@ground", "attribute": "brightness", "direction": "up"}
        rows = [row(turn("brighter", wanted), home=f"home.{kind}") for kind in ("json", "toml")]
        dimmed = {"light.right": {"state": "on", "brightness": 20}}
        result = play(tmp_path, RIGHT, *[one | {"set": dimmed} for one in rows])
        assert result["faults"] == []

    def test_the_example_home_is_the_default(self, tmp_path: Path) -> None:
        data = write(tmp_path / "rows.jsonl", {"turns": [turn("x", {"light.desk_lamp": {}})]})
        (read,) = read_state_rows(data)
        assert isinstance(read, StateRow)
        assert read.id == "1"

    def test_a_folder_of_files(self, tmp_path: Path) -> None:
        write(tmp_path / "b.jsonl", ROWS[0])
        write(tmp_path / "a.jsonl", ROWS[1], ROWS[2])
        assert [Path(one.where).name for one in read_state_rows(tmp_path)] == [
            "a.jsonl:1",
            "a.jsonl:2",
            "b.jsonl:1",
        ]

    def test_files_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no .jsonl file"):
            list(read_state_rows(tmp_path))
        with pytest.raises(InputError, match="cannot be read"):
            list(read_state_rows(tmp_path / "x.jsonl"))
        empty = write(tmp_path / "rows.jsonl")
        with pytest.raises(InputError, match="holds no row"):
            evaluate_states(empty, understanding({}), Values())


class TestUnderstandings:
    def test_the_matcher_can_be_judged_alone(self, tmp_path: Path) -> None:
        pytest.importorskip("hassil")
        pytest.importorskip("home_assistant_intents")
        data = write(
            tmp_path / "rows.jsonl",
            row(turn("turn on the left lamp", LEFT_ON)),
            row(turn("mumble", {})),
        )
        result = evaluate_states(data, understanding_of("matcher", _no_model), Values())
        assert result["exact"] == 1.0

    def test_the_model_alone_and_after_the_templates(self, tmp_path: Path) -> None:
        def model(sentence: str) -> Interpretation:
            return Interpretation(on("left lamp"), "device", "script", 0.9)

        data = write(tmp_path / "rows.jsonl", row(turn("hello there", LEFT_ON)))
        for name in ("model", "both"):
            result = evaluate_states(data, understanding_of(name, model), Values())
            assert result["exact"] == 1.0

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(InputError, match="both, model, matcher"):
            understanding_of("oracle", _no_model)


def _no_model(sentence: str) -> Interpretation:
    raise AssertionError("the model is not asked")
