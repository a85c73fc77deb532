"""Traffic of a step: collectives played message by message, and what each kind of parallelism sends."""

from __future__ import annotations

import math

import pytest
from tests.plan.networks import PLAIN, dense, mixture, number, one_scenario, plain, workload

from tumen.plan import Layout
from tumen.plan.model import compute, links, step, traffic
from tumen.plan.model.counts import stage_weights
from tumen.plan.model.scenario import Scenario

GB = 1e9


def cluster(**changes: float) -> Scenario:
    """Eight GPUs a node at 300 GB/s inside and 25 GB/s a GPU outside."""
    return one_scenario(
        **{"link_rate": 300 * GB, "nic_rate": 25 * GB, "node": 8, "domain": 8, **changes}
    )


# ---------------------------------------------------------------------- rings, message by message


def play_reduce_scatter(group: int, size: float) -> tuple[int, float]:
    """(rounds, bytes one rank sends) of a ring: each rank passes on a chunk until it holds a whole sum.

    Thakur, Rabenseifner and Gropp 2005, section 3.
    """
    parts = [{chunk: {rank} for chunk in range(group)} for rank in range(group)]
    rounds, sent = 0, 0.0
    while not all(len(parts[rank][(rank + 1) % group]) == group for rank in range(group)):
        chunks = [(rank - rounds) % group for rank in range(group)]
        arriving = [set(parts[(rank - 1) % group][chunks[rank - 1]]) for rank in range(group)]
        for rank in range(group):
            parts[rank][chunks[rank - 1]] |= arriving[rank]
        rounds, sent = rounds + 1, sent + size / group
    return rounds, sent


@pytest.mark.parametrize("group", [2, 3, 4, 8, 16])
def test_a_ring_sends_what_the_played_one_sends(group: int) -> None:
    scenario, physics = cluster(), plain(link_latency=3e-6, network_latency=2e-5)
    rounds, sent = play_reduce_scatter(group, 1 * GB)
    inside = group <= 8
    rate = 300 * GB if inside else 8 * 25 * GB
    hop = 3e-6 if inside else 2e-5
    found = number(links.ring(scenario, physics, 1 * GB, group, 1.0))
    assert found == pytest.approx(sent / rate + rounds * hop, rel=1e-9)


def test_messages_of_a_ring_each_take_its_hops() -> None:
    scenario, physics = cluster(), plain(link_latency=1e-3)
    once = number(links.ring(scenario, physics, 1 * GB, 8, 1.0))
    three = number(links.ring(scenario, physics, 1 * GB, 8, 1.0, messages=3.0))
    assert three - once == pytest.approx(2 * 7 * 1e-3)


@pytest.mark.parametrize("group", [2, 4, 8, 32])
def test_an_all_reduce_is_a_scatter_and_a_gather(group: int) -> None:
    """Bytes of two rings; its latency is that of a tree, 2 log2 g hops."""
    scenario = cluster()
    ring = number(links.ring(scenario, PLAIN, 1 * GB, group, 1.0))
    assert number(links.all_reduce(scenario, PLAIN, 1 * GB, group, 1.0)) == pytest.approx(2 * ring)
    slow = plain(link_latency=1e-3, network_latency=1e-3)
    added = number(links.all_reduce(scenario, slow, 1 * GB, group, 1.0, messages=5.0)) - 2 * ring
    assert added == pytest.approx(5 * 2 * math.log2(group) * 1e-3)


def test_a_group_of_one_reduces_nothing() -> None:
    assert number(links.all_reduce(cluster(), plain(link_latency=1.0), 1 * GB, 1, 1.0)) == 0.0


# ---------------------------------------------------------------------- which link a group sees


@pytest.mark.parametrize(
    ("group", "stride", "ranks"),
    [(8, 1, 8), (16, 1, 8), (4, 2, 4), (8, 2, 4), (8, 8, 1), (8, 64, 1), (2, 3, 2), (4, 3, 2)],
)
def test_ranks_of_a_group_in_one_node(group: int, stride: int, ranks: int) -> None:
    """By counting: ranks 0, stride, 2 stride ... that lie on the first eight GPUs."""
    assert ranks == max(sum(1 for k in range(group) if k * stride + stride <= 8), 1)
    assert number(links.inside(cluster(), group, stride)) == ranks


@pytest.mark.parametrize(
    ("group", "stride", "gigabytes"),
    [
        (8, 1, 300),  # inside a node
        (16, 1, 200),  # all eight network cards
        (16, 2, 100),  # four
        (16, 8, 25),  # one
        (2, 8, 25),
    ],
)
def test_a_group_sees_the_cards_its_ranks_own(group: int, stride: int, gigabytes: float) -> None:
    assert number(links.rate(cluster(), PLAIN, group, stride)) == pytest.approx(gigabytes * GB)


def test_the_link_bounds_many_network_cards() -> None:
    scenario = cluster(nic_rate=100 * GB)
    assert number(links.rate(scenario, PLAIN, 16, 1)) == pytest.approx(300 * GB)


def test_software_may_use_fewer_rails() -> None:
    assert number(links.rate(cluster(rails=1), PLAIN, 16, 1)) == pytest.approx(25 * GB)
    assert number(links.rate(cluster(rails=2), PLAIN, 16, 1)) == pytest.approx(50 * GB)


def test_shares_of_link_and_network_are_reached() -> None:
    physics = plain(link=0.5, network=0.25)
    assert number(links.rate(cluster(), physics, 8, 1)) == pytest.approx(150 * GB)
    assert number(links.rate(cluster(), physics, 16, 8)) == pytest.approx(6.25 * GB)


# ---------------------------------------------------------------------- tensor and context parallelism


def test_tensor_parallelism_reduces_the_activations_of_a_layer() -> None:
    """2,048 tokens of 512 elements of 2 bytes, 2 (t - 1) / t of them over the link."""
    scenario = cluster(tp=4)
    found = number(traffic.tensor_traffic(scenario, PLAIN))
    assert found == pytest.approx(2 * 3 / 4 * 2048 * 512 * 2 / (300 * GB))
    assert number(traffic.tensor_traffic(cluster(), plain(tp_meet=1.0))) == 0.0


def test_tensor_ranks_wait_for_the_slowest_host() -> None:
    free = number(traffic.tensor_traffic(cluster(tp=4), PLAIN))
    meeting = number(traffic.tensor_traffic(cluster(tp=4, launch_factor=1.5), plain(tp_meet=1e-5)))
    assert meeting - free == pytest.approx(4 * 1.5 * 1e-5)


def test_context_parallelism_passes_keys_and_values_around() -> None:
    """Four ranks: three hops of the 512 local tokens' 256 elements, at the rate of neighbours tp apart."""
    scenario = cluster(cp=4, tp=2)
    found = number(traffic.context_traffic(scenario, PLAIN))
    assert found == pytest.approx(3 * 512 * 256 / 2 * 2 / (300 * GB))
    assert number(traffic.context_traffic(cluster(), PLAIN)) == 0.0
    apart = number(traffic.context_traffic(cluster(cp=4, tp=8), PLAIN))
    assert apart == pytest.approx(3 * 512 * 256 / 8 * 2 / (25 * GB))


# ---------------------------------------------------------------------- expert parallelism


def experts(**changes: float) -> Scenario:
    """1,024 tokens of width 256 on each rank, two of eight experts a token."""
    found = one_scenario(asked=workload(mixture(), 1024), link_rate=300 * GB, nic_rate=25 * GB)
    return found.changed(**changes)


def test_dispatch_inside_a_domain_sends_every_copy_that_leaves() -> None:
    """Four ranks: each of two copies leaves its rank three times in four."""
    found = number(traffic.expert_traffic(experts(ep=4), plain(all_to_all=0.5)))
    assert found == pytest.approx(1024 * 256 * 2 * 2 * (1 - 1 / 4) / (150 * GB))


def test_dispatch_over_the_network_sends_one_copy_a_node() -> None:
    """Sixteen ranks on two nodes: at most two copies a token, half of them to the other node."""
    found = number(
        traffic.expert_traffic(experts(ep=16, n_routed_experts=64, num_experts_per_tok=6), PLAIN)
    )
    across = 1024 * 256 * 2 * 2 * (1 - 1 / 2) / (25 * GB)
    within = 1024 * 256 * 2 * 6 * (1 - 1 / 8) / (300 * GB)
    assert found == pytest.approx(max(across, within))
    assert across > within


def test_fewer_experts_than_nodes_bound_the_copies() -> None:
    """One expert a token on eight nodes: one copy, seven times in eight over the network."""
    found = number(
        traffic.expert_traffic(experts(ep=64, n_routed_experts=64, num_experts_per_tok=1), PLAIN)
    )
    assert found == pytest.approx(1024 * 256 * 2 * (1 - 1 / 8) / (25 * GB))


def test_routing_to_few_nodes_sends_fewer_copies() -> None:
    """DeepSeek-V3 sends a token to at most four nodes (arXiv 2412.19437, section 2.1.2)."""
    free = number(
        traffic.expert_traffic(experts(ep=64, n_routed_experts=64, num_experts_per_tok=8), PLAIN)
    )
    limited = number(
        traffic.expert_traffic(
            experts(ep=64, n_routed_experts=64, num_experts_per_tok=8, topk_group=4), PLAIN
        )
    )
    assert limited == pytest.approx(free / 2)


def test_tensor_ranks_share_the_dispatch() -> None:
    whole = number(traffic.expert_traffic(experts(ep=4), PLAIN))
    assert number(traffic.expert_traffic(experts(ep=4, tp=2), PLAIN)) == pytest.approx(whole / 2)


def test_dispatch_has_the_latency_of_its_peers() -> None:
    """One message a rank of the domain, and one a node where there are several."""
    physics = plain(link_latency=1e-3, network_latency=1e-2)
    near = number(traffic.expert_traffic(experts(ep=4), physics))
    assert near - number(traffic.expert_traffic(experts(ep=4), PLAIN)) == pytest.approx(4e-3)
    far = number(traffic.expert_traffic(experts(ep=32), physics))
    assert far - number(traffic.expert_traffic(experts(ep=32), PLAIN)) == pytest.approx(8e-3 + 4e-2)


def test_without_experts_nothing_is_dispatched() -> None:
    physics = plain(link_latency=1.0)
    assert number(traffic.expert_traffic(cluster(ep=4), physics)) == 0.0
    assert number(traffic.expert_traffic(experts(ep=1), physics)) == 0.0


# ---------------------------------------------------------------------- sharded weights and gradients


def weights_of(scenario: Scenario) -> tuple[float, float]:
    """(other weights, routed experts) of one rank."""
    shared, routed = stage_weights(scenario)
    return number(shared), number(routed)


def test_fsdp_gathers_twice_and_scatters_once() -> None:
    """arXiv 1910.02054, section 7.2.2: 3 (n - 1) / n of the weights a micro-batch; gradients may be wider."""
    scenario = one_scenario(Layout(dp=8, zero=3), link_rate=300 * GB, reduce_bytes=4)
    weights, _ = weights_of(scenario)
    forward, backward = traffic.sharded_traffic(scenario, PLAIN)
    assert number(forward) == pytest.approx(7 / 8 * weights * 2 / (300 * GB))
    assert number(backward) == pytest.approx(7 / 8 * weights * (2 + 4) / (300 * GB))


def test_fsdp_gathers_a_layer_at_a_time() -> None:
    scenario = one_scenario(Layout(dp=8, zero=3), workload(dense(5)))
    late, _ = traffic.sharded_traffic(scenario, plain(link_latency=1e-3))
    free, _ = traffic.sharded_traffic(scenario, PLAIN)
    assert number(late) - number(free) == pytest.approx(5 * 7 * 1e-3)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_only_zero3_gathers_in_the_step(zero: int) -> None:
    forward, backward = traffic.sharded_traffic(one_scenario(Layout(dp=8, zero=zero)), PLAIN)
    assert number(forward) == number(backward) == 0.0
    alone = traffic.sharded_traffic(one_scenario(Layout(zero=3)), PLAIN)
    assert number(alone[0]) == number(alone[1]) == 0.0


@pytest.mark.parametrize("reduce_bytes", [2, 4])
def test_plain_data_parallelism_all_reduces_the_gradients(reduce_bytes: int) -> None:
    scenario = one_scenario(Layout(dp=8, zero=0), link_rate=300 * GB, reduce_bytes=reduce_bytes)
    weights, _ = weights_of(scenario)
    found = number(traffic.gradient_traffic(scenario, PLAIN))
    assert found == pytest.approx(2 * 7 / 8 * weights * reduce_bytes / (300 * GB))


@pytest.mark.parametrize("zero", [1, 2])
def test_a_sharded_optimizer_scatters_gradients_and_gathers_weights(zero: int) -> None:
    scenario = one_scenario(Layout(dp=8, zero=zero), link_rate=300 * GB, reduce_bytes=4)
    weights, _ = weights_of(scenario)
    found = number(traffic.gradient_traffic(scenario, PLAIN))
    assert found == pytest.approx(7 / 8 * weights * (4 + 2) / (300 * GB))


def test_zero3_has_nothing_left_to_reduce() -> None:
    assert number(traffic.gradient_traffic(one_scenario(Layout(dp=8, zero=3)), PLAIN)) == 0.0


def test_hybrid_sharding_reduces_across_its_copies() -> None:
    """FSDP inside nodes of 8 and two copies: each rank all-reduces an eighth with its twin, 8 GPUs apart."""
    scenario = one_scenario(
        Layout(dp=16, zero=3), link_rate=300 * GB, nic_rate=25 * GB, shard=8, reduce_bytes=4
    )
    weights, _ = weights_of(scenario)
    found = number(traffic.gradient_traffic(scenario, PLAIN))
    assert found == pytest.approx(2 * 1 / 2 * weights / 8 * 4 / (25 * GB))


def test_context_ranks_reduce_gradients_too() -> None:
    wide = one_scenario(Layout(dp=4, cp=2, zero=0))
    narrow = one_scenario(Layout(dp=8, zero=0))
    assert number(traffic.gradient_traffic(wide, PLAIN)) == pytest.approx(
        number(traffic.gradient_traffic(narrow, PLAIN))
    )


def test_gradients_of_experts_meet_a_smaller_group() -> None:
    """Eight ranks, experts on four: expert gradients meet two ranks, the others all eight."""
    scenario = one_scenario(
        Layout(dp=8, ep=4, zero=0), workload(mixture(), 1024), link_rate=300 * GB, reduce_bytes=4
    )
    shared, routed = weights_of(scenario)
    found = number(traffic.gradient_traffic(scenario, PLAIN))
    expected = (2 * 7 / 8 * shared + 2 * 1 / 2 * routed) * 4 / (300 * GB)
    assert found == pytest.approx(expected)
    everywhere = one_scenario(
        Layout(dp=8, ep=8, zero=0), workload(mixture(), 1024), link_rate=300 * GB, reduce_bytes=4
    )
    shared, _ = weights_of(everywhere)
    assert number(traffic.gradient_traffic(everywhere, PLAIN)) == pytest.approx(
        2 * 7 / 8 * shared * 4 / (300 * GB)
    )


def test_buckets_add_latency() -> None:
    """Gradients leave in buckets of fixed size, each with the hops of its collective; at least one."""
    scenario = one_scenario(Layout(dp=8, zero=0), reduce_bytes=4)
    weights, _ = weights_of(scenario)
    free = number(traffic.gradient_traffic(scenario, PLAIN))
    slow = plain(link_latency=1e-3, bucket_bytes=weights * 4 / 10)
    assert number(traffic.gradient_traffic(scenario, slow)) - free == pytest.approx(10 * 6 * 1e-3)
    one = plain(link_latency=1e-3)
    assert number(traffic.gradient_traffic(scenario, one)) - free == pytest.approx(6 * 1e-3)


def test_a_rank_alone_reduces_nothing() -> None:
    physics = plain(link_latency=1.0, network_latency=1.0)
    assert number(traffic.gradient_traffic(one_scenario(Layout(zero=0)), physics)) == 0.0


# ---------------------------------------------------------------------- pipeline sends


def test_a_stage_sends_its_activations() -> None:
    """2,048 tokens of 512 elements of 2 bytes; stages of eight GPUs lie on different nodes."""
    layout = Layout(tp=8, pp=2, dp=1)
    scenario = one_scenario(layout, link_rate=300 * GB, nic_rate=25 * GB, scatter_sends=0)
    found = number(traffic.sends(scenario, plain(network_p2p=0.5)))
    assert found == pytest.approx(2048 * 512 * 2 / (12.5 * GB))


@pytest.mark.parametrize(
    ("scatter", "sequence_parallel", "parts"), [(0, False, 1), (1, False, 8), (0, True, 8)]
)
def test_tensor_ranks_may_each_send_a_part(
    scatter: int, sequence_parallel: bool, parts: int
) -> None:
    layout = Layout(tp=8, pp=2, sequence_parallel=sequence_parallel)
    scenario = one_scenario(layout, nic_rate=25 * GB, scatter_sends=scatter)
    found = number(traffic.sends(scenario, PLAIN))
    assert found == pytest.approx(2048 * 512 * 2 / parts / (25 * GB))


def test_stages_inside_a_node_use_its_links() -> None:
    scenario = one_scenario(Layout(pp=2, dp=1), link_rate=300 * GB, nic_rate=25 * GB)
    found = number(traffic.sends(scenario, plain(link=0.5)))
    assert found == pytest.approx(2048 * 512 * 2 / (150 * GB))
    assert number(traffic.sends(one_scenario(), plain(network_latency=1.0))) == 0.0


def test_a_send_has_a_latency() -> None:
    scenario = one_scenario(Layout(pp=2, dp=1))
    late = number(traffic.sends(scenario, plain(network_latency=1e-3)))
    assert late - number(traffic.sends(scenario, PLAIN)) == pytest.approx(1e-3)


# ---------------------------------------------------------------------- what is hidden, host, optimizer


@pytest.mark.parametrize(
    ("work", "traffic", "hidden", "shown"),
    [(10, 4, 0.5, 2.0), (10, 4, 1.0, 0.0), (10, 4, 0.0, 4.0), (1, 4, 1.0, 3.0), (1, 4, 0.5, 3.0)],
)
def test_traffic_hides_behind_work(
    work: float, traffic: float, hidden: float, shown: float
) -> None:
    """A share may hide, but never more than there is work."""
    assert step.overlapped(work, traffic, hidden) == pytest.approx(shown)


def test_the_host_launches_more_for_tensor_parallelism() -> None:
    """Ranks wait for each other's hosts, up to the size of a node."""
    physics = plain(launch=1e-3, launch_tp=1e-4)
    assert number(compute.host(cluster(), physics)) == pytest.approx(1e-3)
    assert number(compute.host(cluster(tp=4), physics)) == pytest.approx(1e-3 + 9e-4)
    assert number(compute.host(cluster(tp=16), physics)) == pytest.approx(1e-3 + 49e-4)
    assert number(compute.host(cluster(tp=4, launch_factor=2), physics)) == pytest.approx(
        2 * 1.9e-3
    )


def test_the_accelerator_waits_only_for_a_slower_host() -> None:
    """A smooth maximum: nothing when the work is longer, the difference when it is shorter."""
    assert step.idle(1.0, 0.1) == pytest.approx(0.0, abs=1e-6)
    assert step.idle(0.1, 1.0) == pytest.approx(0.9, abs=1e-6)
    assert step.idle(1.0, 1.0) == pytest.approx(2 ** (1 / 8) - 1)


def test_adam_touches_its_states_once() -> None:
    """26 bytes a weight: master weight and two moments in fp32 read and written, the bf16 weight written."""
    read, written = 3 * 4, 3 * 4 + 2
    assert read + written == 26
    scenario = one_scenario(Layout(dp=8, zero=0), memory_rate=1e12)
    weights, _ = weights_of(scenario)
    found = number(step.optimizer(scenario, plain(memory=0.5, step_overhead=0.25)))
    assert found == pytest.approx(26 * weights / 0.5e12 + 0.25)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_sharded_optimizer_updates_its_share(zero: int) -> None:
    scenario = one_scenario(Layout(dp=8, zero=zero), memory_rate=1e12)
    weights, _ = weights_of(scenario)
    found = number(step.optimizer(scenario, PLAIN))
    assert found == pytest.approx(26 * weights / 8 / 1e12)


def test_experts_are_sharded_over_their_own_group() -> None:
    """Eight ranks and experts on four: two ranks share the states of an expert."""
    scenario = one_scenario(Layout(dp=8, ep=4), workload(mixture(), 1024), memory_rate=1e12)
    shared, routed = weights_of(scenario)
    found = number(step.optimizer(scenario, PLAIN))
    assert found == pytest.approx(26 * (shared / 8 + routed / 2) / 1e12)
    alone = one_scenario(Layout(dp=8, ep=8), workload(mixture(), 1024), memory_rate=1e12)
    shared, routed = weights_of(alone)
    found = number(step.optimizer(alone, PLAIN))
    assert found == pytest.approx(26 * (shared / 8 + routed) / 1e12)
