"""Train a byte-fallback BPE whose token ids equal those of llama.cpp's own tokenizer.

Ids in order: control tokens, 256 bytes, the structure tokens of an action (one token each), then
learned pieces. A word carries the space before it (`▁kitchen`). A CJK character and a digit are
always pieces of their own: a copied run must be the same tokens in the sentence and in the action.
A character outside the vocabulary falls back to its bytes, so no text is unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tumen.core.extras import optional
from tumen.language import BEGIN, DO, END, HOME, Ontology

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

tokenizers = optional("tokenizers", "training a tokenizer")
UNKNOWN = "<unk>"
CONTROL = (UNKNOWN, BEGIN, END, DO)
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
CJK = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
SPACE = "▁"
MIN_ALPHABET = 64
MIN_FREQUENCY = 3  # of a pair of pieces, to be merged


def train_tokenizer(texts: Iterable[str], vocab: int, ontology: Ontology = HOME) -> Tokenizer:
    """Learn pieces from normalized sentences.

    Args:
        texts: normalized sentences and copied words.
        vocab: number of tokens of all kinds together.
        ontology: its structure tokens get one token each.

    Returns:
        A `tokenizers.Tokenizer`; the same texts give the same ids.
    """
    fixed = [*CONTROL, *BYTES, *ontology.structure_tokens()]
    model = tokenizers.models.BPE(unk_token=UNKNOWN, byte_fallback=True)
    learner = tokenizers.Tokenizer(model)
    normalizers = tokenizers.normalizers
    learner.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    learner.pre_tokenizer = _word_splitter()
    texts = list(texts)
    # A third of the free places goes to single characters; without a limit, the characters of a
    # Chinese corpus would leave none for whole words of other languages.
    alphabet = _alphabet(texts, max(MIN_ALPHABET, (vocab - len(fixed)) // 3))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=fixed,
        show_progress=False,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    learner.train_from_iterator(texts, trainer)
    return _as_llama_cuts(learner)


def _word_splitter() -> PreTokenizer:
    """Return the pre-tokenizer of training: characters and digits alone, words with their space."""
    pre_tokenizers = tokenizers.pre_tokenizers
    splitter: PreTokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(CJK), "isolated"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(SPACE, "merged_with_next"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    return splitter


def _alphabet(texts: Sequence[str], count: int) -> list[str]:
    """Return the `count` most frequent characters; of equally frequent ones, the lowest code point.

    The library alone would choose among equals by the random order of its hash map.
    """
    counts = Counter(char for text in texts for char in text if char != " ")
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    return [SPACE, *ranked[: count - 1]]


def _as_llama_cuts(learner: Tokenizer) -> Tokenizer:
    """Return the same pieces in the form that llama.cpp reads.

    Only control and structure tokens are matched in a text: a typed `<0x41>` is text, not a byte.
    """
    tree = json.loads(learner.to_str())
    added = [token for token in tree["added_tokens"] if token["content"] not in BYTES]
    for token in added:
        token["special"] = token["content"] in CONTROL
        token["normalized"] = False
    tree["added_tokens"] = added
    tree["pre_tokenizer"] = None
    tree["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    fresh: Tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tree))
    decoders = tokenizers.decoders
    fresh.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return fresh
