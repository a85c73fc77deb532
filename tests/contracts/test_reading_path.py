"""A stranger can follow a recipe through `tumen run`."""

from __future__ import annotations

from tests.contracts.reading_path import path_of_run

MOST_FILES = 15
MOST_ENTRIES = 2


def test_following_a_recipe_meets_few_files_and_returns_to_none_often() -> None:
    """From `run` in cli/build.py, by its parameter `recipe`, until `Stage.make` is called.

    Counted is each file that a followed call enters from another file. Calls into the same file
    with no other file between them are one entry; the return to a caller is none. Which calls are
    followed: reading_path.py. Not counted are the rooms core and formats, errors that are raised,
    and what pydantic calls while it checks fields.
    """
    path = path_of_run()
    entries = path.entries()
    assert len(entries) <= MOST_FILES, entries
    assert max(entries.values()) <= MOST_ENTRIES, entries


def test_the_path_is_the_whole_way() -> None:
    """It reads the recipe, lists the stages and reaches the maker of one."""
    path = path_of_run()
    names = [step.name for step in path.steps]
    assert path.ended
    landmarks = ["run", "load_recipe", "Run.build", "check_stages", "stages", "Run._make"]
    places = [names.index(name) for name in landmarks]
    assert places == sorted(places)
