"""Scorecards: device, cloud and reference on the same exam, and the gate a bundle must pass.

The artifact's `scorecard.json` holds what is the same on every run (answers); times are facts of its manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core import units
from tumen.core.artifact import Manifest, manifest_of, verify, writing
from tumen.core.errors import ArtifactError, GateError
from tumen.eval.metrics import Answer, Case, percentile, tally
from tumen.eval.paired import ratio
from tumen.eval.scorecard_reader import agreement_of, facts_of, gate_of, read_card
from tumen.recipe import Gate

TOGETHER = ("all", "en", "zh", "de")  # groups that are no scenario class
Ask = Callable[[Case], Answer]


def examine(cases: Sequence[Case], ask: Ask, values: Values) -> tuple[dict[str, Any], list[Answer]]:
    """Put every case to `ask`; returns rows by group and every answer."""
    answers = [ask(case) for case in cases]
    return {name: counts.row() for name, counts in tally(cases, answers, values).items()}, answers


def write_card(
    bundle: Path, columns: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Sequence[float]], sizes: Mapping[str, int],
    made_from: Sequence[str], gate: Gate, inputs: str, exam: str = "",
) -> Manifest:  # fmt: skip
    """Write the scorecard of a device bundle into it.

    Args:
        columns: {device, cloud, reference} -> rows by group.
        seconds: of every answer, by column.
        sizes: bytes of device and cloud.
        made_from: digests of the bundles and the corpus, the device bundle's first.
        exam: digest of the cases (`exam_digest`); scorecards of one exam can be compared case by case.
    """
    agreement = {
        name: manifest_of(bundle.with_name(f"bundle-{name}")).facts.get("agreement")
        for name in sizes
        if name in columns
    }
    card = {
        "exam": exam,
        "columns": columns,
        "bytes": dict(sizes),
        "classes": classes_of(columns, gate.class_of_cloud),
    }
    faults = shortfalls(card, gate, manifest_of(bundle, "bundle").facts.get("agreement"))
    facts = {
        "seconds_p50": {name: round(percentile(times, 0.5), 5) for name, times in seconds.items()},
        "seconds_p95": {name: round(percentile(times, 0.95), 5) for name, times in seconds.items()},
        "agreement": agreement,
        "passed": not faults,
    }
    with writing(bundle / "scorecard", "scorecard", inputs, list(made_from), facts) as stage:
        (stage / "scorecard.json").write_text(
            json.dumps({**card, "shortfalls": faults}, indent=1, ensure_ascii=False), "utf-8"
        )
    return verify(bundle / "scorecard", "scorecard")


def classes_of(columns: Mapping[str, Mapping[str, Any]], floor: float) -> dict[str, dict[str, Any]]:
    """The device held against the cloud in every scenario class, in pairs of answers to the same case.

    Args:
        floor: the device's share of the cloud's score from which a class counts as reached.

    Returns:
        {class: {n, device, cloud, ratio, low, high, reached}}, nothing without a cloud column.
    """
    device, cloud = columns["device"], columns.get("cloud")
    if not cloud:
        return {}
    found = {}
    for name in sorted(device.keys() & cloud.keys() - set(TOGETHER)):
        ours, theirs = device[name], cloud[name]
        if (
            ours["n"]
            and len(ours.get("marks", ""))
            == len(theirs.get("marks", ""))
            == ours["n"]
            == theirs["n"]
        ):
            row = {"n": ours["n"], "device": ours["exact"], "cloud": theirs["exact"]}
            shares = {
                end: None if value is None else round(value, 4)
                for end, value in _ends(ours["marks"], theirs["marks"])
            }
            reached = ours["marks"].count("1") >= floor * theirs["marks"].count("1")
            found[name] = row | shares | {"reached": reached}
    return found


def _ends(ours: str, theirs: str) -> list[tuple[str, float | None]]:
    return list(zip(("ratio", "low", "high"), ratio(ours, theirs), strict=True))


def shortfalls(card: Mapping[str, Any], gate: Gate, agreement: float | None) -> list[str]:
    """What keeps a bundle from being shown, one line each; empty when it may be."""
    device, cloud = card["columns"]["device"], card["columns"].get("cloud")
    found = [
        f"exact actions in {lang}: {row['exact']:.1%}, the floor is {gate.exact:.1%}"
        for lang, row in device.items()
        if lang in ("en", "zh", "de") and row["exact"] < gate.exact
    ]
    everything = device["all"]
    if everything["false_acts"] is not None and everything["false_acts"] > gate.false_acts:
        found.append(f"false acts: {everything['false_acts']:.1%}, at most {gate.false_acts:.1%}")
    if everything["invented"] > gate.invented:
        found.append(f"invented words: {everything['invented']}, at most {gate.invented}")
    if agreement is not None and agreement < gate.agreement:
        found.append(f"agreement with torch: {agreement:.2%}, the floor is {gate.agreement:.2%}")
    if cloud:
        share = everything["exact"] / max(cloud["all"]["exact"], 1e-9)
        if share < gate.of_cloud:
            found.append(
                f"share of the cloud's score: {share:.1%}, the floor is {gate.of_cloud:.1%}"
            )
        found += _short_classes(card, gate)
        size = card["bytes"]["device"] / card["bytes"]["cloud"]
        if size > gate.size_of_cloud:
            found.append(
                f"share of the cloud's bytes: {size:.1%}, at most {gate.size_of_cloud:.1%}"
            )
    return found


def _short_classes(card: Mapping[str, Any], gate: Gate) -> list[str]:
    """Too few classes in which the device reaches its share of the cloud, and which ones it misses."""
    rows = classes_of(
        card["columns"], gate.class_of_cloud
    )  # anew: what the card says of itself decides nothing
    missed = [name for name, row in rows.items() if not row["reached"]]
    if len(rows) - len(missed) >= gate.of_cloud_classes:
        return []
    return [
        f"classes with {gate.class_of_cloud:.0%} of the cloud's score: {len(rows) - len(missed)} of {len(rows)}, "
        f"the floor is {gate.of_cloud_classes}; missed: {', '.join(missed) or 'none'}"
    ]


def gate(bundle: Path) -> str:
    """Check that a bundle may be shown. Returns one line that says why not, or "" when it may.

    Raises:
        ArtifactError: its scorecard is damaged or belongs to another bundle.
    """
    made = verify(bundle, "bundle")
    card = bundle / "scorecard"
    if not card.exists():
        return "it has no scorecard: nobody examined it"
    scored = verify(card, "scorecard")
    if made.digest not in scored.made_from:
        raise ArtifactError(f"{card}: belongs to another bundle; run the recipe again")
    return "; ".join(shortfalls(read_card(bundle), gate_of(bundle), agreement_of(made, bundle)))


def insist(bundle: Path, ungated: bool) -> None:
    """Let a bundle pass or refuse it.

    Raises:
        GateError: it is below a floor and `ungated` was not given.
    """
    why = gate(bundle)
    if why and not ungated:
        raise GateError(
            f"{bundle} is not good enough to be shown: {why}. Train it better, or look at it with --ungated"
        )


def show(card: Path) -> str:
    """A scorecard as a table for people; losing rows are in it."""
    result, facts = read_card(card.parent), facts_of(card.parent)
    columns, classes = result["columns"], result["classes"]
    names = [name for name in ("device", "cloud", "reference") if name in columns]
    title = f"{'device / cloud':>26}" if classes else ""
    lines = [
        f"{'exact actions, %':<18}{'n':>6}  " + "".join(f"{name:>28}" for name in names) + title
    ]
    groups = sorted(columns["device"], key=_order)
    for group in groups:
        cells = "".join(f"{_cell(columns[name].get(group)):>28}" for name in names)
        lines.append(
            f"{group:<18}{columns['device'][group]['n']:>6}  {cells}{_against(classes.get(group))}"
        )
    for title, key in (("ms, median", "seconds_p50"), ("ms, 95%", "seconds_p95")):
        lines.append(
            f"{title:<26}" + "".join(f"{1000 * facts[key].get(name, 0):>28.1f}" for name in names)
        )
    size = "".join(
        f"{units.show_bytes(result['bytes'][name]) if name in result['bytes'] else '':>28}"
        for name in names
    )
    lines.append(f"{'size':<26}{size}")
    lines.append(
        f"{'tokens equal to torch':<26}"
        + "".join(f"{_percent(facts['agreement'].get(name)):>28}" for name in names)
    )
    for title, key in (("false acts", "false_acts"), ("invented words", "invented")):
        found = [columns[name]["all"][key] for name in names]
        lines.append(
            f"{title:<26}"
            + "".join(f"{_percent(cell) if key == 'false_acts' else cell:>28}" for cell in found)
        )
    if classes:
        lines.append(reached(classes))
    verdict = (
        "passed" if not result["shortfalls"] else "not passed: " + "; ".join(result["shortfalls"])
    )
    return "\n".join(
        [
            *lines,
            f"gate: {verdict}",
            "share [95% interval], (corrected for the best constant answer); device / cloud: in pairs (Bonett, Price 2006)",
        ]
    )


def _against(row: Mapping[str, Any] | None) -> str:
    """The device's share of the cloud's score in one class, and a mark where it misses its floor."""
    if row is None:
        return ""
    shown = [f"{row[end]:.2f}" if row[end] is not None else "-" for end in ("ratio", "low", "high")]
    return f"{f'{shown[0]} [{shown[1]}, {shown[2]}]':>24} {' ' if row['reached'] else '<'}"


def reached(classes: Mapping[str, Mapping[str, Any]]) -> str:
    """In how many scenario classes the device reaches its share of the cloud's score, and in which it does not."""
    missed = [name for name, row in classes.items() if not row["reached"]]
    surely = [
        name for name in missed if classes[name]["high"] is not None and classes[name]["high"] < 1
    ]
    named = ", ".join(
        f"{name}{' (surely below the cloud)' if name in surely else ''}" for name in missed
    )
    told = f"device reaches its share of the cloud in {len(classes) - len(missed)} of {len(classes)} classes"
    return told + (f"; not in {named}" if named else "")


def _order(group: str) -> tuple[int, str]:
    return (TOGETHER.index(group) if group in TOGETHER else 9, group)


def _cell(row: Mapping[str, Any] | None) -> str:
    if not row or not row.get("n"):
        return "-"
    return f"{100 * row['exact']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}] ({100 * row['corrected']:.1f})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
