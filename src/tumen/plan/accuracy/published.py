"""Published runs: rows of a CSV in the columns of the truth file -> cases, or the reason why a row is refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tumen.core.errors import InputError, PlanError, TumenError
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.plan.facts.card import Card, card_of
from tumen.plan.facts.software import Software, framework_of, software
from tumen.plan.job import card_fields, recompute_of
from tumen.plan.model import memory
from tumen.plan.model.case import Case, network, stack

Row = Mapping[str, str]
HEADROOM = 0.10  # what an operator leaves free for fragments when choosing what to recompute
# what a vague or missing policy may stand for, cheapest first: the first that fits is taken
CANDIDATE_RECOMPUTE = {
    "": ("none", "norm,act", "layernorm,moe", "full"),
    "selective(block)": ("selective(block)", "two of three(block)", "full"),
}


@dataclass(frozen=True)
class Published:
    """One readable row: its single cases (several where a field is not published) and what was measured."""

    id: str
    source: str
    model: str
    software: Software
    cases: tuple[Case, ...]
    seconds: float | None
    memory_bytes: float | None
    memory_kind: str  # "allocated" | "reserved" | "driver"
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


def read(path: Path) -> tuple[list[Published], list[Refused]]:
    """Rows of a CSV file.

    Raises:
        InputError: no such file, or it lacks the columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; give a CSV in the columns of docs/plan.md"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error})") from None
    missing = [
        name
        for name in ("id", "source", "gpu", "n_gpus", "tp", "global_batch")
        if rows and name not in rows[0]
    ]
    if not rows or missing:
        what = f"lacks the columns {', '.join(missing)}" if missing else "has no rows"
        raise InputError(f"{path}: {what}; give a CSV in the columns of docs/plan.md")
    taken, refused = [], []
    for row in rows:
        found = published(row)
        if isinstance(found, Published):
            taken.append(found)
        else:
            refused.append(found)
    return taken, refused


def published(row: Row) -> Published | Refused:
    """One row, or why not."""
    oom = "OOM" in row.get("notes", "") or row["source"].endswith("-oom")
    try:
        seconds = number(row, "target_step_s") or number(row, "step_time_s")
        weight = number(row, "memory_GB_per_gpu")
        reason = missing(row)
        if not (reason or seconds or weight or oom):
            reason = "neither a step time nor a memory figure is published"
        if reason:
            return Refused(row["id"], row["source"], reason)
        soft, cases = cases_of(row)
    except (TumenError, ValueError) as error:
        return Refused(row["id"], row["source"], " ".join(str(error).split())[:160])
    kind = (
        "driver"
        if "nvidia-smi" in row["notes"]
        else "reserved"
        if soft.framework == "torchtitan"
        else "allocated"
    )
    gigabyte = 2.0**30 if kind == "driver" else 1e9
    named = all(row.get(name) for name in ("tp", "pp", "dp", "micro_batch", "global_batch"))
    zero = zero_of(row)[0]
    return Published(
        id=row["id"],
        source=row["source"],
        model=row["model"],
        software=soft,
        cases=cases,
        seconds=seconds,
        memory_bytes=weight * gigabyte if weight else None,
        memory_kind=kind,
        out_of_memory=oom,
        dense=not number(row, "n_experts"),
        plan_published=named,
        sharded=zero >= 3,
    )


def missing(row: Row) -> str:
    """Which facts a prediction needs and the row lacks, as one reason; empty when none."""
    network_names = [
        name for name in ("layers", "hidden", "heads", "vocab", "seq") if not number(row, name)
    ]
    if network_names:
        return f"the network is not published: {', '.join(network_names)}"
    plan_names = [name for name in ("n_gpus", "tp", "pp", "global_batch") if not number(row, name)]
    return f"the plan is not published: {', '.join(plan_names)}" if plan_names else ""


def number(row: Row, name: str) -> float | None:
    """A numeric cell, or None when it is empty.

    Raises:
        ValueError: the cell holds something else.
    """
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, no number") from None
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} is {text}; it must be a finite number from 0")
    return value


def whole(row: Row, name: str, default: int) -> int:
    """A count, or the default when the cell is empty."""
    value = number(row, name)
    return int(value) if value else default


def shape_of(row: Row) -> Shape:
    """The network of a row. Latent attention takes DeepSeek's ranks, which the columns have no room for."""
    heads, width = whole(row, "heads", 1), whole(row, "hidden", 1)
    head_dim = whole(row, "head_dim", width // heads)
    attention: Mla | Gqa
    if row["attention"].startswith("mla"):
        attention = Mla(
            num_attention_heads=heads,
            kv_lora_rank=512,
            q_lora_rank=1536,
            qk_nope_head_dim=head_dim,
            v_head_dim=head_dim,
        )
    else:
        attention = Gqa(
            num_attention_heads=heads,
            num_key_value_heads=whole(row, "kv_heads", heads),
            head_dim=head_dim,
        )
    gated = whole(row, "ffn_gated", 0) == 1
    experts = None
    if number(row, "n_experts"):
        expert_width = whole(row, "moe_ffn", whole(row, "ffn", 4 * width))
        experts = Experts(
            n_routed_experts=whole(row, "n_experts", 1),
            num_experts_per_tok=whole(row, "topk", 1),
            moe_intermediate_size=expert_width,
            n_shared_experts=whole(row, "n_shared_ffn", 0) // expert_width,
            first_k_dense_replace=min(whole(row, "dense_layers", 0), whole(row, "layers", 1) - 1),
            topk_group=4 if "DeepSeek" in row["model"] else 0,
        )
    named = row["model"]
    mtp = "DeepSeek-V3" in named or "DeepSeekV3" in named
    return Shape(
        hidden_size=width,
        num_hidden_layers=whole(row, "layers", 1),
        intermediate_size=whole(row, "ffn", 4 * width),
        attention=attention,
        experts=experts,
        vocab_size=whole(row, "vocab", 0),
        tie_word_embeddings=not gated,
        gated=gated,
        biases=not gated,
        n_positions=0 if gated else whole(row, "seq", 0),
        num_nextn_predict_layers=1
        if mtp and "w/o MTP" not in named and "cut to" not in named
        else 0,
    )


def zero_of(row: Row) -> tuple[int, int]:
    """(stage, ranks of one copy) of the sharding column; ranks 0 means all of the data-parallel group."""
    text = row.get("zero_fsdp", "").lower()
    found = re.search(r"in-node\((\d+)\)|fsdp-(\d+)", text)
    ranks = int(next(g for g in found.groups() if g)) if found else 0
    if text.startswith("hsdp"):
        return 3, whole(row, "gpus_per_node", 8)
    if "zero2" in text or ("fsdp" in text and whole(row, "pp", 1) > 1 and "zero3" not in text):
        return 2, ranks  # a pipeline gathers its weights once a step
    if "zero3" in text or "fsdp" in text:
        return 3, ranks
    return (1, ranks) if "zero1" in text else (0, 0)


def precision_of(row: Row) -> str:
    """bf16, fp8, fp8-row or fp4 matmuls."""
    text = row.get("precision", "").lower()
    if "rowwise" in text:
        return "fp8-row"
    return "fp4" if "fp4" in text else "fp8" if "fp8" in text or "cs default" in text else "bf16"


def links_of(row: Row, card: Card) -> Card:
    """The card with the network the row names: `8x200Gb/s` a node of `gpus_per_node`, `400Gb/s per GPU`, `1600Gb/s`."""
    text = row.get("interconnect", "")
    node = whole(row, "gpus_per_node", card.node)
    card = replace(
        card, node=node, domain=72 if "NVL72" in text else card.domain if card.domain > 8 else node
    )
    found = re.search(r"(?:(\d+)\s*x\s*)?(\d+(?:\.\d+)?)\s*(Gb|GB)/s", text.split("+")[-1])
    if not found or ("bidir" in text and "+" not in text):
        return card
    rate = float(found[2]) * 1e9 * (1.0 if found[3] == "GB" else 0.125)
    each = rate if "per GPU" in text else rate * float(found[1] or 1) / node
    return replace(card, nic_rate=each)


def software_of(row: Row) -> Software:
    """Framework and release of a row; two sources print several frameworks in one table."""
    framework = framework_of(row["source"])
    if "(MegaScale)" in row["model"]:
        framework = "megascale"
    if "(ZeRO-3)" in row["model"]:
        framework = "deepspeed-zero"
    if "sc21-t2" in row["source"] and framework == "default":
        framework = "megatron-lm"
    found = software(framework, row.get("published", ""))
    notes, precision = row.get("notes", ""), row.get("precision", "")
    if row["attention"] == "mha-unfused":
        found = replace(found, kernel="unfused")
    if framework == "torchtitan":
        eager = notes.startswith("eager")
        found = replace(found, fused="eager", loss_bytes=10) if eager else found
        found = replace(found, tp_overlap="AsyncTP" in notes)
    if framework == "megatron-deepspeed" and precision == "bf16":
        found = replace(
            found, reduce_bytes=4, gradient_bytes=4
        )  # the bf16 optimizer adds gradients up in fp32
    return found


def cases_of(row: Row) -> tuple[Software, tuple[Case, ...]]:
    """The cases of a row: one, or every legal choice of a field it does not publish."""
    shape, soft = shape_of(row), software_of(row)
    card = links_of(row, card_of(row["gpu"]))
    cards_used = whole(row, "n_gpus", 1)
    tp, pp, cp = whole(row, "tp", 1), whole(row, "pp", 1), whole(row, "cp", 1)
    dp = whole(row, "dp", max(cards_used // (tp * pp * cp), 1))
    if tp * pp * cp * dp != cards_used:
        raise PlanError(
            f"tp {tp} x pp {pp} x cp {cp} x dp {dp} is {tp * pp * cp * dp}, not the {cards_used} cards of the row"
        )
    batch = whole(row, "global_batch", 1)
    micros = (
        [whole(row, "micro_batch", 0)]
        if number(row, "micro_batch")
        else [b for b in (1, 2, 4, 8) if b * dp <= batch]
    )
    chunks = (
        [whole(row, "vpp", 0)]
        if number(row, "vpp")
        else choices_of_chunks(shape.num_hidden_layers, pp, row)
    )
    if micros and micros[0] * dp > batch:
        raise PlanError(
            f"batch {batch} is smaller than the mesh: micro_batch {micros[0]} x dp {dp}; the least is {micros[0] * dp}"
        )
    zero, ranks = zero_of(row)
    precision = precision_of(row)
    fixed = {
        **network(shape),
        **soft.fields(),
        **card_fields(card, precision),
        "seq": whole(row, "seq", 1),
        "batch": batch,
        "cards": cards_used,
        "tp": tp,
        "pp": pp,
        "dp": dp,
        "ep": whole(row, "ep", 1),
        "cp": cp,
        "zero": zero,
        "shard": (ranks or dp * cp) if zero else 1,
        "sp": whole(row, "seq_parallel", 0)
        if number(row, "seq_parallel") is not None
        else soft.sequence_parallel and tp > 1,
    }
    if "unfused softmax" in row.get("notes", ""):
        fixed["kernel"] = 4
    dual = soft.framework == "hai-llm"
    found = []
    for b in micros:
        for v in chunks:
            options = [
                Case(
                    **fixed,
                    micro=b,
                    vpp=v,
                    schedule=3 if dual else 1 if v > 1 else 0,
                    **recompute_of(name),
                )
                for name in CANDIDATE_RECOMPUTE.get(row.get("recompute", ""), (row["recompute"],))
            ]
            found.append(least_recompute(options))
    fit = np.atleast_1d(memory.fits(stack(found)))
    return soft, tuple(case for case, ok in zip(found, fit, strict=True) if ok or not fit.any())


def choices_of_chunks(layers: int, pp: int, row: Row) -> list[int]:
    """Interleaving where it is not published: none and every divisor up to 8."""
    if pp == 1 or row["source"].endswith("-oom"):
        return [1]
    stage = -(-layers // pp)
    even = layers % pp == 0
    return [v for v in range(1, 9) if (layers % (pp * v) == 0 if even else v <= stage)]


def least_recompute(options: list[Case]) -> Case:
    """The cheapest policy that fits; the last one when none does."""
    fit = np.atleast_1d(memory.fits(stack(options), margin=HEADROOM))
    return options[int(np.argmax(fit))] if fit.any() else options[-1]
