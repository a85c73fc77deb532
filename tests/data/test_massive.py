"""MASSIVE in its three forms becomes the same corpus; xSID, MTOP and Disfl-QA beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tumen.core.errors import InputError
from tumen.data import read_corpus, write_corpus
from tumen.data.sources import massive_rows, read_massive_rows
from tumen.data.sources.labelled import LabelledSentence
from tumen.data.sources.massive_rows import MassiveSource
from tumen.data.sources.task_sets import DisflQaSource, MtopSource, XsidSource
from tumen.home import at_home
from tumen.language import Action
from tumen.recipe import Data

# (id, locale, partition, intent, annotated)
ROWS = [
    ("1", "en-US", "train", "iot_hue_lightoff", "lights off in the [house_place : Attic]"),
    ("1", "de-DE", "train", "iot_hue_lightoff", "licht aus im [house_place : Dachboden]"),
    ("1", "zh-CN", "train", "iot_hue_lightoff", "关掉[house_place : 阁楼]的灯"),
    ("1", "zh-TW", "train", "iot_hue_lightoff", "關掉[house_place : 閣樓]的燈"),
    ("1", "pt-PT", "train", "iot_hue_lightoff", "apaga as luzes do [house_place : sótão]"),
    ("2", "en-US", "train", "alarm_set", "wake me at [time : six] and [time : seven]"),
    ("2", "de-DE", "train", "alarm_set", "weck mich um [time : sechs] und [time : sieben]"),
    ("3", "en-US", "dev", "alarm_query", "which alarms do i have"),
    ("3", "de-DE", "dev", "alarm_query", "welche wecker habe ich"),
    ("4", "en-US", "test", "alarm_query", "list my alarms"),
]


def released(folder: Path) -> str:
    """Write the rows as MASSIVE's release has them: a file a locale."""
    for locale in {row[1] for row in ROWS}:
        lines = [json.dumps(release_row(row)) for row in ROWS if row[1] == locale]
        (folder / f"{locale}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def release_row(row: tuple[str, ...]) -> dict[str, Any]:
    id_, locale, partition, intent, annotated = row
    return {
        "id": id_, "locale": locale, "partition": partition, "scenario": intent.partition("_")[0],
        "intent": intent, "utt": plain(annotated), "annot_utt": annotated, "worker_id": "7",
    }  # fmt: skip


def plain(annotated: str) -> str:
    return massive_rows.ENTITY.sub(r"\2", annotated)


def with_spans(folder: Path) -> str:
    """Write the same rows with spans; locale and partition stand in the names of the files."""
    for id_, locale, partition, intent, annotated in ROWS:
        text = plain(annotated)
        slots = []
        for match in massive_rows.ENTITY.finditer(annotated):
            start = text.index(match[2])
            slots.append([match[1], start, start + len(match[2])])
        row = {"id": int(id_), "intent": intent, "utt": text, "slots": slots[::-1]}
        with open(folder / f"{locale}.{partition}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
    return str(folder)


def on_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the `datasets` library hold the rows, with numbers for names as the hub has them."""
    names = sorted({row[3] for row in ROWS})
    label = SimpleNamespace(int2str=lambda number: names[number])

    class Part(list[dict[str, Any]]):
        features: Mapping[str, Any] = {"intent": label, "scenario": label}

    def load_dataset(name: str, locale: str, revision: str) -> dict[str, Part]:
        assert (name, revision) == ("AmazonScience/massive", "refs/convert/parquet")
        parts: dict[str, Part] = {}
        for row in ROWS:
            if row[1] == locale:
                numbered = release_row(row) | {"intent": names.index(row[3]), "scenario": 0}
                parts.setdefault(row[2], Part()).append(numbered)
        return parts

    fake = SimpleNamespace(
        load_dataset=load_dataset,
        get_dataset_config_names=lambda name, revision: ["all", *sorted({r[1] for r in ROWS})],
    )
    monkeypatch.setattr(massive_rows, "need", lambda name, purpose: fake)
    return massive_rows.HUB


def said(rows: Iterable[massive_rows.MassiveRow]) -> set[tuple[Any, ...]]:
    return {
        (row.locale, row.spans, row.labelled.sentence, row.labelled.intent, row.labelled.split)
        for row in rows
    }


def test_the_three_forms_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    release = list(read_massive_rows(released(tmp_path / "a")))
    assert len(release) == len(ROWS)
    assert said(read_massive_rows(with_spans(tmp_path / "b"))) == said(release)
    assert said(read_massive_rows(on_hub(monkeypatch))) == said(release)


def test_a_row_keeps_the_words_as_they_were_written(tmp_path: Path) -> None:
    (row,) = [row for row in read_massive_rows(released(tmp_path)) if row.locale == "de-DE"][:1]
    assert row.labelled == LabelledSentence(
        "licht aus im Dachboden", "iot_hue_lightoff", [("house_place", "Dachboden")], "de",
        "train", "1",
    )  # fmt: skip
    assert row.spans == (("house_place", 13, 22),)


@pytest.mark.parametrize(
    ("locales", "found"),
    [
        (("pt",), {"pt-PT"}),
        (("zh-TW", "de-DE"), {"zh-TW", "de-DE"}),
        (("zh",), {"zh-CN", "zh-TW"}),
        ((), {"en-US", "de-DE", "zh-CN", "zh-TW", "pt-PT"}),
    ],
)
def test_locales_are_chosen(tmp_path: Path, locales: tuple[str, ...], found: set[str]) -> None:
    rows = read_massive_rows(released(tmp_path), locales)
    assert {row.locale for row in rows} == found


class TestSource:
    def section(self, path: str, **fields: Any) -> Data:
        fields = {"eval_sentences": 1, "validation": 1} | fields
        return Data(source="massive", path=path, **fields)

    def test_a_recipes_languages_are_read_as_home_assistant_writes_them(
        self, tmp_path: Path
    ) -> None:
        corpus = MassiveSource().corpus(self.section(released(tmp_path)), 1)
        assert sorted(example.action.lang for example in corpus.train) == [
            "de", "de", "en", "en", "zh"
        ]  # fmt: skip
        assert [example.sentence for example in corpus.eval] == ["list my alarms"]
        assert len(corpus.validation) == 2
        attic = Action("iot_hue_lightoff", "zh", {"house_place": "阁楼"})
        assert attic in [example.action for example in corpus.train]

    def test_its_labels_are_slurps_so_a_home_understands_them(self, tmp_path: Path) -> None:
        corpus = MassiveSource().corpus(self.section(released(tmp_path), languages=["en"]), 1)
        lights, alarm = (example.action for example in corpus.train)
        assert at_home(lights) == Action("HassTurnOff", "en", {"domain": "light", "area": "attic"})
        assert alarm.runs("time") == ["six", "seven"]
        assert corpus.ontology.several == ("time",)

    def test_an_id_is_in_one_split_in_all_languages(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        rows = []
        for number in range(20):
            for locale in ("en-US", "de-DE"):
                rows.append(
                    {"id": number, "locale": locale, "intent": "alarm_query",
                     "utt": f"{locale[:2]} {number}", "slots": []}
                )  # fmt: skip
        path.write_text("\n".join(map(json.dumps, rows)))
        corpus = MassiveSource().corpus(self.section(str(path), eval_sentences=4), 1)
        numbers = [
            {example.sentence.split()[1] for example in split}
            for split in (corpus.eval, corpus.validation, corpus.train)
        ]
        assert [len(split) for split in numbers] == [4, 1, 15]
        assert len(corpus.eval) == 8

    def test_a_held_out_id_is_held_out_in_every_language(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        held = tmp_path / "slurp.jsonl"
        held.write_text(json.dumps({"slurp_id": 1, "sentence": "lights off"}) + "\n")
        own = tmp_path / "en-US.test.jsonl"
        own.write_text(json.dumps({"id": 3, "utt": "what alarms", "intent": "", "slots": []}))
        section = self.section(released(tmp_path / "data"), held_out=[str(held), str(own)])
        corpus = MassiveSource().corpus(section, 1)
        assert {example.template.rpartition("#")[2] for example in corpus.train} == {"2"}
        assert not corpus.validation

    def test_a_corpus_counts_what_no_model_could_copy(self, tmp_path: Path) -> None:
        path = released(tmp_path)
        with open(tmp_path / "en-US.jsonl", "a") as file:
            row = release_row(("9", "en-US", "train", "alarm_set", "wake me " * 60))
            file.write(json.dumps(row) + "\n")
        manifest = write_corpus(self.section(path), 1, tmp_path / "corpus", "x")
        assert manifest.facts["skipped"] == 1
        assert len(list(read_corpus(tmp_path / "corpus", "train"))) == 5

    def test_no_row_in_the_recipes_languages_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no row in ja"):
            MassiveSource().corpus(self.section(released(tmp_path), locales=["ja"]), 1)

    def test_a_missing_folder_names_the_set_and_the_hub(self) -> None:
        with pytest.raises(InputError, match=r"alexa/massive, or name AmazonScience/massive"):
            MassiveSource().corpus(self.section("data/massive"), 1)

    @pytest.mark.parametrize(
        "row",
        [
            {"utt": "a"},
            {"utt": 1, "intent": "b", "slots": []},
            {"utt": "a", "intent": "b", "slots": [["c", 0, 9]]},
            {"utt": "a", "intent": "b", "slots": [["c"]]},
            {"utt": "a", "intent": "b", "slots": [], "partition": "x"},
        ],
    )
    def test_another_file_is_one_line_with_its_row(self, tmp_path: Path, row: Any) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(row))
        with pytest.raises(InputError, match=r"rows.jsonl, row 1: no row of MASSIVE") as caught:
            list(read_massive_rows(str(path)))
        assert "\n" not in str(caught.value)


class TestTaskSets:
    def rows(self, source: Any, folder: Path, name: str, *rows: Any) -> list[LabelledSentence]:
        (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
        section = Data(source="labelled", path=str(folder), languages=["en", "de"])
        return list(source.rows(section))

    def test_xsid_reads_bio_tags(self, tmp_path: Path) -> None:
        row = {
            "id": 4, "lang": "de", "intent": "weather/find", "utt": "Regnet es am Freitag, am Samstag?",
            "tokens": ["Regnet", "es", "am", "Freitag", ",", "am", "Samstag", "?"],
            "bio": ["B-weather/attribute", "O", "B-datetime", "I-datetime", "O", "B-datetime",
                    "I-datetime", "O"],
        }  # fmt: skip
        other = row | {"lang": "nl"}
        (found,) = self.rows(XsidSource(), tmp_path, "de.valid.jsonl", row, other)
        assert found == LabelledSentence(
            "Regnet es am Freitag, am Samstag?", "weather_find",
            [("weather_attribute", "Regnet"), ("datetime", "am Freitag"), ("datetime", "am Samstag")],
            "de", "validation", "4",
        )  # fmt: skip

    def test_mtop_makes_nested_frames_flat(self, tmp_path: Path) -> None:
        tree = (
            "[IN:CREATE_REMINDER [SL:PERSON me ] [SL:TODO [IN:GET_TODO [SL:TODO feed cats ] "
            "[SL:DATE at noon ] ] ] ]"
        )
        row = {"id": "a", "lang": "en", "utt": "remind me to feed cats at noon", "tree": tree}
        (found,) = self.rows(MtopSource(), tmp_path, "en.train.jsonl", row)
        assert found.intent == "CREATE_REMINDER"
        assert found.slots == [("PERSON", "me"), ("TODO", "feed cats"), ("DATE", "at noon")]
        assert (found.split, found.id) == ("train", "a")

    def test_disfl_qa_is_not_for_a_home(self, tmp_path: Path) -> None:
        row = {"id": "b", "said": "who no when was it", "meant": "when was it"}
        (found,) = self.rows(DisflQaSource(), tmp_path, "rows.jsonl", row)
        assert found == LabelledSentence("who no when was it", "none", id="b")

    @pytest.mark.parametrize("source", [XsidSource, MtopSource, DisflQaSource])
    def test_another_file_is_one_line_with_its_row(self, source: Any, tmp_path: Path) -> None:
        bad = {"tree": "x", "utt": "y", "intent": "z", "tokens": ["a"], "bio": []}
        with pytest.raises(InputError, match=r"rows.jsonl, row 1: no row of"):
            self.rows(source(), tmp_path, "rows.jsonl", bad)
