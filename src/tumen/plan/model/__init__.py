"""The cost model of one training step: seconds and bytes of a scenario.

What: seconds and bytes of a step from the sizes of network, layout, accelerator and software.
In: a `Scenario`, or a table of them, and fitted constants (`Physics`).
Out: `step.StepTime`, `memory.Bytes`, and a physical lower bound of the step by term.
Never: a decision about layouts; a constant that belongs to a row or a model.
Read next: scenario.py, then compute.py, traffic.py and memory.py; step.py adds them up, bound.py
limits them.
"""

from tumen.plan.model import bound, links, memory, step
from tumen.plan.model.scenario import Array

__all__ = ["Array", "bound", "links", "memory", "step"]
