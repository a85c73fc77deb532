"""The home file: what is taken, what is told when it is wrong, and what is kept."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tumen.core.errors import InputError
from tumen.home.home import Home


def test_the_example_home(home: Home) -> None:
    assert len(home.entities) == 60
    assert len(home.floors) == 3
    assert len(home.areas) == 10
    for thing in (*home.file.floor, *home.file.area, *home.file.entity):
        assert isinstance(thing.aliases, dict), thing.id
        assert thing.aliases["zh"], thing.id
        assert thing.aliases["de"], thing.id


def test_a_home_survives_its_snapshot_and_its_file(home: Home, tmp_path: Path) -> None:
    home.put("light.desk_lamp", home.state("light.desk_lamp") | {"brightness": 33, "color": "red"})
    home.put("timer.1", {"name": 'a "b" \\ c\n', "seconds": 60.0, "ends": 5e9})
    assert Home.of(home.snapshot()).snapshot() == home.snapshot()
    home.save(tmp_path / "home.toml")
    again = Home.load(tmp_path / "home.toml")
    assert again.snapshot() == home.snapshot()
    assert again.timers.keys() == {"timer.1"}
    assert list(tmp_path.iterdir()) == [tmp_path / "home.toml"]


def test_a_state_is_a_copy(home: Home) -> None:
    home.state("light.desk_lamp")["state"] = "broken"
    assert home.state("light.desk_lamp")["state"] == "on"


def test_a_home_always_has_a_shopping_list() -> None:
    assert "todo.shopping_list" in Home.of({}).entities


def test_states_left_out_are_what_nobody_has_touched() -> None:
    ids = {
        "light.a": "off",
        "lock.a": "locked",
        "cover.a": "closed",
        "vacuum.a": "docked",
        "sensor.a": "unknown",
    }
    home = Home.of({"entity": [{"id": id_, "name": id_} for id_ in ids]})
    assert {id_: home.state(id_)["state"] for id_ in ids} == ids
    assert home.state("cover.a")["position"] == 0


def test_all_faults_are_told_in_one_line() -> None:
    tree: dict[str, Any] = {
        "nmae": "x",
        "area": [{"id": "a"}],
        "entity": [
            {"id": "light.a", "name": "A", "brightnes": 3},
            {"id": "light.b", "name": "B", "brightness": 130},
            {"id": "lihgt.c", "name": "C"},
            {"id": "lock.d", "name": "D", "state": "ajar"},
            {"id": "nodot", "name": "E"},
        ],
    }
    with pytest.raises(InputError) as caught:
        Home.of(tree, where="home.toml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("home.toml: 7 faults: ")
    for part in (
        "'name'",
        "area a name: missing",
        "'brightness'",
        "130",
        "'light'",
        "'ajar'",
        "nodot",
    ):
        assert part in line


def test_faults_between_things() -> None:
    tree = {
        "here": "kichen",
        "area": [
            {"id": "kitchen", "name": "Kitchen", "floor": "up"},
            {"id": "kitchen", "name": "Again"},
        ],
        "entity": [
            {"id": "light.a", "name": "A", "area": "kitchn"},
            {"id": "scene.b", "name": "B", "sets": {"light.z": {"stat": "on"}}},
        ],
    }
    with pytest.raises(InputError) as caught:
        Home.of(tree)
    line = str(caught.value)
    assert "6 faults" in line
    for part in (
        "twice",
        "unknown floor 'up'",
        "'kitchen'",
        "unknown entity 'light.z'",
        "did you mean 'state'",
    ):
        assert part in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"= 3", "not TOML"),
        (b"entity = 3", "entity"),
        (b"entity = [3]", "entity"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "home.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        Home.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such home"):
        Home.load(tmp_path / "none.toml")
    with pytest.raises(InputError, match="folder"):
        Home.load(tmp_path)


def test_the_saved_file_is_plain_toml(home: Home, tmp_path: Path) -> None:
    home.save(tmp_path / "home.toml")
    tree = tomllib.loads((tmp_path / "home.toml").read_text(encoding="utf-8"))
    assert tree["entity"][0]["aliases"]["zh"] == ["厨房吸顶灯"]


def test_timers_run_out_by_the_clock(home: Home, clock: Any) -> None:
    home.put("timer.1", {"name": "tea", "seconds": 60.0, "ends": clock().timestamp() + 60})
    home.put("timer.2", {"name": "held", "seconds": 60.0, "left_seconds": 30.0})
    assert home.finished() == []
    clock.wind(61)
    assert [timer.name for timer in home.finished()] == ["tea"]
    assert home.timers.keys() == {"timer.2"}


def test_the_default_clock_knows_its_zone() -> None:
    now = Home.of({}).clock()
    assert now.tzinfo is not None
    assert abs((now - datetime.now(UTC)).total_seconds()) < 60


def test_devices_are_found_by_their_words_without_a_look_at_all_of_them() -> None:
    index = Home.load().index
    numbers = range(len(index.entities))
    cores = {frozenset[str]()}
    for number in numbers:
        words = index.core_words(number)
        cores |= {words, *(frozenset((word,)) for word in words)}
        cores |= {frozenset((word[0],)) for word in words}  # a part of a Chinese word
    assert len(cores) > 50
    for core in cores:
        matching = [number for number in numbers if index.match(number, core)]
        assert set(matching) <= set(index.with_core(core)), core
    assert index.with_core(frozenset(("unicorn",))) == []
