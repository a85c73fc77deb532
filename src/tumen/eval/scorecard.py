"""Write a scorecard: device, cloud and reference on the same suite.

`scorecard.json` holds what is the same on every run (the answers); times are facts of its manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tumen.core.artifact import Manifest, manifest_of, verify, writing
from tumen.eval.gate import class_rows, shortfalls
from tumen.eval.statistics import percentile
from tumen.recipe import Gate


class Compared(NamedTuple):
    """What the columns of a scorecard stand for.

    Attributes:
        suite: from `suite_digest`; scorecards of one suite can be compared case by case.
        teacher: column of the tier that the device's learned from, "" without one.
        agreements: with torch, by column; the device's is in its manifest.
    """

    suite: str = ""
    teacher: str = ""
    agreements: Mapping[str, float | None] = MappingProxyType({})


UNKNOWN = Compared()  # a suite that no other scorecard is compared on


def write_scorecard(
    bundle: Path,
    columns: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, Sequence[float]],
    sizes: Mapping[str, int],
    *,
    made_from: Sequence[str],
    gate: Gate,
    inputs: str,
    compared: Compared = UNKNOWN,
) -> Manifest:
    """Write the scorecard of a device bundle into it.

    Args:
        bundle: folder of the device bundle.
        columns: {device, cloud, reference ...} -> rows by group, from `evaluate`.
        seconds: of every answer, by column.
        sizes: bytes of the bundles, by column.
        made_from: digests of the bundles and the corpus, the device bundle's first.
        gate: thresholds.
        inputs: digest of what the stage was made from.
        compared: what the columns stand for.

    Returns:
        The manifest of the scorecard.
    """
    card: dict[str, Any] = {
        "suite": compared.suite,
        "columns": columns,
        "bytes": dict(sizes),
        "classes": class_rows(columns, gate.class_of_cloud),
        "teacher": compared.teacher,
    }
    # The gate counts the device's export alone.
    exported = manifest_of(bundle, "bundle").facts.get("agreement")
    card["shortfalls"] = shortfalls(card, gate, exported)
    facts = {
        "seconds_p50": _percentiles(seconds, 0.5),
        "seconds_p95": _percentiles(seconds, 0.95),
        "agreement": {"device": exported, **compared.agreements},
        "passed": not card["shortfalls"],
    }
    folder = bundle / "scorecard"
    with writing(folder, "scorecard", inputs, list(made_from), facts) as stage:
        text = json.dumps(card, indent=1, ensure_ascii=False)
        (stage / "scorecard.json").write_text(text, "utf-8")
    return verify(folder, "scorecard")


def _percentiles(seconds: Mapping[str, Sequence[float]], share: float) -> dict[str, float]:
    return {name: round(percentile(times, share), 5) for name, times in seconds.items()}
