"""A plan, a comparison, a check and a sizing as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from tumen.core import units
from tumen.plan.accuracy.report import Errors, Report
from tumen.plan.comparison import Comparison, Side
from tumen.plan.planned_run import Figure, Plan, PlannedLayout, StageBytes, layout_text
from tumen.plan.serving import Serving

PARTS = {
    "matmul": "matmuls",
    "attention": "attention core",
    "elementwise": "norms, activations, copies",
    "host": "waiting for the host",
    "head": "head on the last stage",
    "tensor": "tensor-parallel traffic",
    "context": "context-parallel traffic",
    "expert": "expert traffic",
    "sharded": "gathering sharded weights",
    "pipeline_sends": "sends between stages",
    "bubble": "pipeline bubble",
    "gradients": "gradient traffic",
    "optimizer": "optimizer",
}
SMALLEST_PART = 0.002  # of a step that is printed
MOST_STAGES = 8  # printed in full; of more, the first three and the last two


# ---------------------------------------------------------------------- a plan


def explain(plan: Plan, why: bool = False) -> str:
    """Return a plan as text.

    Args:
        plan: the answer of `solve`.
        why: add the parts of a step, bytes by stage, and why other layouts are worse.
    """
    lines = [*heading(plan), "", *figures(plan), "", *best_layouts(plan)]
    if why:
        lines += reasons(plan)
    return "\n".join(lines)


def heading(plan: Plan) -> Iterator[str]:
    """Yield what was asked."""
    active = ""
    if plan.active_parameters != plan.parameters:
        active = f", {units.show_count(plan.active_parameters)} active"
    parameters = units.show_count(plan.parameters)
    yield f"{plan.name}: {parameters} parameters{active}, {units.show_count(plan.tokens)} tokens"
    yield (
        f"on {plan.fleet_cards} x {plan.card}, {plan.precision}, "
        f"{plan.batch_sequences} x {plan.sequence_tokens} tokens a step"
    )


def figures(plan: Plan) -> Iterator[str]:
    """Yield the figures of the best layout, with their ranges."""
    best = plan.best
    bound = f"{units.show_seconds(best.bound_seconds)} ({best.bound_by})"
    yield f"  layout       {layout_text(best.layout)} on {best.cards} accelerators"
    yield f"  step         {ranged(best.step_seconds, units.show_seconds)}; bound {bound}"
    yield f"  MFU          {best.mfu:.1%}"
    yield f"  memory       {ranged(best.memory_bytes, units.show_bytes)} of an accelerator"
    yield f"  speed        {ranged(best.tokens_per_day, units.show_count)} tokens a day"
    yield from failure_figures(plan)
    yield from cost_figures(plan)
    yield (
        f"  evidence     {best.step_seconds.grade}; software {plan.software}, "
        f"factor {plan.software_factor:.3f}"
    )
    for warning in plan.warnings:
        yield f"  note         {warning}"


def failure_figures(plan: Plan) -> Iterator[str]:
    """Yield how often a run fails, when to save, and what spare nodes are worth."""
    run = plan.failures
    goodput = ranged(plan.best.goodput, "{:.1%}".format)
    yield (
        f"  failures     one every {run.between_failures_hours:.1f} h; save every "
        f"{run.save_every_steps} steps ({run.save_every_seconds:.0f} s)"
    )
    yield f"               keep {run.spare_nodes} spare nodes; goodput {goodput}"
    yield (
        f"               without spares: {run.elastic_goodput:.1%} elastic, "
        f"{run.waiting_goodput:.1%} waiting for repairs"
    )


def cost_figures(plan: Plan) -> Iterator[str]:
    """Yield days, accelerator-hours, energy and money of the whole run."""
    best = plan.best
    money = ranged(best.money, "{:,.0f}".format)
    trillion = ranged(best.hours_per_trillion, units.show_count)
    yield f"  days         {ranged(best.days, '{:.1f}'.format)}"
    yield f"  hours        {ranged(best.card_hours, units.show_count)} accelerator-hours"
    yield f"  a trillion   {trillion} accelerator-hours a trillion tokens, without failures"
    yield f"  energy       {ranged(best.energy_kwh, units.show_count)} kWh"
    yield f"  money        {money} {plan.currency} at {plan.price:g} an accelerator and hour"


def best_layouts(plan: Plan) -> Iterator[str]:
    """Yield the best layouts, numbered."""
    yield "  best layouts (step, memory, days):"
    for rank, choice in enumerate(plan.choices, 1):
        yield f"  {rank}. {layout_row(choice)}"


def ranged(figure: Figure, show: Callable[[float], str]) -> str:
    """Return a value with its error bar."""
    return f"{show(figure.value)}  ({show(figure.low)} .. {show(figure.high)})"


def layout_row(choice: PlannedLayout) -> str:
    """Return one layout in one line."""
    seconds = units.show_seconds(choice.step_seconds.value)
    size = units.show_bytes(choice.memory_bytes.value)
    days = choice.days.value
    return f"{layout_text(choice.layout):62s} {seconds:>8s}  {size:>8s}  {days:6.1f} d"


def reasons(plan: Plan) -> Iterator[str]:
    """Yield the parts of a step, the bytes by stage, and why other layouts are worse."""
    yield ""
    yield "  parts of a step:"
    yield from parts_of_step(plan.best)
    yield ""
    yield (
        "  bytes of an accelerator by stage "
        "(weights, gradients, optimizer, activations, working, logits):"
    )
    stages = plan.best.stages
    if len(stages) > MOST_STAGES:
        # The first ones are the fullest, the last one has the head.
        stages = (*stages[:3], *stages[-2:])
    for stage in stages:
        yield stage_row(stage)
    yield ""
    yield "  one decision away:"
    for loser in plan.losers:
        yield f"    {loser.change:18s} {loser.reason}"
    counts = ", ".join(f"{count} {name}" for name, count in plan.considered.items())
    yield f"  layouts: {counts}"


def parts_of_step(best: PlannedLayout) -> Iterator[str]:
    """Yield the parts of a step, largest first; small ones are left out."""
    total = best.step_seconds.value

    def largest_first(item: tuple[str, float]) -> float:
        return -item[1]

    for name, seconds in sorted(best.parts_seconds.items(), key=largest_first):
        if name in PARTS and seconds > SMALLEST_PART * total:
            shown = units.show_seconds(seconds)
            yield f"    {PARTS[name]:28s} {shown:>8s}  {seconds / total:6.1%}"


def stage_row(stage: StageBytes) -> str:
    """Return the bytes of one stage in one line, in GB."""
    kinds = (
        stage.weights,
        stage.gradients,
        stage.optimizer,
        stage.activations,
        stage.working,
        stage.logits,
    )
    cells = "  ".join(f"{kind / 1e9:6.1f}" for kind in kinds)
    return f"    stage {stage.stage:3d}  {cells}   = {stage.total / 1e9:6.1f} GB"


# ---------------------------------------------------------------------- a check


def accuracy_table(report: Report) -> Iterator[str]:
    """Yield the errors of `tumen plan check` by group and source, ranking, and refused rows."""
    yield from errors_table(report)
    yield ""
    yield (
        f"out of memory: {report.oom['rejected']} of {report.oom['n']} rejected; "
        f"{len(report.ran_rejected)} that ran rejected"
    )
    for sweep in report.sweeps:
        over = (sweep.chosen_over_best - 1) * 100
        yield (
            f"  sweep {sweep.source} {sweep.model}: {sweep.n} plans, "
            f"Kendall tau {sweep.kendall_tau:.2f}, choice {over:.1f}% over the best"
        )
    yield from refused_rows(report)
    factors = [f"{name} {value:.3f}" for name, value in sorted(report.factors.items())]
    yield "software factors: " + ", ".join(factors)
    yield f"{report.below_bound} plans below the physical bound; {report.seconds:.2f} s"


def errors_table(report: Report) -> Iterator[str]:
    """Yield the errors of all rows, then by source, then those of memory."""
    columns = f"{'n':>5s} {'median':>7s} {'p90':>7s} {'worst':>7s} {'bias':>7s}"
    yield f"{'':28s} {columns}   percent of the published figure"
    yield errors_row("all rows", report.all)
    yield errors_row("dense, published plan", report.dense_published_plan)
    yield errors_row("mixture of experts", report.moe)
    yield errors_row("memory, allocator", report.memory)
    yield ""
    for name, errors in report.sources.items():
        yield errors_row("  " + name, errors)
    yield ""
    for name, errors in report.memory_sources.items():
        yield errors_row("  memory " + name, errors)


def refused_rows(report: Report) -> Iterator[str]:
    """Yield how many rows are refused for which reason."""
    yield f"{len(report.refused)} rows refused:"
    refused = Counter(f"{row.source}: {row.reason}" for row in report.refused)
    for reason, count in refused.items():
        yield f"  {count:4d}  {reason}"


def errors_row(name: str, errors: Errors) -> str:
    """Return one line of the table of errors, in percent."""
    cells = (errors.median, errors.p90, errors.worst)
    numbers = " ".join(f"{cell:7.1f}" for cell in cells)
    return f"{name:28s} {errors.n:5d} {numbers} {errors.bias:+7.1f}"


# ---------------------------------------------------------------------- a comparison


def comparison_table(comparison: Comparison) -> Iterator[str]:
    """Yield the fleets of a comparison and what each gains."""
    columns = f"{'days':>18s} {'goodput':>20s} {'failure every':>14s} {'money':>16s}"
    yield f"{comparison.name}: {'fleet':24s} {columns}  layout"
    for side in comparison.sides:
        yield side_row(side, comparison.currency)
    for sentence in comparison.says:
        yield f"  {sentence}"


def side_row(side: Side, currency: str) -> str:
    """Return one fleet of a comparison in one line."""
    days = f"{side.days:.1f} ({side.days_low:.1f}..{side.days_high:.1f})"
    good = f"{side.goodput:.1%} ({side.goodput_low:.0%}..{side.goodput_high:.0%})"
    money = f"{side.money:,.0f} {currency}"
    between = f"{side.between_failures_hours:12.1f} h"
    return f"  {side.fleet:30s} {days:>18s} {good:>20s} {between} {money:>16s}  {side.layout}"


# ---------------------------------------------------------------------- serving


def serving_table(found: Serving) -> Iterator[str]:
    """Yield requests, latency, accelerators and cost of a serving fleet."""
    first = units.show_seconds(found.first_token_seconds)
    token = units.show_seconds(found.token_seconds)
    yield (
        f"requests a second   {found.mean_requests:,.0f} mean, "
        f"{found.peak_requests:,.0f} at the peak"
    )
    yield f"tokens a second     {found.mean_tokens:,.0f} mean, {found.peak_tokens:,.0f} at the peak"
    yield (
        f"answered on device  {found.on_device:.0%}; the cloud gets "
        f"{found.cloud_peak_requests:,.0f} requests a second at the peak"
    )
    yield (
        f"one replica         {found.cards_a_replica} accelerators, "
        f"{found.sequences_a_replica} sequences, {found.replica_requests:,.1f} requests a second"
    )
    yield f"latency             first token {first}, then {token} a token"
    yield f"in the cloud        {found.cards:,} accelerators"
    yield (
        f"money               {found.money_per_million_tokens:,.3f} {found.currency} a million "
        f"tokens, {found.money_per_day:,.0f} a day"
    )
    yield f"evidence            {found.grade}: a sizing from peaks and shares, not a measurement"
