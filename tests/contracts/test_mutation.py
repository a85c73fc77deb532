"""Mutation testing names code and tests that are there, and its page shows what was measured."""

from __future__ import annotations

import re

import pytest
from tests import mutation
from tests.docs import mutation as page
from tests.docs import numbers
from tests.hand_mutants import HAND_MUTANTS, ROOT, HandMutant

MOST_SURVIVORS = 0.1  # of the mutants of a file


def test_files_and_their_tests_are_there() -> None:
    for file, tests in mutation.FILES.items():
        assert (ROOT / file).is_file()
        for path in tests:
            assert (ROOT / path).exists()


@pytest.mark.parametrize("mutant", HAND_MUTANTS, ids=lambda mutant: mutant.dropped)
def test_a_mutant_by_hand_names_one_place_and_a_test(mutant: HandMutant) -> None:
    found = (ROOT / mutant.file).read_text("utf-8").count(mutant.before)
    assert found == 1, (
        f"tests/hand_mutants.py quotes {mutant.before!r}; quote what stands there now"
    )
    file, *names = mutant.test.split("::")
    text = (ROOT / file).read_text("utf-8")
    for name in names:
        assert re.search(rf"(?:def|class) {name}\b", text)


@pytest.mark.parametrize("file", mutation.FILES)
def test_the_kept_score_is_at_least_nine_in_ten(file: str) -> None:
    row = page.read()["files"][file]
    assert row["tests"] == mutation.FILES[file], f"measured with other tests: ./dev mutate {file}"
    assert row["killed"] + len(row["survived"]) == row["mutants"]
    assert len(row["survived"]) <= MOST_SURVIVORS * row["mutants"]


def test_the_page_is_fresh_and_says_where_its_numbers_come_from() -> None:
    text = page.PAGE.read_text("utf-8")
    assert text == page.page(page.read())
    assert not list(numbers.faults(text, page.PAGE.name))


def test_a_file_without_tests_of_its_own_gets_those_of_its_room() -> None:
    assert mutation.tests_of("src/tumen/eval/grading.py") == "tests/eval"
