"""Rules by which pretrained byte-level BPE vocabularies cut a text into words, by llama.cpp's name.

Each rule is the `pre_tokenizer` of the model's tokenizer.json; `tokenizer.ggml.pre` names it in a
GGUF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tumen.core.extras import optional

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

tokenizers = optional("tokenizers", "reading a model's vocabulary")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
WHOLE_WORDS = ("llama-bpe",)  # a word that is a token is taken whole, whatever its merges are


def _byte_letters(split_words: bool) -> PreTokenizer:
    rule: PreTokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=split_words
    )
    return rule


def _sequence(first: PreTokenizer, split_words: bool) -> PreTokenizer:
    rules = [first, _byte_letters(split_words)]
    sequence: PreTokenizer = tokenizers.pre_tokenizers.Sequence(rules)
    return sequence


def _by_pattern(pattern: str) -> PreTokenizer:
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return _sequence(words, split_words=False)


def _gpt2() -> PreTokenizer:
    return _byte_letters(split_words=True)


def _smollm() -> PreTokenizer:
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    return _sequence(digits, split_words=True)


def _llama3() -> PreTokenizer:
    return _by_pattern(LLAMA3)


def _qwen2() -> PreTokenizer:
    return _by_pattern(QWEN2)


WORD_RULES: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "qwen2": _qwen2,
}
