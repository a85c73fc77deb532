"""A whole step on one stage: what is added, what is done twice, what hides, and what no software may promise."""

from __future__ import annotations

import pytest
from tests.plan.networks import PLAIN, dense, mixture, number, one_scenario, plain, workload

from tumen.plan import Layout
from tumen.plan.model import bound, compute, step, traffic
from tumen.plan.model.counts import layer_weights
from tumen.plan.model.physics import Physics, fitted
from tumen.plan.model.scenario import Scenario


def parts(scenario: Scenario, physics: Physics = PLAIN) -> dict[str, float]:
    """Every part of a step in seconds."""
    return {name: number(value) for name, value in step.step_time(scenario, physics).rows().items()}


def work(scenario: Scenario, physics: Physics = PLAIN) -> dict[str, float]:
    """Forward seconds of one dense layer and micro-batch by kind."""
    projections = compute.attention_matmuls(scenario, physics)
    feed = compute.feed_matmuls(scenario, physics, scenario.intermediate_size)
    dense_weights, _ = layer_weights(scenario)
    return {
        "matmul": number(projections + feed),
        "core": number(compute.core_forward(scenario, physics)),
        "rest": number(compute.elementwise(scenario, physics, scenario.intermediate_size)),
        "accumulate": number(dense_weights * 2 * scenario.reduce_bytes / scenario.memory_rate),
    }


# ---------------------------------------------------------------------- sums


def test_a_step_of_one_gpu_is_its_operators() -> None:
    """Twelve layers, 24 micro-batches: backward matmuls twice, the core 2.5 times, the rest 1.6 times forward."""
    scenario = one_scenario(Layout(zero=0))
    one = work(scenario)
    layer = 3 * one["matmul"] + 3.5 * one["core"] + 2.6 * one["rest"] + one["accumulate"]
    head = 3 * number(compute.head_forward(scenario, PLAIN))
    update = number(step.optimizer(scenario, PLAIN))
    found = parts(scenario)
    assert found["step"] == pytest.approx(24 * (12 * layer + head) + update)
    assert found["matmul"] == pytest.approx(24 * 12 * 3 * one["matmul"])
    assert found["attention"] == pytest.approx(24 * 12 * 3.5 * one["core"])
    assert found["elementwise"] == pytest.approx(24 * 12 * (2.6 * one["rest"] + one["accumulate"]))
    assert found["head"] == pytest.approx(24 * head)
    assert found["optimizer"] == pytest.approx(update)
    assert found["bubble"] == found["pipeline_sends"] == found["host"] == 0.0


@pytest.mark.parametrize(
    "layout",
    [
        Layout(zero=0),
        Layout(tp=4, dp=2, sequence_parallel=True),
        Layout(tp=2, pp=4, dp=2, sequence_parallel=True),
        Layout(pp=4, vpp=3, dp=2, schedule="interleaved"),
        Layout(pp=4, dp=1, schedule="dualpipe"),
        Layout(cp=2, dp=4, recompute="full"),
        Layout(dp=8, zero=3, recompute="norm,act"),
    ],
    ids=str,
)
@pytest.mark.parametrize("physics", [PLAIN, fitted()], ids=["plain", "fitted"])
def test_parts_add_up_to_the_step(layout: Layout, physics: Physics) -> None:
    found = parts(one_scenario(layout, workload(batch_size=48)), physics)
    step = found.pop("step")
    del found["stage_forward"], found["stage_backward"]
    assert sum(found.values()) == pytest.approx(step, rel=1e-9)
    assert min(found.values()) >= 0.0


def test_parts_of_a_mixture_add_up() -> None:
    layout = Layout(tp=2, pp=2, dp=4, ep=4, sequence_parallel=True)
    found = parts(one_scenario(layout, workload(mixture(8), 1024, 64)), fitted())
    step = found.pop("step")
    del found["stage_forward"], found["stage_backward"]
    assert found["expert"] > 0.0
    assert sum(found.values()) == pytest.approx(step, rel=1e-9)


def test_twice_the_batch_is_twice_the_micro_batches() -> None:
    once = parts(one_scenario(Layout(zero=0), workload(batch_size=24)))
    twice = parts(one_scenario(Layout(zero=0), workload(batch_size=48)))
    update = once["optimizer"]
    assert twice["step"] - update == pytest.approx(2 * (once["step"] - update))


def test_a_mixture_layer_replaces_the_feed_forward_by_experts() -> None:
    """Eight of nine layers are mixtures; matmuls are averaged over the layers of a stage."""
    scenario = one_scenario(Layout(zero=0), workload(mixture(9), 1024, 8))
    share = 8 / 9
    linear = number(
        compute.attention_matmuls(scenario, PLAIN)
        + (1 - share) * compute.feed_matmuls(scenario, PLAIN, scenario.intermediate_size)
        + share * compute.expert_matmuls(scenario, PLAIN)
        + share * compute.feed_matmuls(scenario, PLAIN, scenario.shared_intermediate_size)
    )
    inner = (1 - share) * 1024 + share * 128
    rest = number(
        compute.elementwise(scenario, PLAIN, inner) + share * compute.routing(scenario, PLAIN)
    )
    plain_weights, mixed_weights = (number(value) for value in layer_weights(scenario))
    weights = (1 - share) * plain_weights + share * mixed_weights
    accumulate = weights * 2 * number(scenario.reduce_bytes) / number(scenario.memory_rate)
    found = parts(scenario)
    assert found["matmul"] == pytest.approx(8 * 9 * 3 * linear)
    assert found["elementwise"] == pytest.approx(8 * 9 * (2.6 * rest + accumulate))


def test_prediction_layers_lengthen_a_single_stage() -> None:
    shape = dense(12).model_copy(update={"num_nextn_predict_layers": 2})
    without, found = (
        parts(one_scenario(Layout(zero=0))),
        parts(one_scenario(Layout(zero=0), workload(shape))),
    )
    assert found["matmul"] == pytest.approx(without["matmul"] * 14 / 12)
    assert found["head"] == pytest.approx(without["head"] * 3)


# ---------------------------------------------------------------------- recompute


@pytest.mark.parametrize(
    ("policy", "matmul", "core", "rest"),
    [
        ("none", 0.0, 0.0, 0.0),
        ("norm,act", 0.0, 0.0, 0.5),
        ("layernorm,moe", 0.6, 0.0, 0.8),
        ("selective-op", 0.4, 0.0, 0.8),
        ("full", 1.0, 1.0, 1.0),
    ],
)
def test_recompute_does_forward_work_again(
    policy: str, matmul: float, core: float, rest: float
) -> None:
    base = parts(one_scenario(Layout(zero=0)))
    scenario = one_scenario(Layout(zero=0, recompute=policy))
    one, found = work(scenario), parts(scenario)
    assert found["matmul"] - base["matmul"] == pytest.approx(288 * matmul * one["matmul"])
    assert found["attention"] - base["attention"] == pytest.approx(288 * core * one["core"])
    assert found["elementwise"] - base["elementwise"] == pytest.approx(288 * rest * one["rest"])


@pytest.mark.parametrize(("kernel", "again"), [(0, 1.0), (4, 1.0), (2, 0.0), (3, 0.0)])
def test_selective_recompute_is_for_unfused_attention(kernel: int, again: float) -> None:
    """Flash attention never keeps its scores, so nothing is left to do again (arXiv 2205.05198)."""
    base = parts(one_scenario(Layout(zero=0), kernel=kernel))
    scenario = one_scenario(Layout(zero=0, recompute="selective"), kernel=kernel)
    extra = parts(scenario)["attention"] - base["attention"]
    assert extra == pytest.approx(288 * again * work(scenario)["core"], abs=1e-12)


def test_full_recompute_sends_again() -> None:
    """The forward traffic of tensor parallelism is part of what is done again."""
    layout = Layout(tp=4, zero=0, sequence_parallel=True)
    base = parts(one_scenario(layout))
    again = parts(one_scenario(Layout(tp=4, zero=0, sequence_parallel=True, recompute="full")))
    assert again["tensor"] == pytest.approx(base["tensor"] * 6 / 4)
    ring = parts(one_scenario(Layout(cp=4, zero=0)))["context"]
    assert parts(one_scenario(Layout(cp=4, zero=0, recompute="full")))["context"] == pytest.approx(
        ring * 4 / 3
    )


# ---------------------------------------------------------------------- what hides


def test_tensor_traffic_of_a_layer() -> None:
    """Two reductions forward and two backward, none hidden."""
    scenario = one_scenario(Layout(tp=4, zero=0))
    assert parts(scenario)["tensor"] == pytest.approx(
        288 * 4 * number(traffic.tensor_traffic(scenario, PLAIN))
    )


@pytest.mark.parametrize(("overlap", "forward", "backward"), [(0, 0.0, 0.25), (1, 0.5, 0.5)])
def test_tensor_traffic_hides(overlap: int, forward: float, backward: float) -> None:
    """Backward some of it always hides behind the weight gradients; forward only where the software overlaps."""
    physics = plain(tp_hidden=0.5, tp_hidden_backward=0.25)
    scenario = one_scenario(Layout(tp=4, zero=0), tp_overlap=overlap)
    sent = 2 * number(traffic.tensor_traffic(scenario, physics))
    expected = 288 * sent * (2 - forward - backward)
    assert parts(scenario, physics)["tensor"] == pytest.approx(expected)


def test_traffic_cannot_hide_behind_less_work() -> None:
    """A very slow link: what shows is all but the matmuls of the layer, twice those backward."""
    physics = plain(tp_hidden=1.0, tp_hidden_backward=1.0)
    scenario = one_scenario(Layout(tp=4, zero=0), tp_overlap=1, link_rate=1e9)
    sent = 2 * number(traffic.tensor_traffic(scenario, physics))
    linear = work(scenario)["matmul"]
    expected = 288 * ((sent - linear) + (sent - 2 * linear))
    assert parts(scenario, physics)["tensor"] == pytest.approx(expected)


def test_context_traffic_hides_behind_attention() -> None:
    """Backward keys, values and their gradients travel: twice the bytes, behind 2.5 times the arithmetic."""
    scenario = one_scenario(Layout(cp=4, zero=0))
    ring = number(traffic.context_traffic(scenario, PLAIN))
    assert parts(scenario)["context"] == pytest.approx(288 * 3 * ring)
    assert parts(scenario, plain(cp_hidden=0.75))["context"] == pytest.approx(288 * 0.75 * ring)
    slow = one_scenario(Layout(cp=4, zero=0), link_rate=1e9)
    ring, core = number(traffic.context_traffic(slow, PLAIN)), work(slow)["core"]
    assert parts(slow, plain(cp_hidden=1.0))["context"] == pytest.approx(
        288 * ((ring - core) + (2 * ring - 2.5 * core))
    )


@pytest.mark.parametrize(("overlap", "hidden"), [(0, 0.0), (1, 0.5)])
def test_expert_traffic_hides_where_the_software_overlaps(overlap: int, hidden: float) -> None:
    """Dispatch and combine, forward and backward, of eight mixture layers in nine."""
    scenario = one_scenario(
        Layout(dp=4, ep=4, zero=0), workload(mixture(9), 1024, 16), ep_overlap=overlap
    )
    sent = number(traffic.expert_traffic(scenario, PLAIN))
    found = parts(scenario, plain(ep_hidden=0.5))["expert"]
    assert found == pytest.approx(4 * 8 * 2 * 2 * sent * (1 - hidden))


@pytest.mark.parametrize(
    ("overlap", "constants", "hidden"),
    [
        (0, {"dp_hidden": 0.5, "dp_window": 1.0}, 0.0),
        (1, {"dp_hidden": 0.5, "dp_window": 1.0}, 0.5),
        (1, {"dp_hidden": 0.5, "dp_window": 0.0}, 0.0),
    ],
)
def test_gradients_hide_behind_the_last_backward(
    overlap: int, constants: dict[str, float], hidden: float
) -> None:
    scenario = one_scenario(Layout(dp=8), dp_overlap=overlap)
    sent = number(traffic.gradient_traffic(scenario, PLAIN))
    found = parts(scenario, plain(**constants))["gradients"]
    assert found == pytest.approx(sent * (1 - hidden))


def test_gradients_hide_behind_no_more_than_a_share_of_the_backward() -> None:
    scenario = one_scenario(Layout(dp=8), dp_overlap=1, link_rate=1e8)
    physics = plain(dp_hidden=1.0, dp_window=0.5)
    sent, found = number(traffic.gradient_traffic(scenario, physics)), parts(scenario, physics)
    assert found["gradients"] == pytest.approx(sent - 0.5 * found["stage_backward"])


def test_sharded_weights_hide_behind_the_stage() -> None:
    scenario = one_scenario(Layout(dp=8, zero=3))
    forward, backward = (number(value) for value in traffic.sharded_traffic(scenario, PLAIN))
    assert parts(scenario)["sharded"] == pytest.approx(3 * (forward + backward))
    found = parts(scenario, plain(fsdp_hidden=0.75))
    assert found["sharded"] == pytest.approx(3 * 0.25 * (forward + backward))


# ---------------------------------------------------------------------- host


def test_a_slow_host_sets_the_pace() -> None:
    """Launches of a layer take longer than its work: the GPU waits, backward in its own proportion."""
    scenario = one_scenario(Layout(zero=0))
    found = parts(scenario, plain(launch=1.0, launch_backward=0.5))
    busy = parts(scenario)["step"] - number(step.optimizer(scenario, PLAIN))
    head = parts(scenario)["head"]
    assert found["host"] == pytest.approx(288 * 1.5 - (busy - head), rel=1e-6)
    again = parts(
        one_scenario(Layout(zero=0, recompute="full")), plain(launch=1.0, launch_backward=0.5)
    )
    assert again["host"] + again["matmul"] + again["attention"] + again["elementwise"] == (
        pytest.approx(288 * 2.5, rel=1e-6)
    )


@pytest.mark.parametrize(("domain", "constant"), [(8, "launch_moe"), (72, "launch_moe_graph")])
def test_experts_launch_more(domain: int, constant: str) -> None:
    """Each mixture layer launches as much again, times a constant of the dispatcher."""
    scenario = one_scenario(Layout(zero=0), workload(mixture(9), 1024, 8), domain=domain)
    found = parts(scenario, plain(launch=1.0, launch_backward=1.0, **{constant: 2.0}))
    busy = found["matmul"] + found["attention"] + found["elementwise"]
    assert found["host"] + busy == pytest.approx(8 * 9 * 2 * (1 + 2.0 * 8 / 9), rel=1e-6)


# ---------------------------------------------------------------------- factor and floor


def test_a_factor_scales_every_part() -> None:
    layout = Layout(tp=2, pp=2, dp=2, sequence_parallel=True)
    once, slower = (
        parts(one_scenario(layout), fitted()),
        parts(one_scenario(layout, factor=1.5), fitted()),
    )
    for name in once:
        times = 1.0 if name.startswith("stage_") else 1.5
        assert slower[name] == pytest.approx(times * once[name]), name


def test_no_factor_beats_physics() -> None:
    scenario = one_scenario(Layout(zero=0), factor=0.01)
    assert parts(scenario)["step"] == pytest.approx(number(bound.seconds(scenario)))
    assert parts(scenario)["matmul"] < parts(scenario)["step"]
