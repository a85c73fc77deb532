"""pipeline.ablation: variants of a tier at one budget over several seeds, compared in a table.

What: what a variant may spend, its stages, the measured pace of a step, the table that compares the
variants.
In: a recipe with a section of variants; what `tumen run` has made in the same folder.
Out: checkpoints and bundles of each variant and seed, table.json.
Never: options, printing; a comparison of unequal budgets.
Read next: variants.py, then variant_table.py.
"""

from tumen.pipeline.ablation.variant_table import FOLDER, TABLE, read_table
from tumen.pipeline.ablation.variants import (
    ablation_of,
    ablation_stages,
    plan_ablation,
    variant_stages,
)

__all__ = [
    "FOLDER",
    "TABLE",
    "ablation_of",
    "ablation_stages",
    "plan_ablation",
    "read_table",
    "variant_stages",
]
