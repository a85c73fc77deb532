"""The run's own suite: sentences of templates, names or rows that training never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tumen.data import read_corpus
from tumen.eval.eval_case import EvalCase
from tumen.home import Home
from tumen.language import Ontology, parse


def held_out_cases(corpus: Path, languages: tuple[str, ...] = ()) -> Iterator[EvalCase]:
    """Yield the held-out split of a corpus artifact, grouped by language and scenario.

    Args:
        corpus: folder of the artifact.
        languages: only these; default: all.
    """
    homes = [Home.of(tree) for tree in json.loads((corpus / "homes.json").read_text("utf-8"))]
    ontology = Ontology.load(corpus)
    for row in read_corpus(corpus, "eval"):
        gold = parse(json.dumps(row["action"]), ontology)
        if languages and gold.lang not in languages:
            continue
        home = homes[row["home"]] if row["home"] >= 0 else None
        groups = (gold.lang, ontology.group(gold.intent))
        yield EvalCase(row["sentence"], gold, home, groups)
