"""Tokenizers: sentences and actions to token ids and back.

What: a learned byte-fallback BPE, or the vocabulary of a pretrained model; all behind `Codec`.
In: normalized texts, or a GGUF file or a folder with tokenizer.json.
Out: `Codec` with `prompt`, `answer`, `document` and `decode`; tokenizer.json, vocabulary.json
    or unigram.json.
Never: torch; a control token found in a user's text.
Read next: codec.py, then bpe.py and vocabulary.py.
"""

from tumen.data.tokenizer.bpe import BYTES, CONTROL, UNKNOWN, train_tokenizer
from tumen.data.tokenizer.codec import Codec, PretrainedCodec, UnigramCodec, shifted_piece
from tumen.data.tokenizer.unigram import UnigramVocabulary
from tumen.data.tokenizer.vocabulary import EmbeddingRow, Vocabulary
from tumen.data.tokenizer.vocabulary_reader import read_vocabulary, require_same_vocabulary
from tumen.data.tokenizer.word_rules import WORD_RULES

__all__ = [
    "BYTES",
    "CONTROL",
    "UNKNOWN",
    "WORD_RULES",
    "Codec",
    "EmbeddingRow",
    "PretrainedCodec",
    "UnigramCodec",
    "UnigramVocabulary",
    "Vocabulary",
    "read_vocabulary",
    "require_same_vocabulary",
    "shifted_piece",
    "train_tokenizer",
]
