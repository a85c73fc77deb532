"""List acts: add, tick off and remove the items of lists."""

from __future__ import annotations

from rapidfuzz.distance import OSA

from tumen.assistant.acts.outcomes import ActRefused, Change
from tumen.assistant.acts.target import needed
from tumen.assistant.resolution import Resolved
from tumen.home import SHOPPING, Home, State, forms, split

_SHORTEST_TYPO = 6  # letters from which on an item may be misspelt


def change_lists(resolved: Resolved, home: Home) -> list[Change]:
    """Return the changes that add, tick off or remove an item on each list that is meant.

    Args:
        resolved: the lists and the item.
        home: it is only read.
    """
    lists = resolved.targets or (SHOPPING,)
    item = str(needed(resolved.values, "item"))
    changes = []
    for id_ in lists:
        before = home.state(id_)
        after = _after(resolved.intent, before, item)
        if after is not None:
            changes.append(Change(id_, before, after))
    if not changes:
        raise ActRefused("item", entity=lists[0], words=item)
    return changes


def _after(intent: str, state: State, item: str) -> State | None:
    """Return a list after the act; None if the item to tick off or remove is not on it."""
    items = tuple(state.get("items", ()))
    known = _known_item(item, items)
    if "AddItem" in intent:
        # an item is on a list once
        return state if known else state | {"items": (*items, item)}
    # another list may have it
    if known is None:
        return None
    done = tuple(state.get("done_items", ()))
    if "Complete" in intent:
        done = (*done, known)
    rest = tuple(other for other in items if other != known)
    return state | {"items": rest, "done_items": done}


def _known_item(words: str, items: tuple[str, ...]) -> str | None:
    """Return the item that words mean: in plural, in singular, or with one slip."""
    said = "".join(split(words))
    said_forms = {said, *forms(said)}
    for item in items:
        known = "".join(split(item))
        known_forms = {known, *forms(known)}
        if said_forms & known_forms or _is_slip(said, known):
            return item
    return None


def _is_slip(said: str, known: str) -> bool:
    """Whether a long word differs from another one by a wrong, missing or swapped letter."""
    if len(said) < _SHORTEST_TYPO:
        return False
    distance: int = OSA.distance(said, known, score_cutoff=1)
    return distance <= 1
