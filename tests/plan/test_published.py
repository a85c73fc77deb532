"""Rows of published runs: units read right, gaps refused with a reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tumen.core.errors import InputError
from tumen.plan.accuracy import check
from tumen.plan.accuracy.published import (
    Published,
    Refused,
    links_of,
    precision_of,
    published,
    read,
    shape_of,
    zero_of,
)
from tumen.plan.facts import cards

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


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        ("NVLink3 + 8x200Gb/s HDR IB", 25.0),
        ("NVLink3 + 4x100Gb/s OmniPath per node", 6.25),
        ("NVLink3 + 1600Gb/s RoCE", 25.0),
        ("NVLink4 + 800Gb/s per node", 12.5),
        ("NVL72 NVLink5 + 800Gb/s per GPU", 100.0),
        ("NVLink4 + 8x50GB/s IB", 50.0),
        ("NVLink 400GB/s(bidir) + 8x400Gb/s IB", 50.0),
        ("NVLink3 + IB (not printed)", 25.0),
        ("", 25.0),
    ],
)
def test_network_rate_is_per_card(text: str, gigabytes: float) -> None:
    """The usual trap: a figure of a node read as one of a card."""
    assert links_of(ROW | {"interconnect": text}, cards()["a100"]).nic_rate == pytest.approx(
        gigabytes * 1e9
    )


def test_wide_domains_come_from_the_row() -> None:
    row = ROW | {"interconnect": "NVL72 NVLink5 + 400Gb/s per GPU", "gpus_per_node": "4"}
    assert links_of(row, cards()["gb200"]).domain == 72


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", (0, 0)),
        ("zero1-in-node(8)", (1, 8)),
        ("fsdp-64", (3, 64)),
        ("hsdp", (3, 8)),
        ("zero3", (3, 0)),
        ("", (0, 0)),
    ],
)
def test_sharding(text: str, expected: tuple[int, int]) -> None:
    assert zero_of(ROW | {"zero_fsdp": text}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("bf16", "bf16"), ("fp8-cs (fp8-mx)", "fp8"), ("nvfp4", "fp4"), ("mxfp8", "fp8")],
)
def test_precision(text: str, expected: str) -> None:
    assert precision_of(ROW | {"precision": text}) == expected


def test_a_row_is_read() -> None:
    found = published(ROW)
    assert isinstance(found, Published)
    assert found.dense
    assert found.plan_published
    assert found.seconds == 3.0
    assert shape_of(ROW).parameters() == pytest.approx(1.3e9, rel=0.02)


def test_a_missing_choice_becomes_several_cases() -> None:
    found = published(ROW | {"micro_batch": ""})
    assert isinstance(found, Published)
    assert len(found.cases) > 1
    assert not found.plan_published


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": ""}, "network is not published: layers"),
        ({"tp": ""}, "plan is not published: tp"),
        ({"gpu": "Z80"}, "unknown card"),
        ({"dp": "5"}, "not the 16 cards"),
        ({"recompute": "sometimes"}, "recompute 'sometimes' is unknown"),
        ({"target_step_s": ""}, "neither a step time nor a memory figure"),
        ({"hidden": "wide"}, "wide"),
        ({"global_batch": "4"}, "smaller than the mesh"),
    ],
)
def test_gaps_are_refused_with_a_reason(change: dict[str, str], says: str) -> None:
    found = published(ROW | change)
    assert isinstance(found, Refused)
    assert says in found.reason


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = [
        ROW,
        ROW | {"id": "own-2", "layers": ""},
        ROW | {"id": "own-3", "notes": "OOM", "layers": "200", "hidden": "16384"},
    ]
    with open(path, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    report = check(path)
    assert report.all.n == 2
    assert report.dense_published_plan.n == 2
    assert report.oom == {"n": 1, "rejected": 1}
    assert len(report.refused) == 1
    assert report.below_bound == 0
    assert json.loads(json.dumps(report.json()))["all"]["n"] == 2
    assert set(report.json()) >= {
        "all",
        "dense_published_plan",
        "moe",
        "memory",
        "oom",
        "sources",
        "refused",
        "seconds",
    }


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns"):
        read(tmp_path / "other.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read(tmp_path / "binary.csv")
