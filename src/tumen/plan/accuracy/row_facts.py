"""One row of a CSV of published runs: network, accelerator, software and layout from its cells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.plan.facts import Accelerator, Software, software
from tumen.plan.facts.software import framework_of

CsvRow = Mapping[str, str]

# Latent attention takes DeepSeek's ranks, and its routing DeepSeek-V3's limit of nodes: no column
# has them.
KV_LORA_RANK = 512
Q_LORA_RANK = 1536
DEEPSEEK_NODES = 4
NVL72_DOMAIN = 72
BITS_TO_BYTES = 0.125


def number(row: CsvRow, name: str) -> float | None:
    """Return a numeric cell, or None when it is empty.

    Raises:
        ValueError: the cell is not a finite number from 0.
    """
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not a number") from None
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {text}; it must be a finite number from 0")
    return value


def whole(row: CsvRow, name: str, default: int) -> int:
    """Return a count, or the default when the cell is empty or 0."""
    value = number(row, name)
    return int(value) if value else default


# ---------------------------------------------------------------------- network


def shape_of(row: CsvRow) -> Shape:
    """Return the network of a row.

    A gated feed-forward is taken for a Llama, a plain one for a GPT with tied tables, biases and
    learned positions.
    """
    width = whole(row, "hidden", 1)
    gated = whole(row, "ffn_gated", 0) == 1
    return Shape(
        hidden_size=width,
        num_hidden_layers=whole(row, "layers", 1),
        intermediate_size=whole(row, "ffn", 4 * width),
        attention=attention_of(row),
        experts=experts_of(row),
        vocab_size=whole(row, "vocab", 0),
        tie_word_embeddings=not gated,
        gated=gated,
        biases=not gated,
        n_positions=0 if gated else whole(row, "seq", 0),
        num_nextn_predict_layers=predict_layers_of(row["model"]),
    )


def attention_of(row: CsvRow) -> Mla | Gqa:
    """Return the attention of a row: latent if its column starts with `mla`."""
    heads = whole(row, "heads", 1)
    head_dim = whole(row, "head_dim", whole(row, "hidden", 1) // heads)
    if row["attention"].startswith("mla"):
        return Mla(
            num_attention_heads=heads,
            kv_lora_rank=KV_LORA_RANK,
            q_lora_rank=Q_LORA_RANK,
            qk_nope_head_dim=head_dim,
            v_head_dim=head_dim,
        )
    kv_heads = whole(row, "kv_heads", heads)
    return Gqa(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim)


def experts_of(row: CsvRow) -> Experts | None:
    """Return the experts of a row, or None if it is dense."""
    if not number(row, "n_experts"):
        return None
    feed_forward = whole(row, "ffn", 4 * whole(row, "hidden", 1))
    width = whole(row, "moe_ffn", feed_forward)
    most_dense = whole(row, "layers", 1) - 1
    return Experts(
        n_routed_experts=whole(row, "n_experts", 1),
        num_experts_per_tok=whole(row, "topk", 1),
        moe_intermediate_size=width,
        n_shared_experts=whole(row, "n_shared_ffn", 0) // width,
        first_k_dense_replace=min(whole(row, "dense_layers", 0), most_dense),
        topk_group=DEEPSEEK_NODES if "DeepSeek" in row["model"] else 0,
    )


def predict_layers_of(model: str) -> int:
    """Return the multi-token-prediction layers: DeepSeek-V3 has one unless its name says not."""
    has_one = "DeepSeek-V3" in model or "DeepSeekV3" in model
    left_out = "w/o MTP" in model or "cut to" in model
    return 1 if has_one and not left_out else 0


# ---------------------------------------------------------------------- layout


def zero_of(row: CsvRow) -> tuple[int, int]:
    """Return (ZeRO stage, ranks of one copy); 0 ranks means the whole data-parallel group."""
    text = row.get("zero_fsdp", "").lower()
    found = re.search(r"in-node\((\d+)\)|fsdp-(\d+)", text)
    ranks = int(found[1] or found[2]) if found else 0
    if text.startswith("hsdp"):
        return 3, whole(row, "gpus_per_node", 8)
    zero3 = "zero3" in text
    # FSDP in a pipeline gathers its weights once a step: as ZeRO-2
    once_a_step = "fsdp" in text and whole(row, "pp", 1) > 1 and not zero3
    if "zero2" in text or once_a_step:
        return 2, ranks
    if zero3 or "fsdp" in text:
        return 3, ranks
    if "zero1" in text:
        return 1, ranks
    return 0, 0


def precision_of(row: CsvRow) -> str:
    """Return the format of the matmuls: bf16, fp8, fp8-row or fp4."""
    text = row.get("precision", "").lower()
    if "rowwise" in text:
        return "fp8-row"
    if "fp4" in text:
        return "fp4"
    if "fp8" in text or "cs default" in text:
        return "fp8"
    return "bf16"


# ---------------------------------------------------------------------- accelerator and software


def links_of(row: CsvRow, accelerator: Accelerator) -> Accelerator:
    """Return the accelerator with the network that the row states.

    `8x200Gb/s` and `1600Gb/s` are figures of a node of `gpus_per_node`, `400Gb/s per GPU` of one
    accelerator. What follows the last `+` is the network.
    """
    text = row.get("interconnect", "")
    node = whole(row, "gpus_per_node", accelerator.node)
    domain = accelerator.domain if accelerator.domain > 8 else node
    if "NVL72" in text:
        domain = NVL72_DOMAIN
    accelerator = replace(accelerator, node=node, domain=domain)
    rate = network_rate(text, node)
    if rate is None:
        return accelerator
    return replace(accelerator, nic_rate=rate)


def network_rate(text: str, node: int) -> float | None:
    """Return the bytes a second of one accelerator's network; None where the text has none.

    Args:
        text: the cell `interconnect`.
        node: accelerators of a node.
    """
    network = text.split("+")[-1]
    found = re.search(r"(?:(\d+)\s*x\s*)?(\d+(?:\.\d+)?)\s*(Gb|GB)/s", network)
    only_link = "bidir" in text and "+" not in text
    if not found or only_link:
        return None
    count, figure, unit = found.groups()
    rate = float(figure) * 1e9
    if unit == "Gb":
        rate *= BITS_TO_BYTES
    if "per GPU" not in text:
        rate *= float(count or 1) / node
    return rate


def software_of(row: CsvRow) -> Software:
    """Return framework and release of a row; its notes change some facts."""
    framework = framework_of_row(row)
    found = software(framework, row.get("published", ""))
    notes = row.get("notes", "")
    if row["attention"] == "mha-unfused":
        found = replace(found, kernel="unfused")
    if framework == "torchtitan":
        if notes.startswith("eager"):
            found = replace(found, fusion="eager", loss_bytes=10)
        found = replace(found, tp_overlap="AsyncTP" in notes)
    if framework == "megatron-deepspeed" and row.get("precision", "") == "bf16":
        # its bf16 optimizer adds gradients up in fp32
        found = replace(found, reduce_bytes=4, gradient_bytes=4)
    return found


def framework_of_row(row: CsvRow) -> str:
    """Return the framework of a row; two sources print several frameworks in one table."""
    if "(ZeRO-3)" in row["model"]:
        return "deepspeed-zero"
    if "(MegaScale)" in row["model"]:
        return "megascale"
    framework = framework_of(row["source"])
    if "sc21-t2" in row["source"] and framework == "default":
        return "megatron-lm"
    return framework
