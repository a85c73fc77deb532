"""data: from what?

What: sentences and their actions, or plain texts; filters, a mix, a tokeniser, packed shards, a loader with a small state.
In: a recipe's data section; PyPI template packages, or a team's own files or data set.
Out: the artifacts corpus, tokenizer, dataset; batches.
Never: torch, downloads without being asked, sentences of an exam in training.
Read next: prepare.py, then source.py and templates.py, or filters.py and mix.py.
"""

from tumen.data.codec import BYTES, CONTROL, UNKNOWN, Codec, Outside
from tumen.data.filters import Judge, exam_keys, sift
from tumen.data.loader import Batch, Loader, Whole
from tumen.data.mix import mixed
from tumen.data.prepare import OFFSETS, read_corpus, write_corpus, write_dataset, write_tokenizer
from tumen.data.shards import Shards, read_shards, write_shards
from tumen.data.vocabulary import Row, Vocabulary, refuse_other, vocabulary_of

__all__ = [
    "BYTES",
    "CONTROL",
    "OFFSETS",
    "UNKNOWN",
    "Batch",
    "Codec",
    "Judge",
    "Loader",
    "Outside",
    "Row",
    "Shards",
    "Vocabulary",
    "Whole",
    "exam_keys",
    "mixed",
    "read_corpus",
    "read_shards",
    "refuse_other",
    "sift",
    "vocabulary_of",
    "write_corpus",
    "write_dataset",
    "write_shards",
    "write_tokenizer",
]
