"""shrink: fit the pocket.

What: a smaller tier distilled from a larger one; GGUF at int8 or int4; a bundle, adapters beside a base; the export gate.
In: checkpoint artifacts, a dataset, a tokeniser.
Out: checkpoint and bundle artifacts, agreement with torch.
Never: running a bundle (a runner is handed in), downloads.
Read next: student.py, then gguf.py and bundle.py.
"""

from tumen.shrink.bundle import add_adapter, check_export, export_adapter, pack
from tumen.shrink.student import distil

__all__ = ["add_adapter", "check_export", "distil", "export_adapter", "pack"]
