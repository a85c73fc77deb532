"""Published runs: each row of a CSV becomes scenarios, or the reason why it is refused.

docs/plan.md lists the columns.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tumen.core.errors import InputError, PlanError, TumenError
from tumen.core.shape import Shape
from tumen.plan.accuracy.row_facts import (
    CsvRow,
    links_of,
    number,
    precision_of,
    shape_of,
    software_of,
    whole,
    zero_of,
)
from tumen.plan.facts import Software, card_of
from tumen.plan.layout import accelerator_fields, recompute_fields
from tumen.plan.model import memory
from tumen.plan.model.compute import UNALIGNED_SOFTMAX
from tumen.plan.model.scenario import SCHEDULES, Scenario, network, stack

NEEDED_COLUMNS = (
    "id", "source", "model", "attention", "gpu", "n_gpus", "tp", "global_batch", "notes"
)  # fmt: skip
NETWORK_COLUMNS = ("layers", "hidden", "heads", "vocab", "seq")
PLAN_COLUMNS = ("n_gpus", "tp", "pp", "global_batch")
COMPLETE_PLAN = ("tp", "pp", "dp", "micro_batch", "global_batch")
HEADROOM = 0.10  # share of the memory that an operator leaves free when choosing what to recompute
# What a vague or missing policy can stand for, cheapest first: the first that fits is taken.
CANDIDATE_RECOMPUTE = {
    "": ("none", "norm,act", "layernorm,moe", "full"),
    "selective(block)": ("selective(block)", "two of three(block)", "full"),
}
MICRO_BATCHES = (1, 2, 4, 8)
MOST_CHUNKS = 8
LONGEST_REASON = 160  # characters


@dataclass(frozen=True)
class Published:
    """One readable row: its measurements and its scenarios, several if a field is missing."""

    id: str
    source: str
    model: str
    software: Software
    scenarios: tuple[Scenario, ...]
    seconds: float | None
    memory_bytes: float | None
    memory_kind: str  # "allocated", "reserved" or "driver": who measured the memory
    out_of_memory: bool
    dense: bool
    plan_published: bool
    sharded: bool


@dataclass(frozen=True)
class Refused:
    """A row that is not predicted, and why."""

    id: str
    source: str
    reason: str


# ---------------------------------------------------------------------- files


def read(path: Path) -> tuple[list[Published], list[Refused]]:
    """Return the rows of a CSV file: (readable, refused).

    Raises:
        InputError: the file is missing, not UTF-8 CSV, empty, or lacks columns.
    """
    taken = []
    refused = []
    for row in csv_rows(path):
        found = published(row)
        if isinstance(found, Published):
            taken.append(found)
        else:
            refused.append(found)
    return taken, refused


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as cells by column.

    Raises:
        InputError: as for `read`.
    """
    try:
        with open(path, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines, restval=""))  # a short row has empty cells
    except FileNotFoundError:
        raise InputError(
            f"{path}: file not found; give a CSV in the columns of docs/plan.md"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error})") from None
    if not rows:
        raise InputError(f"{path}: has no rows; give a CSV in the columns of docs/plan.md")
    lacking = [name for name in NEEDED_COLUMNS if name not in rows[0]]
    if lacking:
        raise InputError(
            f"{path}: lacks the columns {', '.join(lacking)}; "
            "give a CSV in the columns of docs/plan.md"
        )
    return rows


# ---------------------------------------------------------------------- rows


def published(row: CsvRow) -> Published | Refused:
    """Return one row, or why it is refused."""
    try:
        return readable(row)
    except (TumenError, ValueError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        return Refused(row["id"], row["source"], reason)


def readable(row: CsvRow) -> Published:
    """Return a row with its scenarios.

    Raises:
        PlanError: the row lacks what a prediction needs, or its plan is illegal.
        ValueError: a cell is not a number.
    """
    out_of_memory = "OOM" in row["notes"] or row["source"].endswith("-oom")
    seconds = number(row, "target_step_s") or number(row, "step_time_s")
    gigabytes = number(row, "memory_GB_per_gpu")
    reason = missing(row)
    if not reason and not (out_of_memory or seconds or gigabytes):
        reason = "neither a step time nor a memory figure is published"
    if reason:
        raise PlanError(reason)

    software, scenarios = scenarios_of(row)
    kind = memory_kind_of(row, software)
    memory_bytes = None
    if gigabytes:
        gigabyte = 2.0**30 if kind == "driver" else 1e9  # nvidia-smi prints MiB
        memory_bytes = gigabytes * gigabyte
    return Published(
        id=row["id"],
        source=row["source"],
        model=row["model"],
        software=software,
        scenarios=scenarios,
        seconds=seconds,
        memory_bytes=memory_bytes,
        memory_kind=kind,
        out_of_memory=out_of_memory,
        dense=not number(row, "n_experts"),
        plan_published=all(row.get(name) for name in COMPLETE_PLAN),
        sharded=zero_of(row)[0] >= 3,
    )


def missing(row: CsvRow) -> str:
    """Return which facts a prediction needs and the row lacks, as one reason; empty if none."""
    network_names = [name for name in NETWORK_COLUMNS if not number(row, name)]
    if network_names:
        return f"the network is not published: {', '.join(network_names)}"
    plan_names = [name for name in PLAN_COLUMNS if not number(row, name)]
    if plan_names:
        return f"the plan is not published: {', '.join(plan_names)}"
    return ""


def memory_kind_of(row: CsvRow, software: Software) -> str:
    """Return who measured the memory of a row: the driver, the allocator's reserve, or its peak."""
    if "nvidia-smi" in row["notes"]:
        return "driver"
    return "reserved" if software.framework == "torchtitan" else "allocated"


# ---------------------------------------------------------------------- scenarios


def scenarios_of(row: CsvRow) -> tuple[Software, tuple[Scenario, ...]]:
    """Return the scenarios of a row: one, or every legal choice of a field it does not publish.

    Choices that do not fit are left out, unless none fits.

    Raises:
        PlanError: the plan of the row is illegal.
    """
    shape = shape_of(row)
    software = software_of(row)
    degrees = degrees_of(row)
    fixed = fixed_fields(row, shape, software, degrees)
    policy = row.get("recompute", "")
    policies = CANDIDATE_RECOMPUTE.get(policy, (policy,))
    found = []
    for micro in micro_batches_of(row, degrees["dp"]):
        for vpp in chunks_of(row, shape.num_hidden_layers):
            schedule = SCHEDULES.index(schedule_of(software, vpp))
            choice = {**fixed, "micro_batch_size": micro, "vpp": vpp, "schedule": schedule}
            options = [Scenario(**choice, **recompute_fields(policy)) for policy in policies]
            found.append(least_recompute(options))
    return software, fitting_scenarios(found)


def fixed_fields(
    row: CsvRow, shape: Shape, software: Software, degrees: dict[str, int]
) -> dict[str, Any]:
    """Return the fields of a scenario that a row always states.

    Args:
        row: of the CSV.
        shape: of its network.
        software: that it ran on.
        degrees: of parallelism, see `degrees_of`.
    """
    accelerator = links_of(row, card_of(row["gpu"]))
    fixed = {
        **network(shape),
        **software.fields(),
        **accelerator_fields(accelerator, precision_of(row)),
        **degrees,
        **sharding_of(row, degrees),
        "seq_len": whole(row, "seq", 1),
        "batch_size": whole(row, "global_batch", 1),
        "sequence_parallel": sequence_parallel_of(row, software),
    }
    if "unfused softmax" in row["notes"]:
        fixed["kernel"] = UNALIGNED_SOFTMAX
    return fixed


def fitting_scenarios(found: list[Scenario]) -> tuple[Scenario, ...]:
    """Return the scenarios that fit in memory; all of them if none does."""
    fit = np.atleast_1d(memory.fits(stack(found)))
    if not fit.any():
        return tuple(found)
    return tuple(scenario for scenario, fits in zip(found, fit, strict=True) if fits)


def degrees_of(row: CsvRow) -> dict[str, int]:
    """Return the degrees of parallelism of a row.

    Raises:
        PlanError: their product is not the number of GPUs.
    """
    gpus = whole(row, "n_gpus", 1)
    tp = whole(row, "tp", 1)
    pp = whole(row, "pp", 1)
    cp = whole(row, "cp", 1)
    dp = whole(row, "dp", max(gpus // (tp * pp * cp), 1))
    ranks = tp * pp * cp * dp
    if ranks != gpus:
        raise PlanError(
            f"tp {tp} x pp {pp} x cp {cp} x dp {dp} is {ranks}, not the {gpus} GPUs of the row"
        )
    ep = whole(row, "ep", 1)
    return {"world_size": gpus, "tp": tp, "pp": pp, "cp": cp, "dp": dp, "ep": ep}


def sharding_of(row: CsvRow, degrees: dict[str, int]) -> dict[str, int]:
    """Return the ZeRO stage of a row and the ranks that share one copy."""
    zero, ranks = zero_of(row)
    shard = ranks or degrees["dp"] * degrees["cp"]
    return {"zero": zero, "shard": shard if zero else 1}


def sequence_parallel_of(row: CsvRow, software: Software) -> int:
    """Return whether a row uses sequence parallelism, by default as its software does."""
    if number(row, "seq_parallel") is not None:
        return whole(row, "seq_parallel", 0)
    return int(software.sequence_parallel and whole(row, "tp", 1) > 1)


def micro_batches_of(row: CsvRow, dp: int) -> list[int]:
    """Return the micro-batch of a row, or every one that the batch has room for.

    Args:
        row: of the CSV.
        dp: data-parallel ranks of the row.

    Raises:
        PlanError: the batch is smaller than the mesh.
    """
    batch_size = whole(row, "global_batch", 1)
    options = [micro for micro in MICRO_BATCHES if micro * dp <= batch_size]
    if number(row, "micro_batch"):
        options = [whole(row, "micro_batch", 0)]
    if options and options[0] * dp > batch_size:
        raise PlanError(
            f"batch {batch_size} is smaller than the mesh: "
            f"micro_batch {options[0]} x dp {dp}; the least is {options[0] * dp}"
        )
    return options


def chunks_of(row: CsvRow, layers: int) -> list[int]:
    """Return the model chunks of a stage, or every legal number up to 8.

    Args:
        row: of the CSV.
        layers: of the network.
    """
    if number(row, "vpp"):
        return [whole(row, "vpp", 0)]
    pp = whole(row, "pp", 1)
    if pp == 1 or row["source"].endswith("-oom"):
        return [1]
    options = range(1, MOST_CHUNKS + 1)
    if layers % pp == 0:
        return [v for v in options if layers % (pp * v) == 0]
    fullest_stage = -(-layers // pp)
    return [v for v in options if v <= fullest_stage]


def schedule_of(software: Software, vpp: int) -> str:
    """Return the pipeline schedule of a row.

    DeepSeek's framework runs DualPipe; more than one chunk means interleaving.
    """
    if software.framework == "hai-llm":
        return "dualpipe"
    return "interleaved" if vpp > 1 else "1f1b"


def least_recompute(options: list[Scenario]) -> Scenario:
    """Return the cheapest policy that fits with head-room; the last one if none does."""
    fit = np.atleast_1d(memory.fits(stack(options), margin=HEADROOM))
    return options[int(np.argmax(fit))] if fit.any() else options[-1]
