"""Rules by which a text is too poor to learn from.

The rules of Gopher (arXiv 2112.11446, appendix A1.1) that hold in any language, and C4's lorem
ipsum (arXiv 1910.10683, section 2.2). Gopher's rule about English stop words is left out. The mean
length of words counts spaced words alone, and only where they are most of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tumen.data.filters.text_keys import run_keys, word_keys, words_of
from tumen.language import CJK

MIN_WORDS = 50
MAX_WORDS = 100_000
MIN_MEAN_WORD = 3.0  # characters
MAX_MEAN_WORD = 10.0
MAX_SYMBOLS = 0.1  # "#" and ellipses, for each word
MIN_WITH_LETTERS = 0.8  # share of spaced pieces that hold a letter
MAX_BULLET_LINES = 0.9
MAX_ELLIPSIS_LINES = 0.3
MAX_REPEATED_LINES = 0.3
MAX_REPEATED_LINE_CHARACTERS = 0.2
# Run length in words -> largest share of characters: in the commonest run, in repeated runs.
COMMONEST_RUN = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
BULLETS = ("•", "-", "*", "·")
ELLIPSES = ("...", "…")


def quality_fault(text: str) -> str:
    """Return the name of the first rule that a text breaks, or "" when it breaks none."""
    words = words_of(text)
    if len(words) < MIN_WORDS:
        return "few words"
    if len(words) > MAX_WORDS:
        return "many words"
    return _word_fault(text, words) or _line_fault(text) or _repetition_fault(words)


def _word_fault(text: str, words: Sequence[str]) -> str:
    if _has_odd_mean_length(words):
        return "length of words"
    symbols = text.count("#") + sum(text.count(mark) for mark in ELLIPSES)
    if symbols > MAX_SYMBOLS * len(words):
        return "symbols"
    pieces = text.split()
    with_letters = sum(any(map(str.isalpha, piece)) for piece in pieces)
    if with_letters < MIN_WITH_LETTERS * len(pieces):
        return "no letters"
    return "lorem ipsum" if "lorem ipsum" in text.lower() else ""


def _has_odd_mean_length(words: Sequence[str]) -> bool:
    spaced = [len(word) for word in words if len(word) > 1 or not re.match(f"[{CJK}]", word)]
    if 2 * len(spaced) <= len(words):
        return False
    return not MIN_MEAN_WORD <= sum(spaced) / len(spaced) <= MAX_MEAN_WORD


def _line_fault(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    bullets = sum(line.startswith(BULLETS) for line in lines)
    if bullets > MAX_BULLET_LINES * len(lines):
        return "bullets"
    ellipses = sum(line.endswith(ELLIPSES) for line in lines)
    if ellipses > MAX_ELLIPSIS_LINES * len(lines):
        return "ellipses"
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if _repeats_parts(lines) or _repeats_parts(paragraphs):
        return "repeated lines"
    return ""


def _repeats_parts(parts: Sequence[str]) -> bool:
    """Return whether too many lines or paragraphs are repeats, by number or by characters."""
    seen: set[str] = set()
    repeated = 0
    repeated_characters = 0
    for part in parts:
        if part in seen:
            repeated += 1
            repeated_characters += len(part)
        seen.add(part)
    characters = sum(map(len, parts))
    return (
        repeated > MAX_REPEATED_LINES * len(parts)
        or repeated_characters > MAX_REPEATED_LINE_CHARACTERS * characters
    )


def _repetition_fault(words: Sequence[str]) -> str:
    """Check the characters in the commonest run of 2 to 4 words and in repeated runs of 5 to 10."""
    keys = word_keys(words)
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    for length, most in (COMMONEST_RUN | REPEATED_RUNS).items():
        starts = _repeated_starts(run_keys(keys, length), only_commonest=length in COMMONEST_RUN)
        inside = np.zeros(len(words), bool)
        for offset in range(length):
            inside[starts + offset] = True
        if sizes[inside].sum() > most * sizes.sum():
            return "repeated words"
    return ""


def _repeated_starts(runs: NDArray[np.uint64], only_commonest: bool) -> NDArray[np.int64]:
    """Return where repeated runs begin.

    Args:
        runs: key of the run that begins at each word.
        only_commonest: every occurrence of the most frequent run; else every run that occurred
            earlier in the text.
    """
    _, first, which, counts = np.unique(
        runs, return_index=True, return_inverse=True, return_counts=True
    )
    if not only_commonest:
        return np.setdiff1d(np.arange(len(which)), first, assume_unique=True)
    if counts.max() <= 1:
        return np.empty(0, np.int64)
    return np.flatnonzero(which == counts.argmax())
