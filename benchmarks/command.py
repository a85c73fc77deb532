"""How long a command takes from text to acted, on one thread.

Times of each stage: understand, resolve, act, reply.

    python benchmarks/command.py [RUN] [--rounds 2] [--out benchmarks/results/command.json] [--json]

Says the evaluation sentences of a run to the example home through the device bundle, as `tumen
talk` does, all of them once per round; the rounds are an A/A pair: the same work twice, side by
side in one run. Wall time is what a person waits, CPU time is what remains true on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from pocket import machine

from tumen.assistant import Reader, Session
from tumen.assistant.values import Values
from tumen.data import read_corpus
from tumen.eval.statistics import percentile
from tumen.home.home import Home
from tumen.pipeline import device_bundle
from tumen.serve import build_router


def say_all(bundle: Path, sentences: list[str]) -> dict[str, list[float]]:
    """Milliseconds of every stage for every sentence; `total` is the whole turn, `cpu` this
    process and its child."""
    found: dict[str, list[float]] = defaultdict(list)
    with Reader(build_router(bundle), private=True) as reader:
        session = Session(Home.load(), reader, Values.load(bundle / "values.json"))
        session.say("turn on the kitchen light")
        for sentence in sentences:
            session.dialogue.drop_question()
            start, cpu = time.perf_counter(), time.process_time()
            turn = session.say(sentence)
            found["total"].append(1000 * (time.perf_counter() - start))
            found["cpu without the runner"].append(1000 * (time.process_time() - cpu))
            for stage, seconds in turn.seconds.items():
                found[stage].append(1000 * seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("results") / "command.json"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sentences = [str(row["sentence"]) for row in read_corpus(given.run / "corpus", "eval")]
    rounds = [say_all(device_bundle(given.run), sentences) for _ in range(given.rounds)]
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "sentences": len(sentences),
        "rounds": [
            {
                stage: {"p50": round(percentile(ms, 0.5), 2), "p95": round(percentile(ms, 0.95), 2)}
                for stage, ms in found.items()
            }
            for found in rounds
        ],
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.json:
        print(json.dumps(result))
        return
    for number, stages in enumerate(result["rounds"], start=1):
        print(f"round {number}, {len(sentences)} sentences, milliseconds (median, 95%)")
        for stage, ms in stages.items():
            print(f"  {stage:<24}{ms['p50']:>8.2f}{ms['p95']:>8.2f}")


if __name__ == "__main__":
    main()
