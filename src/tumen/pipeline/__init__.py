"""pipeline: recipe -> stages -> artifacts.

What: the stages of a recipe, making what is missing, what is stale and why.
In: a recipe and a run folder.
Out: artifacts in the run folder, events.
Never: options, printing.
Read next: exporters.py.
"""

from tumen.pipeline.exporters import Gauges, TensorBoard

__all__ = ["Gauges", "TensorBoard"]
