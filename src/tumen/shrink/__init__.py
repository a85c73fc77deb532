"""shrink: fit the pocket.

What: a smaller tier distilled from a larger one, or cut out of it; GGUF at int8 or int4; bundles, adapters in them; the gate.
In: checkpoint artifacts, a dataset, a tokeniser.
Out: checkpoint and bundle artifacts, agreement with torch.
Never: running a bundle (a runner is handed in), downloads.
Read next: student.py and prune.py, then gguf.py and bundle.py.
"""

from tumen.shrink.bundle import add_adapter, check_export, export_adapter, pack
from tumen.shrink.prune import pruned
from tumen.shrink.student import distil

__all__ = ["add_adapter", "check_export", "distil", "export_adapter", "pack", "pruned"]
