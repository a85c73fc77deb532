"""Plans, comparisons, checks and sizings as text and as a page.

What: text for a terminal, and one self-contained HTML page.
In: a `Plan`, a `Comparison`, an accuracy `Report`, a `Serving`.
Out: text.
Never: a computation of the planner; a file; a network.
Read next: plan_text.py, then html_page.py.
"""

from tumen.plan.output.html_page import page
from tumen.plan.output.plan_text import accuracy_table, comparison_table, explain, serving_table

__all__ = ["accuracy_table", "comparison_table", "explain", "page", "serving_table"]
