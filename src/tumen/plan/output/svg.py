"""Small pieces of HTML and SVG: a table, a figure, a rectangle, a label, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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


def colour(k: int) -> str:
    """Return the colour of item number `k`; colours repeat."""
    return COLOURS[k % len(COLOURS)]


def html_table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Return an HTML table.

    Args:
        rows: cells of each row; texts, which are escaped.
        head: names of the columns.
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(table_row(row) for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def table_row(cells: Sequence[str]) -> str:
    """Return one row of an HTML table."""
    inside = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr>{inside}</tr>"


def legend(names: Sequence[str]) -> str:
    """Return the colours of a figure with their names."""
    spans = ""
    for k, name in enumerate(names):
        swatch = f'<i style="background:{colour(k)}"></i>'
        spans += f"<span>{swatch}{escape(name)}</span>"
    return f'<p class="key">{spans}</p>'


def figure(width: int, height: int, label: str, content: str) -> str:
    """Return an SVG figure with a label for screen readers."""
    label = escape(label, quote=True)
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{content}</svg>'
    return f"<figure>{svg}</figure>"


def caption(text: str) -> str:
    """Return the caption below a figure."""
    return f"<figcaption>{escape(text)}</figcaption>"


def rectangle(x: float, y: float, width: float, height: float, fill: str, tip: str = "") -> str:
    """Return a filled rectangle with a tooltip.

    Args:
        x: left edge, in units of the figure, as all lengths.
        y: upper edge; it grows downwards.
        width: below 0 counts as 0.
        height: the same.
        fill: a colour.
        tip: text that is shown beside the pointer.
    """
    # A negative width is an error in SVG.
    width = max(width, 0)
    height = max(height, 0)
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}"><title>{escape(tip)}</title></rect>'


def label(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Return a text at a place.

    Args:
        x: place of the anchor.
        y: base line of the text.
        words: that are shown.
        anchor: start, middle or end of the text.
    """
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"
