"""Suite `snips`: the intent, and exact: the intent and every slot with its words.

Data: files of SNIPS 2017-06 (github.com/sonos/nlu-benchmark, CC0).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tumen.assistant.values import Values
from tumen.data.sources import read_snips
from tumen.eval.eval_case import EvalCase, case_sentence
from tumen.eval.suites.gold_labels import GoldLabels, SlotsRight, labelled_case, without_spaces
from tumen.eval.suites.suite import Suite
from tumen.language import Action


def snips_cases(path: Path) -> Iterator[EvalCase]:
    """Yield every row of a SNIPS folder or file, grouped by intent.

    Raises:
        InputError: not a SNIPS file.
    """
    for row in read_snips(str(path)):
        entities = [(kind, without_spaces(case_sentence(words))) for kind, words in row.slots]
        gold = GoldLabels(row.intent, tuple(sorted(entities)))
        yield labelled_case(row, row.intent, gold, _has_runs(gold))


def _has_runs(gold: GoldLabels) -> SlotsRight:
    def slots_right(given: Action) -> bool:
        runs = [(slot, without_spaces(run)) for slot in given.slots for run in given.runs(slot)]
        return sorted(runs) == list(gold.entities)

    return slots_right


def _cases(path: Path, values: Values, broken: list[str]) -> Iterator[EvalCase]:
    return snips_cases(path)


SUITE = Suite(_cases)
