"""The model of a step: compute, memory, traffic, time."""

from tumen.plan.model import bound, links, memory, time
from tumen.plan.model.case import Array

__all__ = ["Array", "bound", "links", "memory", "time"]
