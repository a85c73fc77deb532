"""shrink: fit the pocket.

What: a smaller tier, distilled from a larger one or cut out of it; every matrix on its grid; GGUF bundles, adapters in them;
    ExecuTorch's .pte; the gate.
In: checkpoint artifacts, a dataset, a tokeniser.
Out: checkpoint, grid and bundle artifacts, agreement with torch.
Never: running a bundle (a runner is handed in), downloads.
Read next: distillation.py and prune.py, then quant_types.py, allocation.py and qat.py, then gguf_writer.py and bundle.py.
"""

from tumen.shrink.bundle import add_adapter, check_export, export_adapter, pack
from tumen.shrink.distillation import distil
from tumen.shrink.executorch import export_pte, run_pte
from tumen.shrink.prune import pruned

__all__ = [
    "add_adapter",
    "check_export",
    "distil",
    "export_adapter",
    "export_pte",
    "pack",
    "pruned",
    "run_pte",
]
