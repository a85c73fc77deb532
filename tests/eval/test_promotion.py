"""Promotion: only what passes its gate and is not worse than what is live becomes live; the way back is one step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tumen.core import artifact, events
from tumen.core.errors import ArtifactError, GateError, InputError, RunnerBusy, TumenError
from tumen.core.lock import alone
from tumen.eval import (
    Compared,
    gate_fault,
    promote,
    read_scorecard,
    rollback,
    scorecard_text,
    write_scorecard,
)
from tumen.eval.gate import class_rows, shortfalls
from tumen.eval.statistics import wilson
from tumen.recipe import Gate
from tumen.release import keys, signing, slot

GROUPS = {
    "en": slice(0, 50),
    "zh": slice(50, 100),
    "lights": slice(0, 20),
    "vacuum": slice(20, 40),
    "timers": slice(40, 100),
}

NO_TEACHER = Gate(better_teacher=False)


def rows_of(marks: str, false_acts: float = 0.0, invented: int = 0) -> dict[str, dict[str, Any]]:
    def row(part: str) -> dict[str, Any]:
        low, high = wilson(part.count("1"), len(part))
        about = {
            "n": len(part),
            "exact": round(part.count("1") / len(part), 4),
            "low": low,
            "high": high,
            "marks": part,
        }
        return about | {
            "corrected": 0.5,
            "intent": 1.0,
            "false_acts": false_acts,
            "false_intents": 0.0,
            "invented": invented,
        }

    return {"all": row(marks)} | {name: row(marks[part]) for name, part in GROUPS.items()}


def make(
    folder: Path,
    marks: str,
    cloud: str = "",
    suite: str = "e1",
    agreement: float | None = 1.0,
    floors: Gate | None = None,
    **row: Any,
) -> Path:
    """A bundle whose scorecard has these marks; its content is its name."""
    floors = floors or Gate(exact=0.5, agreement=0.99, of_cloud=0.5)
    facts = {} if agreement is None else {"agreement": agreement}
    with artifact.writing(folder, "bundle", "x", [], facts) as stage:
        (stage / "model.gguf").write_text(str(folder))
        (stage / "bundle.json").write_text(
            json.dumps({"recipe": "t", "tier": "device", "gate": floors.model_dump()})
        )
    columns = {"device": rows_of(marks, **row)} | ({"cloud": rows_of(cloud)} if cloud else {})
    sizes = {"device": 10} | ({"cloud": 100} if cloud else {})
    if cloud:
        with artifact.writing(folder.with_name("bundle-cloud"), "bundle", "x", []) as stage:
            (stage / "a").write_text("a")
    device = artifact.manifest_of(folder).digest
    with_name = (
        folder
        if folder.name == "bundle-device"
        else folder.rename(folder.with_name("bundle-device"))
    )
    write_scorecard(
        with_name,
        columns,
        {"device": [0.01]},
        sizes if cloud else {"device": 10},
        made_from=[device],
        gate=floors,
        inputs="x",
        compared=Compared(suite),
    )
    return with_name if with_name == folder else with_name.rename(folder)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A place with a bundle that is right in 90 of 100 cases."""
    promote(make(tmp_path / "first", ("1" * 9 + "0") * 10), tmp_path / "live")
    return tmp_path / "live"


def stays(
    live: Path, says: str, act: Callable[[], object], kind: type[TumenError] = GateError
) -> None:
    before = slot.read_live(live)
    with pytest.raises(kind, match=says) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert slot.read_live(live) == before
    assert list(events.read(live / "events.jsonl"))[-1]["state"] == "refused"


def test_as_good_is_promoted_and_rolled_back(tmp_path: Path, live: Path) -> None:
    first = slot.live_bundle(live)
    second = promote(make(tmp_path / "second", ("0" + "1" * 9) * 10), live)
    assert slot.live_bundle(live) == second != first
    assert rollback(live) == first == slot.live_bundle(live)
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(live)
    told = [
        (row["event"], row["state"])
        for row in events.read(live / "events.jsonl")
        if row["event"] != "bundle_unsigned"
    ]
    assert told == [("promotion", "started"), ("promotion", "done")] * 2 + [
        ("rollback", "started"),
        ("rollback", "done"),
    ]


def test_a_little_worse_is_within_what_the_recipe_allows(tmp_path: Path, live: Path) -> None:
    marks = list(("1" * 9 + "0") * 10)
    marks[60] = "0"
    with pytest.raises(GateError, match="zh: exact 88.0% after 90.0%"):
        promote(make(tmp_path / "strict", "".join(marks)), live)
    promote(make(tmp_path / "lenient", "".join(marks), floors=Gate(worse_than_live=0.02)), live)


def test_worse_in_all(tmp_path: Path, live: Path) -> None:
    stays(live, r"all: exact 80.0% after 90.0% \(difference -1\d\.\d% to -\d\.\d%\), 1.0% is allowed", lambda: promote(
        make(tmp_path / "worse", ("1" * 8 + "00") * 10), live))  # fmt: skip


def test_worse_in_one_class_alone(tmp_path: Path, live: Path) -> None:
    marks = list(("1" * 9 + "0") * 10)
    marks[20:40] = list("0" * 8 + "1" * 12)
    marks[0:20] = list("1" * 20)
    marks[40:50] = list("1" * 10)
    worse = make(tmp_path / "worse", "".join(marks), floors=Gate(worse_than_live=0.2))
    stays(
        live,
        "worse than the live bundle: vacuum: exact 60.0% after 90.0%",
        lambda: promote(worse, live),
    )
    promote(
        make(tmp_path / "so", "".join(marks), floors=Gate(worse_than_live=0.2, worse_in_class=0.3)),
        live,
    )


def test_more_false_acts_or_inventions(tmp_path: Path, live: Path) -> None:
    marks = ("1" * 9 + "0") * 10
    stays(
        live,
        "false acts: 2.0% after 0.0%",
        lambda: promote(make(tmp_path / "a", marks, false_acts=0.02), live),
    )
    more = make(tmp_path / "b", marks, invented=1, floors=Gate(invented=5))
    promote(more, live)
    assert slot.live_bundle(live).name.endswith(artifact.manifest_of(more).digest)


def test_below_a_floor_or_not_evaluated(tmp_path: Path, live: Path) -> None:
    stays(
        live,
        "exact actions in en: 40.0%, the floor",
        lambda: promote(make(tmp_path / "low", ("1" * 4 + "0" * 6) * 10), live),
    )
    good = ("1" * 9 + "0") * 10
    stays(
        live,
        "agreement with torch",
        lambda: promote(make(tmp_path / "off", good, agreement=0.9), live),
    )
    stays(
        live,
        "export was not checked",
        lambda: promote(make(tmp_path / "unknown", good, agreement=None), live),
    )
    bare = make(tmp_path / "bare", good)
    (bare / "scorecard" / "manifest.json").unlink()
    stays(live, "has no manifest", lambda: promote(bare, live), ArtifactError)


def test_another_suite_is_no_comparison(tmp_path: Path, live: Path) -> None:
    other = make(tmp_path / "other", "1" * 100, suite="e2")
    stays(live, "different suites", lambda: promote(other, live))
    promote(other, live, new_suite=True)
    assert list(events.read(live / "events.jsonl", "promotion"))[-2]["new_suite"] is True


def test_an_older_scorecard_calls_its_suite_exam(live: Path) -> None:
    bundle = slot.live_bundle(live)
    path = bundle / "scorecard" / "scorecard.json"
    path.write_text(path.read_text().replace('"suite"', '"exam"'))
    assert read_scorecard(bundle)["suite"] == "e1"


def test_damaged_bundles(tmp_path: Path, live: Path) -> None:
    good = make(tmp_path / "good", "1" * 100)
    (good / "model.gguf").write_text("x" * len(str(good)))
    stays(live, "SHA-256 differs", lambda: promote(good, live), ArtifactError)
    stays(live, "no such artifact", lambda: promote(tmp_path / "none", live), ArtifactError)
    card = make(tmp_path / "card", "1" * 100)
    with artifact.writing(
        card / "scorecard", "scorecard", "x", [artifact.manifest_of(card).digest]
    ) as stage:
        (stage / "scorecard.json").write_text('{"columns": {"device": {"all": 3}}}')
    stays(live, "not a scorecard", lambda: promote(card, live), ArtifactError)


def test_a_rollback_to_what_is_damaged_is_refused(tmp_path: Path, live: Path) -> None:
    first = slot.live_bundle(live)
    second = promote(make(tmp_path / "second", "1" * 100), live)
    (first / "model.gguf").write_text("rot")
    with pytest.raises(ArtifactError, match="the manifest says"):
        rollback(live)
    assert slot.live_bundle(live) == second


def test_two_at_once(tmp_path: Path, live: Path) -> None:
    good = make(tmp_path / "good", "1" * 100)
    with alone(live), pytest.raises(RunnerBusy, match="works on this slot"):
        promote(good, live)


class TestSigned:
    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        keys.generate_keys(tmp_path / "key", "release")
        return tmp_path / "key"

    @pytest.fixture
    def store(self, key: Path) -> Path:
        return key.with_name("key.pub")

    def signed(self, tmp_path: Path, key: Path, version: int) -> Path:
        bundle = make(tmp_path / f"v{version}", "1" * 100)
        signing.sign(bundle, key, version)
        return bundle

    def test_versions_grow_and_an_old_one_is_a_replay(
        self, tmp_path: Path, key: Path, store: Path
    ) -> None:
        live = tmp_path / "live"
        three, five = (self.signed(tmp_path, key, version) for version in (3, 5))
        promote(three, live, store)
        promote(five, live, store)
        stays(
            live,
            "version 3, live is 5; `tumen rollback` goes back",
            lambda: promote(three, live, store),
        )
        promote(five, live, store)
        assert rollback(live, store).name.endswith(artifact.manifest_of(five).digest)
        assert rollback(live, store).name.endswith(artifact.manifest_of(three).digest)

    def test_the_store_decides(self, tmp_path: Path, key: Path, store: Path) -> None:
        live = tmp_path / "live"
        promote(self.signed(tmp_path, key, 1), live, store)
        unsigned = make(tmp_path / "unsigned", "1" * 100)
        stays(live, "is not signed, and", lambda: promote(unsigned, live, store), ArtifactError)
        stays(live, "it is not signed, the live bundle is", lambda: promote(unsigned, live))
        promote(self.signed(tmp_path, key, 2), live, store)
        store.write_text(store.read_text() + 'revoked = "stolen"\n')
        with pytest.raises(ArtifactError, match="revoked: stolen"):
            rollback(live, store)


class TestTeacher:
    """No distillation from a teacher that is not better, and no cloud tier that is not."""

    def faults(self, of: str = "", **marks: str) -> list[str]:
        columns = {column: rows_of(given) for column, given in marks.items()}
        sizes = {"device": 1, "cloud": 10}
        return shortfalls({"columns": columns, "bytes": sizes, "teacher": of}, Gate(), None)

    def test_a_better_one_passes(self) -> None:
        better = self.faults("cloud", device="1" * 80 + "0" * 20, cloud="1" * 90 + "0" * 10)
        assert better == []

    def test_one_that_is_as_good_is_refused(self) -> None:
        (fault,) = self.faults("cloud", device="1" * 89 + "0" * 11, cloud="1" * 90 + "0" * 10)
        assert fault.startswith(
            "the teacher is not better than the device tier: difference +1.0% [-"
        )
        assert fault.endswith("in pairs, the interval must lie above 0")

    def test_a_cloud_tier_that_teaches_nobody_must_be_better_as_well(self) -> None:
        (fault,) = self.faults(device="1" * 100, cloud="1" * 50 + "0" * 50)
        assert fault.startswith("the cloud tier is not better than the device tier: difference -50")

    def test_a_teacher_that_is_not_served(self) -> None:
        (fault,) = self.faults("teacher", device="1" * 100, teacher="1" * 100)
        assert fault.startswith("the teacher is not better")

    def test_a_student_may_reach_its_teacher_if_it_does_not_alone(self) -> None:
        half = "1" * 50 + "0" * 50
        assert self.faults("teacher", device="1" * 100, teacher="1" * 100, alone=half) == []
        (fault,) = self.faults("teacher", device="1" * 100, teacher=half, alone=half)
        assert fault.startswith("the teacher is not better than the device tier without it")

    def test_answers_to_other_cases_prove_nothing(self) -> None:
        (fault,) = self.faults("teacher", device="1" * 100, teacher="1" * 90)
        assert fault.endswith("they have no answers to the same cases")


class TestClasses:
    def card(self, device: str, cloud: str, floors: Gate) -> tuple[dict[str, Any], list[str]]:
        columns = {"device": rows_of(device), "cloud": rows_of(cloud)}
        card = {"columns": columns, "bytes": {"device": 1, "cloud": 10}}
        return class_rows(columns, floors.class_of_cloud), shortfalls(card, floors, None)

    def test_which_classes_reach_the_cloud(self) -> None:
        device = "1" * 20 + "0" * 10 + "1" * 10 + "1" * 60
        classes, faults = self.card(
            device, "1" * 100, Gate(of_cloud_classes=3, better_teacher=False)
        )
        assert {name: row["reached"] for name, row in classes.items()} == {
            "lights": True,
            "vacuum": False,
            "timers": True,
        }
        assert classes["vacuum"]["ratio"] == 0.5
        assert classes["vacuum"]["high"] < 0.98
        assert faults == [
            "classes with 98% of the cloud's score: 2 of 3, the floor is 3; missed: vacuum"
        ]
        assert self.card(device, "1" * 100, Gate(of_cloud_classes=2, better_teacher=False))[1] == []

    def test_the_edge_counts(self) -> None:
        device = "1" * 100
        assert (
            self.card(device[:59] + "0" + device[60:], device, NO_TEACHER)[0]["timers"]["reached"]
            is True
        ), "59 of 60 is 98.3 %"
        assert (
            self.card(device[:58] + "00" + device[60:], device, NO_TEACHER)[0]["timers"]["reached"]
            is False
        )
        nothing = self.card(device, "0" * 100, Gate(of_cloud_classes=3, better_teacher=False))
        assert nothing[1] == []
        assert nothing[0]["lights"]["ratio"] is None

    def test_the_table_shows_where_the_device_loses(self, tmp_path: Path) -> None:
        device = "1" * 20 + "0" * 10 + "1" * 10 + "1" * 60
        bundle = make(
            tmp_path / "bundle-device",
            device,
            cloud="1" * 100,
            floors=Gate(of_cloud_classes=3, better_teacher=False),
        )
        shown = scorecard_text(bundle / "scorecard")
        (vacuum,) = [line for line in shown.splitlines() if line.startswith("vacuum")]
        assert vacuum.endswith("<")
        assert "0.50 [0.3" in vacuum
        assert (
            "reaches its share of the cloud in 2 of 3 classes; not in vacuum (surely below the cloud)"
            in shown
        )
        assert "not passed: classes with 98% of the cloud's score: 2 of 3" in shown


def leaves(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [above] * bool(above) + [
        path for key, value in inner for path in leaves(value, (*above, key))
    ]


ODD = [None, True, -1, 0.5, 10**30, 1e300, "", "\n", "\0", "x" * 5000, [], {}, [1], {"a": 1}]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_strangers_scorecard_is_read_or_one_line(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("strange")
    bundle = make(folder / "bundle-device", "1" * 100, cloud="1" * 99 + "0")
    card = bundle / "scorecard"
    facts = artifact.manifest_of(card).facts
    tree = {"card": json.loads((card / "scorecard.json").read_text()), "facts": facts}
    path = data.draw(st.sampled_from(leaves(tree)))
    at: Any = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = data.draw(st.sampled_from(ODD))
    facts = tree["facts"] if isinstance(tree["facts"], dict) else {}
    with artifact.writing(
        card, "scorecard", "x", [artifact.manifest_of(bundle).digest], facts
    ) as stage:
        (stage / "scorecard.json").write_text(json.dumps(tree["card"]))
    for act in (
        lambda: gate_fault(bundle),
        lambda: scorecard_text(card),
        lambda: promote(bundle, folder / "live"),
    ):
        try:
            act()
        except TumenError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- either outcome is right, a crash is not
