"""Small networks and scenarios with round numbers, so that a test can work out by hand what a term must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.plan import Layout, Workload
from tumen.plan.facts import Accelerator, cards
from tumen.plan.layout import scenario_of
from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import Scenario, stack


def dense(layers: int = 12, heads: int = 8, head_dim: int = 64, **fields: object) -> Shape:
    """A Llama-like network: grouped queries, gated feed-forward, separate embedding and head."""
    hidden = heads * head_dim
    attention = Gqa(
        num_attention_heads=heads, num_key_value_heads=max(heads // 4, 1), head_dim=head_dim
    )
    values = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * hidden,
        "vocab_size": 4096,
        "tie_word_embeddings": False,
        "attention": attention,
        **fields,
    }
    return Shape(**values)


def mixture(layers: int = 9, heads: int = 4, routed: int = 8, **fields: object) -> Shape:
    """A DeepSeek-like network: latent attention, one dense layer, then routed and shared experts."""
    attention = Mla(
        num_attention_heads=heads,
        kv_lora_rank=64,
        q_lora_rank=96,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
    )
    experts = Experts(
        n_routed_experts=routed,
        num_experts_per_tok=2,
        moe_intermediate_size=128,
        n_shared_experts=1,
        first_k_dense_replace=1,
    )
    values = {
        "hidden_size": 256,
        "num_hidden_layers": layers,
        "intermediate_size": 1024,
        "vocab_size": 4096,
        "attention": attention,
        "experts": experts,
        **fields,
    }
    return Shape(**values)


def workload(
    shape: Shape | None = None, seq_len: int = 2048, batch_size: int = 24, **fields: object
) -> Workload:
    """A training run of a billion tokens."""
    return Workload(shape or dense(), seq_len, batch_size, 1e9, **fields)


def one_scenario(
    layout: Layout | None = None,
    asked: Workload | None = None,
    accelerator: Accelerator | None = None,
    **changes: float,
) -> Scenario:
    """A table of one scenario, with its fields changed directly."""
    chosen = accelerator or cards()["a100"]
    single = scenario_of(asked or workload(), layout or Layout(), chosen)
    return stack([single.changed(**changes)])


def number(value: object) -> float:
    """The one number of a table with one scenario."""
    return float(np.asarray(value).reshape(-1)[0])


# Constants under which each resource reaches its peak and nothing is hidden or added: what remains of
# a term is its formula. Tests change one constant at a time.
PLAIN = Physics(
    matmul_ampere=1.0,
    matmul_hopper=1.0,
    matmul_blackwell=1.0,
    matmul_other=1.0,
    matmul8_hopper=1.0,
    matmul8_blackwell=1.0,
    matmul4=1.0,
    matmul8_row=1.0,
    knee=0.0,
    knee_power=0.0,
    grouped=1.0,
    flash1=1.0,
    flash2=1.0,
    flash3=1.0,
    flash_hopper=1.0,
    flash_blackwell=1.0,
    head_knee=0.0,
    context_knee=0.0,
    batched=1.0,
    unaligned=1.0,
    softmax_unfused=1.0,
    score_bytes=1.0,
    memory=1.0,
    eager=1.0,
    compiled=1.0,
    permute=1.0,
    permute_fused=1.0,
    link=1.0,
    network=1.0,
    network_p2p=1.0,
    all_to_all=1.0,
    link_latency=0.0,
    network_latency=0.0,
    bucket_bytes=1e30,
    tp_hidden=0.0,
    tp_hidden_backward=0.0,
    tp_meet=0.0,
    cp_hidden=0.0,
    ep_hidden=0.0,
    fsdp_hidden=0.0,
    dp_hidden=0.0,
    dp_window=0.0,
    pp_hidden=0.0,
    pp_shown=1.0,
    launch=0.0,
    launch_tp=0.0,
    launch_moe=0.0,
    launch_moe_graph=0.0,
    launch_backward=0.0,
    step_overhead=0.0,
)


def plain(**constants: float) -> Physics:
    """`PLAIN` with some constants set."""
    return replace(PLAIN, **constants)
