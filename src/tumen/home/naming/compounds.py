"""Compounds: words that are written together, such as German `Küchendeckenlampen`."""

from __future__ import annotations

from collections.abc import Container

from tumen.home.naming.kinds import compound_tails
from tumen.home.naming.word_forms import forms

_SHORTEST_HEAD = 3  # letters of the first part of a compound
_SHORTEST_KIND = 4  # letters of a kind word after a part that is no place: `tor` ends `Motor`


def split_compound(piece: str, places: Container[str]) -> list[str]:
    """Return the parts of a compound that ends in a kind word; other words stay whole.

    `kuchendeckenlampen` is `kuche`, `decken`, `lampen`.

    Args:
        piece: a folded word.
        places: the names of the home's places.
    """
    tails = compound_tails()
    for cut in range(_SHORTEST_HEAD, len(piece) - 2):
        head = piece[:cut]
        tail = piece[cut:]
        if tail not in tails:
            continue
        if len(tails[tail]) >= _SHORTEST_KIND or head in places:
            return [*_split_place(head, places), tail]
    return [piece]


def _split_place(head: str, places: Container[str]) -> list[str]:
    """Cut the longest place off the start of a compound: `kuchendecken` is `kuchen`, `decken`."""
    # the longest place wins: `Wohnzimmer` before `Wohn`
    for cut in range(len(head), _SHORTEST_HEAD - 1, -1):
        start = head[:cut]
        rest = head[cut:]
        # a place may stand in a form of its own inside a compound (`Küchen-`)
        if not any(form in places for form in (start, *forms(start))):
            continue
        if not rest:
            return [head]
        if len(rest) >= _SHORTEST_HEAD:
            return [start, rest]
    return [head]
