"""shrink: fit the pocket.

What: a smaller tier distilled from a larger one, or cut out of it; GGUF (int8, int4), ExecuTorch's .pte; a bundle; the export gate.
In: checkpoint artifacts, a dataset, a tokeniser.
Out: checkpoint and bundle artifacts, agreement with torch.
Never: running a bundle (a runner is handed in), downloads.
Read next: student.py and prune.py, then gguf.py and bundle.py.
"""

from tumen.shrink.bundle import check_export, pack
from tumen.shrink.executorch import export_pte, run_pte
from tumen.shrink.prune import pruned
from tumen.shrink.student import distil

__all__ = ["check_export", "distil", "export_pte", "pack", "pruned", "run_pte"]
