"""Lists: items added, ticked off and removed, however they are said."""

from __future__ import annotations

import pytest
from tests.assistant.speech import answer, do, refusal
from tests.homes import home_of, thing

from tumen.assistant import undo
from tumen.home.home import Home


@pytest.fixture
def home() -> Home:
    return home_of(
        thing("todo.shopping_list", "Shopping list", items=["Milk", "Bread rolls", "tomato"]),
        thing("todo.chores", "Chores", items=["Mow the lawn"]),
    )


def items(home: Home, id_: str = "todo.shopping_list") -> tuple[str, ...]:
    return tuple(home.state(id_)["items"])


def done_items(home: Home, id_: str = "todo.shopping_list") -> tuple[str, ...]:
    return tuple(home.state(id_)["done_items"])


def test_an_item_is_added_at_the_end(home: Home) -> None:
    assert answer(home, "ListAddItem name=shopping list item=eggs") == (
        "Added eggs to Shopping list."
    )
    assert items(home) == ("Milk", "Bread rolls", "tomato", "eggs")
    assert answer(home, "ShoppingListAddItem item=tea") == "Added tea to Shopping list."
    assert items(home)[-1] == "tea"


@pytest.mark.parametrize("said", ["milk", "MILK", "milks", "tomatos", "bread roll", "bread-rolls"])
def test_an_item_that_is_there_is_not_added_again(home: Home, said: str) -> None:
    before = items(home)
    assert answer(home, f"ListAddItem name=shopping list item={said}") == (
        f"{said[0].upper()}{said[1:]} was already on Shopping list."
    )
    assert items(home) == before


@pytest.mark.parametrize(
    ("said", "item"),
    [
        ("milk", "Milk"),
        ("Milks", "Milk"),
        ("tomatoes", "tomato"),
        ("bread roll", "Bread rolls"),
        ("breadrolls", "Bread rolls"),
        # one slip in a long word
        ("tomatoe", "tomato"),
        ("tomata", "tomato"),
        ("bred rolls", "Bread rolls"),
    ],
)
def test_an_item_is_found_however_it_is_said(home: Home, said: str, item: str) -> None:
    outcome = do(home, "ListRemoveItem", "todo.shopping_list", item=said)
    assert outcome.refusal is None
    assert item not in items(home)
    assert len(items(home)) == 2
    assert done_items(home) == ()
    undo(outcome, home)
    assert items(home) == ("Milk", "Bread rolls", "tomato")


@pytest.mark.parametrize("said", ["mulk", "silk", "tomaxx", "bred rols", "eggs", "mil"])
def test_another_item_is_not_found(home: Home, said: str) -> None:
    refused = do(home, "ListCompleteItem", "todo.shopping_list", item=said).refusal
    assert refused is not None
    assert refused.reason == "item"
    assert refused.about == {"entity": "todo.shopping_list", "words": said}
    assert len(items(home)) == 3


def test_an_item_that_is_ticked_off_is_kept_as_done(home: Home) -> None:
    assert answer(home, "ListCompleteItem name=shopping list item=tomatoes") == (
        "Ticked off tomatoes on Shopping list."
    )
    assert items(home) == ("Milk", "Bread rolls")
    assert done_items(home) == ("tomato",)
    answer(home, "ShoppingListCompleteItem item=milk")
    assert done_items(home) == ("tomato", "Milk")


def test_an_item_that_is_removed_is_gone(home: Home) -> None:
    assert answer(home, "ListRemoveItem name=shopping list item=milk") == (
        "Took milk off Shopping list."
    )
    assert items(home) == ("Bread rolls", "tomato")
    assert done_items(home) == ()


def test_each_list_that_is_meant_gets_the_item(home: Home) -> None:
    both = ("todo.chores", "todo.shopping_list")
    added = do(home, "ListAddItem", *both, item="milk")
    # on the shopping list it was already
    assert [change.id for change in added.changed] == ["todo.chores"]
    removed = do(home, "ListRemoveItem", *both, item="milk")
    assert [change.id for change in removed.changed] == ["todo.chores", "todo.shopping_list"]
    # where one list has it, the other one does not matter
    ticked = do(home, "ListCompleteItem", *both, item="bread rolls")
    assert ticked.refusal is None
    assert items(home, "todo.chores") == ("Mow the lawn",)
    assert items(home) == ("tomato",)


def test_without_a_list_it_is_the_shopping_list() -> None:
    home = Home.of({})
    do(home, "ShoppingListAddItem", item="tea")
    assert items(home) == ("tea",)


def test_a_list_that_is_not_there_is_refused(home: Home) -> None:
    assert refusal(home, "ListAddItem name=wish list item=tea").reason == "absent"
