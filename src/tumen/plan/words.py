"""A plan in words: what it takes, why this layout, why the others lose, how far to trust each number."""

from __future__ import annotations

from collections.abc import Iterator

from tumen.core import units
from tumen.plan.accuracy.report import Errors, Report
from tumen.plan.comparison import Comparison, layout_text
from tumen.plan.plan import Choice, Figure, Plan
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


def explain(plan: Plan, why: bool = False) -> str:
    """A plan as text; `why` adds the parts of a step, the losers and the evidence."""
    return "\n".join(lines(plan, why))


def lines(plan: Plan, why: bool) -> Iterator[str]:
    """The text line by line."""
    best, run = plan.best, plan.failures
    active = (
        f", {units.show_count(plan.active_parameters)} active"
        if plan.active_parameters != plan.parameters
        else ""
    )
    yield f"{plan.name}: {units.show_count(plan.parameters)} parameters{active}, {units.show_count(plan.tokens)} tokens"
    yield (
        f"on {plan.fleet_cards} x {plan.card}, {plan.precision}, {plan.batch_sequences} x {plan.sequence_tokens} tokens a step"
    )
    yield ""
    yield f"  layout       {layout_text(best.layout)} on {best.cards} cards"
    yield (
        f"  step         {ranged(best.step_seconds, units.show_seconds)}; bound "
        f"{units.show_seconds(best.bound_seconds)} ({best.bound_by})"
    )
    yield f"  MFU          {best.mfu:.1%}"
    yield f"  memory       {ranged(best.memory_bytes, units.show_bytes)} a card"
    yield f"  speed        {ranged(best.tokens_per_day, units.show_count)} tokens a day"
    yield (
        f"  failures     one every {run.between_failures_hours:.1f} h; save every {run.save_every_steps} "
        f"steps ({run.save_every_seconds:.0f} s)"
    )
    yield f"               keep {run.spare_nodes} spare nodes; goodput {ranged(best.goodput, lambda v: f'{v:.1%}')}"
    yield (
        f"               without spares: {run.elastic_goodput:.1%} elastic, {run.waiting_goodput:.1%} waiting for repairs"
    )
    yield f"  days         {ranged(best.days, lambda v: f'{v:.1f}')}"
    yield f"  card-hours   {ranged(best.card_hours, units.show_count)}"
    yield f"  a trillion   {ranged(best.hours_per_trillion, units.show_count)} card-hours while it computes"
    yield f"  energy       {ranged(best.energy_kwh, units.show_count)} kWh"
    yield (
        f"  money        {ranged(best.money, lambda v: f'{v:,.0f}')} {plan.currency} at {plan.price:g} a card and hour"
    )
    yield f"  evidence     {best.step_seconds.grade}; software {plan.software}, factor {plan.software_factor:.3f}"
    for warning in plan.warnings:
        yield f"  note         {warning}"
    yield ""
    yield "  best layouts (step, memory, days):"
    for rank, choice in enumerate(plan.choices, 1):
        yield f"  {rank}. {row(choice)}"
    if why:
        yield from reasons(plan)


def ranged(figure: Figure, show: object) -> str:
    """A value with its error bar."""
    assert callable(show)
    return f"{show(figure.value)}  ({show(figure.low)} .. {show(figure.high)})"


def row(choice: Choice) -> str:
    """One layout in one line."""
    step, memory = (
        units.show_seconds(choice.step_seconds.value),
        units.show_bytes(choice.memory_bytes.value),
    )
    return f"{layout_text(choice.layout):62s} {step:>8s}  {memory:>8s}  {choice.days.value:6.1f} d"


def reasons(plan: Plan) -> Iterator[str]:
    """Where the time and the bytes go, and why the losers lose."""
    best = plan.best
    total = best.step_seconds.value
    yield ""
    yield "  where a step goes:"
    for name, seconds in sorted(best.parts_seconds.items(), key=lambda item: -item[1]):
        if name in PARTS and seconds > 0.002 * total:
            yield f"    {PARTS[name]:28s} {units.show_seconds(seconds):>8s}  {seconds / total:6.1%}"
    yield ""
    yield "  bytes a card by stage (weights, gradients, optimizer, activations, working, logits):"
    for one in best.stages if len(best.stages) <= 8 else (*best.stages[:3], *best.stages[-2:]):
        kinds = (
            one.weights,
            one.gradients,
            one.optimizer,
            one.activations,
            one.working,
            one.logits,
        )
        yield (
            f"    stage {one.stage:3d}  "
            + "  ".join(f"{kind / 1e9:6.1f}" for kind in kinds)
            + f"   = {one.total / 1e9:6.1f} GB"
        )
    yield ""
    yield "  one decision away:"
    for loser in plan.losers:
        yield f"    {loser.change:18s} {loser.reason}"
    seen = ", ".join(f"{count} {name}" for name, count in plan.considered.items())
    yield f"  layouts: {seen}"


def table(report: Report) -> Iterator[str]:
    """`tumen plan check` as text."""
    yield f"{'':28s} {'n':>5s} {'median':>7s} {'p90':>7s} {'worst':>7s} {'bias':>7s}   percent of the published figure"
    groups = {
        "all rows": report.all,
        "dense, published plan": report.dense_published_plan,
        "mixture of experts": report.moe,
        "memory, allocator": report.memory,
    }
    for name, errors in groups.items():
        yield error_row(name, errors)
    yield ""
    for name, errors in report.sources.items():
        yield error_row("  " + name, errors)
    yield ""
    for name, errors in report.memory_sources.items():
        yield error_row("  memory " + name, errors)
    yield ""
    yield (
        f"out of memory: {report.oom['rejected']} of {report.oom['n']} rejected; {len(report.ran_rejected)} that ran rejected"
    )
    for sweep in report.sweeps:
        over = (sweep.chosen_over_best - 1) * 100
        yield (
            f"  sweep {sweep.source} {sweep.model}: {sweep.n} plans, Kendall tau {sweep.kendall_tau:.2f}, "
            f"choice {over:.1f}% over the best"
        )
    reasons_of: dict[str, int] = {}
    for refused in report.refused:
        key = f"{refused.source}: {refused.reason}"
        reasons_of[key] = reasons_of.get(key, 0) + 1
    yield f"{len(report.refused)} rows refused:"
    for reason, count in reasons_of.items():
        yield f"  {count:4d}  {reason}"
    yield "software factors: " + ", ".join(
        f"{name} {value:.3f}" for name, value in sorted(report.factors.items())
    )
    yield f"{report.below_bound} plans below the physical bound; {report.seconds:.2f} s"


def error_row(name: str, errors: Errors) -> str:
    """One line of the table."""
    return f"{name:28s} {errors.n:5d} {errors.median:7.1f} {errors.p90:7.1f} {errors.worst:7.1f} {errors.bias:+7.1f}"


def beside(comparison: Comparison) -> Iterator[str]:
    """A comparison as text."""
    yield (
        f"{comparison.name}: {'fleet':24s} {'days':>18s} {'goodput':>20s} {'failure every':>14s} {'money':>16s}  layout"
    )
    for side in comparison.sides:
        days = f"{side.days:.1f} ({side.days_low:.1f}..{side.days_high:.1f})"
        good = f"{side.goodput:.1%} ({side.goodput_low:.0%}..{side.goodput_high:.0%})"
        money = f"{side.money:,.0f} {comparison.currency}"
        yield (
            f"  {side.fleet:30s} {days:>18s} {good:>20s} {side.between_failures_hours:12.1f} h {money:>16s}  {side.layout}"
        )
    yield from (f"  {sentence}" for sentence in comparison.says)


def serving_lines(found: Serving) -> Iterator[str]:
    """A serving size as text."""
    yield f"requests a second   {found.mean_requests:,.0f} mean, {found.peak_requests:,.0f} at the peak"
    yield f"tokens a second     {found.mean_tokens:,.0f} mean, {found.peak_tokens:,.0f} at the peak"
    yield (
        f"answered on device  {found.on_device:.0%}; the cloud sees {found.cloud_peak_requests:,.0f} requests a second at the peak"
    )
    yield (
        f"one replica         {found.cards_a_replica} cards, {found.sequences_a_replica} sequences, "
        f"{found.replica_requests:,.1f} requests a second"
    )
    yield (
        f"latency             first token {units.show_seconds(found.first_token_seconds)}, then "
        f"{units.show_seconds(found.token_seconds)} a token"
    )
    yield f"cards in the cloud  {found.cards:,}"
    yield (
        f"money               {found.money_per_million_tokens:,.3f} {found.currency} a million tokens, "
        f"{found.money_per_day:,.0f} a day"
    )
    yield f"evidence            {found.grade}: a sizing from peaks and shares, no measurement"
