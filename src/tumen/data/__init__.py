"""data: from what?

What: sentences and their actions, a tokeniser, packed shards, a loader whose state is two integers.
In: a recipe's data section; PyPI template packages, or a team's own file or data set.
Out: the artifacts corpus, tokenizer, dataset; batches.
Never: torch, downloads without being asked, sentences of an exam in training.
Read next: prepare.py, then source.py and templates.py.
"""

from tumen.data.loader import Batch, Loader, Whole
from tumen.data.prepare import read_corpus, write_corpus, write_dataset, write_tokenizer
from tumen.data.shards import Shards, read_shards, write_shards
from tumen.data.source import SOURCES, Source
from tumen.data.tokenizer import BYTES, CONTROL, UNKNOWN, Codec

__all__ = [
    "BYTES",
    "CONTROL",
    "SOURCES",
    "UNKNOWN",
    "Batch",
    "Codec",
    "Loader",
    "Shards",
    "Source",
    "Whole",
    "read_corpus",
    "read_shards",
    "write_corpus",
    "write_dataset",
    "write_shards",
    "write_tokenizer",
]
