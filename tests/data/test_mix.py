"""Mixing: shares hold at every moment, whatever the sizes, and nothing is left to chance."""

from __future__ import annotations

import json
import random
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.texts import paragraph, write_jsonl

from tumen.core.errors import InputError, RecipeError
from tumen.data import read_corpus, write_corpus
from tumen.data.mix import interleave
from tumen.recipe import Data, Part, recipe_of


def stream(letter: str, sizes: list[int], weights: list[float], passes: int = 1) -> list[str]:
    sources = [
        partial(lambda c, n, _: [c * (1 + k % 5) for k in range(n)], chr(ord(letter) + i), n)
        for i, n in enumerate(sizes)
    ]
    return list(interleave(sources, weights, [passes] * len(sizes), len))


@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=4),
    sizes=st.lists(st.integers(20, 300), min_size=4, max_size=4),
)
def test_shares_hold_at_every_moment(weights: list[float], sizes: list[int]) -> None:
    given_ = [0] * len(weights)
    for row in stream("a", sizes[: len(weights)], weights):
        given_[ord(row[0]) - ord("a")] += len(row)
        for mine, weight in zip(given_, weights, strict=True):
            for theirs, other in zip(given_, weights, strict=True):
                assert abs(mine / weight - theirs / other) <= 5 / min(weight, other) + 1e-9


def test_it_ends_when_one_is_used_up_and_passes_make_it_longer() -> None:
    assert len(stream("a", [10, 1000], [1, 1])) < 30
    assert len(stream("a", [10, 1000], [1, 1], passes=3)) > 50


def test_going_on_after_some_rows() -> None:
    sources = [lambda _: map(str, range(100, 200)), lambda _: map(str, range(1000, 1100))]
    whole = list(interleave(sources, [2, 1], [1, 1], len))
    assert list(islice(interleave(sources, [2, 1], [1, 1], len), 40, None)) == whole[40:]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_are_above_zero(weight: float) -> None:
    with pytest.raises(InputError, match="weights of a mix"):
        stream("a", [3, 3], [1, weight])


def test_a_source_without_rows() -> None:
    with pytest.raises(InputError, match="source 2 of the mix has no rows"):
        stream("a", [3, 0], [1, 1])


class TestRecipe:
    def tree(self, **data: object) -> dict[str, object]:
        shape = {
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "attention": {"kind": "gqa", "num_attention_heads": 2, "num_key_value_heads": 1},
        }
        return {
            "name": "x", "data": data, "family": {"a": {"shape": shape, "train": {"steps": 1}}}, "serve": {"device": "a", "cloud": "a"},
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (
                {"mix": [{"path": "a", "weight": 0}]},
                "data.mix.0.weight: Input should be greater than 0, not 0",
            ),
            (
                {"mix": [{"path": "a", "weight": -2.0}]},
                "data.mix.0.weight: Input should be greater than 0, not -2.0",
            ),
            ({"mix": [{"path": "a"}]}, "data.mix.0.weight: missing"),
            (
                {"mix": [{"source": "slurp", "weight": 1, "slot_swap": 0.5}]},
                "data.mix.0: slot_swap changes rows with slots",
            ),
            (
                {"mix": [{"path": "a", "wieght": 1, "weight": 1}]},
                "data.mix.0.wieght: unknown field; did you mean 'weight'?",
            ),
            (
                {"path": "b", "mix": [{"path": "a", "weight": 1}]},
                "data: path and mix exclude each other",
            ),
            ({"engine": "ray"}, "data: engine 'ray' is for plain texts"),
            ({"filters": ["quality", "beauty"]}, "data.filters.1:"),
            (
                {"source": "text", "document_tokens": 500},
                "data.document_tokens: 500 do not fit into family.a.train.seq_len",
            ),
        ],
    )
    def test_faults(self, data: dict[str, object], said: str) -> None:
        with pytest.raises(RecipeError) as caught:
            recipe_of(self.tree(**data), "x.toml")
        assert len(caught.value.faults) == 1
        assert caught.value.faults[0].startswith(said)

    def test_document_tokens_are_those_of_a_row_unless_told(self) -> None:
        assert recipe_of(self.tree(source="text"), "x").document_tokens() == 128
        assert recipe_of(self.tree(source="text", document_tokens=64), "x").document_tokens() == 64

    def test_filters_follow_from_the_source(self) -> None:
        assert Data().passed() == ()
        assert Data(held_out=("a",)).passed() == ("held_out",)
        assert Data(source="file").passed() == ("held_out", "exact")
        assert Data(source="text").passed() == ("quality", "held_out", "exact", "near")
        assert Data(source="text", filters=()).passed() == ()
        assert Data(mix=(Part(weight=1), Part(source="home", weight=1))).passed() == (
            "held_out",
            "exact",
        )


class TestCorpus:
    def test_weights_and_not_sizes_decide(self, tmp_path: Path) -> None:
        rng = random.Random(0)
        small = write_jsonl(
            tmp_path / "small.jsonl", [f"small {paragraph(rng)}" for _ in range(100)]
        )
        large = write_jsonl(
            tmp_path / "large.jsonl", [f"large {paragraph(rng)}" for _ in range(400)]
        )
        mix = (Part(path=str(small), weight=3), Part(path=str(large), weight=1))
        digests = {
            write_corpus(Data(mix=mix), seed, tmp_path / f"corpus{seed}", "").digest
            for seed in (0, 1)
        }
        assert len(digests) == 1, "no part of it is drawn"
        texts = [row["text"] for row in read_corpus(tmp_path / "corpus0", "train")]
        first = sum(len(text) for text in texts if text.startswith("small"))
        assert abs(first / sum(map(len, texts)) - 0.75) < 0.01
        assert sorted(path.name for path in (tmp_path / "corpus0").glob("*.jsonl")) == [
            "eval.jsonl",
            "train.jsonl",
            "validation.jsonl",
        ]

    def test_a_copy_in_a_later_source_goes(self, tmp_path: Path) -> None:
        texts = [paragraph(random.Random(number)) for number in range(60)]
        paths = [
            write_jsonl(tmp_path / f"{name}.jsonl", some)
            for name, some in (("a", texts[:40]), ("b", texts[20:]))
        ]
        data = Data(mix=tuple(Part(path=str(path), weight=1) for path in paths))
        assert write_corpus(data, 0, tmp_path / "corpus", "").facts["removed"] == {"exact": 20}

    def test_texts_beside_a_home(self, tmp_path: Path) -> None:
        path = write_jsonl(
            tmp_path / "a.jsonl", [paragraph(random.Random(number)) for number in range(60)]
        )
        mix = (Part(source="home", weight=1), Part(path=str(path), weight=1))
        data = Data(
            mix=mix,
            languages=("en",),
            sentences=60,
            validation=20,
            eval_sentences=5,
            home_entities=(12, 20),
        )
        facts = write_corpus(data, 0, tmp_path / "corpus", "").facts
        assert facts["eval"] == 5
        rows = list(read_corpus(tmp_path / "corpus", "train"))
        assert {"text" in row for row in rows} == {True, False}
        assert json.loads((tmp_path / "corpus" / "homes.json").read_text("utf-8"))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file"):
            write_corpus(
                Data(mix=(Part(path=str(tmp_path / "nowhere.jsonl"), weight=1),)),
                0,
                tmp_path / "corpus",
                "",
            )
        assert not (tmp_path / "corpus").exists()

    def test_a_source_of_which_nothing_is_left(self, tmp_path: Path) -> None:
        good = write_jsonl(
            tmp_path / "good.jsonl", [paragraph(random.Random(number)) for number in range(60)]
        )
        bad = write_jsonl(tmp_path / "bad.jsonl", ["short"])
        data = Data(mix=(Part(path=str(good), weight=1), Part(path=str(bad), weight=1)))
        with pytest.raises(InputError, match=r"bad\.jsonl has no training rows left"):
            write_corpus(data, 0, tmp_path / "corpus", "")
