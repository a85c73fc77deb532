"""Shards: what was written comes back, and damage is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.artifact import verify
from tumen.core.errors import ArtifactError, InputError
from tumen.data import Codec, Shards, read_corpus, read_shards, write_shards
from tumen.language.action import parse

IDS = st.lists(st.integers(0, 60_000), min_size=1, max_size=5)


@given(pairs=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=8))
def test_pairs_come_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[int], list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    assert write_shards(folder, pairs, 60_001) == sum(
        len(prompt) + len(answer) for prompt, answer in pairs
    )
    shards = read_shards(folder)
    found = [
        (shards.tokens[start:answer].tolist(), shards.tokens[answer:stop].tolist())
        for start, answer, stop in zip(
            shards.starts[:-1], shards.answers, shards.starts[1:], strict=True
        )
    ]
    assert found == pairs
    assert shards.lengths.tolist() == [len(prompt) + len(answer) for prompt, answer in pairs]


@pytest.mark.parametrize(
    ("vocab", "kind"), [(512, np.uint16), (65_536, np.uint16), (65_537, np.uint32)]
)
def test_the_smallest_type_that_holds_the_vocabulary(
    tmp_path: Path, vocab: int, kind: type
) -> None:
    write_shards(tmp_path, [([1], [vocab - 1])], vocab)
    assert read_shards(tmp_path).tokens.dtype == kind
    assert int(read_shards(tmp_path).tokens[-1]) == vocab - 1


def test_no_examples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examples"):
        write_shards(tmp_path, [], 10)


def test_a_dataset_holds_the_sentences_of_its_corpus(
    corpus: Path, tokenizer: Path, dataset: Path
) -> None:
    codec, shards = Codec.load(tokenizer), read_shards(dataset / "train")
    rows = list(read_corpus(corpus, "train"))
    assert len(shards) == len(rows)
    for number in (0, 17, len(rows) - 1):
        start, answer, stop = (
            shards.starts[number],
            shards.answers[number],
            shards.starts[number + 1],
        )
        assert (
            codec.decode(shards.tokens[start + 1 : answer - 1].tolist())
            == " " + rows[number]["sentence"]
        )
        wire = codec.decode(shards.tokens[answer : stop - 1].tolist())
        assert parse(wire).intent == rows[number]["action"]["intent"]
        assert shards.tokens[stop - 1] == codec.end


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_shards(tmp_path, [([1, 2], [3]), ([4], [5, 6]), ([7], [8])], 100)
        return tmp_path

    def refused(self, folder: Path, part: str) -> None:
        with pytest.raises(ArtifactError) as caught:
            read_shards(folder)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["tokens", "starts", "answers"])
    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_truncated(self, folder: Path, name: str, keep: int) -> None:
        path = folder / f"{name}.npy"
        os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
        self.refused(folder, f"{name}.npy: truncated or damaged")

    @pytest.mark.parametrize("name", ["tokens", "starts", "answers"])
    def test_missing(self, folder: Path, name: str) -> None:
        (folder / f"{name}.npy").unlink()
        self.refused(folder, f"{name}.npy: missing")

    def test_pickled(self, folder: Path) -> None:
        np.save(folder / "tokens.npy", np.asarray([{}], object), allow_pickle=True)
        self.refused(folder, "damaged")

    @pytest.mark.parametrize(
        ("starts", "answers"),
        [
            ([0, 3, 6], [2, 4, 7]),
            ([0, 3, 6, 9], [2, 4, 7]),
            ([1, 3, 6, 8], [2, 4, 7]),
            ([0, 6, 3, 8], [2, 4, 7]),
            ([0, 3, 6, 8], [3, 4, 7]),
            ([0, 3, 6, 8], [2, 4, 8]),
            ([0, 3, 6, 8], [0, 4, 7]),
            ([0], []),
        ],
    )
    def test_arrays_that_do_not_belong_together(
        self, folder: Path, starts: list[int], answers: list[int]
    ) -> None:
        np.save(folder / "starts.npy", np.asarray(starts, np.int64))
        np.save(folder / "answers.npy", np.asarray(answers, np.int64))
        self.refused(folder, "do not belong together")

    def test_a_changed_token_is_found_by_its_digest(
        self, dataset: Path, copy_of: Callable[[Path], Path]
    ) -> None:
        copy = copy_of(dataset)
        tokens = np.load(copy / "train" / "tokens.npy", mmap_mode="r+")
        tokens[5] += 1
        tokens.flush()
        assert len(read_shards(copy / "train")) > 0, "the arrays fit together"
        with pytest.raises(ArtifactError, match="SHA-256 differs"):
            verify(copy, "dataset")


def test_lengths_of_shards() -> None:
    shards = Shards(np.arange(5), np.asarray([0, 2, 5]), np.asarray([1, 3]))
    assert len(shards) == 2
    assert shards.lengths.tolist() == [2, 3]
