"""Statistics of evaluations: intervals of one share, of two paired shares, of means over seeds."""

from tumen.eval.statistics.intervals import Z95, percentile, wilson
from tumen.eval.statistics.paired import PairedInterval, paired_difference, paired_ratio
from tumen.eval.statistics.seeds import SeedMean, mean_over_seeds, paired_seed_difference

__all__ = [
    "Z95",
    "PairedInterval",
    "SeedMean",
    "mean_over_seeds",
    "paired_difference",
    "paired_ratio",
    "paired_seed_difference",
    "percentile",
    "wilson",
]
