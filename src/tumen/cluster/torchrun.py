"""`python -m tumen.cluster.torchrun ...`: torchrun that does not outlive the shell of its job, however that ends."""

from __future__ import annotations

import runpy

from tumen.cluster.local import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
