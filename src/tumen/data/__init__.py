"""data: from what?

What: sentences with their actions, or plain texts: filters, mix, tokenizer, packed shards, loader.
In: a recipe's data section; template packages, or a team's own files or data set.
Out: the artifacts corpus, tokenizer and dataset; batches.
Never: torch; a download that was not asked for; an evaluation sentence in training.
Read next: prepare.py and encode.py, then sources/ and filters/, then shards.py and loader.py.
"""

from tumen.data.digests import data_digests
from tumen.data.encode import write_dataset, write_tokenizer
from tumen.data.loader import Batch, Loader, StepTotals
from tumen.data.prepare import OFFSETS_FILE, read_corpus, write_corpus
from tumen.data.shards import Shards, read_shards, write_shards
from tumen.data.tokenizer import Codec, read_vocabulary, require_same_vocabulary

__all__ = [
    "OFFSETS_FILE",
    "Batch",
    "Codec",
    "Loader",
    "Shards",
    "StepTotals",
    "data_digests",
    "read_corpus",
    "read_shards",
    "read_vocabulary",
    "require_same_vocabulary",
    "write_corpus",
    "write_dataset",
    "write_shards",
    "write_tokenizer",
]
