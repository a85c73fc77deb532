"""home: entities, areas, floors and their states.

What: the home as a TOML file with state, its kinds of entities, an index of its names and aliases.
In: a home file; names as people say them.
Out: `Home`, entities, ranked matches.
Never: torch, network, a device that is not in the home.
Read next: home.py, then kinds.py and index.py.
"""

from tumen.home.aliases import at_home
from tumen.home.home import SHOPPING, Entity, Home, State, Timer
from tumen.home.index import Parts, Spot
from tumen.home.kinds import Kind, kind_of
from tumen.home.words import (
    ALL,
    ALL_STOPS,
    EVERYWHERE,
    IT,
    LAST,
    NEVERMIND,
    ORDINALS,
    STOP,
    UNDO,
    fold,
    forms,
    split,
    spoken,
)

__all__ = [
    "ALL",
    "ALL_STOPS",
    "EVERYWHERE",
    "IT",
    "LAST",
    "NEVERMIND",
    "ORDINALS",
    "SHOPPING",
    "STOP",
    "UNDO",
    "Entity",
    "Home",
    "Kind",
    "Parts",
    "Spot",
    "State",
    "Timer",
    "at_home",
    "fold",
    "forms",
    "kind_of",
    "split",
    "spoken",
]
