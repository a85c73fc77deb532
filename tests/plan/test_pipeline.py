"""Pipelines: bubble and memory of the closed forms against schedules played operation by operation."""

from __future__ import annotations

import pytest
from tests.plan.networks import PLAIN, dense, number, one_scenario, plain, workload
from tests.plan.schedules import play_1f1b, play_interleaved

from tumen.plan import Layout
from tumen.plan.model import compute, memory, step, traffic
from tumen.plan.model.scenario import SCHEDULES

FORWARD, BACKWARD = 1.0, 2.0


def pipeline(stages: int, schedule: str = "1f1b", **changes: float):
    """A scenario whose only interesting part is its pipeline."""
    layout = Layout(pp=stages, schedule=schedule)
    return one_scenario(layout, workload(dense(24), batch_size=64), **changes)


@pytest.mark.parametrize("micro_batches", [4, 8, 13])
@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_bubble_of_1f1b(stages: int, micro_batches: int) -> None:
    """Every stage waits for the other stages' forward and backward once."""
    played = play_1f1b(micro_batches, [FORWARD] * stages, [BACKWARD] * stages)
    one = FORWARD + BACKWARD
    bubble = number(step.pipeline_bubble(pipeline(stages), stages * one, one, 0.0))
    assert micro_batches * one + bubble == pytest.approx(played.seconds)


@pytest.mark.parametrize("short", [0.25, 0.5, 1.0])
def test_bubble_with_a_shorter_last_stage(short: float) -> None:
    """The slowest stage sets the pace; the others are waited for once, a short one partly behind other work."""
    played = play_1f1b(16, [FORWARD] * 3 + [short], [BACKWARD] * 3 + [2 * short])
    slowest, total = 3.0, 3 * 3.0 + 3 * short
    bubble = number(step.pipeline_bubble(pipeline(4), total, slowest, 0.0))
    assert played.seconds <= 16 * slowest + bubble <= played.seconds + 3 * short


@pytest.mark.parametrize("long", [1.0, 1.5, 3.0])
def test_bubble_with_a_longer_last_stage(long: float) -> None:
    """The head makes the last stage the slowest: the others are waited for once, exactly."""
    played = play_1f1b(16, [FORWARD] * 3 + [long], [BACKWARD] * 3 + [2 * long])
    bubble = number(step.pipeline_bubble(pipeline(4), 3 * 3.0 + 3 * long, 3 * long, 0.0))
    assert 16 * 3 * long + bubble == pytest.approx(played.seconds)


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("stages", [2, 4])
def test_interleaving_divides_the_bubble(stages: int, chunks: int) -> None:
    """arXiv 2104.04473, section 2.2.2: (p - 1) / v of a stage's time."""
    micro_batches = 4 * stages
    played = play_interleaved(stages, micro_batches, chunks, FORWARD, BACKWARD)
    one = FORWARD + BACKWARD
    scenario = pipeline(stages, "interleaved", vpp=chunks)
    bubble = number(step.pipeline_bubble(scenario, stages * one, one, 0.0))
    assert micro_batches * one + bubble == pytest.approx(played.seconds)


def test_zero_bubble_keeps_a_third() -> None:
    """(p - 1) (F + B - 2 W), arXiv 2401.10241, table 1: F = W and B = 2 W leave one of three."""
    weight_gradient = FORWARD
    published = 7 * (FORWARD + BACKWARD - 2 * weight_gradient)
    scenario = pipeline(8, "zero-bubble")
    assert number(step.pipeline_bubble(scenario, 8 * 3.0, 3.0, 0.0)) == pytest.approx(published)


@pytest.mark.parametrize("stages", [2, 4, 8, 16])
def test_dualpipe_keeps_half_which_is_no_less_than_its_authors_say(stages: int) -> None:
    """(p / 2 - 1) (F&B + B - 3 W) by its README, with F&B = F + B where nothing overlaps."""
    scenario = pipeline(stages, "dualpipe")
    found = number(step.pipeline_bubble(scenario, stages * 3.0, 3.0, 0.0))
    assert found == pytest.approx((stages - 1) * 3.0 / 2)
    published = (stages / 2 - 1) * (FORWARD + BACKWARD + BACKWARD - 3 * FORWARD)
    assert found >= published


def test_sends_are_part_of_the_bubble_of_a_pipeline_only() -> None:
    assert number(step.pipeline_bubble(pipeline(4), 12.0, 3.0, 0.5)) == pytest.approx(9.5)
    assert number(step.pipeline_bubble(pipeline(1), 3.0, 3.0, 0.5)) == 0.0


def test_a_bubble_is_never_negative() -> None:
    """One overlong stage hides the others altogether."""
    assert number(step.pipeline_bubble(pipeline(2), 2.0, 3.0, 0.0)) == 0.0


def test_schedules_have_their_place_in_the_table() -> None:
    """The order of names is the order of bubble shares; a scenario holds the index."""
    assert SCHEDULES == ("1f1b", "interleaved", "zero-bubble", "dualpipe")


# ---------------------------------------------------------------------- memory in flight


@pytest.mark.parametrize("micro_batches", [2, 4, 8, 16])
@pytest.mark.parametrize("stages", [1, 2, 4, 8])
def test_micro_batches_in_flight_of_1f1b(stages: int, micro_batches: int) -> None:
    played = play_1f1b(micro_batches, [FORWARD] * stages, [BACKWARD] * stages)
    scenario = pipeline(stages, batch_size=float(micro_batches))
    for stage, most in enumerate(played.most_in_flight):
        assert number(memory.in_flight(scenario, float(stage))) == most


@pytest.mark.parametrize("chunks", [2, 3])
@pytest.mark.parametrize("stages", [2, 4])
def test_chunks_in_flight_when_interleaved(stages: int, chunks: int) -> None:
    """Whole stages: a chunk counts one of `chunks` (arXiv 2205.05198, section 4.2.3)."""
    micro_batches = 8 * stages
    played = play_interleaved(stages, micro_batches, chunks, FORWARD, BACKWARD)
    scenario = pipeline(stages, "interleaved", vpp=chunks, batch_size=float(micro_batches))
    for stage, most in enumerate(played.most_in_flight):
        assert number(memory.in_flight(scenario, float(stage))) == pytest.approx(most / chunks)
    first = number(memory.in_flight(scenario, 0.0))
    assert first == pytest.approx(stages * (1 + (stages - 1) / (stages * chunks)))


def test_a_short_batch_bounds_what_is_in_flight() -> None:
    scenario = pipeline(4, "interleaved", vpp=2, batch_size=3.0)
    assert number(memory.in_flight(scenario, 0.0)) == 3.0


def test_dualpipe_holds_one_more_than_its_stages_everywhere() -> None:
    """PP + 1 activations a device, by its README: both directions are under way."""
    scenario = pipeline(8, "dualpipe", batch_size=64.0)
    assert [number(memory.in_flight(scenario, float(k))) for k in range(8)] == [9.0] * 8
    short = pipeline(8, "dualpipe", batch_size=4.0)
    assert number(memory.in_flight(short, 0.0)) == 4.0


# ---------------------------------------------------------------------- whole steps of a pipeline


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_a_step_is_the_played_schedule(stages: int) -> None:
    """Equal stages and the head on the last, nothing hidden: the step is the schedule's makespan."""
    layout = Layout(pp=stages, dp=1, zero=0)
    scenario = one_scenario(layout, workload(dense(24), batch_size=16), memory_rate=1e13)
    found = step.step_time(scenario, PLAIN)
    forward, backward = number(found.stage_forward), number(found.stage_backward)
    send = 2 * number(traffic.sends(scenario, PLAIN))
    head = number(compute.head_forward(scenario, PLAIN))
    pace_f = [forward] * (stages - 1) + [forward + head]
    pace_b = [backward] * (stages - 1) + [backward + 2 * head]
    played = play_1f1b(16, pace_f, pace_b)
    update = number(step.optimizer(scenario, PLAIN))
    # the slowest stage shows a send for each micro-batch, filling the pipeline one for each hop
    expected = played.seconds + (16 + stages - 1) * send + update
    assert number(found.step) == pytest.approx(expected, rel=1e-9)


def test_uneven_stages_wait_for_the_full_ones() -> None:
    """25 layers on four stages: seven, seven, seven, and four beside the head."""
    layout = Layout(pp=4, dp=1, zero=0)
    scenario = one_scenario(
        layout, workload(dense(25, vocab_size=64), batch_size=16), memory_rate=1e13
    )
    found = step.step_time(scenario, PLAIN)
    assert number(scenario.stage_layers) == 7
    assert number(scenario.last_layers) == 4
    forward, backward = number(found.stage_forward), number(found.stage_backward)
    head = number(compute.head_forward(scenario, PLAIN))
    short = 4 / 7
    played = play_1f1b(
        16, [forward] * 3 + [forward * short + head], [backward] * 3 + [backward * short + 2 * head]
    )
    send, update = (
        2 * number(traffic.sends(scenario, PLAIN)),
        number(step.optimizer(scenario, PLAIN)),
    )
    rest = (16 + 4 - 1) * send + update
    last = (forward + backward) * short + 3 * head
    assert played.seconds + rest <= number(found.step) <= played.seconds + rest + last
    exact = 16 * (forward + backward) + 2 * (forward + backward) + last + rest
    assert number(found.step) == pytest.approx(exact, rel=1e-9)


def test_a_heavy_head_sets_the_pace() -> None:
    light = one_scenario(Layout(pp=4, zero=0), workload(dense(8, vocab_size=64), batch_size=16))
    heavy = one_scenario(
        Layout(pp=4, zero=0), workload(dense(8, vocab_size=200_000), batch_size=16)
    )
    found = step.step_time(heavy, PLAIN)
    head = 3 * number(compute.head_forward(heavy, PLAIN))
    middle = number(found.stage_forward + found.stage_backward)
    assert number(found.head) == pytest.approx(16 * head)
    one_send = number(found.pipeline_sends) / 16
    assert number(found.bubble) == pytest.approx(3 * middle + 3 * one_send, rel=1e-9)
    assert number(step.step_time(light, PLAIN).head) < number(found.head)


@pytest.mark.parametrize(
    ("overlap", "constants", "share"), [(0, {"pp_shown": 0.6}, 0.6), (1, {"pp_hidden": 0.8}, 0.2)]
)
def test_sends_are_partly_shown(overlap: int, constants: dict[str, float], share: float) -> None:
    scenario = one_scenario(
        Layout(pp=4, zero=0), workload(dense(8), batch_size=16), pp_overlap=overlap
    )
    send = 2 * number(traffic.sends(scenario, PLAIN))
    found = step.step_time(scenario, plain(**constants))
    assert number(found.pipeline_sends) == pytest.approx(16 * send * share)


def test_chunks_send_more_often() -> None:
    layout = Layout(pp=4, vpp=2, zero=0, schedule="interleaved")
    chunked = step.step_time(one_scenario(layout, workload(dense(8), batch_size=16)), PLAIN)
    whole = step.step_time(
        one_scenario(Layout(pp=4, zero=0), workload(dense(8), batch_size=16)), PLAIN
    )
    assert number(chunked.pipeline_sends) == pytest.approx(2 * number(whole.pipeline_sends))


def test_extra_prediction_layers_sit_on_the_last_stage() -> None:
    """One multi-token-prediction layer works like a layer of the last stage and asks the head again."""
    shape = dense(8, vocab_size=64)
    without = step.step_time(
        one_scenario(Layout(pp=4, zero=0), workload(shape, batch_size=16)), PLAIN
    )
    extra = shape.model_copy(update={"num_nextn_predict_layers": 1})
    scenario = one_scenario(Layout(pp=4, zero=0), workload(extra, batch_size=16))
    found = step.step_time(scenario, PLAIN)
    assert number(found.stage_forward) == pytest.approx(number(without.stage_forward))
    layer = number(found.stage_forward + found.stage_backward) / 2
    head = 3 * number(compute.head_forward(scenario, PLAIN))
    pace = number(found.head) / 16
    assert pace == pytest.approx(layer + head)
