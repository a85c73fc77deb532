"""Step time: physics first, then agreement of the scalar and the table form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tumen.core.errors import PlanError
from tumen.core.shape import Experts, Gqa, Mla, Shape
from tumen.plan import Layout, Workload
from tumen.plan.facts import cards
from tumen.plan.layout import scenario_of
from tumen.plan.model import bound, links, step
from tumen.plan.model.physics import NAMES, SHARES, Physics, fitted, from_vector, vector
from tumen.plan.model.scenario import stack

POWERS = st.sampled_from([1, 2, 4, 8])
SHAPES = (
    Shape(
        hidden_size=4096,
        num_hidden_layers=32,
        intermediate_size=11008,
        attention=Gqa(num_attention_heads=32, num_key_value_heads=8, head_dim=128),
        vocab_size=32000,
        tie_word_embeddings=False,
    ),
    Shape(
        hidden_size=2048,
        num_hidden_layers=24,
        intermediate_size=8192,
        attention=Mla(num_attention_heads=16, kv_lora_rank=512, q_lora_rank=768),
        experts=Experts(
            n_routed_experts=64,
            num_experts_per_tok=6,
            moe_intermediate_size=1408,
            n_shared_experts=2,
        ),
        vocab_size=102400,
    ),
)


@settings(max_examples=150)
@given(
    shape=st.sampled_from(SHAPES),
    card=st.sampled_from(sorted(cards())),
    tp=POWERS,
    pp=POWERS,
    dp=POWERS,
    ep=POWERS,
    micro=st.sampled_from([1, 2, 4]),
    recompute=st.sampled_from(["none", "norm,act", "full"]),
    precision=st.sampled_from(["bf16", "fp8"]),
    zero=st.sampled_from([0, 1, 3]),
)
def test_no_plan_beats_physics(
    shape, card, tp, pp, dp, ep, micro, recompute, precision, zero
) -> None:
    layout = Layout(
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        micro_batch=micro,
        recompute=recompute,
        zero=zero,
        sequence_parallel=tp > 1,
    )
    job = Workload(shape, 2048, 64, 1e9, precision)
    try:
        scenario = stack([scenario_of(job, layout, cards()[card])])
    except PlanError:
        return
    seconds = step.step_time(scenario, fitted()).step[0]
    assert np.isfinite(seconds)
    for name, limit in bound.terms(scenario).items():
        assert seconds >= np.asarray(limit).max(), name


def test_parts_add_up(gpt3_workload: Workload) -> None:
    layout = Layout(tp=8, pp=8, dp=16, micro_batch=1, sequence_parallel=True)
    found = step.step_time(stack([scenario_of(gpt3_workload, layout, cards()["a100"])]), Physics())
    parts = {
        k: v
        for k, v in found.rows().items()
        if k not in ("step", "stage_forward", "stage_backward")
    }
    assert sum(float(np.sum(value)) for value in parts.values()) == pytest.approx(
        float(found.step[0]), rel=0.02
    )


def test_a_table_is_its_rows(gpt3_workload: Workload) -> None:
    layouts = [Layout(tp=8, pp=p, dp=64 // p, micro_batch=1) for p in (1, 2, 4, 8)]
    scenarios = [scenario_of(gpt3_workload, layout, cards()["h100"]) for layout in layouts]
    together = step.step_time(stack(scenarios), fitted()).step
    alone = [float(step.step_time(stack([scenario]), fitted()).step[0]) for scenario in scenarios]
    assert together == pytest.approx(alone)


def test_megatron_175b_is_known(gpt3_workload: Workload) -> None:
    """Published: 24,3xx samples ... 1,024 A100s, batch 1,536, tp 8, pp 16, full recompute: about 32 s a step (138
    TFLOP/s).
    """
    layout = Layout(tp=8, pp=16, dp=8, micro_batch=1, recompute="full", zero=0)
    scenario = stack([scenario_of(gpt3_workload, layout, cards()["a100"])]).changed(
        kernel=0.0, dropout=1.0, dp_overlap=0.0, pp_overlap=0.0
    )
    assert float(step.step_time(scenario, fitted()).step[0]) == pytest.approx(32.0, rel=0.12)


def test_a_faster_link_never_hurts(gpt3_workload: Workload) -> None:
    scenario = stack([scenario_of(gpt3_workload, Layout(tp=8, pp=4, dp=4), cards()["h800"])])
    slow = step.step_time(scenario, fitted()).step[0]
    assert step.step_time(scenario.changed(link_rate=450e9), fitted()).step[0] <= slow
    assert step.step_time(scenario.changed(nic_rate=100e9), fitted()).step[0] <= slow


def test_a_group_sees_every_network_card_it_has(gpt3_workload: Workload) -> None:
    """tp 8 leaves one rank a node to the data-parallel group: one network card; tp 1 leaves eight."""
    scenario, physics = (
        stack([scenario_of(gpt3_workload, Layout(tp=8, dp=16), cards()["a100"])]),
        Physics(),
    )
    one = links.rate(scenario, physics, 16.0, 8.0)
    eight = links.rate(scenario, physics, 16.0, 1.0)
    inside = links.rate(scenario, physics, 8.0, 1.0)
    assert eight == pytest.approx(8 * one)
    assert inside == pytest.approx(300e9 * physics.link)


def test_vectors_of_constants_round_trip() -> None:
    again = from_vector(vector(fitted()))
    for name in NAMES:
        assert getattr(again, name) == pytest.approx(getattr(fitted(), name))
    assert all(0 < getattr(fitted(), name) < 1 for name in SHARES)
