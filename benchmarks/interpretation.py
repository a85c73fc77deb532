"""How long from a text to its interpretation, in homes of 60 to 5,000 entities, on one thread.

    python benchmarks/interpretation.py [BUNDLE] [--data benchmarks/states] [--sentences 300]
        [--entities 60 500 5000] [--out benchmarks/results/interpretation.json]

An interpretation is an action that was held against the names of the home and resolved to its
devices; nothing acts and nothing replies. Sentences are those of the end states, language by
language. Side by side, one sentence after the other: what `tumen talk` does (templates, then the
bundle), the bundle alone, and hassil with Home Assistant's templates alone. The home of 60 is the
example; larger ones are generated. BUNDLE is a bundle or a run; default: the one that ships.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from pocket import machine

from tumen.assistant import Reader, TemplateMatcher, templates_first
from tumen.assistant.matcher import likely_language
from tumen.assistant.reading import SentenceReader
from tumen.assistant.values import Values
from tumen.core.errors import TumenError
from tumen.data.sources.generated_homes import generate
from tumen.eval.statistics import percentile
from tumen.home import Home
from tumen.language import normalise
from tumen.pipeline import device_bundle
from tumen.release import flagship
from tumen.serve import build_router

EXAMPLE = 60  # entities of the example home
SEED = 7
Read = Callable[[str], Any]


def home_of(entities: int) -> Home:
    """The example home, or a generated one of so many entities."""
    if entities == EXAMPLE:
        return Home.load()
    home = generate(random.Random(SEED), "en", (entities, entities), 0.0, held_out=False)
    return Home.of(home.tree)


def sentences_of(folder: Path, most: int) -> list[str]:
    """What is said first in the rows of the end states, at most so many, evenly over the files."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        found += [turn["say"] for row in rows for turn in row["turns"][:1] if turn.get("say")]
    return found[:: max(1, len(found) // most)]


def contestants(home: Home, reader: Reader, values: Values) -> dict[str, Read]:
    """Who reads a sentence, by name."""
    home.read_names()
    matcher = TemplateMatcher(home)

    def hassil(sentence: str) -> Any:
        said = normalise(sentence)
        return matcher.match(said, likely_language(said))

    talk = SentenceReader(home, templates_first(home, reader.of(home)), values)
    model = SentenceReader(home, reader.of(home), values)
    return {"as talk does": talk.read, "the bundle": model.read, "hassil": hassil}


def milliseconds(reads: dict[str, Read], sentences: list[str]) -> dict[str, list[float]]:
    """Times of every contestant, one sentence after the other."""
    found: dict[str, list[float]] = {name: [] for name in reads}
    for name, read in reads.items():
        read(sentences[0])  # templates are loaded, caches are warm
        found[name] = []
    for sentence in sentences:
        for name, read in reads.items():
            start = time.perf_counter()
            # one that is not understood takes time as well
            with contextlib.suppress(TumenError):
                read(sentence)
            found[name].append(1000 * (time.perf_counter() - start))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=flagship.BUNDLE)
    parser.add_argument("--data", type=Path, default=Path(__file__).with_name("states"))
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--entities", type=int, nargs="*", default=[EXAMPLE, 500, 5000])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results") / "interpretation.json"
    )
    given = parser.parse_args()
    bundle = device_bundle(given.bundle)
    sentences = sentences_of(given.data, given.sentences)
    values = Values.load(bundle / "values.json")
    rows = []
    about = machine()
    with Reader(build_router(bundle, store="own"), private=True) as reader:
        for entities in given.entities:
            home = home_of(entities)
            times = milliseconds(contestants(home, reader, values), sentences)
            for name, ms in times.items():
                p50, p95 = (round(percentile(ms, share), 2) for share in (0.5, 0.95))
                rows.append({"who": name, "entities": len(home.entities), "p50": p50, "p95": p95})
                print(f"{len(home.entities):>6} entities  {name:<14}{p50:>8.2f}{p95:>8.2f} ms")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": about,
        "sentences": len(sentences),
        "rows": rows,
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
