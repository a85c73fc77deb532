"""Plain texts: every kind of file, what is wrong with one, and the way to shards in which every token is learned."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tests.data.texts import PARAGRAPHS, paragraph, write_jsonl

from tumen.core.errors import InputError
from tumen.data import (
    Codec,
    Loader,
    read_corpus,
    read_shards,
    write_corpus,
    write_dataset,
    write_tokenizer,
)
from tumen.data.shards import PackedExamples, write_packed
from tumen.data.sources import read_sentences, read_text
from tumen.data.sources.read import TEXT_CHARACTERS
from tumen.recipe import Data, Tokenizer

TEXTS = [*PARAGRAPHS.values(), 'with "quotes", a </s>, <s> and\na line break']


def parquet(path: Path, texts: list[str | None], column: str = "text") -> Path:
    pyarrow.parquet.write_table(pyarrow.table({column: texts}), path)
    return path


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        list(read_text(path))
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


class TestRead:
    def test_every_kind_of_file(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "a.jsonl", TEXTS)
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
        parquet(tmp_path / "c.parquet", [*TEXTS])
        for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
            assert list(read_text(tmp_path / name)) == TEXTS
        (tmp_path / "d.txt").write_text(TEXTS[-1], "utf-8")
        (tmp_path / "e.txt.gz").write_bytes(gzip.compress(TEXTS[-1].encode()))
        assert (
            list(read_text(tmp_path / "d.txt"))
            == list(read_text(tmp_path / "e.txt.gz"))
            == TEXTS[-1:]
        )

    def test_folders_and_globs_in_order_of_names(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        for name in ("b.txt", "a.txt", "deep/c.txt", "notes.pdf"):
            (tmp_path / name).write_text(name)
        assert list(read_text(tmp_path)) == ["a.txt", "b.txt", "deep/c.txt"]
        assert list(read_text(f"{tmp_path}/*.txt")) == ["a.txt", "b.txt"]
        assert list(read_text(f"{tmp_path}/**/c.txt")) == ["deep/c.txt"]

    def test_a_long_txt_is_cut_at_line_ends_and_not_held(self, tmp_path: Path) -> None:
        line = "a line of some length, again and again\n"
        (tmp_path / "a.txt").write_text(line * (20 * TEXT_CHARACTERS // len(line)))
        tracemalloc.start()
        sizes = [len(text) for text in read_text(tmp_path / "a.txt") if text.endswith("\n")]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(sizes) == 20
        assert max(sizes) < TEXT_CHARACTERS + len(line)
        assert peak < 8 * TEXT_CHARACTERS

    @pytest.mark.parametrize("keep", [0, 5, 40, -9, -1])
    def test_cut_gzip(self, tmp_path: Path, keep: int) -> None:
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(
            gzip.compress(write_jsonl(tmp_path / "a.jsonl", TEXTS).read_bytes())[: keep or None]
        )
        if keep == 0:
            path.write_bytes(b"")
        refused(path, "no text in it" if keep == 0 else "cut short")

    def test_no_gzip(self, tmp_path: Path) -> None:
        refused(write_jsonl(tmp_path / "a.jsonl.gz", TEXTS), "no gzip")

    def test_cut_jsonl(self, tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
        path.write_bytes(path.read_bytes()[:-20])
        refused(path, "line 4", "cut short")

    @pytest.mark.parametrize("keep", [0, 4, 100])
    def test_cut_parquet(self, tmp_path: Path, keep: int) -> None:
        path = parquet(tmp_path / "a.parquet", [*TEXTS])
        path.write_bytes(path.read_bytes()[:keep])
        refused(path, "no Parquet, or cut short")

    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ("null", "None"),
            ("NaN", "nan"),
            ("7", "7"),
            ('["a"]', "['a']"),
            ('"\\ud800"', "half a character"),
        ],
    )
    def test_rows_without_text(self, tmp_path: Path, value: str, part: str) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", TEXTS[:2])
        path.write_text(path.read_text("utf-8") + f'{{"text": {value}}}\n', "utf-8")
        refused(path, "row 3", part)

    def test_a_missing_column(self, tmp_path: Path) -> None:
        refused(parquet(tmp_path / "a.parquet", ["x"], "content"), "row 1", "column 'text'")
        refused(parquet(tmp_path / "b.parquet", ["x", None]), "row 2", "None")

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        refused(tmp_path / "none.jsonl", "no such file")
        (tmp_path / "empty").mkdir()
        refused(tmp_path / "empty", "a folder without .txt")
        for name in ("a.txt", "a.jsonl"):
            (tmp_path / name).write_text("\n \n")
            refused(tmp_path / name, "no text in it")
        refused(parquet(tmp_path / "a.parquet", []), "no text in it")
        (tmp_path / "a.pdf").write_text("x")
        refused(tmp_path / "a.pdf", "not read as text")

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"caf\xe9")
        refused(tmp_path / "a.txt", "not UTF-8")

    def test_eval_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one\n\ntwo\n")
        (tmp_path / "a.tsv").write_text("sentence\taction\none\t{}\ntwo\t{}\n")
        (tmp_path / "a.jsonl").write_text('{"sentence": "one"}\n{"text": "two"}\n')
        for path in tmp_path.iterdir():
            assert [text.strip() for text in read_sentences(path)] == ["one", "two"]
        (tmp_path / "a.jsonl").write_text('{"sentence": null}\n')
        with pytest.raises(InputError, match="row 1: no sentence, text or utt"):
            list(read_sentences(tmp_path / "a.jsonl"))
        with pytest.raises(InputError, match="no such file or folder; data.held_out is read from"):
            list(read_sentences(tmp_path / "b.jsonl"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    return [
        f"{paragraph(rng, rng.randint(60, 200))}\nand a second line </s> <do> {number}"
        for number in range(600)
    ]


@pytest.fixture(scope="module")
def run(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus, tokenizer and dataset of plain texts."""
    folder = tmp_path_factory.mktemp("text")
    write_jsonl(folder / "texts.jsonl", texts)
    (folder / "eval.txt").write_text(f"{texts[5][30:200]}\n")
    section = Data(
        source="text",
        path=str(folder / "texts.jsonl"),
        held_out=(str(folder / "eval.txt"),),
        validation=20,
    )
    write_corpus(section, 0, folder / "corpus", "")
    write_tokenizer(Tokenizer(vocab_size=700), folder / "corpus", folder / "tokenizer", "")
    write_dataset(folder / "corpus", folder / "tokenizer", folder / "dataset", "", 64, workers=1)
    return folder


class TestChain:
    def test_a_split_by_hash_and_what_was_removed(self, run: Path, texts: list[str]) -> None:
        from tumen.core.artifact import verify

        train, validation = (
            [row["text"] for row in read_corpus(run / "corpus", split)]
            for split in ("train", "validation")
        )
        assert 0 < len(validation) <= 20
        assert [text for text in texts if text in {*train, *validation}] == texts[:5] + texts[6:]
        assert list(read_corpus(run / "corpus", "eval")) == []
        assert verify(run / "corpus").facts["removed"] == {"held_out": 1}

    def test_all_of_a_text_is_learnt_once(self, run: Path) -> None:
        codec, shards = Codec.load(run / "tokenizer"), read_shards(run / "dataset" / "train")
        assert int(shards.lengths.max()) == 64
        assert (shards.answers == shards.starts[:-1] + 1).all()
        pieces = [
            shards.tokens[a:b].tolist()
            for a, b in zip(shards.starts[:-1], shards.starts[1:], strict=True)
        ]
        assert {piece[0] for piece in pieces} == {codec.begin}
        learned = [token for piece in pieces for token in piece[1:]]
        rows = [row["text"] for row in read_corpus(run / "corpus", "train")]
        assert learned.count(codec.end) == len(rows), "a typed </s> is text"
        assert codec.do not in learned
        assert codec.decode(learned[: learned.index(codec.end)]) == rows[0]

    def test_the_loader_marks_every_target(self, run: Path) -> None:
        batch = next(Loader(read_shards(run / "dataset" / "train"), 4, 64, 0))
        assert (batch.answers.astype(bool) == (batch.targets >= 0)).all()

    def test_any_number_of_workers_writes_the_same_bytes(self, run: Path, tmp_path: Path) -> None:
        digests = {
            write_dataset(
                run / "corpus", run / "tokenizer", tmp_path / "d", "", 64, workers=n
            ).digest
            for n in (1, 2)
        }
        assert len(digests) == 1

    def test_nothing_left(self, tmp_path: Path) -> None:
        path = write_jsonl(tmp_path / "a.jsonl", ["short", "too short"])
        with pytest.raises(
            InputError, match=r"a\.jsonl: no training rows left; removed: .*few words"
        ):
            write_corpus(Data(source="text", path=str(path)), 0, tmp_path / "corpus", "")
        assert not (tmp_path / "corpus").exists()

    def test_no_path(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"data\.path is missing"):
            write_corpus(Data(source="text"), 0, tmp_path / "corpus", "")


def test_shards_are_written_as_numpy_would_and_never_held(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 900, 40_000).astype(np.uint16) for _ in range(60)]

    def stream() -> Iterator[PackedExamples]:
        for tokens in parts:
            yield PackedExamples(tokens, np.full(400, 100), np.full(400, 3))

    tracemalloc.start()
    assert write_packed(tmp_path / "a", stream()) == 60 * 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, "of five"
    np.save(tmp_path / "tokens.npy", np.concatenate(parts))
    assert (tmp_path / "tokens.npy").read_bytes() == (tmp_path / "a" / "tokens.npy").read_bytes()
    np.save(tmp_path / "starts.npy", np.arange(0, 60 * 40_000 + 1, 100))
    assert (tmp_path / "starts.npy").read_bytes() == (tmp_path / "a" / "starts.npy").read_bytes()
    assert json.dumps(read_shards(tmp_path / "a").answers[:3].tolist()) == "[3, 103, 203]"
