"""A plan as one self-contained HTML page.

It shows the figures with their error bars, the parts of a step, the timeline of a step, memory by
stage, and goodput and days against the size of the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from tumen.core import units
from tumen.plan.failure import Reliability, reliability
from tumen.plan.output import svg
from tumen.plan.output.plan_text import PARTS, ranged
from tumen.plan.output.timeline import Slot, one_forward_one_backward
from tumen.plan.planned_run import Figure, Plan, PlannedLayout, StageBytes, layout_text
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
ROW_HEIGHT = 26  # of a stage in the timeline
LABEL_WIDTH = 70  # before its bars
BARS_WIDTH = 820
MOST_STAGES = 8  # shown in the timeline
MOST_MICRO_BATCHES = 12
FLEET_POWERS = (-3, -2, -1, 0, 1, 2, 3)  # fleets shown: the plan's times powers of two


def page(plan: Plan, planning: Planning) -> str:
    """Return the page as text; it opens without a network."""
    title = escape(f"{plan.name} on {plan.fleet_cards} x {plan.card}")
    reasons = [(loser.change, loser.reason) for loser in plan.losers]
    parts = [
        f"<h1>{title}</h1>",
        *introduction(plan),
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
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def introduction(plan: Plan) -> Iterator[str]:
    """Yield what is trained, the best layout, and what to know before trusting the plan."""
    parameters = units.show_count(plan.parameters)
    tokens = units.show_count(plan.tokens)
    layout = escape(layout_text(plan.best.layout))
    yield f"<p>{parameters} parameters, {tokens} tokens. {layout}.</p>"
    for warning in plan.warnings:
        yield f"<p><strong>Note:</strong> {escape(warning)}</p>"


# ---------------------------------------------------------------------- tables


def figures_table(plan: Plan) -> str:
    """Return every figure with its error bar and grade."""
    best = plan.best
    rows: list[tuple[str, str, str]] = []

    def add(name: str, figure: Figure, show: Callable[[float], str]) -> None:
        rows.append((name, ranged(figure, show), figure.grade))

    add("step", best.step_seconds, units.show_seconds)
    add("memory of an accelerator", best.memory_bytes, units.show_bytes)
    add("tokens a day", best.tokens_per_day, units.show_count)
    add("goodput", best.goodput, "{:.1%}".format)
    add("days", best.days, "{:.1f}".format)
    add("accelerator-hours", best.card_hours, units.show_count)
    add("energy in kWh", best.energy_kwh, units.show_count)
    add(f"money in {plan.currency}", best.money, "{:,.0f}".format)
    rows += plain_figures(plan)
    return svg.html_table(rows, ("figure", "value (range)", "evidence"))


def plain_figures(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, evidence) of the figures that have no error bar of their own."""
    best = plan.best
    bound = f"{units.show_seconds(best.bound_seconds)} ({best.bound_by})"
    between = f"{plan.failures.between_failures_hours:.1f} h"
    yield "MFU", f"{best.mfu:.1%}", best.step_seconds.grade
    yield "physical bound of a step", bound, "datasheet"
    yield "a failure every", between, "datasheet"


def layouts_table(plan: Plan) -> str:
    """Return the best layouts."""
    rows = [layout_cells(choice) for choice in plan.choices]
    return svg.html_table(rows, ("layout", "step", "memory", "MFU", "days"))


def layout_cells(choice: PlannedLayout) -> tuple[str, ...]:
    """Return the cells of one layout."""
    return (
        layout_text(choice.layout),
        units.show_seconds(choice.step_seconds.value),
        units.show_bytes(choice.memory_bytes.value),
        f"{choice.mfu:.1%}",
        f"{choice.days.value:.1f}",
    )


# ---------------------------------------------------------------------- figures


def step_figure(plan: Plan) -> str:
    """Return one bar of the parts of a step."""
    parts = {}
    for name, seconds in plan.best.parts_seconds.items():
        if name in PARTS and seconds > 0:
            parts[PARTS[name]] = seconds
    total = sum(parts.values()) or 1.0
    x = 0.0
    bars = ""
    names = []
    for k, (title, seconds) in enumerate(parts.items()):
        share = seconds / total
        tip = f"{title}: {units.show_seconds(seconds)}"
        bars += svg.rectangle(x, 5, WIDTH * share, 40, svg.colour(k), tip)
        names.append(f"{title} {share:.0%}")
        x += WIDTH * share
    label = "parts of a step: " + ", ".join(names)
    return svg.legend(names) + svg.figure(WIDTH, 50, label, bars)


def timeline_figure(plan: Plan) -> str:
    """Return forward and backward of the first micro-batches on the first stages, in 1F1B order."""
    best = plan.best
    layout = best.layout
    stages = min(int(layout["pp"]), MOST_STAGES)
    replica_sequences = int(layout["dp"]) * int(layout["micro_batch"])
    micro = max(plan.batch_sequences // replica_sequences, 1)
    micro = min(micro, MOST_MICRO_BATCHES)
    forward = best.parts_seconds["stage_forward"]
    backward = best.parts_seconds["stage_backward"]
    slots = one_forward_one_backward(stages, micro, forward, backward)
    text = (
        f"{micro} micro-batches on {stages} stages of {layout['pp']} in 1F1B order; the "
        f"plan's own schedule is {layout['schedule']}"
    )
    height = 16 + ROW_HEIGHT * stages
    return svg.figure(WIDTH, height, text, timeline_bars(slots)) + svg.caption(text)


def timeline_bars(slots: Sequence[Sequence[Slot]]) -> str:
    """Return a row of bars for each stage.

    Args:
        slots: of each stage.
    """
    end = max(stop for row in slots for _, _, stop in row)
    names = {"f": "forward", "b": "backward"}
    colours = {"f": svg.COLOURS[0], "b": svg.COLOURS[3]}
    content = ""
    for stage, row in enumerate(slots):
        y = ROW_HEIGHT * stage
        content += svg.label(0, 20 + y, f"stage {stage}")
        for kind, start, stop in row:
            x = LABEL_WIDTH + BARS_WIDTH * start / end
            wide = BARS_WIDTH * (stop - start) / end
            tip = f"{names[kind]} {start:.3g}-{stop:.3g} s"
            # a gap between two bars shows where one ends
            content += svg.rectangle(x, 8 + y, wide - 0.6, 18, colours[kind], tip)
    return content


def memory_figure(plan: Plan) -> str:
    """Return one stacked bar a stage."""
    stages = plan.best.stages
    most = max(stage.total for stage in stages)
    wide = min(860 / len(stages), 60)
    content = ""
    for stage in stages:
        content += memory_bar(stage, 30 + wide * stage.stage, wide - 1, most)
        # of many stages every eighth has its number, so that they do not overlap
        if len(stages) <= 24 or stage.stage % 8 == 0:
            middle = 30 + wide * (stage.stage + 0.5)
            content += svg.label(middle, 215, str(stage.stage), "middle")
    text = f"memory by stage, the fullest holds {units.show_bytes(most)}"
    return svg.legend(KINDS) + svg.figure(WIDTH, 220, text, content) + svg.caption(text)


def memory_bar(stage: StageBytes, x: float, wide: float, most: float) -> str:
    """Return the bar of one stage, a part for each kind of memory.

    Args:
        stage: its bytes.
        x: left edge.
        wide: width of the bar.
        most: bytes of the fullest stage, which has the tallest bar.
    """
    content = ""
    y = 200.0  # the foot of the bar; y grows downwards
    for k, kind in enumerate(KINDS):
        size = getattr(stage, kind)
        tall = 190 * size / most
        y -= tall
        tip = f"stage {stage.stage}, {kind}: {units.show_bytes(size)}"
        content += svg.rectangle(x, y, wide, tall, svg.COLOURS[k], tip)
    return content


def fleet_figure(plan: Plan, planning: Planning) -> str:
    """Return goodput, and days if the step scaled ideally, against the size of the fleet."""
    best = plan.best
    computing_days = best.days.value * best.goodput.value
    content = ""
    for k, power in enumerate(FLEET_POWERS):
        count = max(int(best.cards * 2**power), 1)
        found = reliability(count, plan.node_cards, plan.parameters, planning)
        days = computing_days * best.cards / count / found.goodput
        x = 60 + 130 * k
        content += goodput_mark(x, found)
        content += svg.label(x, 178, f"{count:,}", "middle")
        content += svg.label(x, 196, f"{days:.1f} d", "middle")
    text = "goodput with its range, and days at ideal scaling of the step, against accelerators"
    return svg.figure(WIDTH, 205, text, content) + svg.caption(text)


def goodput_mark(x: float, found: Reliability) -> str:
    """Return a goodput as a dot with its number, above the bar of its range."""
    low = found.goodput_low
    high = found.goodput_high
    top = 160 - 150 * high
    tall = 150 * (high - low)
    y = 160 - 150 * found.goodput
    bar = svg.rectangle(x - 2, top, 4, tall, svg.COLOURS[1], f"{low:.1%} .. {high:.1%}")
    dot = f'<circle cx="{x}" cy="{y:.1f}" r="4" fill="{svg.COLOURS[0]}"/>'
    return bar + dot + svg.label(x, y - 10, f"{found.goodput:.1%}", "middle")
