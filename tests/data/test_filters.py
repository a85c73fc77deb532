"""Filters: what is removed, what is kept, and that neither memory nor the number of workers matters."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.texts import OTHERS, PARAGRAPHS, paragraph

from tumen.data.filters import KeySet, RowFilter, eval_keys, filter_rows, folded, quality_fault
from tumen.data.filters.text_keys import BANDS, ROWS_A_BAND, minhash, run_keys, word_keys
from tumen.recipe.field_types import Filter

LANGUAGES = tuple(PARAGRAPHS)


def sifted(
    texts: Iterable[str], *filters: Filter, suite: Iterable[str] = (), workers: int = 1
) -> tuple[list[str], Counter[str]]:
    removed: Counter[str] = Counter()
    row_filter = RowFilter(filters, eval_keys(suite))
    return list(filter_rows(texts, str, row_filter, removed, workers)), removed


def edited(text: str, lang: str) -> str:
    """One word changed and one added."""
    swaps = {"en": ("narrow", "steep"), "de": ("enge", "steile"), "zh": ("狭窄", "陡峭")}
    return text.replace(*swaps[lang]) + (" Truly." if lang != "zh" else "真的。")


class TestCopies:
    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_case_gaps_and_width_do_not_hide_a_copy(self, lang: str) -> None:
        text = PARAGRAPHS[lang]
        kept, removed = sifted(
            [text, OTHERS[lang], text.upper().replace(" ", " \n "), text], "exact"
        )
        assert kept == [text, OTHERS[lang]]
        assert removed == {"exact": 2}

    def test_one_letter_more_is_no_copy(self) -> None:
        assert sifted(["a b", "a bc", "a b!"], "exact")[1] == {}

    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_a_near_copy_goes_and_another_text_stays(self, lang: str) -> None:
        near = edited(PARAGRAPHS[lang], lang)
        assert near != PARAGRAPHS[lang]
        kept, removed = sifted([PARAGRAPHS[lang], near, OTHERS[lang]], "exact", "near")
        assert kept == [PARAGRAPHS[lang], OTHERS[lang]]
        assert removed == {"near": 1}

    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_half_a_text_is_no_near_copy(self, lang: str) -> None:
        half = len(PARAGRAPHS[lang]) // 2
        mixed = PARAGRAPHS[lang][:half] + OTHERS[lang]
        assert sifted([PARAGRAPHS[lang], mixed, OTHERS[lang][: half // 2]], "near")[1] == {}

    def test_an_exact_copy_is_called_one(self) -> None:
        assert sifted(["x y z", "x y z"], "exact", "near")[1] == {"exact": 1}
        assert sifted(["x y z", "x y z"], "near")[1] == {"near": 1}

    def test_signs_alone_are_compared_exactly(self) -> None:
        assert sifted(["---", "+++", "---"], "exact", "near")[0] == ["---", "+++"]

    def test_equal_places_of_signatures_are_the_share_of_common_runs(self) -> None:
        keys = word_keys([str(number) for number in range(3000)])
        first, second = keys[:2000], keys[500:2500]
        share = len(set(run_keys(first, 5)) & set(run_keys(second, 5))) / len(
            set(run_keys(first, 5)) | set(run_keys(second, 5))
        )
        found = float((minhash(first) == minhash(second)).mean())
        assert abs(found - share) < 4 * (share * (1 - share) / (BANDS * ROWS_A_BAND)) ** 0.5


class TestSeen:
    @settings(max_examples=30)
    @given(
        groups=st.lists(
            st.lists(st.integers(0, 3000), min_size=1, max_size=300, unique=True), max_size=20
        )
    )
    def test_is_a_set(self, groups: list[list[int]]) -> None:
        seen, known = KeySet(), set()
        for group in groups:
            before = seen.add(
                np.asarray(group, np.uint64) * np.uint64(1024)
            )  # all want the same slots
            assert before.tolist() == [max(1, key * 1024) in known for key in group]
            known |= {max(1, key * 1024) for key in group}
        assert seen.count == len(known)

    def test_memory_of_a_key(self) -> None:
        seen = KeySet()
        for start in range(0, 100_000, 1000):
            seen.add(np.arange(start + 1, start + 1001, dtype=np.uint64))
        assert seen.slots.nbytes <= 32 * seen.count


class TestHeldOut:
    ASKED = "please turn on the small lamp beside the old green armchair in the living room before dinner"

    @pytest.mark.parametrize(
        ("row", "gone"),
        [
            ("Turn on the light!", True),  # a short eval text, whole
            ("turn on the light now", False),  # longer than the short one: no copy of it
            (
                "He said: please turn on the small lamp beside the old green armchair in the living room. Then he left.",
                True,
            ),
            (
                "please turn on the small lamp beside the new green armchair in the living room",
                False,
            ),  # runs of 8 and 6
            ("打开厨房的灯。", True),
            ("打开厨房的大灯", False),
            ("Schalte das Licht im Flur an", True),
            ("Schalte das Licht im Bad an", False),
        ],
    )
    def test_what_a_suite_asks_is_not_trained_on(self, row: str, gone: bool) -> None:
        suite = [
            self.ASKED,
            "turn on the light",
            "打开厨房的灯",
            "schalte das licht im flur an",
            "",
            "!?",
        ]
        kept, removed = sifted([row, "something else", "..."], "held_out", suite=suite)
        assert (row not in kept) == gone
        assert removed == ({"held_out": 1} if gone else {})

    def test_nothing_held_out(self) -> None:
        assert sifted(["a", "b"], "held_out")[0] == ["a", "b"]


class TestQuality:
    @pytest.mark.parametrize("lang", LANGUAGES)
    def test_text_is_good(self, lang: str) -> None:
        assert not quality_fault(PARAGRAPHS[lang])
        assert not quality_fault(OTHERS[lang])
        assert not quality_fault("\n\n".join([PARAGRAPHS[lang], OTHERS[lang]]))

    @pytest.mark.parametrize(
        ("why", "text"),
        [
            ("few words", "Too short to learn from."),
            ("length of words", " ".join(f"a{number % 7}" for number in range(100))),
            (
                "length of words",
                " ".join(f"averyveryverylongword{number}" for number in range(100)),
            ),
            ("symbols", PARAGRAPHS["en"].replace(" ", " # ")),
            ("no letters", " ".join(f"{number * 7919:05d}" for number in range(100))),
            ("lorem ipsum", PARAGRAPHS["en"] + " Lorem ipsum dolor sit amet."),
            ("bullets", "\n".join(f"- {word} and more of it" for word in PARAGRAPHS["en"].split())),
            (
                "ellipses",
                "\n".join(f"{line} and so on..." for line in PARAGRAPHS["de"].split(", ")),
            ),
            (
                "repeated lines",
                "\n".join([*PARAGRAPHS["en"].split(". "), *["Subscribe to our letter"] * 12]),
            ),
            ("repeated words", PARAGRAPHS["en"] + " read more here now" * 12),
            ("repeated words", PARAGRAPHS["zh"] + "点击这里阅读全文" * 12),
            ("repeated words", "please buy it today " * 60),
        ],
    )
    def test_what_is_poor_is_named(self, why: str, text: str) -> None:
        assert quality_fault(text) == why
        assert sifted([text], "quality") == ([], {f"quality: {why}": 1})

    def test_many_words(self) -> None:
        assert quality_fault("word " * 100_001) == "many words"

    def test_empty_rows_never_pass(self) -> None:
        assert sifted(["", " \n", "a"]) == (["a"], {"empty": 2})


class TestPipeline:
    @staticmethod
    def texts() -> list[str]:
        rng = random.Random(0)
        texts = [paragraph(rng, rng.randint(30, 90)) for _ in range(700)]
        texts += texts[:50] + [f"{text} more" for text in texts[50:100]]
        rng.shuffle(texts)
        return texts

    def test_any_number_of_workers_gives_the_same(self) -> None:
        texts = self.texts()
        one, two = (
            sifted(texts, "quality", "held_out", "exact", "near", suite=texts[:1], workers=workers)
            for workers in (1, 2)
        )
        assert one == two
        assert set(one[1]) == {"quality: few words", "held_out", "exact", "near"}

    def test_sifting_twice_removes_nothing_more(self) -> None:
        kept, _ = sifted(self.texts(), "quality", "exact", "near")
        assert sifted(kept, "quality", "exact", "near") == (kept, {})

    def test_rows_stream(self) -> None:
        """Eight megabytes of text pass in two: keys are held, texts are not."""

        def endless() -> Iterable[str]:
            for number in range(8_000):
                yield f"{number} " + "x" * 1000

        tracemalloc.start()
        removed: Counter[str] = Counter()
        count = sum(1 for _ in filter_rows(endless(), str, RowFilter(("exact",)), removed))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 8_000
        assert peak < 2_500_000


def test_folding_is_idempotent() -> None:
    for text in (*PARAGRAPHS.values(), "Ｆｕｌｌ　Ｗｉｄｔｈ", "ẞß", " a\u00a0b "):
        assert folded(folded(text)) == folded(text)


def test_lone_surrogates_do_not_break_a_filter(tmp_path: Path) -> None:
    assert sifted(["a \ud800 b"], "held_out", "exact", "near", suite=["a"])[0] == ["a \ud800 b"]
