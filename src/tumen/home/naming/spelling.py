"""Spelling: one spelling for what people say and for what a home is called."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=8192)
def fold(text: str) -> str:
    """Return a text in lower case, without accents and apostrophes, `ss` for `ß`, single spaces."""
    lowered = unicodedata.normalize("NFKC", text).casefold()
    lowered = lowered.replace("'", "").replace("’", "")
    # NFD splits `ü` into `u` and a combining mark, which is then dropped
    decomposed = unicodedata.normalize("NFD", lowered)
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(plain.split())
