"""home: the devices of a home, what they are called and which state they are in.

What: a home read from a TOML file, with floors, areas, entities and their states; an index of all
names and aliases; the words of each language that mean the same in every home.
In: a home file; names as people say them.
Out: `Home`, its entities and places, parsed phrases.
Never: torch, network, a device that is not in the home file.
Read next: home.py, then entities.py, index.py and common_words.py.
"""

from tumen.home.entities import SHOPPING, Entity, State, Timer
from tumen.home.home import Home
from tumen.home.naming import (
    Index,
    Kind,
    Mention,
    NamedPlace,
    Phrase,
    common_words,
    fold,
    forms,
    kind_word,
    language_of,
    mentions_of,
    read_language_tables,
    split,
    spoken,
)
from tumen.home.slurp_labels import at_home

__all__ = [
    "SHOPPING",
    "Entity",
    "Home",
    "Index",
    "Kind",
    "Mention",
    "NamedPlace",
    "Phrase",
    "State",
    "Timer",
    "at_home",
    "common_words",
    "fold",
    "forms",
    "kind_word",
    "language_of",
    "mentions_of",
    "read_language_tables",
    "split",
    "spoken",
]
