"""Texts as 64-bit keys: of words, of runs of words, of whole texts, and MinHash bands.

A *word* is a run of letters and digits, or one character of a script without spaces, so all of it
works in Chinese. Among n texts, some two share a key by chance with a probability of about
n^2 / 2^65.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tumen.language import CJK

Keys = NDArray[np.uint64]
NO_KEYS: Keys = np.empty(0, np.uint64)
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
EVAL_RUN_WORDS = 13  # GPT-3's decontamination (arXiv 2005.14165, appendix C)
SHINGLE_WORDS = 5
BANDS = 14
ROWS_A_BAND = 8
HASHED_AT_ONCE = 4096  # shingles; bounds the memory of a long text
WORDS_CACHED = 1 << 17
POLYNOMIAL_BASE = np.uint64(0x9E3779B97F4A7C15)


def folded(text: str) -> str:
    """Return the form in which texts are compared: NFKC, case folded, each gap one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    return WORD.findall(text)


def text_key(text: str) -> int:
    """Return 64 bits of a text's hash."""
    # surrogatepass: half a character in broken input must not stop a filter.
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


_word_key = lru_cache(WORDS_CACHED)(text_key)


def word_keys(words: Sequence[str]) -> Keys:
    """Return one key a word, (words,)."""
    return np.fromiter((_word_key(word) for word in words), np.uint64, len(words))


def mix_bits(keys: Keys) -> Keys:
    """Permute 64 bits so that no pattern is left (finalizer of SplitMix64, Steele et al. 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def run_keys(keys: Keys, length: int) -> Keys:
    """Return the keys of all runs of `length` neighbouring words.

    Returns:
        (words - length + 1,); one key of the whole text when it has fewer words than `length`.
    """
    length = min(length, len(keys))
    count = len(keys) - length + 1
    total = np.zeros(count, np.uint64)
    for offset in range(length):
        total = total * POLYNOMIAL_BASE + keys[offset : offset + count]
    return mix_bits(total)


_HASHES = BANDS * ROWS_A_BAND
# Parameters of the hash family `scale * x + shift`; scales are odd, so each is a permutation.
_SCALES = mix_bits(np.arange(1, _HASHES + 1, dtype=np.uint64)) | np.uint64(1)
_SHIFTS = mix_bits(np.arange(1001, _HASHES + 1001, dtype=np.uint64))
_BAND_SEEDS = mix_bits(np.arange(2001, BANDS + 2001, dtype=np.uint64))


def minhash(keys: Keys) -> Keys:
    """Return the MinHash signature of a text's shingles (Broder 1997), (BANDS * ROWS_A_BAND,).

    The share of equal places in two signatures estimates the share of shingles (runs of
    `SHINGLE_WORDS` words) that two texts have in common.
    """
    least = np.full(_HASHES, np.iinfo(np.uint64).max, np.uint64)
    shingles = run_keys(keys, SHINGLE_WORDS)
    for start in range(0, len(shingles), HASHED_AT_ONCE):
        block = shingles[start : start + HASHED_AT_ONCE]
        hashed = block * _SCALES[:, None] + _SHIFTS[:, None]  # (hashes, shingles)
        # The upper half: low bits of a multiplication modulo 2^64 are badly mixed.
        least = np.minimum(least, (hashed >> np.uint64(32)).min(axis=1))
    return least


def band_keys(keys: Keys) -> Keys:
    """Return one key a band of the signature, (BANDS,); texts that share one are near copies.

    With 14 bands of 8 rows (FineWeb's numbers, arXiv 2406.17557), texts with 75 % of their shingles
    in common are found with a probability of 0.77, those with 90 % with 0.9996.

    Returns:
        An empty array for a text without words.
    """
    if not len(keys):
        return NO_KEYS
    bands = minhash(keys).reshape(BANDS, ROWS_A_BAND)
    total = _BAND_SEEDS
    for row in range(ROWS_A_BAND):
        total = mix_bits(total * POLYNOMIAL_BASE + bands[:, row])
    return total


def eval_keys(texts: Iterable[str]) -> Keys:
    """Return the keys by which training rows are held against evaluation texts.

    Returns:
        Sorted keys of every run of `EVAL_RUN_WORDS` words, and of whole texts that are shorter.
    """
    found = []
    for text in texts:
        keys = word_keys(words_of(folded(text)))
        if len(keys):
            found.append(run_keys(keys, EVAL_RUN_WORDS))
    return np.unique(np.concatenate(found)) if found else NO_KEYS


def overlaps_eval(keys: Keys, evaluation: Keys) -> bool:
    """Return whether a row shares a run of words with an evaluation text, or is a short one.

    Args:
        keys: of the row's words, (words,).
        evaluation: from `eval_keys`.
    """
    if not len(keys) or not len(evaluation):
        return False
    mine = run_keys(keys, EVAL_RUN_WORDS)
    nearest = np.minimum(np.searchsorted(evaluation, mine), len(evaluation) - 1)
    return bool((evaluation[nearest] == mine).any())
