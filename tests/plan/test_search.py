"""Search: the same as trying everything, and refusals with a way out."""

from __future__ import annotations

import pytest

from tumen.core.errors import PlanError
from tumen.plan import Job, Layout, solve
from tumen.plan.facts import cards
from tumen.plan.facts.card import Group
from tumen.plan.job import case_of
from tumen.plan.search import Space, search, space_of
from tumen.recipe.recipe import Planning

SMALL = Space(tensor=(1, 2, 4, 8), pipeline=(1, 2, 3, 4, 6, 8), chunks=(1, 2, 4), micro=(1, 2))


@pytest.mark.parametrize("cards_", [64, 96, 512])
@pytest.mark.parametrize("card", ["a100", "h100"])
def test_equal_to_exhaustive(gpt3_job: Job, card: str, cards_: int) -> None:
    quick = search(gpt3_job, cards()[card], cards_, space=SMALL)
    slow = search(gpt3_job, cards()[card], cards_, space=SMALL, prune=False)
    assert quick.layouts == slow.layouts
    assert quick.seconds == slow.seconds
    assert slow.timed == slow.considered - slow.too_large


def test_equal_to_exhaustive_with_experts(v2_job: Job) -> None:
    space = Space(
        tensor=(1, 2), pipeline=(4, 5, 10, 12), expert=(1, 8, 16), micro=(1, 2), chunks=(1, 2)
    )
    quick = search(v2_job, cards()["h800"], 1024, space=space)
    slow = search(v2_job, cards()["h800"], 1024, space=space, prune=False)
    assert (quick.layouts, quick.seconds) == (slow.layouts, slow.seconds)


def test_found_layouts_are_legal_and_distinct(v2_job: Job) -> None:
    found = search(v2_job, cards()["h800"], 2000)
    meshes = {(layout.tp, layout.pp, layout.cp, layout.ep) for layout in found.layouts}
    assert len(meshes) == len(found.layouts) == 5
    for layout in found.layouts:
        case_of(v2_job, layout, cards()["h800"])
        assert layout.cards <= 2000
    assert list(found.seconds) == sorted(found.seconds)


def test_too_small_a_fleet_says_what_would_hold_it(gpt3_job: Job) -> None:
    with pytest.raises(PlanError, match=r"does not fit 8 x a100: .* try a100:\d+"):
        search(gpt3_job, cards()["a100"], 8)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout(tp=5, dp=2), "tp 5 does not divide 96 heads; the nearest that does is 4"),
        (Layout(pp=97), "the most is 96"),
        (Layout(ep=2, dp=2), "no experts; ep is 1"),
        (Layout(cp=3), "cp 3 does not divide 2048 tokens; the nearest is 2"),
        (Layout(dp=4096), "smaller than the mesh.*use 4096"),
        (Layout(tp=0), "the least is 1"),
        (Layout(pp=48, vpp=4), "vpp can be 2"),
    ],
)
def test_nonsense_layouts(gpt3_job: Job, layout: Layout, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        case_of(gpt3_job, layout, cards()["a100"])


def test_no_cards(gpt3_job: Job) -> None:
    with pytest.raises(PlanError, match="smallest fleet is a100:1"):
        solve(gpt3_job, Group(cards()["a100"], 0))


def test_losers_have_reasons(gpt3_job: Job) -> None:
    plan = solve(gpt3_job, Group(cards()["h100"], 1024))
    assert plan.losers
    assert all(loser.reason for loser in plan.losers)
    assert any("does not fit" in loser.reason or "slower" in loser.reason for loser in plan.losers)


def test_space_knows_experts(v2_job: Job, gpt3_job: Job) -> None:
    assert space_of(gpt3_job, cards()["h100"], 64).expert == (1,)
    assert 16 in space_of(v2_job, cards()["h100"], 64).expert


def test_schedules_and_network_are_the_users(gpt3_job: Job) -> None:
    group = Group(cards()["h100"], 1024)
    free = solve(gpt3_job, group, Planning())
    plain = solve(gpt3_job, group, Planning(schedules=("1f1b",)))
    thin = solve(gpt3_job, group, Planning(oversubscription=4.0))
    assert all(choice.layout["schedule"] == "1f1b" for choice in plain.choices)
    assert plain.best.step_seconds.value >= free.best.step_seconds.value
    assert thin.best.step_seconds.value > free.best.step_seconds.value
