"""Sources: generated homes, a team's own file in three formats, and what is wrong with a row."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumen.core.artifact import Manifest, verify
from tumen.core.errors import InputError, MissingExtra
from tumen.data import read_corpus, write_corpus, write_dataset, write_tokenizer
from tumen.data.sources import SOURCES
from tumen.data.sources.source import Corpus, source_of
from tumen.language.action import parse
from tumen.recipe import Data, Recipe

LIGHT = {"lang": "en", "intent": "HassTurnOn", "domain": "light", "area": "kitchen"}


def rows_of(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"sentence": f"Turn on the kitchen light {number}", "action": LIGHT}
        for number in range(count)
    ]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = ["\t".join(rows[0])] + [
        "\t".join(v if isinstance(v, str) else json.dumps(v) for v in row.values()) for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    flat = [
        {name: v if isinstance(v, str) else json.dumps(v) for name, v in row.items()}
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), path)
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": jsonl,
    "tsv": tsv,
    "parquet": parquet,
}


def read(path: Path | str, seed: int = 0) -> Corpus:
    return source_of("file").corpus(Data(source="file", path=str(path)), seed)


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        read(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


class TestHome:
    def test_counts(self, recipe: Recipe, corpus: Path) -> None:
        splits = {
            split: list(read_corpus(corpus, split)) for split in ("train", "validation", "eval")
        }
        assert len(splits["train"]) == recipe.data.sentences
        assert len(splits["validation"]) == recipe.data.validation
        for lang in recipe.data.languages:
            assert (
                sum(row["action"]["lang"] == lang for row in splits["eval"])
                == recipe.data.eval_sentences
            )

    def test_no_sentence_stands_in_two_splits_or_twice(self, corpus: Path) -> None:
        said = [
            row["sentence"]
            for split in ("train", "validation", "eval")
            for row in read_corpus(corpus, split)
        ]
        assert len(said) == len(set(said))

    def test_the_eval_split_knows_templates_and_names_that_training_does_not(
        self, corpus: Path
    ) -> None:
        trained = [*read_corpus(corpus, "train"), *read_corpus(corpus, "validation")]
        held = list(read_corpus(corpus, "eval"))
        assert not {row["template"] for row in trained} & {row["template"] for row in held}
        homes = json.loads((corpus / "homes.json").read_text("utf-8"))
        for lang in ("en", "zh", "de"):
            names = {
                row["action"]["name"]
                for row in trained
                if row["action"]["lang"] == lang and "name" in row["action"]
            }
            mine = [home for home in homes if home["name"].startswith(lang)]
            theirs = {entity["name"].casefold() for home in mine for entity in home["entity"]}
            assert len(theirs) > 20
            assert not names & theirs

    def test_eval_sentences_are_said_in_a_home_of_their_language(self, corpus: Path) -> None:
        homes = json.loads((corpus / "homes.json").read_text("utf-8"))
        for row in read_corpus(corpus, "eval"):
            assert homes[row["home"]]["name"].startswith(row["action"]["lang"])

    def test_same_seed_same_digest(self, recipe: Recipe, corpus: Path, tmp_path: Path) -> None:
        again = write_corpus(recipe.data, recipe.seed, tmp_path / "again", "other inputs")
        assert again.digest == verify(corpus).digest

    def test_another_seed_another_corpus(
        self, recipe: Recipe, corpus: Path, tmp_path: Path
    ) -> None:
        small = recipe.data.model_copy(update={"sentences": 60, "languages": ("de",)})
        digests = {write_corpus(small, seed, tmp_path / str(seed), "").digest for seed in (1, 1, 2)}
        assert len(digests) == 2

    def test_nothing_held_back_still_gives_eval_sentences(self, recipe: Recipe) -> None:
        section = recipe.data.model_copy(
            update={
                "sentences": 60,
                "languages": ("en",),
                "held_out_templates": 0.0,
                "held_out_names": 0.0,
            }
        )
        assert len(source_of("home").corpus(section, 0).eval) == section.eval_sentences

    def test_share_of_sentences_that_are_not_for_the_home(
        self, recipe: Recipe, corpus: Path
    ) -> None:
        rows = [row for row in read_corpus(corpus, "train") if row["action"]["lang"] == "en"]
        share = sum(row["action"]["intent"] == "none" for row in rows) / len(rows)
        assert abs(share - recipe.data.not_home) < 0.12


class TestFile:
    @pytest.mark.parametrize("kind", WRITERS)
    def test_formats(self, tmp_path: Path, kind: str) -> None:
        found = read(WRITERS[kind](tmp_path / f"own.{kind}", rows_of()))
        examples = [*found.train, *found.validation, *found.eval]
        assert len(examples) == 60
        assert found.train[0].sentence == "turn on the kitchen light 0"
        assert found.train[0].action == parse(json.dumps(LIGHT))

    def test_formats_give_the_same_corpus(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / f"own.{kind}", rows_of()) for kind, write in WRITERS.items()]
        assert len({tuple(example.sentence for example in read(path).eval) for path in paths}) == 1

    def test_split_column(self, tmp_path: Path) -> None:
        rows = rows_of(4)
        for row, split in zip(rows, ("train", "dev", "test", "valid"), strict=True):
            row["split"] = split
        found = read(jsonl(tmp_path / "own.jsonl", rows))
        assert (len(found.train), len(found.validation), len(found.eval)) == (1, 2, 1)

    def test_split_by_hash_is_stable_and_small(self, tmp_path: Path) -> None:
        found = read(jsonl(tmp_path / "own.jsonl", rows_of(1000)))
        assert 20 < len(found.eval) < 90
        assert 20 < len(found.validation) < 90
        assert read(tmp_path / "own.jsonl", seed=9).eval == found.eval

    def test_whole_words_of_the_sentence_are_copied(self, tmp_path: Path) -> None:
        row = {
            "sentence": "Schalte das Küchenlicht an",
            "action": {"lang": "de", "intent": "HassTurnOn", "area": "Küchen"},
        }
        assert read(jsonl(tmp_path / "own.jsonl", [row | {"split": "train"}])).train[
            0
        ].action.slots == {"area": "küchenlicht"}

    def test_through_to_a_dataset(self, tmp_path: Path, recipe: Recipe) -> None:
        section = Data(source="file", path=str(jsonl(tmp_path / "own.jsonl", rows_of(400))))
        made: list[Manifest] = [write_corpus(section, 0, tmp_path / "corpus", "")]
        made.append(
            write_tokenizer(recipe.tokenizer, tmp_path / "corpus", tmp_path / "tokenizer", "")
        )
        made.append(
            write_dataset(tmp_path / "corpus", tmp_path / "tokenizer", tmp_path / "dataset", "")
        )
        assert made[2].made_from == [made[0].digest, made[1].digest]

    @pytest.mark.parametrize(
        ("line", "parts"),
        [
            ('{"sentence": "turn on', ["line 3", "no JSON"]),
            ("[1, 2]", ["line 3", "object"]),
            ("{}", ["row 3", "no 'sentence'"]),
            ('{"sentence": "x"}', ["row 3", "no 'action'"]),
            ('{"sentence": "!", "action": {"lang": "en", "intent": "none"}}', ["row 3", "empty"]),
            (
                '{"sentence": "x", "action": {"lang": "en", "intent": "Explode"}}',
                ["row 3", "not an action"],
            ),
            ('{"sentence": "x", "action": null}', ["row 3", "not an action"]),
            (
                '{"sentence": "x", "action": {"lang": "en", "intent": "HassTurnOn", "area": "y"}}',
                ["row 3", "'y' is not in the sentence"],
            ),
            (
                '{"sentence": "x", "action": {"lang": "en", "intent": "none"}, "split": "holdout"}',
                ["row 3", "holdout"],
            ),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path: Path, line: str, parts: list[str]) -> None:
        path = jsonl(tmp_path / "own.jsonl", rows_of(2))
        path.write_text(path.read_text() + line + "\n")
        refused(path, *parts)

    def test_bad_row_of_a_tsv(self, tmp_path: Path) -> None:
        path = tsv(tmp_path / "own.tsv", rows_of(2))
        path.write_text(path.read_text() + "only a sentence\n")
        refused(path, "row 3")

    def test_a_tsv_without_its_columns(self, tmp_path: Path) -> None:
        (tmp_path / "own.tsv").write_text("a\tb\n1\t2\n")
        refused(tmp_path / "own.tsv", "row 1", "no 'sentence'")

    def test_not_utf8(self, tmp_path: Path) -> None:
        for name in ("own.jsonl", "own.tsv"):
            (tmp_path / name).write_bytes(b'{"sentence": "\xff"}\n')
            refused(tmp_path / name, "not UTF-8")

    @pytest.mark.parametrize("keep", [0, 4, 100])
    def test_cut_parquet(self, tmp_path: Path, keep: int) -> None:
        path = parquet(tmp_path / "own.parquet", rows_of())
        path.write_bytes(path.read_bytes()[:keep])
        refused(path, "no Parquet, or cut short")

    def test_missing_and_empty(self, tmp_path: Path) -> None:
        refused(tmp_path / "none.jsonl", "no such file")
        (tmp_path / "empty.jsonl").write_text("\n\n")
        refused(tmp_path / "empty.jsonl", "no training rows")

    def test_no_path(self) -> None:
        for source in ("file", "hub"):
            with pytest.raises(InputError, match=r"data\.path is missing"):
                source_of(source).corpus(Data(source=source), 0)


class TestHub:
    """Hugging Face data sets, through a stand-in at the library's edge."""

    def test_splits_of_the_data_set_are_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = types.ModuleType("datasets")
        parts = {"train": rows_of(3), "test": rows_of(2), "validation": rows_of(1)}
        library.load_dataset = lambda name: parts if name == "team/commands" else {}  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", library)
        found = source_of("hub").corpus(Data(source="hub", path="team/commands"), 0)
        assert (len(found.train), len(found.validation), len(found.eval)) == (3, 1, 2)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(MissingExtra, match=r"tumen\[hub\]"):
            source_of("hub").corpus(Data(source="hub", path="x"), 0)


class OwnSource:
    """A source of a team's own, named in a recipe as `module:Class`."""

    def corpus(self, section: Data, seed: int) -> Corpus:
        return Corpus()


class TestTable:
    def test_every_entry_is_there(self) -> None:
        assert all(hasattr(source_of(name), "corpus") for name in SOURCES)

    def test_a_source_of_ones_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("my_pkg")
        module.Own = OwnSource  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "my_pkg", module)
        assert isinstance(source_of("my_pkg:Own"), OwnSource)

    @pytest.mark.parametrize("name", ["nothing", "no_such_pkg:X", "json:NoSuch", ":"])
    def test_unknown(self, name: str) -> None:
        with pytest.raises(InputError, match=r"data\.source"):
            source_of(name)
