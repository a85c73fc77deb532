"""The page and the text of a plan: everything is said, in place, without a network."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from tests.plan.schedules import play_1f1b

from tumen.plan import (
    Demand,
    Plan,
    ServedModel,
    Workload,
    compare,
    reliability,
    size_serving,
    solve,
)
from tumen.plan.accuracy.published import Refused
from tumen.plan.accuracy.report import Errors, Report, Sweep
from tumen.plan.facts import cards, fleet_of, one_kind
from tumen.plan.output import accuracy_table, comparison_table, explain, page, serving_table
from tumen.plan.output.plan_text import PARTS
from tumen.plan.output.timeline import one_forward_one_backward
from tumen.recipe import Planning

PLANNING = Planning(currency="CNY", price=14.0)


@pytest.fixture(scope="module")
def plan() -> Plan:
    from tests.plan.networks import dense, workload

    asked = workload(dense(24, heads=16), batch_size=96)
    return solve(asked, one_kind(fleet_of("h800:20")), PLANNING)


@pytest.fixture(scope="module")
def staged() -> Plan:
    """A plan with a pipeline of twelve stages."""
    from tests.plan.networks import dense, workload

    planning = Planning(pin={"pp": 12, "tp": 1}, schedules=("1f1b",))
    return solve(workload(dense(12), batch_size=96), one_kind(fleet_of("h800:24")), planning)


# ---------------------------------------------------------------------- text


def line_with(text: str, start: str) -> str:
    """The one line that starts with a word."""
    (found,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return found


def test_the_reasons_are_for_who_asks(plan: Plan) -> None:
    text, why = explain(plan), explain(plan, why=True)
    assert "one decision away" not in text
    assert "one decision away" in why
    assert why.startswith(text)
    for loser in plan.losers:
        assert loser.change in why
        assert loser.reason in why


def test_every_figure_is_printed_with_its_range(plan: Plan) -> None:
    text, best = explain(plan), plan.best
    assert "run: " in text.splitlines()[0]
    assert "on 20 x h800, bf16, 96 x 2048 tokens a step" in text
    assert f"{best.mfu:.1%}" in line_with(text, "MFU")
    assert f"({best.days.low:.1f} .. {best.days.high:.1f})" in line_with(text, "days ")
    assert f"{best.money.value:,.0f}" in line_with(text, "money")
    assert "CNY at 14 an accelerator and hour" in line_with(text, "money")
    assert f"{best.goodput.value:.1%}" in text
    assert f"one every {plan.failures.between_failures_hours:.1f} h" in line_with(text, "failures")
    assert f"keep {plan.failures.spare_nodes} spare nodes" in text
    assert f"({best.bound_by})" in line_with(text, "step ")
    assert "datasheet; software default, factor 1.000" in line_with(text, "evidence")
    for warning in plan.warnings:
        assert warning in text
    assert f"on {best.cards} accelerators" in line_with(text, "layout ")


def test_best_layouts_are_numbered(plan: Plan) -> None:
    text = explain(plan)
    for rank in range(1, len(plan.choices) + 1):
        assert f"\n  {rank}. " in text


def test_active_parameters_are_told_where_they_differ(v2_workload: Workload, plan: Plan) -> None:
    mixture = solve(v2_workload, one_kind(fleet_of("h800:512")))
    assert (
        "235.7B" in explain(mixture).splitlines()[0] or "236B" in explain(mixture).splitlines()[0]
    )
    assert "active" in explain(mixture).splitlines()[0]
    assert "active" not in explain(plan).splitlines()[0]


def test_large_parts_of_a_step_come_first_and_small_ones_not_at_all(plan: Plan) -> None:
    why = explain(plan, why=True)
    section = why.split("parts of a step:")[1].split("\n\n")[0]
    shares = [float(found) for found in re.findall(r"([\d.]+)%", section)]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0.2
    assert "matmuls" in section
    assert "stage_forward" not in section
    small = [
        name for name, value in plan.best.parts_seconds.items() if value == 0 and name in PARTS
    ]
    assert small
    assert not any(PARTS[name] in section for name in small)


def test_long_pipelines_show_their_ends(staged: Plan) -> None:
    """Of more than eight stages the first three and the last two."""
    why = explain(staged, why=True)
    numbers = [int(n) for n in re.findall(r"    stage +(\d+)  ", why)]
    assert len(staged.best.stages) == 12
    assert numbers == [0, 1, 2, 10, 11]


def test_comparison_as_text(gpt3_workload: Workload) -> None:
    found = compare(gpt3_workload, "h800:512,h800:1024", PLANNING)
    lines = list(comparison_table(found))
    assert len(lines) == 1 + 2 + 1
    for side, line in zip(found.sides, lines[1:3], strict=True):
        assert side.fleet in line
        assert f"{side.days:.1f} ({side.days_low:.1f}..{side.days_high:.1f})" in line
        assert f"{side.money:,.0f} CNY" in line
        assert line.endswith(side.layout)
    assert lines[3].strip() == found.says[0]


def test_serving_as_text() -> None:
    from tests.plan.networks import dense

    demand = Demand(devices=120e6, requests_per_day=1.0)
    found = size_serving(ServedModel(dense(24), cards()["h800"]), demand, 2.0, "EUR")
    text = "\n".join(serving_table(found))
    assert f"{found.mean_requests:,.0f} mean, {found.peak_requests:,.0f} at the peak" in text
    assert f"in the cloud        {found.cards:,} accelerators" in text
    assert "EUR a million tokens" in text
    assert "70%; the cloud gets" in text
    assert "datasheet: a sizing" in text


def test_a_check_as_text() -> None:
    """Groups, sources, memory, ranking, and the reasons of refused rows with their counts."""
    errors = Errors(3, 4.5, 9.5, 12.25, -1.5)
    report = Report(
        all=errors,
        dense_published_plan=errors,
        dense_unsharded=errors,
        moe=Errors(0, 0.0, 0.0, 0.0, 0.0),
        memory=errors,
        memory_sources={"own": errors},
        oom={"n": 4, "rejected": 3},
        ran_rejected=("x-1",),
        sources={"own": errors, "other": errors},
        sweeps=(Sweep("own", "GPT", 7, 0.81, 1.045),),
        factors={"megatron 2021": 1.25},
        refused=(
            Refused("a", "own", "too old"),
            Refused("b", "own", "too old"),
            Refused("c", "other", "unknown card"),
        ),
        below_bound=2,
        seconds=1.5,
        rows=(),
    )
    lines = list(accuracy_table(report))
    text = "\n".join(lines)
    assert re.search(r"all rows +3 +4\.5 +9\.5 +12\.2 +-1\.5", text)
    assert re.search(r"mixture of experts +0 ", text)
    assert re.search(r"\n  own +3", text)
    assert re.search(r"\n  memory own +3", text)
    assert "out of memory: 3 of 4 rejected; 1 that ran rejected" in text
    assert "sweep own GPT: 7 plans, Kendall tau 0.81, choice 4.5% over the best" in text
    assert "3 rows refused:" in text
    assert "     2  own: too old" in text
    assert "     1  other: unknown card" in text
    assert "megatron 2021 1.250" in text
    assert lines[-1] == "2 plans below the physical bound; 1.50 s"


# ---------------------------------------------------------------------- page


def test_page_is_self_contained(plan: Plan) -> None:
    text = page(plan, Planning())
    assert not re.search(r"https?://|src=|@import|<script", text)
    assert text.count("<svg") == 4
    assert text.count("aria-label") == 4


def test_the_page_says_what_the_text_says(plan: Plan) -> None:
    text = page(plan, PLANNING)
    assert "<h1>run on 20 x h800</h1>" in text
    for warning in plan.warnings:
        assert f"<strong>Note:</strong> {warning.replace(chr(39), '&#x27;')}" in text
    assert f"{plan.best.mfu:.1%}" in text
    assert f"{plan.best.money.value:,.0f}  (" in text
    assert "money in CNY" in text
    for choice in plan.choices:
        assert f"{choice.days.value:.1f}" in text
    for loser in plan.losers:
        assert loser.change in text


def test_names_are_escaped(plan: Plan) -> None:
    named = plan.model_copy(update={"name": "<b>&"})
    assert "<h1>&lt;b&gt;&amp; on 20 x h800</h1>" in page(named, PLANNING)


def bars(figure: str) -> list[tuple[float, float, float, float]]:
    """(x, y, width, height) of each rectangle."""
    pattern = r'<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)"'
    return [tuple(float(n) for n in found) for found in re.findall(pattern, figure)]  # type: ignore[misc]


def figures_of(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, flags=re.S)


def test_parts_of_a_step_fill_a_bar(plan: Plan) -> None:
    """Widths are proportional to seconds, side by side, 900 units in all."""
    step, *_ = figures_of(page(plan, PLANNING))
    found = bars(step)
    parts = {n: s for n, s in plan.best.parts_seconds.items() if n in PARTS and s > 0}
    total = sum(parts.values())
    assert [w for _, _, w, _ in found] == pytest.approx(
        [900 * s / total for s in parts.values()], abs=0.06
    )
    for (x, _, w, _), (after, _, _, _) in pairwise(found):
        assert after == pytest.approx(x + w, abs=0.11)


def test_memory_bars_are_stacked_from_the_floor(staged: Plan) -> None:
    """The fullest stage is 190 units high; kinds stand on each other from y = 200 up."""
    _, _, memory, _ = figures_of(page(staged, PLANNING))
    found = bars(memory)
    stages = staged.best.stages
    most = max(stage.total for stage in stages)
    assert len(found) == 6 * len(stages)
    for k, stage in enumerate(stages):
        column = found[6 * k : 6 * k + 6]
        assert sum(h for *_, h in column) == pytest.approx(190 * stage.total / most, abs=0.4)
        assert column[0][1] + column[0][3] == pytest.approx(200.0, abs=0.11)
        assert column[-1][1] == pytest.approx(200 - 190 * stage.total / most, abs=0.4)


def test_goodput_of_other_fleets_is_drawn(plan: Plan) -> None:
    """An eighth to eight times the cards: goodput from the failure model, days as if the step scaled ideally."""
    *_, fleet = figures_of(page(plan, PLANNING))
    best = plan.best
    for power in range(-3, 4):
        count = max(int(best.cards * 2**power), 1)
        found = reliability(count, plan.node_cards, plan.parameters, PLANNING)
        assert f">{count:,}<" in fleet
        assert f">{found.goodput:.1%}<" in fleet
        days = best.days.value * best.goodput.value * best.cards / count / found.goodput
        assert f">{days:.1f} d<" in fleet


# ---------------------------------------------------------------------- timeline


@pytest.mark.parametrize(("stages", "micro"), [(1, 4), (4, 4), (4, 9), (8, 3)])
def test_timeline_is_1f1b(stages: int, micro: int) -> None:
    """The exact schedule takes (m + p - 1)(F + B), the closed form of the step model.

    Every operation runs once, after its inputs.
    """
    slots = one_forward_one_backward(stages, micro, 1.0, 2.0)
    assert all(len(row) == 2 * micro for row in slots)
    end = max(stop for row in slots for _, _, stop in row)
    assert end == pytest.approx((micro + stages - 1) * 3.0)
    assert end == pytest.approx(play_1f1b(micro, [1.0] * stages, [2.0] * stages).seconds)
    for row in slots:
        assert all(a[2] <= b[1] for a, b in pairwise(row))
        assert sum(kind == "f" for kind, _, _ in row) == micro


def test_operations_start_after_their_inputs() -> None:
    slots = one_forward_one_backward(3, 5, 1.0, 2.0)
    ends = [{"f": [], "b": []} for _ in slots]
    for stage, row in enumerate(slots):
        for kind, start, stop in row:
            ends[stage][kind].append((start, stop))
    for stage in range(3):
        for k in range(5):
            if stage:
                assert ends[stage]["f"][k][0] >= ends[stage - 1]["f"][k][1]
            if stage < 2:
                assert ends[stage]["b"][k][0] >= ends[stage + 1]["b"][k][1]
            assert ends[stage]["b"][k][0] >= ends[stage]["f"][k][1]


def test_the_timeline_shows_eight_stages_and_twelve_micro_batches(staged: Plan) -> None:
    _, timeline, *_ = figures_of(page(staged, PLANNING))
    micro = min(12, 96 // (int(staged.best.layout["dp"]) * int(staged.best.layout["micro_batch"])))
    assert len(bars(timeline)) == 8 * 2 * micro
    assert f"{micro} micro-batches on 8 stages of 12 in 1F1B order" in timeline
    assert ">stage 7<" in timeline
    assert ">stage 8<" not in timeline
