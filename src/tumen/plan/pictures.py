"""A plan as one self-contained page: figures, memory by stage, the timeline of a step, goodput and days against
cards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tumen.core import units
from tumen.plan.comparison import layout_text
from tumen.plan.failure import reliability
from tumen.plan.plan import Plan
from tumen.plan.words import PARTS, ranged
from tumen.recipe import Planning

COLOURS = (
    "#2f6f9f",
    "#8ab17d",
    "#e9c46a",
    "#f4a261",
    "#e76f51",
    "#6d597a",
    "#4d908e",
    "#b56576",
    "#577590",
    "#90be6d",
)
KINDS = ("weights", "gradients", "optimizer", "activations", "working", "logits")
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}figcaption{color:#555}
.key span{display:inline-block;margin-right:1rem}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
"""


def page(plan: Plan, planning: Planning) -> str:
    """The page as text; opens without a network."""
    title = f"{plan.name} on {plan.fleet_cards} x {plan.card}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{units.show_count(plan.parameters)} parameters, {units.show_count(plan.tokens)} tokens. "
        f"{escape(layout_text(plan.best.layout))}.</p>",
        *(f"<p><strong>Note:</strong> {escape(warning)}</p>" for warning in plan.warnings),
        figures(plan),
        "<h2>Where a step goes</h2>",
        step_picture(plan),
        "<h2>Timeline of one step</h2>",
        timeline(plan),
        "<h2>Memory of a card, by stage</h2>",
        memory_picture(plan),
        "<h2>Goodput and days against cards</h2>",
        fleet_picture(plan, planning),
        "<h2>Best layouts</h2>",
        layouts(plan),
        "<h2>Why the others lose</h2>",
        table([(loser.change, loser.reason) for loser in plan.losers], ("change", "reason")),
    ]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def figures(plan: Plan) -> str:
    """Every figure with its error bar and grade."""
    best = plan.best
    shown = {
        "step": (best.step_seconds, units.show_seconds),
        "memory a card": (best.memory_bytes, units.show_bytes),
        "tokens a day": (best.tokens_per_day, units.show_count),
        "goodput": (best.goodput, lambda value: f"{value:.1%}"),
        "days": (best.days, lambda value: f"{value:.1f}"),
        "card-hours": (best.card_hours, units.show_count),
        "energy in kWh": (best.energy_kwh, units.show_count),
        f"money in {plan.currency}": (best.money, lambda value: f"{value:,.0f}"),
    }
    rows = [(name, ranged(figure, show), figure.grade) for name, (figure, show) in shown.items()]
    rows.append(("MFU", f"{best.mfu:.1%}", best.step_seconds.grade))
    rows.append(
        (
            "physical bound of a step",
            f"{units.show_seconds(best.bound_seconds)} ({best.bound_by})",
            "datasheet",
        )
    )
    rows.append(("a failure every", f"{plan.failures.between_failures_hours:.1f} h", "datasheet"))
    return table(rows, ("figure", "value (range)", "evidence"))


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """An HTML table."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def layouts(plan: Plan) -> str:
    """The best layouts."""
    rows = [
        (
            layout_text(choice.layout),
            units.show_seconds(choice.step_seconds.value),
            units.show_bytes(choice.memory_bytes.value),
            f"{choice.mfu:.1%}",
            f"{choice.days.value:.1f}",
        )
        for choice in plan.choices
    ]
    return table(rows, ("layout", "step", "memory", "MFU", "days"))


def key(names: Sequence[str]) -> str:
    """The colours of a picture."""
    spans = (
        f'<span><i style="background:{COLOURS[k % len(COLOURS)]}"></i>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return f'<p class="key">{"".join(spans)}</p>'


def picture(width: int, height: int, label: str, content: str) -> str:
    """An SVG figure with a text for screen readers."""
    label = escape(label, quote=True)
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{content}</svg>'
    return f"<figure>{svg}</figure>"


def rectangle(x: float, y: float, width: float, height: float, colour: str, tip: str = "") -> str:
    """One filled rectangle with a tooltip."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect {place} fill="{colour}"><title>{escape(tip)}</title></rect>'


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """One label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}">{escape(words)}</text>'


def step_picture(plan: Plan) -> str:
    """One bar: the parts of a step."""
    parts = {
        name: seconds
        for name, seconds in plan.best.parts_seconds.items()
        if name in PARTS and seconds > 0
    }
    total = sum(parts.values()) or 1.0
    x, bars = 0.0, ""
    for k, (name, seconds) in enumerate(parts.items()):
        wide = 900 * seconds / total
        bars += rectangle(
            x,
            5,
            wide,
            40,
            COLOURS[k % len(COLOURS)],
            f"{PARTS[name]}: {units.show_seconds(seconds)}",
        )
        x += wide
    names = [f"{PARTS[name]} {seconds / total:.0%}" for name, seconds in parts.items()]
    return key(names) + picture(900, 50, "parts of a step: " + ", ".join(names), bars)


def timeline(plan: Plan, most_stages: int = 8, most_micro: int = 12) -> str:
    """Forward and backward of the first micro-batches on the first stages, 1F1B order."""
    best = plan.best
    stages = min(int(best.layout["pp"]), most_stages)
    forward, backward = best.parts_seconds["stage_forward"], best.parts_seconds["stage_backward"]
    micro = min(
        most_micro,
        max(plan.batch_sequences // (int(best.layout["dp"]) * int(best.layout["micro_batch"])), 1),
    )
    slots = one_forward_one_backward(stages, micro, forward, backward)
    end = max(stop for row in slots for _, _, stop in row)
    content = ""
    for stage, row in enumerate(slots):
        content += text(0, 20 + 26 * stage, f"stage {stage}")
        for kind, start, stop in row:
            x, wide = 70 + 820 * start / end, 820 * (stop - start) / end
            name = "forward" if kind == "f" else "backward"
            content += rectangle(
                x,
                8 + 26 * stage,
                wide - 0.6,
                18,
                COLOURS[0] if kind == "f" else COLOURS[3],
                f"{name} {start:.3g}-{stop:.3g} s",
            )
    caption = (
        f"{micro} micro-batches on {stages} stages of {best.layout['pp']} in 1F1B order; the "
        f"plan's own schedule is {best.layout['schedule']}"
    )
    return (
        picture(900, 16 + 26 * stages, caption, content)
        + f"<figcaption>{escape(caption)}</figcaption>"
    )


def one_forward_one_backward(
    stages: int, micro: int, forward: float, backward: float
) -> list[list[tuple[str, float, float]]]:
    """The exact 1F1B timeline (arXiv 2104.04473, figure 4): for each stage its ("f" | "b", start, stop)."""
    order = []
    for stage in range(stages):
        warm = min(stages - stage, micro)
        kinds = ["f"] * warm
        for k in range(micro):
            kinds += ["b"] if warm + k >= micro else ["b", "f"]
        order.append(kinds)
    done_f = [[math.inf] * micro for _ in range(stages)]
    done_b = [[math.inf] * micro for _ in range(stages)]
    rows: list[list[tuple[str, float, float]]] = [[] for _ in range(stages)]
    clock, place, next_f, next_b = [0.0] * stages, [0] * stages, [0] * stages, [0] * stages
    moved = True
    while moved:
        moved = False
        for stage in range(stages):
            while place[stage] < len(order[stage]):
                kind = order[stage][place[stage]]
                if kind == "f":
                    ready = 0.0 if stage == 0 else done_f[stage - 1][next_f[stage]]
                else:
                    k = next_b[stage]
                    ready = done_f[stage][k] if stage == stages - 1 else done_b[stage + 1][k]
                if math.isinf(ready):
                    break
                start = max(clock[stage], ready)
                stop = start + (forward if kind == "f" else backward)
                (done_f if kind == "f" else done_b)[stage][
                    (next_f if kind == "f" else next_b)[stage]
                ] = stop
                (next_f if kind == "f" else next_b)[stage] += 1
                clock[stage] = stop
                rows[stage].append((kind, start, stop))
                place[stage] += 1
                moved = True
    return rows


def memory_picture(plan: Plan) -> str:
    """Stacked bars, one a stage."""
    stages = plan.best.stages
    most = max(stage.total for stage in stages)
    wide = min(860 / len(stages), 60)
    content = ""
    for stage in stages:
        y = 200.0
        for k, kind in enumerate(KINDS):
            tall = 190 * getattr(stage, kind) / most
            y -= tall
            tip = f"stage {stage.stage}, {kind}: {units.show_bytes(getattr(stage, kind))}"
            content += rectangle(30 + wide * stage.stage, y, wide - 1, tall, COLOURS[k], tip)
        if len(stages) <= 24 or stage.stage % 8 == 0:
            content += text(30 + wide * (stage.stage + 0.5), 215, str(stage.stage), "middle")
    label = f"memory by stage, the fullest holds {units.show_bytes(most)}"
    return (
        key(KINDS) + picture(900, 220, label, content) + f"<figcaption>{escape(label)}</figcaption>"
    )


def fleet_picture(plan: Plan, planning: Planning) -> str:
    """Goodput, and days if the step shortened ideally, against cards."""
    counts = [max(int(plan.best.cards * 2**power), 1) for power in (-3, -2, -1, 0, 1, 2, 3)]
    points = []
    for count in counts:
        found = reliability(count, plan.node_cards, plan.parameters, planning)
        days = (
            plan.best.days.value * plan.best.goodput.value * plan.best.cards / count / found.goodput
        )
        points.append((count, found.goodput, found.goodput_low, found.goodput_high, days))
    content = ""
    for k, (count, good, low, high, days) in enumerate(points):
        x = 60 + 130 * k
        content += rectangle(
            x - 2, 160 - 150 * high, 4, 150 * (high - low), COLOURS[1], f"{low:.1%} .. {high:.1%}"
        )
        content += f'<circle cx="{x}" cy="{160 - 150 * good:.1f}" r="4" fill="{COLOURS[0]}"/>'
        content += (
            text(x, 178, f"{count:,}", "middle")
            + text(x, 150 - 150 * good, f"{good:.1%}", "middle")
            + text(x, 196, f"{days:.1f} d", "middle")
        )
    label = "goodput with its range, and days at ideal scaling of the step, against cards"
    return picture(900, 205, label, content) + f"<figcaption>{escape(label)}</figcaption>"
