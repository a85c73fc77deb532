"""Seconds of one training step: how arithmetic, traffic and the pipeline add up.

    step = factor x ( micro-batches x (slowest stage + its sends) + pipeline bubble
                      + gradient traffic that shows + optimizer )

Every function broadcasts over tables of scenarios. The software states what overlaps
(`facts/software.toml`), fitted constants how well (`facts/physics.toml`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tumen.plan.model import bound, compute, traffic
from tumen.plan.model.bound import ADAM_BYTES
from tumen.plan.model.compute import BACKWARD, FLASH_BACKWARD
from tumen.plan.model.counts import layer_weights, optimizer_groups, stage_weights
from tumen.plan.model.physics import Physics
from tumen.plan.model.scenario import SELECTIVE, Number, Scenario

SHARPNESS = (
    8.0  # of the smooth maximum of accelerator and host, which wait for each other now and then
)
REST_BACKWARD = 1.6  # bytes of the backward elementwise operators over those of the forward ones
# Share of 1F1B's bubble that each schedule leaves, in the order of SCHEDULES. Interleaving divides
# the bubble by the chunks. Zero-bubble leaves the third of the weight gradients (arXiv 2401.10241).
# DualPipe is taken to halve it (its README promises less).
BUBBLE_SHARES = (1.0, 1.0, 1.0 / 3.0, 0.5)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by cause. `stage_forward` and `stage_backward` are of one micro-batch.

    The causes add up to `step`, unless the step is at its physical bound.
    """

    matmul: Number
    attention: Number
    elementwise: Number
    host: Number
    head: Number
    tensor: Number
    context: Number
    expert: Number
    sharded: Number
    pipeline_sends: Number
    bubble: Number
    gradients: Number
    optimizer: Number
    step: Number
    stage_forward: Number
    stage_backward: Number

    def rows(self) -> dict[str, Number]:
        """Return the values by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Recompute:
    """Shares of the forward work that the backward pass repeats."""

    matmul: Number
    rest: Number
    core: Number

    @property
    def matmul_passes(self) -> Number:
        """Forward passes that all matmuls of a step are worth."""
        return 1 + BACKWARD + self.matmul


@dataclass(frozen=True)
class LayerWork:
    """Forward seconds of one layer on one micro-batch, averaged over dense and mixture layers.

    `accumulate` is the time to add the weight gradients to their main copy.
    """

    linear: Number
    core: Number
    core_backward: Number
    rest: Number
    accumulate: Number

    @property
    def forward(self) -> Number:
        """Seconds of the forward pass."""
        return self.linear + self.core + self.rest

    def backward(self, repeated: Recompute) -> Number:
        """Return the seconds of the backward pass with what it repeats."""
        matmuls = (BACKWARD + repeated.matmul) * self.linear
        core = repeated.core * self.core
        rest = (REST_BACKWARD + repeated.rest) * self.rest
        return matmuls + self.core_backward + core + rest + self.accumulate

    def attention(self, repeated: Recompute) -> Number:
        """Return the seconds of the attention core, forward and backward."""
        return self.core + self.core_backward + repeated.core * self.core

    def elementwise(self, repeated: Recompute) -> Number:
        """Return the seconds of all other operators, forward and backward."""
        return (1 + REST_BACKWARD + repeated.rest) * self.rest + self.accumulate


@dataclass(frozen=True)
class ShownTraffic:
    """Seconds of one kind of a layer's traffic that are not hidden, by direction."""

    forward: Number
    backward: Number

    def total(self, again: Number) -> Number:
        """Return both directions, and the share `again` of the forward one that is repeated."""
        return self.forward + self.backward + again * self.forward


@dataclass(frozen=True)
class LayerTraffic:
    """Seconds of one layer's traffic that are not hidden, by kind of parallelism."""

    tensor: ShownTraffic
    context: ShownTraffic
    expert: ShownTraffic

    @property
    def forward(self) -> Number:
        """Seconds of the forward pass."""
        return self.tensor.forward + self.context.forward + self.expert.forward

    def backward(self, repeated: Recompute) -> Number:
        """Return the seconds of the backward pass; repeated layers send again."""
        once = self.tensor.backward + self.context.backward + self.expert.backward
        again = repeated.matmul * (self.tensor.forward + self.expert.forward)
        return once + again + repeated.core * self.context.forward


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage on one micro-batch: work, waits for the host, gathers that show."""

    layers: Number
    waits_forward: Number
    waits_backward: Number
    forward: Number
    backward: Number
    gathers_forward: Number
    gathers_backward: Number

    @property
    def total(self) -> Number:
        """Forward and backward, with the gathers of sharded weights."""
        return self.forward + self.backward + self.gathers_forward + self.gathers_backward


@dataclass(frozen=True)
class PipelineTime:
    """Seconds of a pipeline: slowest stage and sends of a micro-batch, bubble of a step."""

    slowest: Number
    sends: Number
    bubble: Number


def step_time(scenario: Scenario, physics: Physics) -> StepTime:
    """Return the seconds of one step on the slowest pipeline, by cause."""
    repeated = recompute_shares(scenario)
    work = layer_work(scenario, physics)
    shown = layer_traffic(scenario, physics, work)
    stage = stage_time(scenario, physics, work, shown, repeated)
    pipeline = pipeline_time(scenario, physics, stage)
    gradients = shown_gradients(scenario, physics, stage)
    update = optimizer(scenario, physics)

    factor = scenario.factor
    m = scenario.micro_batches
    seconds = factor * (m * pipeline.slowest + pipeline.bubble + gradients + update)
    layers = factor * m * stage.layers  # layer passes of the slowest stage in a step
    return StepTime(
        **work_parts(layers, work, stage, repeated),
        **traffic_parts(layers, shown, repeated),
        **pipeline_parts(factor, m, stage, pipeline),
        gradients=factor * gradients,
        optimizer=factor * update,
        # a factor below one must not promise more than physics allows
        step=np.maximum(seconds, bound.seconds(scenario)),
        stage_forward=stage.forward,
        stage_backward=stage.backward,
    )


def work_parts(
    layers: Number, work: LayerWork, stage: StageTime, repeated: Recompute
) -> dict[str, Number]:
    """Return the seconds of a step's work inside layers, by cause.

    Args:
        layers: layer passes of the slowest stage in a step.
        work: forward seconds of an average layer.
        stage: has the waits for the host.
        repeated: what the backward pass repeats.
    """
    return {
        "matmul": layers * repeated.matmul_passes * work.linear,
        "attention": layers * work.attention(repeated),
        "elementwise": layers * work.elementwise(repeated),
        "host": layers * (stage.waits_forward + stage.waits_backward),
    }


def traffic_parts(layers: Number, shown: LayerTraffic, repeated: Recompute) -> dict[str, Number]:
    """Return the seconds of a step's traffic inside layers, by cause; see `work_parts`."""
    return {
        "tensor": layers * shown.tensor.total(repeated.matmul),
        "context": layers * shown.context.total(repeated.core),
        "expert": layers * shown.expert.total(repeated.matmul),
    }


def pipeline_parts(
    factor: Number, micro_batches: Number, stage: StageTime, pipeline: PipelineTime
) -> dict[str, Number]:
    """Return the seconds of a step around its layers, by cause."""
    m = micro_batches
    return {
        "head": factor * m * (pipeline.slowest - pipeline.sends - stage.total),
        "sharded": factor * m * (stage.gathers_forward + stage.gathers_backward),
        "pipeline_sends": factor * m * pipeline.sends,
        "bubble": factor * pipeline.bubble,
    }


def recompute_shares(scenario: Scenario) -> Recompute:
    """Return the shares of matmuls, other operators and attention core that are computed again.

    Selective recompute repeats an unfused core; flash attention keeps no scores, so its core is
    repeated only along with the matmuls around it.
    """
    matmul = np.where(scenario.repeats_all, 1.0, scenario.redo_matmul)
    rest = np.where(scenario.repeats_all, 1.0, scenario.redo_rest)
    whole_core = (scenario.kernel % 4 == 0) | (matmul >= 1)  # kernels 0 and 4 are unfused
    core = np.where(whole_core, 1.0, matmul)
    core = np.where(scenario.recompute >= SELECTIVE, core, 0.0)
    return Recompute(matmul, rest, core)


# ---------------------------------------------------------------------- one layer


def layer_work(scenario: Scenario, physics: Physics) -> LayerWork:
    """Return the forward seconds of an average layer."""
    return LayerWork(
        linear=layer_matmuls(scenario, physics),
        core=compute.core_forward(scenario, physics),
        core_backward=compute.core_backward(scenario, physics),
        rest=layer_rest(scenario, physics),
        accumulate=accumulation(scenario, physics),
    )


def layer_matmuls(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of the projections and of dense feed-forwards or experts."""
    share = scenario.moe_share
    projections = compute.attention_matmuls(scenario, physics)
    dense = compute.feed_matmuls(scenario, physics, scenario.intermediate_size)
    shared = compute.feed_matmuls(scenario, physics, scenario.shared_intermediate_size)
    mixture = compute.expert_matmuls(scenario, physics) + shared
    return projections + (1 - share) * dense + share * mixture


def layer_rest(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of elementwise operators and of routing to experts."""
    share = scenario.moe_share
    dense = (1 - share) * scenario.intermediate_size
    inner = dense + share * scenario.shared_intermediate_size
    routing = share * compute.routing(scenario, physics)
    return compute.elementwise(scenario, physics, inner) + routing


def accumulation(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to add weight gradients to their main copy, in every micro-batch."""
    share = scenario.moe_share
    dense, mixture = layer_weights(scenario)
    weights = (1 - share) * dense + share * mixture
    moved = weights * (scenario.reduce_bytes * 2)  # read and written
    return moved / compute.memory_rate(scenario, physics)


def layer_traffic(scenario: Scenario, physics: Physics, work: LayerWork) -> LayerTraffic:
    """Return the traffic of an average layer that does not hide behind its work."""
    return LayerTraffic(
        tensor=shown_tensor(scenario, physics, work),
        context=shown_context(scenario, physics, work),
        expert=shown_expert(scenario, physics, work),
    )


def shown_tensor(scenario: Scenario, physics: Physics, work: LayerWork) -> ShownTraffic:
    """Return the two reductions of activations, each way, that do not hide behind matmuls."""
    sent = 2 * traffic.tensor_traffic(scenario, physics)
    hidden = np.where(scenario.tp_overlap > 0, physics.tp_hidden, 0.0)
    # backward, some of it hides behind the weight gradients without help from the software
    hidden_backward = np.maximum(hidden, physics.tp_hidden_backward)
    return ShownTraffic(
        forward=overlapped(work.linear, sent, hidden),
        backward=overlapped(BACKWARD * work.linear, sent, hidden_backward),
    )


def shown_context(scenario: Scenario, physics: Physics, work: LayerWork) -> ShownTraffic:
    """Return the ring of keys and values that does not hide behind attention.

    Backward their gradients travel too.
    """
    sent = traffic.context_traffic(scenario, physics)
    hidden = physics.cp_hidden
    return ShownTraffic(
        forward=overlapped(work.core, sent, hidden),
        backward=overlapped(FLASH_BACKWARD * work.core, 2 * sent, hidden),
    )


def shown_expert(scenario: Scenario, physics: Physics, work: LayerWork) -> ShownTraffic:
    """Return the dispatch and combine, each way, that do not hide behind matmuls."""
    sent = scenario.moe_share * 2.0 * traffic.expert_traffic(scenario, physics)
    hidden = np.where(scenario.ep_overlap > 0, physics.ep_hidden, 0.0)
    return ShownTraffic(
        forward=overlapped(work.linear, sent, hidden),
        backward=overlapped(BACKWARD * work.linear, sent, hidden),
    )


def overlapped(work: Number, sent: Number, hidden: Number) -> Number:
    """Return the seconds of traffic that show.

    Args:
        work: seconds of compute that the traffic can hide behind.
        sent: seconds of the traffic.
        hidden: share of the traffic that can hide at all.
    """
    return sent - np.minimum(hidden * sent, work)


# ---------------------------------------------------------------------- one stage


def stage_time(
    scenario: Scenario, physics: Physics, work: LayerWork, shown: LayerTraffic, repeated: Recompute
) -> StageTime:
    """Return the seconds of the fullest stage on one micro-batch.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        work: forward seconds of an average layer.
        shown: traffic of an average layer that does not hide behind its work.
        repeated: what the backward pass repeats.
    """
    forward = work.forward + shown.forward
    backward = work.backward(repeated) + shown.backward(repeated)
    launches = layer_launches(scenario, physics)
    waits_forward = idle(forward, launches)
    waits_backward = idle(backward, launches * (physics.launch_backward + repeated.matmul))

    layers = layers_of_stage(scenario)
    stage_forward = layers * (forward + waits_forward)
    stage_backward = layers * (backward + waits_backward)
    gather_forward, gather_backward = traffic.sharded_traffic(scenario, physics)
    hidden = physics.fsdp_hidden
    return StageTime(
        layers=layers,
        waits_forward=waits_forward,
        waits_backward=waits_backward,
        forward=stage_forward,
        backward=stage_backward,
        gathers_forward=overlapped(stage_forward, gather_forward, hidden),
        gathers_backward=overlapped(stage_backward, gather_backward, hidden),
    )


def layers_of_stage(scenario: Scenario) -> Number:
    """Return the layers of the fullest stage.

    Without a pipeline the only stage has the prediction layers; else the last one has them.
    """
    alone = np.where(scenario.pp > 1, 0.0, 1.0)
    return scenario.stage_layers + alone * scenario.num_nextn_predict_layers


def layer_launches(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds to launch one average layer's forward kernels; mixtures launch more."""
    # in domains wider than a node the router and its dispatch are captured in a CUDA graph
    graph = scenario.domain > scenario.node
    more = np.where(graph, physics.launch_moe_graph, physics.launch_moe)
    return compute.host(scenario, physics) * (1 + scenario.moe_share * more)


def idle(busy: Number, launches: Number) -> Number:
    """Return the seconds that the accelerator waits for the host.

    A smooth maximum of both, minus the accelerator's own work.
    """
    slower = (busy**SHARPNESS + launches**SHARPNESS) ** (1.0 / SHARPNESS)
    return slower - busy


# ---------------------------------------------------------------------- the pipeline


def pipeline_time(scenario: Scenario, physics: Physics, stage: StageTime) -> PipelineTime:
    """Return the pace and the bubble of a pipeline whose last stage also holds the head.

    Args:
        scenario: a scenario or a table of them.
        physics: constants of the model.
        stage: seconds of the fullest stage on one micro-batch.
    """
    piped = scenario.pp > 1
    head = (1 + BACKWARD) * compute.head_forward(scenario, physics)
    last = last_stage(scenario, stage, head)
    send = 2.0 * traffic.sends(scenario, physics) * scenario.vpp  # forward and backward
    shown = send * shown_send(scenario, physics)
    slowest = np.where(piped, np.maximum(stage.total, last), last) + shown
    total = np.where(piped, all_stages(scenario, stage, head), last)
    fill = send * scenario.pp / scenario.vpp
    return PipelineTime(
        slowest=slowest, sends=shown, bubble=pipeline_bubble(scenario, total, slowest, fill)
    )


def last_stage(scenario: Scenario, stage: StageTime, head: Number) -> Number:
    """Return the seconds of the last stage: it may hold fewer layers, and holds the head."""
    layers = scenario.last_layers + scenario.num_nextn_predict_layers
    share = np.where(scenario.pp > 1, layers / scenario.stage_layers, 1.0)
    return share * stage.total + head


def all_stages(scenario: Scenario, stage: StageTime, head: Number) -> Number:
    """Return the seconds of all stages of a pipeline on one micro-batch."""
    layers = stage.total * scenario.num_hidden_layers / scenario.stage_layers
    predicted = scenario.num_nextn_predict_layers / scenario.stage_layers * stage.total
    return layers + head + predicted


def shown_send(scenario: Scenario, physics: Physics) -> Number:
    """Return the share of a send that shows."""
    overlap = scenario.pp_overlap > 0
    return np.where(overlap, 1 - physics.pp_hidden, physics.pp_shown)


def pipeline_bubble(scenario: Scenario, total: Number, slowest: Number, send: Number) -> Number:
    """Return the idle seconds of the slowest stage in one step.

    With 1F1B the slowest stage waits once for the forward and backward of all others;
    `BUBBLE_SHARES` states what other schedules leave (arXiv 2104.04473, section 2.2).

    Args:
        scenario: holds the schedule and its chunks.
        total: seconds of all stages on one micro-batch.
        slowest: seconds of the slowest stage, with its sends.
        send: seconds to send through all stages once.
    """
    kind = np.asarray(scenario.schedule, dtype=int)
    share = np.choose(kind, BUBBLE_SHARES)
    others = np.maximum(total - slowest, 0.0)
    return np.where(scenario.pp > 1, others / scenario.vpp * share + send, 0.0)


# ---------------------------------------------------------------------- once a step


def shown_gradients(scenario: Scenario, physics: Physics, stage: StageTime) -> Number:
    """Return the seconds of gradient traffic that show.

    Where the software overlaps, part of it hides behind the last micro-batch's backward pass.
    """
    sent = traffic.gradient_traffic(scenario, physics)
    window = physics.dp_window * stage.backward
    hidden = overlapped(window, sent, physics.dp_hidden)
    return np.where(scenario.dp_overlap > 0, hidden, sent)


def optimizer(scenario: Scenario, physics: Physics) -> Number:
    """Return the seconds of Adam: the states of each weight that this rank updates, once."""
    shared, routed = stage_weights(scenario)
    group, expert_group = optimizer_groups(scenario)
    sharded = scenario.zero > 0
    own = shared / np.where(sharded, group, 1.0)
    own_experts = routed / np.where(sharded, expert_group, 1.0)
    moved = ADAM_BYTES * (own + own_experts)
    return moved / compute.memory_rate(scenario, physics) + physics.step_overhead
