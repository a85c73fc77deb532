"""The search against an oracle that tries every combination of integers: nothing illegal, nothing forgotten."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.plan import oracle
from tests.plan.networks import dense, mixture
from tests.plan.oracle import Question

from tumen.core.errors import PlanError
from tumen.core.shape import Gqa
from tumen.plan import Layout, Workload
from tumen.plan.facts import Accelerator, cards
from tumen.plan.layout import scenario_of
from tumen.plan.model import memory, step
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import stack
from tumen.plan.search import search
from tumen.plan.space import layout_of, layouts, space_of

# Small enough to try everything, and between them every rule decides something.
QUESTIONS = {
    "dense on an even cluster": Question(dense(12), 2048, 24, 12),
    "odd stages and odd micro-batches": Question(dense(6), 2048, 45, 9),
    "idle GPUs": Question(dense(10), 2048, 20, 11),
    "uneven stages": Question(dense(7), 1024, 16, 8),
    "a long context": Question(dense(4), 32768, 8, 8),
    "a context that tensor ranks do not divide": Question(dense(4), 1028, 16, 8),
    "a context that tensor ranks divide only whole": Question(dense(4), 16392, 16, 16),
    "latent attention and experts": Question(mixture(9), 4096, 16, 8),
    "experts beside an odd cluster": Question(mixture(5, routed=6), 4096, 18, 6),
    "a small domain of fast links": Question(dense(4), 2048, 16, 8, domain=4),
}


def named(name: str) -> Question:
    return QUESTIONS[name]


def asked(question: Question) -> Workload:
    return Workload(question.shape, question.seq_len, question.batch_size, 1e9, name="small")


def card_of(question: Question, memory_bytes: float = 85e9) -> Accelerator:
    card = cards()["a100"]
    return replace(card, node=question.domain, domain=question.domain, memory_bytes=memory_bytes)


@cache
def expected(name: str) -> tuple[Layout, ...]:
    return tuple(oracle.legal_layouts(named(name)))


def proposed(name: str) -> list[Layout]:
    """Every layout the search would consider."""
    question = named(name)
    space = space_of(asked(question), card_of(question), question.gpus)
    return [layout_of(np.array(row)) for row in layouts(asked(question), question.gpus, space)]


@pytest.mark.parametrize("name", QUESTIONS)
def test_everything_proposed_is_legal(name: str) -> None:
    for layout in proposed(name):
        assert not oracle.broken(named(name), layout), layout
        assert not oracle.unwanted(named(name), layout), layout


@pytest.mark.parametrize("name", QUESTIONS)
def test_everything_legal_is_proposed_once(name: str) -> None:
    found = proposed(name)
    assert len(set(found)) == len(found)
    assert set(found) == set(expected(name))


def step_and_bytes(
    name: str, card: Accelerator
) -> tuple[tuple[Layout, ...], np.ndarray, np.ndarray]:
    """Seconds and bytes of every legal layout, each made into a scenario on its own."""
    legal = expected(name)
    scenarios = stack([scenario_of(asked(named(name)), layout, card) for layout in legal])
    found = memory.peak(scenarios)
    # what a plan must leave room for beside the allocator: flat buckets and the CUDA context
    return legal, step.step_time(scenarios, fitted()).step, found.total + found.buffers + 1e9


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_fastest_legal_layout_is_found(name: str) -> None:
    card = card_of(named(name))
    legal, seconds, size = step_and_bytes(name, card)
    best = float(np.min(seconds[size <= 0.92 * card.memory_bytes]))
    found = search(asked(named(name)), card, named(name).gpus)
    assert found.seconds[0] == pytest.approx(best, rel=1e-12)
    again = step.step_time(
        stack([scenario_of(asked(named(name)), found.layouts[0], card)]), fitted()
    )
    assert float(again.step[0]) == pytest.approx(best, rel=1e-12)
    assert found.layouts[0] in legal


@pytest.mark.parametrize("name", ["dense on an even cluster", "latent attention and experts"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_eight_percent_of_memory_stay_free(name: str, share: float) -> None:
    """A card just too small by the head-room for its fastest layout gets the fastest that leaves it."""
    _, seconds, size = step_and_bytes(name, card_of(named(name)))
    # a card that the layout at this rank of size would fill to 96 %
    memory_bytes = float(np.sort(size)[int(share * (len(size) - 1))]) / 0.96
    card = card_of(named(name), memory_bytes)
    fits = size <= 0.92 * memory_bytes
    crowded = (size <= memory_bytes) & ~fits
    assert crowded.any(), "the test needs a layout that fits only without head-room"
    found = search(asked(named(name)), card, named(name).gpus, top=len(size))
    assert found.seconds[0] == pytest.approx(float(np.min(seconds[fits])), rel=1e-12)
    assert found.too_large == int((~fits).sum())


def test_head_room_can_decide() -> None:
    """On one memory size the fastest layout fits the card and is still refused for its head-room."""
    name = "dense on an even cluster"
    _, seconds, size = step_and_bytes(name, card_of(named(name)))
    fastest = int(np.argmin(seconds))
    card = card_of(named(name), float(size[fastest]) / 0.95)
    found = search(asked(named(name)), card, named(name).gpus)
    assert found.seconds[0] > float(seconds[fastest])
    roomy = replace(card, memory_bytes=float(size[fastest]) / 0.91)
    assert search(asked(named(name)), roomy, named(name).gpus).seconds[0] == pytest.approx(
        float(seconds[fastest])
    )


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_layout_of_the_oracle_is_accepted_one_by_one(name: str) -> None:
    """`scenario_of` checks a layout that a user wrote; it must not refuse what the search may propose."""
    card = card_of(named(name))
    for layout in expected(name)[::7]:
        scenario_of(asked(named(name)), layout, card)


@pytest.mark.parametrize(
    ("layout", "rule"),
    [
        (Layout(tp=3, dp=2, sequence_parallel=True), "cuts a head"),
        (Layout(dp=5), "whole micro-batches"),
        (Layout(dp=24, micro_batch=2), "whole micro-batches"),
        (Layout(pp=3, dp=4, schedule="dualpipe"), "even number of stages"),
        (Layout(pp=2, dp=4, micro_batch=2, schedule="dualpipe"), "even number of micro-batches"),
        (Layout(pp=4, dp=3, micro_batch=2, schedule="dualpipe"), "two micro-batches a stage"),
        (Layout(pp=4, dp=2, zero=3), "ZeRO-3 in a pipeline"),
        (Layout(pp=4, dp=2, vpp=2), "only the interleaved"),
        (Layout(pp=4, dp=3, vpp=2, micro_batch=4, schedule="interleaved"), "whole rounds"),
        (Layout(pp=4, dp=2, schedule="interleaved"), "only the interleaved"),
        (Layout(pp=4, dp=2, vpp=4, schedule="interleaved"), "without a layer"),
        (Layout(dp=2, schedule="zero-bubble"), "without a pipeline"),
        (Layout(dp=13), "more ranks"),
        (Layout(dp=2, ep=2), "without experts"),
        (Layout(dp=2, recompute="layernorm,moe"), "experts that are not there"),
        (Layout(dp=2, recompute="rmsnorm+mla-up"), "projections that are not there"),
    ],
)
def test_the_oracle_knows_each_rule(layout: Layout, rule: str) -> None:
    """A rule that never fires would make the comparison above worthless."""
    question = Question(dense(12), 2048, 24, 12)
    found = oracle.broken(question, layout)
    assert any(rule in reason for reason in found), found


def test_each_promise_of_the_planner_decides_something() -> None:
    """Every promise of docs/plan.md leaves out at least one layout that a framework would run."""
    left_out = set()
    for name in ("idle GPUs", "a long context", "uneven stages", "a small domain of fast links"):
        question = named(name)
        for layout in oracle.every_layout(question):
            reasons = oracle.unwanted(question, layout)
            if len(reasons) == 1 and not oracle.broken(question, layout):
                left_out.add(reasons[0])
    assert {
        "more than a quarter of the GPUs are idle",
        "tensor parallelism stays on the fast links",
        "a rank keeps 8,192 tokens of a sequence",
        "a micro-batch is a power of two",
    } <= left_out


def test_a_question_without_an_answer_says_why() -> None:
    """Seven GPUs, a batch of five: every replica count wastes more than a quarter."""
    job = Workload(dense(1, heads=1), 2048, 5, 1e9, name="odd")
    with pytest.raises(PlanError, match="batch 5 is not divided by any mesh of 7 accelerators"):
        search(job, card_of(Question(job.shape, 2048, 5, 7)), 7)


def test_keys_and_values_are_not_asked_to_divide() -> None:
    """Megatron copies key-value heads to the ranks when there are fewer than ranks: heads decide."""
    shape = dense(4).model_copy(
        update={"attention": Gqa(num_attention_heads=8, num_key_value_heads=1, head_dim=64)}
    )
    space = space_of(Workload(shape, 2048, 8, 1e9), cards()["a100"], 8)
    assert space.tensor == (1, 2, 4, 8)
