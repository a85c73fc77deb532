"""Generated homes, and the split of their names."""

from __future__ import annotations

import random

import pytest

from tumen.data.sources.generated_homes import GeneratedHome, generate, is_held, names_of
from tumen.recipe.field_types import Language

LANGUAGES: tuple[Language, ...] = ("en", "zh", "de")
HOLD = 0.2


def names_in(home: GeneratedHome) -> set[str]:
    """What can be said of a home, but its floors, of which there are too few to split."""
    return {name.casefold() for names in [*home.by_domain.values(), home.areas] for name in names}


def homes(lang: str, held_out: bool, count: int, hold: float = HOLD) -> list[GeneratedHome]:
    rng = random.Random(f"{lang} {held_out}")
    return [generate(rng, lang, (50, 200), hold, held_out) for _ in range(count)]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_name_of_a_held_out_home_is_in_a_training_home(lang: str) -> None:
    trained = set().union(*map(names_in, homes(lang, held_out=False, count=12)))
    held = set().union(*map(names_in, homes(lang, held_out=True, count=6)))
    assert len(trained) > 300
    assert len(held) > 100
    assert not trained & held


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_home_is_as_asked(lang: str) -> None:
    for home in homes(lang, held_out=False, count=5):
        entities = home.tree["entity"]
        assert 30 <= len(entities) <= 200, (
            "doubles are left out, so a home may have fewer than it was asked for"
        )
        said = [entity["name"].lower() for entity in entities]
        assert len(said) == len(set(said))
        assert len({entity["id"] for entity in entities}) == len(entities)
        assert {entity["area"] for entity in entities} <= {area["id"] for area in home.tree["area"]}
        assert {area["floor"] for area in home.tree["area"]} <= {
            floor["id"] for floor in home.tree["floor"]
        }
        assert sum(map(len, home.by_domain.values())) == len(entities)


def test_same_seed_same_home() -> None:
    first, second = (
        generate(random.Random(3), "de", (20, 30), HOLD, held_out=True) for _ in range(2)
    )
    assert first == second
    assert first != generate(random.Random(4), "de", (20, 30), HOLD, held_out=True)


def test_the_split_depends_on_the_name_alone_and_holds_its_share() -> None:
    assert is_held("Kitchen", HOLD) == is_held("kitchen", HOLD)
    assert not is_held("kitchen", 0)
    assert is_held("kitchen", 1)
    share = sum(is_held(f"name {number}", HOLD) for number in range(4000)) / 4000
    assert abs(share - HOLD) < 0.03


@pytest.mark.parametrize("hold", [0.0, 1.0])
def test_no_split_still_gives_homes(hold: float) -> None:
    for held_out in (False, True):
        assert len(homes("en", held_out, 1, hold)[0].tree["entity"]) >= 30


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_name_is_of_the_kind_and_domain_that_was_asked(lang: str) -> None:
    home, rng = homes(lang, held_out=False, count=1)[0], random.Random(0)
    for _ in range(20):
        assert home.name(rng, lang, "name", ("light",)) in home.by_domain["light"]
        assert home.name(rng, lang, "area", ()) in home.areas
        assert home.name(rng, lang, "floor", ()) in home.floors
    assert home.name(rng, lang, "name", ("submarine",)) is None


@pytest.mark.parametrize("lang", LANGUAGES)
def test_lists_of_names_hold_no_doubles(lang: str) -> None:
    words = names_of(lang)
    for names in [words["areas"], words["floors"], *words["names"].values()]:
        assert len(names) == len({name.casefold() for name in names})
