"""Columns of a table beside the model's own: who else may read the same sentences."""

from tumen.eval.columns.template_columns import MatcherColumn, TemplatesFirstColumn

__all__ = ["MatcherColumn", "TemplatesFirstColumn"]
