"""The table of measured results in README.md, from benchmarks/results/pocket.json.

    python -m tests.docs.scorecard            write it between its marks
    python -m tests.docs.scorecard --check    fail when it is stale
Without the file it says "not measured yet". Nothing here is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.docs.rooms import ROOT, keep

from tumen.core import units
from tumen.core.artifact import hash_of
from tumen.eval import classes_line
from tumen.recipe import load_recipe

RESULT = ROOT / "benchmarks" / "results" / "pocket.json"
RECIPE = ROOT / "recipes" / "pocket.toml"
README = ROOT / "README.md"
BEGIN, END = "<!-- scorecard:begin -->", "<!-- scorecard:end -->"
COMMAND = "python benchmarks/pocket.py"
TITLES = {
    "device": "device",
    "cloud": "cloud",
    "reference": "template matcher",
    "both": "templates, then the device that knows the home",
}
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German"}
WEAKEST = 3


def table(result: Mapping[str, Any] | None) -> str:
    """What stands between the marks."""
    if result is None:
        return f"Not measured yet: `{COMMAND}` measures, `./dev docs` writes the table."
    return "\n\n".join(["\n".join(rows(result)), *words(result)])


def rows(result: Mapping[str, Any]) -> Iterator[str]:
    """The table, a line each."""
    card, facts = result["scorecard"], result["facts"]
    columns = card["columns"]
    names = [name for name in TITLES if name in columns]
    yield "| | " + " | ".join(TITLES[name] for name in names) + " |"
    yield "| --- |" + " ---: |" * len(names)

    def row(title: str, cells: Iterator[str]) -> str:
        return f"| {title} | " + " | ".join(cells) + " |"

    for group, title in {**LANGUAGES, "all": "all three"}.items():
        if group in columns["device"]:
            yield row(
                f"exact actions, {title}", (share(columns[name].get(group)) for name in names)
            )
    if any("exact_home_known" in columns[name]["all"] for name in names):
        known = (columns[name]["all"].get("exact_home_known") for name in names)
        yield row("the same, the home's names known", (percent(share) for share in known))
    yield row(
        "acts on what is not for the home",
        (percent(columns[name]["all"]["false_acts"], 2) for name in names),
    )
    yield row("invented words", (str(columns[name]["all"]["invented"]) for name in names))
    timed = next(fact for name, fact in facts.items() if name.endswith("/scorecard"))
    for title, key in (("median", "seconds_p50"), ("95th percentile", "seconds_p95")):
        yield row(
            f"time of a sentence, {title}", (f"{1000 * timed[key][name]:.1f} ms" for name in names)
        )
    yield row(
        "bytes on disk",
        (units.show_bytes(card["bytes"][name]) if name in card["bytes"] else "-" for name in names),
    )
    yield row(
        "tokens equal to torch's", (percent(timed["agreement"].get(name), 2) for name in names)
    )


def share(row: Mapping[str, Any] | None) -> str:
    """A share with its 95% interval and the number of sentences."""
    if not row or not row.get("n"):
        return "-"
    return f"{100 * row['exact']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}] of {row['n']}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share, or a dash where a suite has none."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """Where the numbers come from, what is weak, what it cost."""
    about, versions = result["machine"], result["versions"]
    made = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "xllamacpp"))
    yield (
        f"*Measured* by `{result['command']}` on {result['date']}: {about['cpu']}, {about['cores']} cores, "
        f"threads: {about['threads']}, load {about['load_before']} before, nice {about.get('nice', 0)}, {made}. "
        f"The eval suite has templates and names that training never saw. Recipe to gate: {units.show_seconds(result['seconds'])}, "
        f"peak memory of all processes {units.show_bytes(result['peak_bytes'])}. In brackets: 95 % intervals."
    )
    device = result["scorecard"]["columns"]["device"]
    domains = [
        (row["exact"], name, row["n"])
        for name, row in device.items()
        if name not in ("all", *LANGUAGES) and row["n"]
    ]
    weak = ", ".join(
        f"{name} {100 * exact:.1f} % of {n}" for exact, name, n in sorted(domains)[:WEAKEST]
    )
    shortfalls = result["scorecard"]["shortfalls"]
    gate = "passed" if not shortfalls else "not passed: " + "; ".join(shortfalls)
    yield f"Weakest on the device (*measured*, in `benchmarks/results/pocket.json` with all others): {weak}. Gate: {gate}."
    if classes := result["scorecard"].get("classes"):
        yield f"By scenario class (*measured*, same file): {classes_line(classes)}."
    asked = load_recipe(RECIPE).model_dump(
        mode="json", exclude_unset=True
    )  # what it says, not what a newer default adds
    if hash_of(asked) != result["recipe_hash"]:
        yield f"The recipe has changed since: `{COMMAND}` measures it anew."


def filled(readme: str, text: str) -> str:
    """The readme with the table between its marks.

    Raises:
        SystemExit: the marks are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md: has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def read(path: Path) -> Any:
    """The results, or None when nothing was measured."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def main() -> int:
    """Write or check the table."""
    wanted = filled(README.read_text("utf-8"), table(read(RESULT)))
    return 0 if keep(README, wanted, sys.argv[1:] == ["--check"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
