"""Rows of published runs in the columns of the truth file, with one complete row to change."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

COLUMNS = (
    "id",
    "source",
    "published",
    "model",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "head_dim",
    "ffn",
    "ffn_gated",
    "attention",
    "vocab",
    "seq",
    "n_experts",
    "topk",
    "moe_ffn",
    "n_shared_ffn",
    "dense_layers",
    "gpu",
    "n_gpus",
    "gpus_per_node",
    "interconnect",
    "precision",
    "tp",
    "pp",
    "vpp",
    "dp",
    "ep",
    "cp",
    "zero_fsdp",
    "seq_parallel",
    "recompute",
    "micro_batch",
    "global_batch",
    "step_time_s",
    "memory_GB_per_gpu",
    "target_step_s",
    "notes",
)
ROW = dict.fromkeys(COLUMNS, "") | {
    "id": "own-1",
    "source": "own",
    "model": "GPT",
    "layers": "24",
    "hidden": "2048",
    "heads": "16",
    "ffn": "8192",
    "ffn_gated": "0",
    "attention": "mha-flash",
    "vocab": "51200",
    "seq": "2048",
    "gpu": "A100-80GB-SXM",
    "n_gpus": "16",
    "gpus_per_node": "8",
    "interconnect": "NVLink3 + 8x200Gb/s HDR IB",
    "precision": "bf16",
    "tp": "2",
    "pp": "1",
    "vpp": "1",
    "dp": "8",
    "cp": "1",
    "zero_fsdp": "zero1",
    "recompute": "none",
    "micro_batch": "4",
    "global_batch": "256",
    "target_step_s": "3.0",
}


def changed(**fields: str) -> dict[str, str]:
    """The complete row with other cells."""
    return ROW | fields


def write(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    """A CSV file of rows."""
    with open(path, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path
