"""Bytes: published formulas and peaks."""

from __future__ import annotations

import numpy as np
import pytest

from tumen.core.shape import Gqa, Shape
from tumen.plan import Job, Layout
from tumen.plan.facts import cards
from tumen.plan.facts.software import software
from tumen.plan.job import case_of
from tumen.plan.model import memory
from tumen.plan.model.case import stack


def test_activations_are_korthikantis(gpt3: Shape) -> None:
    """s b h (34 + 5 a s / h) a layer without parallelism, 34 / t with sequence parallelism (arXiv 2205.05198, table
    2).
    """
    job = Job(gpt3, 2048, 8, 1e9, soft=software("megatron-lm", "2022-05"))
    plain = stack([case_of(job, Layout(dp=1), cards()["a100"])])
    sbh = 2048 * 12288
    assert memory.layer_activations(plain, 0.0)[0] == pytest.approx(
        sbh * (34 + 5 * 96 * 2048 / 12288)
    )
    split = stack(
        [case_of(job, Layout(tp=8, recompute="selective", sequence_parallel=True), cards()["a100"])]
    )
    assert memory.layer_activations(split, 0.0)[0] == pytest.approx(sbh * 34 / 8)


def test_a_published_peak() -> None:
    """Llama 3 70B cut to 12 layers, tp 8 on 8 B200, Megatron-LM 0.14: 30.38 GB allocated (SimuMax's table)."""
    attention = Gqa(num_attention_heads=64, num_key_value_heads=8, head_dim=128)
    shape = Shape(
        hidden_size=8192,
        num_hidden_layers=12,
        intermediate_size=28672,
        attention=attention,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
    job = Job(shape, 4096, 4, 1e9, soft=software("megatron-core-plain", "2026-05"))
    case = stack([case_of(job, Layout(tp=8, dp=1, sequence_parallel=True), cards()["b200"])])
    assert memory.peak(case).total[0] / 1e9 == pytest.approx(30.38, rel=0.02)


def test_more_sharding_is_never_more_bytes(gpt3_job: Job) -> None:
    totals = []
    for zero in (0, 1, 2, 3):
        case = stack(
            [case_of(gpt3_job, Layout(tp=8, dp=64, zero=zero, recompute="full"), cards()["a100"])]
        )
        totals.append(float(memory.peak(case).total[0]))
    assert totals == sorted(totals, reverse=True)


def test_first_stages_hold_more_micro_batches(gpt3_job: Job) -> None:
    case = stack([case_of(gpt3_job, Layout(tp=8, pp=8, dp=2), cards()["a100"])])
    held = [float(memory.stage_bytes(case, np.array([float(i)])).activations[0]) for i in range(8)]
    assert held == sorted(held, reverse=True)
    assert held[0] == pytest.approx(8 * held[-1])


def test_experts_live_on_the_last_stages(v2_job: Job) -> None:
    """The dense layer of DeepSeek-V2 is its first one: the first of two stages holds fewer expert weights."""
    case = stack([case_of(v2_job, Layout(pp=2, dp=8, ep=8), cards()["h800"])])
    first, second = (memory.stage_layers(case, np.array([float(i)])) for i in (0, 1))
    assert first[1][0] == pytest.approx(29 / 30)
    assert second[1][0] == 1.0
