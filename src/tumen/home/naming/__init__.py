"""Naming: how words find the things of a home, in every language."""

from tumen.home.naming.common_words import common_words, language_of, read_language_tables
from tumen.home.naming.index import Index
from tumen.home.naming.kinds import Kind, kind_word
from tumen.home.naming.mentions import Mention, mentions_of
from tumen.home.naming.phrase import NamedPlace, Phrase
from tumen.home.naming.spelling import fold
from tumen.home.naming.word_forms import forms, split, spoken

__all__ = [
    "Index",
    "Kind",
    "Mention",
    "NamedPlace",
    "Phrase",
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
