"""The gate: thresholds of the recipe that a bundle must pass before it is served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tumen.core.artifact import verify
from tumen.core.errors import ArtifactError, GateError
from tumen.eval.scorecard_reader import agreement_of, gate_of, read_scorecard
from tumen.eval.statistics import paired_difference, paired_ratio
from tumen.language import LANGUAGES
from tumen.recipe import Gate

# Columns of a scorecard: the tier that is served, the one that is asked when it is unsure, the one
# it learned from, and one of its shape that learned without.
DEVICE = "device"
CLOUD = "cloud"
TEACHER = "teacher"
ALONE = "alone"
OVERALL_GROUPS = ("all", *LANGUAGES)  # groups that are not scenario classes
TINY = 1e-9  # keeps a quotient finite when the cloud got nothing right


def class_rows(
    columns: Mapping[str, Mapping[str, Any]], threshold: float
) -> dict[str, dict[str, Any]]:
    """Compare device and cloud in every scenario class, by pairs of answers to the same case.

    Args:
        columns: {device, cloud, ...} -> rows by group.
        threshold: share of the cloud's score from which a class counts as reached.

    Returns:
        {class: {n, device, cloud, ratio, low, high, reached}}; empty without a cloud column.
    """
    device = columns["device"]
    cloud = columns.get("cloud")
    if not cloud:
        return {}
    rows = {}
    for name in sorted(device.keys() & cloud.keys() - set(OVERALL_GROUPS)):
        if _is_paired(device[name], cloud[name]):
            rows[name] = _class_row(device[name], cloud[name], threshold)
    return rows


def _is_paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Return whether both rows hold a mark for each of the same number of cases."""
    counts = {ours["n"], theirs["n"], len(ours.get("marks", "")), len(theirs.get("marks", ""))}
    return len(counts) == 1 and ours["n"] > 0


def _class_row(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], threshold: float
) -> dict[str, Any]:
    interval = paired_ratio(ours["marks"], theirs["marks"])
    ends = {}
    for name, value in zip(("ratio", "low", "high"), interval, strict=True):
        ends[name] = None if value is None else round(value, 4)
    reached = ours["marks"].count("1") >= threshold * theirs["marks"].count("1")
    return {
        "n": ours["n"],
        "device": ours["exact"],
        "cloud": theirs["exact"],
        **ends,
        "reached": reached,
    }


def shortfalls(card: Mapping[str, Any], gate: Gate, agreement: float | None) -> list[str]:
    """Return what misses the gate, one line each; empty when the bundle passes.

    Args:
        card: the content of a scorecard.
        gate: thresholds.
        agreement: share of torch's tokens that the export check found; None without a check.
    """
    device = card["columns"]["device"]
    found = [
        f"exact actions in {lang}: {row['exact']:.1%}, the floor is {gate.exact:.1%}"
        for lang, row in device.items()
        if lang in LANGUAGES and row["exact"] < gate.exact
    ]
    overall = device["all"]
    if overall["false_acts"] is not None and overall["false_acts"] > gate.false_acts:
        found.append(f"false acts: {overall['false_acts']:.1%}, at most {gate.false_acts:.1%}")
    if overall["invented"] > gate.invented:
        found.append(f"invented words: {overall['invented']}, at most {gate.invented}")
    if agreement is not None and agreement < gate.agreement:
        found.append(f"agreement with torch: {agreement:.2%}, the floor is {gate.agreement:.2%}")
    if card["columns"].get("cloud"):
        found += _below_cloud(card, gate)
    if gate.better_teacher:
        found += _not_better(card)
    return found


def _not_better(card: Mapping[str, Any]) -> list[str]:
    """Return a line for the teacher and for the cloud tier if it is not better than the device's.

    A tier that is not better teaches nothing, and asking it helps nobody.
    """
    columns = card["columns"]
    teacher = card.get("teacher", "")
    found = []
    for column in dict.fromkeys((teacher, CLOUD)):
        if column not in columns:
            continue
        student = ALONE if column == teacher and ALONE in columns else DEVICE
        fault = _no_gain(columns[column]["all"], columns[student]["all"])
        if fault:
            role = "teacher" if column == teacher else "cloud tier"
            found.append(f"the {role} is not better than the {_STUDENTS[student]}: {fault}")
    return found


_STUDENTS = {DEVICE: "device tier", ALONE: "device tier without it"}


def _no_gain(better: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return why one row is not surely better than another, "" where it is."""
    if not _is_paired(better, row):
        return "they have no answers to the same cases"
    value, low, high = paired_difference(better["marks"], row["marks"])
    if value is None or low is None or high is None or low <= 0:
        shown = f"{value or 0:+.1%} [{low or 0:+.1%}, {high or 0:+.1%}]"
        return f"difference {shown} in pairs, the interval must lie above 0"
    return ""


def _below_cloud(card: Mapping[str, Any], gate: Gate) -> list[str]:
    """Return what misses the thresholds that are relative to the cloud tier."""
    found = []
    device = card["columns"]["device"]["all"]["exact"]
    cloud = card["columns"]["cloud"]["all"]["exact"]
    share = device / max(cloud, TINY)
    if share < gate.of_cloud:
        found.append(f"share of the cloud's score: {share:.1%}, the floor is {gate.of_cloud:.1%}")
    found += _too_few_classes(card, gate)
    size = card["bytes"]["device"] / card["bytes"]["cloud"]
    if size > gate.size_of_cloud:
        found.append(f"share of the cloud's bytes: {size:.1%}, at most {gate.size_of_cloud:.1%}")
    return found


def _too_few_classes(card: Mapping[str, Any], gate: Gate) -> list[str]:
    """Return a line when too few classes reach their share of the cloud's score."""
    # Computed again: the card may be edited, and its own classes decide nothing.
    rows = class_rows(card["columns"], gate.class_of_cloud)
    missed = [name for name, row in rows.items() if not row["reached"]]
    reached = len(rows) - len(missed)
    if reached >= gate.of_cloud_classes:
        return []
    return [
        f"classes with {gate.class_of_cloud:.0%} of the cloud's score: {reached} of {len(rows)}, "
        f"the floor is {gate.of_cloud_classes}; missed: {', '.join(missed) or 'none'}"
    ]


def gate_fault(bundle: Path) -> str:
    """Return why a bundle must not be served, in one line, or "" when it passes its gate.

    Raises:
        ArtifactError: its scorecard is damaged or belongs to another bundle.
    """
    manifest = verify(bundle, "bundle")
    folder = bundle / "scorecard"
    if not folder.exists():
        return "it has no scorecard; run `tumen eval` first"
    scored = verify(folder, "scorecard")
    if manifest.digest not in scored.made_from:
        raise ArtifactError(f"{folder}: belongs to another bundle; run the recipe again")
    agreement = agreement_of(manifest, bundle)
    return "; ".join(shortfalls(read_scorecard(bundle), gate_of(bundle), agreement))


def require_gate(bundle: Path, ungated: bool) -> None:
    """Check that a bundle passes its gate.

    Args:
        bundle: folder of the bundle.
        ungated: let a bundle that misses its gate pass.

    Raises:
        GateError: it misses a threshold and `ungated` was not given.
    """
    fault = gate_fault(bundle)
    if fault and not ungated:
        raise GateError(
            f"{bundle} does not pass its gate: {fault}. Train it further, or use it with --ungated"
        )
