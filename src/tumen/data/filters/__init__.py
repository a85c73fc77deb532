"""Filters: what a training row must pass.

What: text quality, no overlap with evaluation texts, no exact copy, no near copy.
In: rows in order, the names of the filters, keys of the evaluation texts.
Out: the rows that pass, in order; the number of dropped rows by reason.
Never: a text in memory longer than its chunk; an answer that depends on the number of processes.
Read next: row_filter.py, then text_keys.py and quality.py.
"""

from tumen.data.filters.key_set import KeySet
from tumen.data.filters.quality import quality_fault
from tumen.data.filters.row_filter import RowFilter, filter_rows
from tumen.data.filters.text_keys import eval_keys, folded, text_key

__all__ = ["KeySet", "RowFilter", "eval_keys", "filter_rows", "folded", "quality_fault", "text_key"]
