"""What training rows must pass: quality, no exam, no copy, no near copy. One pass, in order, whatever the size of the corpus.

quality  rules of Gopher (arXiv 2112.11446, appendix A1.1) that hold in any language, and C4's lorem ipsum (1910.10683, section 2.2)
exam     rows that share a run of 13 words with an exam (arXiv 2005.14165, appendix C), or are a shorter exam text as a whole
exact    rows whose folded text came before
near     rows alike to one before: MinHash (Broder 1997, "On the resemblance and containment of documents") of runs of 5 words in
         14 bands of 8 (the numbers of FineWeb, arXiv 2406.17557): 75 % alike is found with a probability of 0.77, 90 % with 0.9996

A *word* is a run of letters and digits, or one character of a script without spaces, so all of it works in Chinese.

Memory: a row is a few keys of 64 bits (1 for exact, 14 for near), never its text: `Seen` holds them in one array at 16 to 32 bytes
a key (half as much again while it grows), so a million rows take 0.24 to 0.48 GB with near copies. Among n texts, some two share
a key by chance with a probability of about n^2 / 2^65.
A row is a copy when a key of its came before, also in a row that was itself removed: so the answer depends on the order
of the rows alone, and a cluster (on_ray.py) finds the same rows by sorting keys.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tumen.data.workers import chunks, ordered
from tumen.language import CJK
from tumen.recipe import Filter

T = TypeVar("T")
Keys = NDArray[np.uint64]
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
EXAM_RUN, NEAR_RUN = 13, 5
BANDS, BAND = 14, 8
BLOCK = 4096  # runs of words that are hashed at once
NO_KEYS: Keys = np.empty(0, np.uint64)
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def folded(text: str) -> str:
    """The form in which texts are compared: NFKC, without case, every gap one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(1 << 17)
def _word_key(word: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def text_key(text: str) -> int:
    """64 bits of a text."""
    return _word_key.__wrapped__(text)


def word_keys(words: Sequence[str]) -> Keys:
    """A key for each word, (words,)."""
    return np.fromiter((_word_key(word) for word in words), np.uint64, len(words))


def mixed_bits(keys: Keys) -> Keys:
    """A permutation of 64 bits that leaves no pattern (the finaliser of SplitMix64, Steele et al. 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def runs(keys: Keys, length: int) -> Keys:
    """Keys of all runs of `length` neighbours, (words - length + 1,); of the whole when there are fewer."""
    length = min(length, len(keys))
    total = np.zeros(len(keys) - length + 1, np.uint64)
    for offset in range(length):
        total = total * FACTOR + keys[offset : len(keys) - length + 1 + offset]
    return mixed_bits(total)


_SCALES = mixed_bits(np.arange(1, BANDS * BAND + 1, dtype=np.uint64)) | np.uint64(1)
_SHIFTS = mixed_bits(np.arange(1001, BANDS * BAND + 1001, dtype=np.uint64))
_BAND_NUMBERS = mixed_bits(np.arange(2001, BANDS + 2001, dtype=np.uint64))


def signature(keys: Keys) -> Keys:
    """MinHash, (BANDS * BAND,): places where two signatures are equal are as many as the share of runs that two texts share."""
    least = np.full(BANDS * BAND, np.iinfo(np.uint64).max, np.uint64)
    shingles = runs(keys, NEAR_RUN)
    for start in range(0, len(shingles), BLOCK):
        hashed = shingles[start : start + BLOCK] * _SCALES[:, None] + _SHIFTS[:, None]
        least = np.minimum(least, (hashed >> np.uint64(32)).min(axis=1))
    return least


def band_keys(keys: Keys) -> Keys:
    """One key a band, (BANDS,): texts that share one are near. No words, no keys."""
    if not len(keys):
        return NO_KEYS
    bands = signature(keys).reshape(BANDS, BAND)
    total = _BAND_NUMBERS
    for column in range(BAND):
        total = mixed_bits(total * FACTOR + bands[:, column])
    return total


def exam_keys(texts: Iterable[str]) -> Keys:
    """Sorted keys of every run of `EXAM_RUN` words in exam texts, and of whole shorter ones."""
    found = [
        runs(keys, EXAM_RUN) for text in texts if len(keys := word_keys(WORD.findall(folded(text))))
    ]
    return np.unique(np.concatenate(found)) if found else NO_KEYS


def in_exam(keys: Keys, exam: Keys) -> bool:
    """Whether the words of a row (or, when they are few, the whole row) occur in exam texts."""
    if not len(keys) or not len(exam):
        return False
    mine = runs(keys, EXAM_RUN)
    return bool((exam[np.minimum(np.searchsorted(exam, mine), len(exam) - 1)] == mine).any())


LEAST_WORDS, MOST_WORDS = 50, 100_000
WORD_LENGTH = (3.0, 10.0)
SYMBOLS, BULLETS, ELLIPSES, LETTERS = 0.1, 0.9, 0.3, 0.8
LINES, LINE_CHARACTERS = 0.3, 0.2
COMMONEST = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def poor(text: str) -> str:
    """Why a text is not worth learning, or nothing.

    Of Gopher's rules the one about English stop words is left out; the mean length of words counts spaced words alone, and only
    where they are most of the text.
    """
    words = WORD.findall(text)
    if len(words) < LEAST_WORDS:
        return "few words"
    if len(words) > MOST_WORDS:
        return "many words"
    return _strange_words(text, words) or _strange_lines(text) or _repeats(words)


def _strange_words(text: str, words: Sequence[str]) -> str:
    pieces = text.split()
    spaced = [len(word) for word in words if len(word) > 1 or not re.match(f"[{CJK}]", word)]
    if (
        2 * len(spaced) > len(words)
        and not WORD_LENGTH[0] <= sum(spaced) / len(spaced) <= WORD_LENGTH[1]
    ):
        return "length of words"
    if text.count("#") + text.count("...") + text.count("…") > SYMBOLS * len(words):
        return "symbols"
    if sum(any(map(str.isalpha, piece)) for piece in pieces) < LETTERS * len(pieces):
        return "no letters"
    return "lorem ipsum" if "lorem ipsum" in text.lower() else ""


def _strange_lines(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if sum(line.startswith(("•", "-", "*", "·")) for line in lines) > BULLETS * len(lines):
        return "bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > ELLIPSES * len(lines):
        return "ellipses"
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "repeated lines" if _repeated(lines) or _repeated(paragraphs) else ""


def _repeated(parts: Sequence[str]) -> bool:
    """Whether too many lines or paragraphs came before in the text, by number or by characters."""
    seen: set[str] = set()
    again = [len(part) for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
    return len(again) > LINES * len(parts) or sum(again) > LINE_CHARACTERS * sum(map(len, parts))


def _repeats(words: Sequence[str]) -> str:
    """Too large a share of characters in the commonest run of 2 to 4 words, or in runs of 5 to 10 that came before."""
    keys, sizes = word_keys(words), np.fromiter(map(len, words), np.int64, len(words))
    for length, most in (COMMONEST | REPEATED).items():
        _, first, place, counts = np.unique(
            runs(keys, length), return_index=True, return_inverse=True, return_counts=True
        )
        inside = np.zeros(len(words), bool)
        if length in REPEATED:
            again = np.setdiff1d(np.arange(len(place)), first, assume_unique=True)
        else:
            again = (
                np.flatnonzero(place == counts.argmax())
                if counts.max() > 1
                else np.empty(0, np.int64)
            )
        for offset in range(length):
            inside[again + offset] = True
        if sizes[inside].sum() > most * sizes.sum():
            return "repeated words"
    return ""


@dataclass(frozen=True)
class Judge:
    """What can be said of a row without the others: pure, so it runs in any process.

    Args:
        filters: which of the four.
        exam: from `exam_keys`.
    """

    filters: tuple[Filter, ...]
    exam: Keys = field(default_factory=lambda: NO_KEYS)

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, Keys]]:
        """(reason to remove it, keys by which copies are found) of each text; see `copied` for their order."""
        return [self.judge(text) for text in texts]

    def judge(self, text: str) -> tuple[str, Keys]:
        """The verdict on one text."""
        if not text.strip():
            return "empty", NO_KEYS
        if "quality" in self.filters and (why := poor(text)):
            return f"quality: {why}", NO_KEYS
        if not {"exam", "exact", "near"} & set(self.filters):
            return "", NO_KEYS
        plain = folded(text)
        words = word_keys(WORD.findall(plain)) if {"exam", "near"} & set(self.filters) else NO_KEYS
        if "exam" in self.filters and in_exam(words, self.exam):
            return "exam", NO_KEYS
        exact = np.asarray([text_key(plain)], np.uint64) if "exact" in self.filters else NO_KEYS
        return "", np.concatenate((exact, band_keys(words))) if "near" in self.filters else exact

    def copied(self, before: NDArray[np.bool_]) -> str:
        """The reason that follows from which of a row's keys came before."""
        if not before.any():
            return ""
        return "exact" if "exact" in self.filters and before[0] else "near"


class Seen:
    """A set of 64-bit keys in one array: open addressing, at most half full."""

    def __init__(self) -> None:
        self.slots: Keys = np.zeros(1024, np.uint64)
        self.count = 0

    def add(self, keys: Keys) -> NDArray[np.bool_]:
        """Which keys were there before; now all are. Keys of one call are distinct."""
        if 2 * (self.count + len(keys)) > len(self.slots):
            self._grow(len(keys))
        keys = np.where(keys == 0, np.uint64(1), keys)  # 0 marks an empty slot
        before = np.zeros(len(keys), bool)
        left, at = np.arange(len(keys)), keys % np.uint64(len(self.slots))
        while len(left):
            free = left[self.slots[at[left]] == 0]
            before[left[self.slots[at[left]] == keys[left]]] = True
            self.slots[at[free]] = keys[free]
            left = left[
                self.slots[at[left]] != keys[left]
            ]  # another key lies there, or another of these took the slot
            at[left] = (at[left] + np.uint64(1)) % np.uint64(len(self.slots))
        self.count += int((~before).sum())
        return before

    def _grow(self, more: int) -> None:
        old = self.slots[self.slots != 0]
        self.slots = np.zeros(1 << (2 * (self.count + more) - 1).bit_length(), np.uint64)
        self.count = 0
        for start in range(0, len(old), BLOCK):
            self.add(old[start : start + BLOCK])


def sift(
    rows: Iterable[T],
    text: Callable[[T], str],
    judge: Judge,
    removed: Counter[str],
    workers: int = 1,
    seen: Seen | None = None,
) -> Iterator[T]:
    """The rows that pass, in order.

    Args:
        text: of a row.
        removed: counts what did not pass, by reason.
        workers: processes that judge; the result is the same for any number.
        seen: what came before these rows.
    """
    seen = seen or Seen()
    pairs = ((chunk, [text(row) for row in chunk]) for chunk in chunks(rows))
    for chunk, verdicts in ordered(judge, pairs, workers if judge.filters else 1):
        for row, (why, keys) in zip(chunk, verdicts, strict=True):
            why = why or judge.copied(seen.add(keys))
            if why:
                removed[why] += 1
            else:
                yield row
