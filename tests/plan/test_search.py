"""Search: the same as trying everything, and refusals with a way out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.plan.networks import dense, mixture, workload

from tumen.core.errors import PlanError
from tumen.plan import Layout, Workload, solve
from tumen.plan.facts import FleetGroup, cards
from tumen.plan.layout import RECOMPUTE, scenario_of
from tumen.plan.model import bound, memory
from tumen.plan.model.physics import fitted
from tumen.plan.model.scenario import Scenario, stack
from tumen.plan.search import (
    BLOCK,
    Found,
    best_of_meshes,
    larger_fleet,
    nearest_batch,
    search,
    tally,
    time_best,
    why_none,
    why_too_large,
    worst_kept,
)
from tumen.plan.space import (
    POLICIES,
    Space,
    even_enough,
    experts_divide,
    layout_of,
    layouts,
    pinned,
    policy_applies,
    scenario_table,
    schedule_is_legal,
    space_of,
    widest_group,
)
from tumen.recipe import Planning

SMALL = Space(tensor=(1, 2, 4, 8), pipeline=(1, 2, 3, 4, 6, 8), chunks=(1, 2, 4), micro=(1, 2))


# ---------------------------------------------------------------------- equal to trying everything


@pytest.mark.parametrize("cards_", [64, 96, 512])
@pytest.mark.parametrize("card", ["a100", "h100"])
def test_equal_to_exhaustive(gpt3_workload: Workload, card: str, cards_: int) -> None:
    quick = search(gpt3_workload, cards()[card], cards_, space=SMALL)
    slow = search(gpt3_workload, cards()[card], cards_, space=SMALL, prune=False)
    assert quick.layouts == slow.layouts
    assert quick.seconds == slow.seconds
    assert slow.timed == slow.considered - slow.too_large


def test_equal_to_exhaustive_with_experts(v2_workload: Workload) -> None:
    space = Space(
        tensor=(1, 2), pipeline=(4, 5, 10, 12), expert=(1, 8, 16), micro=(1, 2), chunks=(1, 2)
    )
    quick = search(v2_workload, cards()["h800"], 1024, space=space)
    slow = search(v2_workload, cards()["h800"], 1024, space=space, prune=False)
    assert (quick.layouts, quick.seconds) == (slow.layouts, slow.seconds)


def test_found_layouts_are_legal_and_distinct(v2_workload: Workload) -> None:
    found = search(v2_workload, cards()["h800"], 2000)
    meshes = {(layout.tp, layout.pp, layout.cp, layout.ep) for layout in found.layouts}
    assert len(meshes) == len(found.layouts) == 5
    for layout in found.layouts:
        scenario_of(v2_workload, layout, cards()["h800"])
        assert layout.world_size <= 2000
    assert list(found.seconds) == sorted(found.seconds)


@pytest.mark.parametrize("top", [1, 2, 7])
def test_as_many_layouts_as_were_asked_for(gpt3_workload: Workload, top: int) -> None:
    few = search(gpt3_workload, cards()["h100"], 512, top=top)
    many = search(gpt3_workload, cards()["h100"], 512, top=12)
    assert few.layouts == many.layouts[:top]
    assert few.seconds == many.seconds[:top]


def test_every_layout_is_accounted_for(v2_workload: Workload) -> None:
    found = search(v2_workload, cards()["h800"], 2048)
    counts = tally(found)
    assert sum(counts.values()) == found.considered > 10 * BLOCK
    assert counts["timed"] == found.timed > 0
    assert counts["does not fit"] == found.too_large > 0


def test_the_smallest_peak_is_told(gpt3_workload: Workload) -> None:
    """`smallest_bytes` is the least any layout needs, whether it fits or not."""
    asked, card = gpt3_workload, cards()["h100"]
    found = search(asked, card, 512, space=SMALL)
    rows = np.array(list(layouts(asked, 512, SMALL)), dtype=float)
    peaks = memory.peak(scenario_table(asked, card, 512, rows))
    assert found.smallest_bytes == float(np.min(peaks.total))


# ---------------------------------------------------------------------- the table


def rows_of(asked: Workload, count: int, space: Space | None = None) -> np.ndarray:
    """The layouts of a question."""
    card = cards()["h100"]
    return np.array(list(layouts(asked, count, space or space_of(asked, card, count))))


@pytest.mark.parametrize(
    "asked",
    [workload(dense(12)), workload(mixture(9), 4096, 16), workload(dense(4), 32768, 8)],
    ids=["dense", "moe", "context"],
)
def test_a_row_and_its_layout_are_the_same_case(asked: Workload) -> None:
    """The search fills a table at once; each row must be what the layout alone would give."""
    card = cards()["h100"]
    rows = rows_of(asked, 8)
    table = scenario_table(asked, card, 8, rows.astype(float))
    for k in range(0, len(rows), 11):
        single = scenario_of(asked, layout_of(rows[k]), card)
        row = table.take(np.array([k]))
        for name in Scenario.__dataclass_fields__:
            value = float(np.asarray(getattr(row, name)).reshape(-1)[0])
            assert value == float(getattr(single, name)), name


def test_a_layout_uses_what_it_says() -> None:
    row = np.array([2, 3, 2, 1, 4, 8, 2, POLICIES.index("full"), 1, 1])
    assert layout_of(row) == Layout(
        tp=2, pp=3, vpp=2, cp=1, ep=4, dp=8, micro_batch=2, recompute="full", zero=1,
        schedule="interleaved", sequence_parallel=True,
    )  # fmt: skip
    assert not layout_of(np.array([1, *row[1:]])).sequence_parallel


def test_every_policy_is_known() -> None:
    assert set(POLICIES) <= set(RECOMPUTE)


# ---------------------------------------------------------------------- the space


def test_space_knows_experts(v2_workload: Workload, gpt3_workload: Workload) -> None:
    assert space_of(gpt3_workload, cards()["h100"], 64).expert == (1,)
    assert 16 in space_of(v2_workload, cards()["h100"], 64).expert


def test_tensor_parallelism_stays_on_fast_links(gpt3_workload: Workload) -> None:
    """96 heads: powers of two that divide them, inside a node of 8 or a domain of 72 (64 at most)."""
    assert space_of(gpt3_workload, cards()["h100"], 512).tensor == (1, 2, 4, 8)
    assert space_of(gpt3_workload, cards()["gb200"], 512).tensor == (1, 2, 4, 8, 16, 32)
    many = workload(dense(4, heads=512, head_dim=16))
    assert max(space_of(many, cards()["gb200"], 512).tensor) == 64
    node = replace(cards()["h100"], node=4, domain=2)
    assert max(space_of(gpt3_workload, node, 512).tensor) == 4


def test_pipelines_have_nearly_even_stages(gpt3_workload: Workload) -> None:
    stages = space_of(gpt3_workload, cards()["h100"], 64).pipeline
    assert max(stages) <= 64
    assert {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48} <= set(stages)
    assert space_of(gpt3_workload, cards()["h100"], 4096).pipeline[-1] == 96
    deep = workload(dense(200))
    assert max(space_of(deep, cards()["h100"], 4096).pipeline) <= 128


@pytest.mark.parametrize(
    ("layers", "pp", "even"),
    [
        (12, 4, True),
        (7, 4, True),  # 2 2 2 1
        (10, 4, True),  # 3 3 3 1: half of three is one
        (13, 4, False),  # 4 4 4 1
        (14, 4, True),  # 4 4 4 2
        (5, 4, False),  # 2 2 2 -1
        (9, 4, False),  # 3 3 3 0
        (9, 5, True),  # 2 2 2 2 1
        (1, 1, True),
    ],
)
def test_the_last_stage_holds_at_least_half(layers: int, pp: int, even: bool) -> None:
    assert even_enough(layers, pp) == even


@pytest.mark.parametrize(
    ("seq", "context"),
    [
        (2048, (1,)),
        (8192, (1,)),
        (16384, (1, 2)),
        (32768, (1, 2, 4)),
        (24576, (1, 2)),
        (1 << 20, (1, 2, 4, 8, 16, 32)),
    ],
)
def test_context_parallelism_keeps_8192_tokens_a_rank(seq: int, context: tuple[int, ...]) -> None:
    assert space_of(workload(dense(4), seq), cards()["h100"], 64).context == context


def test_experts_spread_over_at_most_128_ranks() -> None:
    wide = workload(mixture(4, routed=512), 4096)
    assert space_of(wide, cards()["h100"], 4096).expert == (1, 2, 4, 8, 16, 32, 64, 128)
    odd = workload(mixture(4, routed=6), 4096)
    assert space_of(odd, cards()["h100"], 64).expert == (1, 2, 3, 6)


@pytest.mark.parametrize(
    ("batch", "most", "micro", "dp"),
    [
        (24, 12, 1, 12),
        (24, 11, 1, 8),
        (24, 7, 2, 6),
        (24, 100, 4, 6),
        (25, 8, 2, 0),
        (7, 6, 1, 1),
        (8, 8, 8, 1),
    ],
)
def test_the_widest_group_divides_the_batch(batch: int, most: int, micro: int, dp: int) -> None:
    assert widest_group(batch, most, micro) == dp


@pytest.mark.parametrize(
    ("layers", "pp", "vpp", "schedule", "micro_batches", "legal"),
    [
        (12, 1, 1, "1f1b", 3, True),
        (12, 1, 2, "1f1b", 4, False),
        (12, 1, 1, "zero-bubble", 4, False),
        (12, 4, 1, "1f1b", 3, True),
        (12, 4, 2, "1f1b", 4, False),
        (12, 4, 3, "interleaved", 8, True),
        (12, 4, 3, "interleaved", 9, False),
        (12, 4, 1, "interleaved", 8, False),
        (11, 4, 3, "interleaved", 8, False),
        (12, 4, 1, "zero-bubble", 1, True),
        (12, 4, 2, "zero-bubble", 8, False),
        (12, 4, 1, "dualpipe", 8, True),
        (12, 4, 1, "dualpipe", 7, False),
        (12, 4, 1, "dualpipe", 6, False),
        (12, 4, 1, "dualpipe", 9, False),
        (12, 4, 2, "dualpipe", 8, False),
        (12, 3, 1, "dualpipe", 8, False),
    ],
)
def test_schedules(
    layers: int, pp: int, vpp: int, schedule: str, micro_batches: int, legal: bool
) -> None:
    assert schedule_is_legal(layers, pp, vpp, schedule, micro_batches) == legal


def test_recompute_policies_that_mean_something() -> None:
    assert [policy_applies(workload(dense()), policy) for policy in POLICIES] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert [policy_applies(workload(mixture()), policy) for policy in POLICIES] == [True] * 5


# ---------------------------------------------------------------------- pinned parts


def test_pinned_parts_are_the_only_values(gpt3_workload: Workload) -> None:
    space = space_of(gpt3_workload, cards()["h100"], 512)
    pin = {"tp": 8, "pp": 6, "vpp": 4, "micro_batch": 2, "zero": 1, "cp": 1, "ep": 1}
    found = pinned(space, pin, gpt3_workload)
    assert (found.tensor, found.pipeline, found.chunks) == ((8,), (6,), (4,))
    assert (found.micro, found.zero, found.context, found.expert) == ((2,), (1,), (1,), (1,))
    assert found.policies == space.policies
    assert pinned(space, {}, gpt3_workload) == space


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        ({"tp": 5}, "tp 5 does not divide 96 heads; the nearest that does is 4"),
        ({"ep": 2}, "ep 2 does not divide 1 experts; the nearest that does is 1"),
        ({"zero": 4}, "the nearest legal value is 3"),
        ({"micro_batch": 1537}, "the most is 1536"),
        ({"pp": 97}, "pp 97 is more than 96 layers; the most is 96"),
    ],
)
def test_pins_the_network_cannot_have(
    gpt3_workload: Workload, pin: dict[str, int], says: str
) -> None:
    with pytest.raises(PlanError, match=says):
        pinned(space_of(gpt3_workload, cards()["h100"], 512), pin, gpt3_workload)


def test_experts_are_pinned_to_their_divisors(v2_workload: Workload) -> None:
    space = space_of(v2_workload, cards()["h800"], 512)
    with pytest.raises(
        PlanError, match="ep 7 does not divide 160 experts; the nearest that does is 8"
    ):
        pinned(space, {"ep": 7}, v2_workload)
    assert pinned(space, {"ep": 5}, v2_workload).expert == (5,)


def test_a_part_that_is_not_pinned_is_not_checked() -> None:
    """One head, one layer and one sequence: any default above one would be too much."""
    least = workload(dense(1, heads=1), batch_size=1)
    space = space_of(least, cards()["h100"], 1)
    assert pinned(space, {}, least) == space


@pytest.mark.parametrize(
    ("ep", "stage_ranks", "legal"),
    [(1, 1, True), (4, 8, True), (8, 8, True), (3, 6, False), (4, 6, False), (16, 16, False)],
)
def test_expert_groups_tile_ranks_and_experts(ep: int, stage_ranks: int, legal: bool) -> None:
    assert experts_divide(workload(mixture(9, routed=8)), ep, stage_ranks) == legal


@pytest.mark.parametrize("pin", [{"pp": 96}, {"zero": 3}, {"micro_batch": 1536}, {"tp": 96}])
def test_the_largest_pins_are_legal(gpt3_workload: Workload, pin: dict[str, int]) -> None:
    pinned(space_of(gpt3_workload, cards()["h100"], 512), pin, gpt3_workload)


def test_a_pinned_plan_has_that_layout(gpt3_workload: Workload) -> None:
    plan = solve(gpt3_workload, FleetGroup(cards()["h100"], 512), Planning(pin={"tp": 4, "pp": 8}))
    assert all((c.layout["tp"], c.layout["pp"]) == (4, 8) for c in plan.choices)


# ---------------------------------------------------------------------- order of what was found


def test_the_best_of_each_mesh_is_kept() -> None:
    """Ties go to less recompute, then to fewer tensor ranks; layouts that were not timed are left out."""
    rows = np.zeros((6, 10))
    rows[:, 0] = (2, 1, 1, 1, 1, 4)  # tensor ranks
    rows[:, 7] = (0, 3, 1, 0, 0, 0)  # recompute policy
    meshes = np.array([0, 1, 1, 2, 2, 3])
    seconds = np.array([2.0, 1.0, 1.0, 2.0, 5.0, np.inf])
    assert best_of_meshes(rows, meshes, seconds, 5) == [2, 3, 0]
    assert best_of_meshes(rows, meshes, seconds, 2) == [2, 3]


def test_equal_to_the_ninth_digit_is_equal() -> None:
    rows = np.zeros((2, 10))
    rows[:, 7] = (1, 0)
    meshes = np.array([0, 1])
    assert best_of_meshes(rows, meshes, np.array([1.0, 1.0 + 1e-12]), 1) == [1]
    assert best_of_meshes(rows, meshes, np.array([1.0, 1.0 + 1e-6]), 1) == [0]


def test_what_must_be_beaten() -> None:
    """The second-best mesh of three, once there are two; each mesh counts with its fastest layout."""
    seconds = np.array([5.0, 3.0, 4.0, 9.0])
    meshes = np.array([0, 0, 1, 2])
    assert worst_kept(seconds, meshes, 1) == 3.0
    assert worst_kept(seconds, meshes, 2) == 4.0
    assert worst_kept(seconds, meshes, 3) == 9.0
    assert worst_kept(seconds, meshes, 4) == np.inf


def test_what_must_be_beaten_is_the_next_in_order_of_seconds() -> None:
    seconds = np.random.default_rng(0).permutation(500).astype(float)
    found = [worst_kept(seconds, np.arange(500), top) for top in range(1, 501)]
    assert found == sorted(seconds)


def growing_work(count: int, times: float) -> Scenario:
    """One layout with ever more work in a step: the bound of row k grows as 1 + k."""
    single = scenario_of(workload(batch_size=8), Layout(dp=8), cards()["h100"])
    return stack([single.changed(batch_size=8.0 * (1 + k), factor=times) for k in range(count)])


def test_blocks_beyond_the_bound_are_not_timed() -> None:
    """Layouts are timed in order of their bound, and not beyond the slowest that would still be kept."""
    count = 4 * BLOCK
    scenarios, index = growing_work(count, times=1.0), np.arange(count)[::-1].copy()
    meshes = np.zeros(count, dtype=int)
    seconds, timed = time_best(scenarios, index, meshes, fitted(), 1, prune=True)
    assert timed == BLOCK
    assert list(np.flatnonzero(np.isfinite(seconds))) == list(range(BLOCK))
    everything, every = time_best(scenarios, index, meshes, fitted(), 1, prune=False)
    assert every == count
    assert everything.min() == seconds.min()


def test_a_block_whose_bound_could_still_win_is_timed() -> None:
    """Software 1,500 times slower than physics: the fastest of the first block does not exclude the second."""
    count = 3 * BLOCK
    scenarios = growing_work(count, times=1500.0)
    meshes = np.zeros(count, dtype=int)
    _, timed = time_best(scenarios, np.arange(count), meshes, fitted(), 1, prune=True)
    floor = bound.seconds(scenarios)
    best = 1500.0 * float(floor[0])
    assert best > floor[BLOCK]
    assert timed >= 2 * BLOCK


def test_as_many_meshes_as_are_kept_must_be_beaten() -> None:
    """Two meshes are wanted and the second is only in a late block: nothing is pruned before it is timed."""
    count = 3 * BLOCK
    scenarios = growing_work(count, times=1.0)
    meshes = np.zeros(count, dtype=int)
    meshes[-1] = 1
    _, timed = time_best(scenarios, np.arange(count), meshes, fitted(), 2, prune=True)
    assert timed == count


# ---------------------------------------------------------------------- refusals


def test_too_small_a_fleet_says_what_would_hold_it(gpt3_workload: Workload) -> None:
    with pytest.raises(PlanError, match=r"does not fit 8 x a100: .* try a100:\d+"):
        search(gpt3_workload, cards()["a100"], 8)


def test_what_does_not_fit_is_told_in_gigabytes() -> None:
    card = replace(cards()["a100"], memory_bytes=85.4e9)
    why = why_too_large(workload(dense(2)), card, 8, smallest=123.6e9)
    assert "the smallest layout needs 124 GB of the 85 GB of an accelerator; try a100:16" in why


def test_the_fleet_to_try_holds_the_states(gpt3_workload: Workload) -> None:
    """18 bytes a weight in seven tenths of the memory, in whole nodes, and more than was asked."""
    card = cards()["a100"]
    need = gpt3_workload.shape.parameters() * 18 / (0.7 * card.memory_bytes)
    found = int(larger_fleet(gpt3_workload, card, 8).rpartition(":")[2])
    assert found % card.node == 0
    assert need <= found < need + card.node
    assert larger_fleet(gpt3_workload, card, 1000) == "try a100:1008"
    assert larger_fleet(workload(dense(2)), card, 3) == "try a100:16"


def test_what_was_tried_does_not_fit_but_the_hint_does(gpt3_workload: Workload) -> None:
    with pytest.raises(PlanError) as caught:
        search(gpt3_workload, cards()["a100"], 16)
    count = int(str(caught.value).rpartition("a100:")[2])
    assert search(gpt3_workload, cards()["a100"], count).layouts


def test_no_cards(gpt3_workload: Workload) -> None:
    with pytest.raises(PlanError, match="smallest fleet is a100:1"):
        solve(gpt3_workload, FleetGroup(cards()["a100"], 0))
    with pytest.raises(PlanError, match="smallest fleet is a100:1"):
        search(gpt3_workload, cards()["a100"], 0)


def test_one_card_can_train_a_small_network() -> None:
    found = search(workload(dense(2), batch_size=4), cards()["a100"], 1)
    assert found.layouts[0].world_size == 1


def test_why_no_layout_is_legal(gpt3_workload: Workload) -> None:
    space = Space(tensor=(8, 4), pipeline=(6, 3), context=(2, 1))
    assert "the least is 12" in why_none(gpt3_workload, 8, space)
    assert "the least is 24" in why_none(gpt3_workload, 8, replace(space, context=(4, 2)))
    assert "not divided by any mesh" in why_none(gpt3_workload, 12, space)
    batch = why_none(replace(gpt3_workload, batch_size=1000), 512, space)
    assert "batch 1000 is not divided by any mesh of 512 accelerators" in batch
    assert "many divisors is 1024" in batch
    assert "many divisors is 64" in why_none(replace(gpt3_workload, batch_size=7), 512, space)


def test_the_batch_to_try_has_a_layout(gpt3_workload: Workload) -> None:
    """Not the rejected one again: 64 sequences divide no mesh of so many accelerators."""
    space = Space(tensor=(4,), pipeline=(3,))
    rejected = replace(gpt3_workload, batch_size=64)
    assert not list(layouts(rejected, 2304, space))
    hint = nearest_batch(rejected, 2304, space)
    assert hint is not None
    assert hint != 64
    assert list(layouts(replace(rejected, batch_size=hint), 2304, space))
    assert f"many divisors is {hint} sequences" in why_none(rejected, 2304, space)


def test_where_no_batch_helps_the_hint_names_none(gpt3_workload: Workload) -> None:
    nothing = Space(tensor=(4,), pipeline=(3,), micro=())
    why = why_none(gpt3_workload, 512, nothing)
    assert why.endswith("; unpin a part of the layout, or take another fleet")
    assert "nearest batch" not in why


def test_tally_of_a_search() -> None:
    found = Found((), (), considered=100, too_large=30, timed=50, smallest_bytes=1.0)
    assert tally(found) == {
        "does not fit": 30, "slower even on a perfect machine": 20, "timed": 50
    }  # fmt: skip


def test_stacked_cases_keep_their_order() -> None:
    layouts = [Layout(dp=n) for n in (4, 1, 2)]
    table = stack([scenario_of(workload(), layout, cards()["a100"]) for layout in layouts])
    assert list(table.dp) == [4.0, 1.0, 2.0]
