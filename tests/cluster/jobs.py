"""Jobs that the tests of several engines share."""

from __future__ import annotations

from pathlib import Path

from tumen.cluster.engines import JobSpec

HOUR_SECONDS = 3600.0
COMMAND = ("/opt/tumen/bin/python", "-m", "tumen", "train", "/runs/v2", "cloud")
LARGE = JobSpec(
    "v2-cloud",
    COMMAND,
    Path("/runs/v2/jobs/cloud"),
    {"NCCL_SOCKET_IFNAME": "ib"},
    nodes=256,
    ranks_per_node=8,
    accelerators_per_node=8,
    limit_seconds=36 * HOUR_SECONDS,
    avoid=("n17", "n203"),
    python=COMMAND[0],
)
SMALL = JobSpec(
    "tiny-device",
    (*COMMAND[:-1], "device"),
    Path("/runs/it's 100%/jobs/device"),
    exclusive=False,
    python=COMMAND[0],
)
