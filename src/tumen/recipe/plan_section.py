"""Section `plan`: what the planner needs beyond the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tumen.core.shape import Frozen, Positive, Share


class Planning(Frozen):
    """What the planner needs beyond the network: work of the run, price, failures."""

    # Work.
    tier: str | None = Field(
        None, description="which tier is planned; default: the first of the family"
    )
    seq_len: int | None = Field(
        None, gt=0, description="tokens of a sequence; default: the tier's seq_len"
    )
    batch_tokens: str | int | None = Field(
        None, description="tokens of one step, such as 16M; default: batch_size x seq_len"
    )
    tokens: str | int | None = Field(
        None, description="tokens of the whole run, such as 8.1T; default: from the tier's steps"
    )
    precision: Literal["bf16", "fp8", "fp4"] | None = Field(
        None, description="of the matmuls; default: the tier's own"
    )
    # Software and layout.
    framework: str = Field("default", description="a name of plan/software.toml")
    release: str = Field("", description="release of the framework, such as 2026-04")
    pin: dict[Literal["tp", "pp", "vpp", "ep", "cp", "micro_batch", "zero"], Positive] = Field(
        {}, description="parts of the layout that are decided already, such as { pp = 16, ep = 8 }"
    )
    schedules: tuple[Literal["1f1b", "interleaved", "zero-bubble", "dualpipe"], ...] = Field(
        ("1f1b", "interleaved", "zero-bubble", "dualpipe"),
        description="pipeline schedules the framework can run",
        min_length=1,
    )
    # Network and price.
    oversubscription: float = Field(
        1.0,
        ge=1,
        description="of the network between nodes: 2 halves the rate of every accelerator",
    )
    price: float | None = Field(
        None, ge=0, description="of one accelerator and hour; default: from its entry in cards.toml"
    )
    currency: str = Field("USD", min_length=1)
    energy_price: float = Field(0.1, ge=0, description="of one kilowatt-hour")
    # Failures and checkpoints.
    failures: float = Field(4.0, ge=0, description="node failures for 1,000 node-days")
    software_failures: float = Field(
        0.05, ge=0, description="failures of the job itself for a day, whatever its size"
    )
    detect_seconds: float = Field(120.0, ge=0, description="until a failure is detected")
    restart_seconds: float = Field(480.0, ge=0, description="until the run computes again")
    checkpoint_bytes_per_second: float = Field(2e9, gt=0, description="one node's rate to storage")
    replica_seconds: float | None = Field(
        None,
        gt=0,
        description="time that training waits while its state is copied to another node's memory; "
        "default: no replicas, checkpoints on disk only",
    )
    replicas_lost: Share = Field(
        0.02,
        gt=0,
        description="share of the failures that destroy the replicas too, so that the run resumes "
        "from disk",
    )
    repair_days: float = Field(2.0, ge=0, description="until a failed node is repaired")
    stragglers: Share = Field(0.01, description="share of the speed lost to slow nodes")
