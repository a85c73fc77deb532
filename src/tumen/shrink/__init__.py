"""shrink: make models small enough for a device.

What: a smaller tier, distilled from a larger one or pruned out of it; a quantization type for every
    matrix; bundles with GGUF and adapters; ExecuTorch's .pte; the export gate.
In: checkpoint artifacts, a dataset, a tokenizer.
Out: checkpoint, quant and bundle artifacts; how far an export agrees with torch.
Never: running a bundle (the caller passes a runner), downloads.
Read next: distillation.py and prune.py, then quant_types.py, allocation.py and qat.py, then
    gguf_writer.py and bundle.py.
"""

from tumen.shrink.bundle import BundleInputs, add_adapter, check_export, export_adapter, pack
from tumen.shrink.distillation import distil
from tumen.shrink.encoder_bundle import encoder_states, pack_encoder
from tumen.shrink.executorch import export_pte, run_pte
from tumen.shrink.prune import pruned

__all__ = [
    "BundleInputs",
    "add_adapter",
    "check_export",
    "distil",
    "encoder_states",
    "export_adapter",
    "export_pte",
    "pack",
    "pack_encoder",
    "pruned",
    "run_pte",
]
