"""A scorecard as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tumen.core import units
from tumen.eval.gate import OVERALL_GROUPS
from tumen.eval.scorecard_reader import read_scorecard, scorecard_facts

COLUMNS = ("device", "cloud", "reference", "both")
LABEL_WIDTH = 26
CELL_WIDTH = 28
FOOTER = (
    "share [95% interval], (corrected for the best constant answer); "
    "device / cloud: in pairs (Bonett, Price 2006); home known: the device with the names of the "
    "home; reference: templates; both: templates, then the device with the names of the home"
)


def scorecard_text(folder: Path) -> str:
    """Return a scorecard as a table, groups where the device loses included.

    Args:
        folder: of the scorecard, inside its bundle.

    Raises:
        ArtifactError: missing or damaged.
    """
    card = read_scorecard(folder.parent)
    facts = scorecard_facts(folder.parent)
    names = [name for name in COLUMNS if name in card["columns"]]
    lines = [
        *_group_lines(card, names),
        *_fact_lines(card, facts, names),
        *_safety_lines(card, names),
    ]
    if card["classes"]:
        lines.append(classes_line(card["classes"]))
    verdict = "passed"
    if card["shortfalls"]:
        verdict = "not passed: " + "; ".join(card["shortfalls"])
    return "\n".join([*lines, f"gate: {verdict}", FOOTER])


def _group_lines(card: Mapping[str, Any], names: list[str]) -> list[str]:
    columns = card["columns"]
    classes = card["classes"]
    against = f"{'device / cloud':>26}" if classes else ""
    known = f"{'home known':>12}"
    lines = [f"{'exact actions, %':<18}{'n':>6}  {_cells(names)}{known}{against}"]
    for group in sorted(columns["device"], key=_group_order):
        shares = [_share_cell(columns[name].get(group)) for name in names]
        count = columns["device"][group]["n"]
        known = _known_cell(columns["device"][group])
        ratio = _ratio_cell(classes.get(group))
        lines.append(f"{group:<18}{count:>6}  {_cells(shares)}{known}{ratio}")
    return lines


def _cells(texts: list[str]) -> str:
    return "".join(f"{text:>{CELL_WIDTH}}" for text in texts)


def _fact_lines(card: Mapping[str, Any], facts: Mapping[str, Any], names: list[str]) -> list[str]:
    sizes = card["bytes"]
    return [
        _line("ms, median", [_milliseconds(facts["seconds_p50"], name) for name in names]),
        _line("ms, 95%", [_milliseconds(facts["seconds_p95"], name) for name in names]),
        _line("size", [units.show_bytes(sizes[name]) if name in sizes else "" for name in names]),
        _line("tokens equal to torch", [_percent(facts["agreement"].get(name)) for name in names]),
    ]


def _safety_lines(card: Mapping[str, Any], names: list[str]) -> list[str]:
    overall = [card["columns"][name]["all"] for name in names]
    return [
        _line("false acts", [_percent(row["false_acts"]) for row in overall]),
        _line("invented words", [str(row["invented"]) for row in overall]),
    ]


def _line(label: str, cells: list[str]) -> str:
    return f"{label:<{LABEL_WIDTH}}{_cells(cells)}"


def _milliseconds(seconds: Mapping[str, float], name: str) -> str:
    return f"{1000 * seconds.get(name, 0):.1f}"


def _ratio_cell(row: Mapping[str, Any] | None) -> str:
    """Return device over cloud in one class, with `<` where the class misses its threshold."""
    if row is None:
        return ""
    ratio = _ratio(row["ratio"])
    interval = f"[{_ratio(row['low'])}, {_ratio(row['high'])}]"
    mark = " " if row["reached"] else "<"
    return f"{f'{ratio} {interval}':>24} {mark}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def classes_line(classes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return in how many scenario classes the device reaches its share of the cloud's score.

    Args:
        classes: from `class_rows`.
    """
    missed = [name for name, row in classes.items() if not row["reached"]]
    line = (
        f"device reaches its share of the cloud in {len(classes) - len(missed)} "
        f"of {len(classes)} classes"
    )
    if not missed:
        return line
    named = [_missed_class(name, classes[name]) for name in missed]
    return f"{line}; not in {', '.join(named)}"


def _missed_class(name: str, row: Mapping[str, Any]) -> str:
    surely_below = row["high"] is not None and row["high"] < 1
    return f"{name} (surely below the cloud)" if surely_below else name


def _group_order(group: str) -> tuple[int, str]:
    overall = group in OVERALL_GROUPS
    place = OVERALL_GROUPS.index(group) if overall else len(OVERALL_GROUPS)
    return place, group


def _share_cell(row: Mapping[str, Any] | None) -> str:
    if not row or not row.get("n"):
        return "-"
    percent = {name: f"{100 * row[name]:.1f}" for name in ("exact", "low", "high", "corrected")}
    return "{exact} [{low}, {high}] ({corrected})".format(**percent)


def _known_cell(row: Mapping[str, Any]) -> str:
    """Return the share of exact actions where the names of the home are known."""
    share = row.get("exact_home_known")
    cell = "-" if share is None else f"{100 * share:.1f}"
    return f"{cell:>12}"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.2f} %"
