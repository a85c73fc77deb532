"""A plan as one self-contained HTML page.

It shows the figures with their error bars, the parts of a step, the timeline of a step, memory by
stage, and goodput and days against the size of the fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from tumen.core import units
from tumen.plan.failure import reliability
from tumen.plan.output import svg
from tumen.plan.output.plan_text import PARTS, ranged
from tumen.plan.output.timeline import one_forward_one_backward
from tumen.plan.results import Figure, Plan, layout_text
from tumen.recipe import Planning

KINDS = ("weights", "gradients", "optimizer", "activations", "working", "logits")
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
  color:#222;background:#fff}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ddd}
svg{width:100%;height:auto}
figcaption{color:#555}
.key span{display:inline-block;margin-right:1rem}
.key i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
"""
WIDTH = 900  # of a figure, in SVG units
MOST_STAGES = 8  # shown in the timeline
MOST_MICRO_BATCHES = 12
FLEET_POWERS = (-3, -2, -1, 0, 1, 2, 3)  # fleets shown: the plan's times powers of two


def page(plan: Plan, planning: Planning) -> str:
    """Return the page as text; it opens without a network."""
    title = f"{plan.name} on {plan.fleet_cards} x {plan.card}"
    parameters = units.show_count(plan.parameters)
    tokens = units.show_count(plan.tokens)
    layout = escape(layout_text(plan.best.layout))
    notes = [f"<p><strong>Note:</strong> {escape(warning)}</p>" for warning in plan.warnings]
    reasons = [(loser.change, loser.reason) for loser in plan.losers]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{parameters} parameters, {tokens} tokens. {layout}.</p>",
        *notes,
        figures_table(plan),
        "<h2>Parts of a step</h2>",
        step_figure(plan),
        "<h2>Timeline of one step</h2>",
        timeline_figure(plan),
        "<h2>Memory of an accelerator, by stage</h2>",
        memory_figure(plan),
        "<h2>Goodput and days against accelerators</h2>",
        fleet_figure(plan, planning),
        "<h2>Best layouts</h2>",
        layouts_table(plan),
        "<h2>Why the others are worse</h2>",
        svg.html_table(reasons, ("change", "reason")),
    ]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


# ---------------------------------------------------------------------- tables


def figures_table(plan: Plan) -> str:
    """Return every figure with its error bar and grade."""
    best = plan.best
    shown: list[tuple[str, Figure, Callable[[float], str]]] = [
        ("step", best.step_seconds, units.show_seconds),
        ("memory of an accelerator", best.memory_bytes, units.show_bytes),
        ("tokens a day", best.tokens_per_day, units.show_count),
        ("goodput", best.goodput, "{:.1%}".format),
        ("days", best.days, "{:.1f}".format),
        ("accelerator-hours", best.card_hours, units.show_count),
        ("energy in kWh", best.energy_kwh, units.show_count),
        (f"money in {plan.currency}", best.money, "{:,.0f}".format),
    ]
    rows = [(name, ranged(figure, show), figure.grade) for name, figure, show in shown]
    bound = f"{units.show_seconds(best.bound_seconds)} ({best.bound_by})"
    between = f"{plan.failures.between_failures_hours:.1f} h"
    rows.append(("MFU", f"{best.mfu:.1%}", best.step_seconds.grade))
    rows.append(("physical bound of a step", bound, "datasheet"))
    rows.append(("a failure every", between, "datasheet"))
    return svg.html_table(rows, ("figure", "value (range)", "evidence"))


def layouts_table(plan: Plan) -> str:
    """Return the best layouts."""
    rows = []
    for choice in plan.choices:
        rows.append(
            (
                layout_text(choice.layout),
                units.show_seconds(choice.step_seconds.value),
                units.show_bytes(choice.memory_bytes.value),
                f"{choice.mfu:.1%}",
                f"{choice.days.value:.1f}",
            )
        )
    return svg.html_table(rows, ("layout", "step", "memory", "MFU", "days"))


# ---------------------------------------------------------------------- figures


def step_figure(plan: Plan) -> str:
    """Return one bar of the parts of a step."""
    seconds_of = plan.best.parts_seconds
    parts = {name: s for name, s in seconds_of.items() if name in PARTS and s > 0}
    total = sum(parts.values()) or 1.0
    x = 0.0
    bars = ""
    for k, (name, seconds) in enumerate(parts.items()):
        wide = WIDTH * seconds / total
        tip = f"{PARTS[name]}: {units.show_seconds(seconds)}"
        bars += svg.rectangle(x, 5, wide, 40, svg.colour(k), tip)
        x += wide
    names = [f"{PARTS[name]} {seconds / total:.0%}" for name, seconds in parts.items()]
    label = "parts of a step: " + ", ".join(names)
    return svg.legend(names) + svg.figure(WIDTH, 50, label, bars)


def timeline_figure(plan: Plan) -> str:
    """Return forward and backward of the first micro-batches on the first stages, in 1F1B order."""
    best = plan.best
    stages = min(int(best.layout["pp"]), MOST_STAGES)
    replica_sequences = int(best.layout["dp"]) * int(best.layout["micro_batch"])
    micro = min(MOST_MICRO_BATCHES, max(plan.batch_sequences // replica_sequences, 1))
    forward = best.parts_seconds["stage_forward"]
    backward = best.parts_seconds["stage_backward"]
    slots = one_forward_one_backward(stages, micro, forward, backward)
    end = max(stop for row in slots for _, _, stop in row)

    names = {"f": "forward", "b": "backward"}
    colours = {"f": svg.COLOURS[0], "b": svg.COLOURS[3]}
    content = ""
    for stage, row in enumerate(slots):
        content += svg.label(0, 20 + 26 * stage, f"stage {stage}")
        for kind, start, stop in row:
            x = 70 + 820 * start / end
            wide = 820 * (stop - start) / end
            tip = f"{names[kind]} {start:.3g}-{stop:.3g} s"
            content += svg.rectangle(x, 8 + 26 * stage, wide - 0.6, 18, colours[kind], tip)
    text = (
        f"{micro} micro-batches on {stages} stages of {best.layout['pp']} in 1F1B order; the "
        f"plan's own schedule is {best.layout['schedule']}"
    )
    return svg.figure(WIDTH, 16 + 26 * stages, text, content) + svg.caption(text)


def memory_figure(plan: Plan) -> str:
    """Return one stacked bar a stage."""
    stages = plan.best.stages
    most = max(stage.total for stage in stages)
    wide = min(860 / len(stages), 60)
    content = ""
    for stage in stages:
        x = 30 + wide * stage.stage
        y = 200.0
        for k, kind in enumerate(KINDS):
            size = getattr(stage, kind)
            tall = 190 * size / most
            y -= tall
            tip = f"stage {stage.stage}, {kind}: {units.show_bytes(size)}"
            content += svg.rectangle(x, y, wide - 1, tall, svg.COLOURS[k], tip)
        if len(stages) <= 24 or stage.stage % 8 == 0:
            middle = 30 + wide * (stage.stage + 0.5)
            content += svg.label(middle, 215, str(stage.stage), "middle")
    text = f"memory by stage, the fullest holds {units.show_bytes(most)}"
    return svg.legend(KINDS) + svg.figure(WIDTH, 220, text, content) + svg.caption(text)


def fleet_figure(plan: Plan, planning: Planning) -> str:
    """Return goodput, and days if the step scaled ideally, against the size of the fleet."""
    best = plan.best
    content = ""
    for k, power in enumerate(FLEET_POWERS):
        count = max(int(best.cards * 2**power), 1)
        found = reliability(count, plan.node_cards, plan.parameters, planning)
        days = best.days.value * best.goodput.value * best.cards / count / found.goodput
        low = found.goodput_low
        high = found.goodput_high
        x = 60 + 130 * k
        y = 160 - 150 * found.goodput
        tip = f"{low:.1%} .. {high:.1%}"
        content += svg.rectangle(
            x - 2, 160 - 150 * high, 4, 150 * (high - low), svg.COLOURS[1], tip
        )
        content += f'<circle cx="{x}" cy="{y:.1f}" r="4" fill="{svg.COLOURS[0]}"/>'
        content += svg.label(x, 178, f"{count:,}", "middle")
        content += svg.label(x, 150 - 150 * found.goodput, f"{found.goodput:.1%}", "middle")
        content += svg.label(x, 196, f"{days:.1f} d", "middle")
    text = "goodput with its range, and days at ideal scaling of the step, against accelerators"
    return svg.figure(WIDTH, 205, text, content) + svg.caption(text)
