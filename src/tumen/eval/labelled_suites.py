"""Exams of public data sets under their own labels: SLURP, CLINC150, SNIPS. What a bundle writes is held against the set's gold.

slurp   right scenario_action, and SLU-F1 by the authors' rules (Bastianelli et al. 2020, section 5; scripts/evaluation of
        github.com/pswietojanski/slurp at 8eb1654)
clinc   right intent of what is in scope, and the share refused of what is not; refused is `none`, or less sure than `serve.unsure`
snips   right intent, and exact: the intent and every slot with its words
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.data.sources import Labelled, read_clinc, read_slurp_rows, read_snips
from tumen.eval.metrics import Answer, Case
from tumen.language import NONE, Action, normalise

CURVE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
Entity = tuple[str, str]  # (type, filler)


@dataclass(frozen=True)
class Gold:
    """What a row of a set says of its sentence."""

    intent: str
    entities: tuple[Entity, ...] = ()
    tokens: tuple[str, ...] = ()


def slurp(path: Path) -> Iterator[Case]:
    """Every row of a SLURP file, grouped by scenario.

    Raises:
        InputError: no SLURP file; says where.
    """
    for row, read in read_slurp_rows(str(path)):
        tokens = tuple(str(token["surface"]).lower() for token in row.get("tokens", ())) or tuple(
            read.sentence.lower().split()
        )
        entities = (
            tuple(
                (str(e["type"]), " ".join(tokens[at] for at in e["span"])) for e in row["entities"]
            )
            if "entities" in row
            else tuple((kind, words.lower()) for kind, words in read.slots)
        )
        gold = Gold(read.intent, entities, tokens)
        yield _case(read, (str(row["scenario"]),), gold, _same_entities(gold))


def clinc(path: Path) -> Iterator[Case]:
    """The validation and exam rows of a CLINC150 file; all of a file that has no other rows.

    Raises:
        InputError: no CLINC150 file.
    """
    rows = list(read_clinc(str(path)))
    held = [row for row in rows if row.split != "train"] or rows
    for row in held:
        yield _case(
            row,
            ("out of scope" if row.intent == NONE else "in scope",),
            Gold(row.intent),
            lambda given: True,
        )


def snips(path: Path) -> Iterator[Case]:
    """Every row of a SNIPS folder or file, grouped by intent.

    Raises:
        InputError: no SNIPS file.
    """
    for row in read_snips(str(path)):
        entities = tuple((kind, _squeezed(normalise(words))) for kind, words in row.slots)
        gold = Gold(row.intent, tuple(sorted(entities)))
        yield _case(row, (row.intent,), gold, _same_runs(gold))


def _case(
    row: Labelled, groups: tuple[str, ...], gold: Gold, slots_right: Callable[[Action], bool]
) -> Case:
    def judge(given: Action) -> tuple[bool, bool]:
        given = in_slurp(given) if gold.tokens else given
        right = given.intent == gold.intent
        return right, right and slots_right(given)

    return Case(normalise(row.sentence), None, None, groups, judge, gold)


def _same_entities(gold: Gold) -> Callable[[Action], bool]:
    return lambda given: sorted(entities_of(given, gold.tokens)) == sorted(gold.entities)


def _same_runs(gold: Gold) -> Callable[[Action], bool]:
    def right(given: Action) -> bool:
        runs = sorted((slot, _squeezed(run)) for slot in given.slots for run in given.runs(slot))
        return runs == list(gold.entities)

    return right


def _squeezed(words: str) -> str:
    return "".join(words.split())


# What a home's own intents are called in SLURP: (intent, what must be in the slots) -> label; the first that fits. HWU64's
# rows decide where they have it (`unmute` is audio_volume_up there, `pause the music` audio_volume_mute, `skip this song`
# music_settings), else the meaning: `none` is what fits nowhere, as general_quirky is.
HOME_LABELS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("HassTurnOn", {"domain": "light"}, "iot_hue_lighton"),
    ("HassTurnOff", {"domain": "light"}, "iot_hue_lightoff"),
    ("HassTurnOn", {}, "iot_wemo_on"),
    ("HassTurnOff", {}, "iot_wemo_off"),
    ("HassLightSet", {"step": "up"}, "iot_hue_lightup"),
    ("HassLightSet", {"step": "down"}, "iot_hue_lightdim"),
    ("HassLightSet", {}, "iot_hue_lightchange"),
    ("HassVacuumStart", {}, "iot_cleaning"),
    ("HassVacuumCleanArea", {}, "iot_cleaning"),
    ("HassSetVolumeRelative", {"step": "up"}, "audio_volume_up"),
    ("HassSetVolumeRelative", {"step": "down"}, "audio_volume_down"),
    ("HassMediaPlayerMute", {}, "audio_volume_mute"),
    ("HassMediaPlayerUnmute", {}, "audio_volume_up"),
    ("HassMediaPause", {}, "audio_volume_mute"),
    ("HassMediaNext", {}, "music_settings"),
    ("HassMediaPrevious", {}, "music_settings"),
    ("HassClimateGetTemperature", {}, "weather_query"),
    ("HassStartTimer", {}, "alarm_set"),
    ("HassListAddItem", {}, "lists_createoradd"),
    ("HassShoppingListAddItem", {}, "lists_createoradd"),
    ("HassListRemoveItem", {}, "lists_remove"),
    ("HassGetWeather", {}, "weather_query"),
    ("HassGetCurrentTime", {}, "datetime_query"),
    ("HassGetCurrentDate", {}, "datetime_query"),
    ("HassMediaSearchAndPlay", {}, "play_music"),
    (NONE, {}, "general_quirky"),
)
HOME_SLOTS = {"area": "house_place", "name": "device_type", "color": "color_type"}


def in_slurp(action: Action) -> Action:
    """A home's action under SLURP's label, for a bundle that knows both; any other action stays as it is."""
    for intent, needed, label in HOME_LABELS:
        if action.intent == intent and needed.items() <= action.slots.items():
            slots = {
                theirs: action.slots[ours]
                for ours, theirs in HOME_SLOTS.items()
                if ours in action.slots
            }
            return Action(label, action.lang, slots)
    return action


def entities_of(action: Action | None, tokens: Sequence[str]) -> list[Entity]:
    """An action's slots as the set writes them: every run of words as the tokens of the row that it covers (`5 am` as `5am`)."""
    if action is None:
        return []
    said = in_slurp(action)
    return [(slot, _tokens_of(run, tokens)) for slot in said.slots for run in said.runs(slot)]


def _tokens_of(run: str, tokens: Sequence[str]) -> str:
    pieces = [_letters(token) for token in tokens]
    wanted, whole = _letters(run), "".join(pieces)
    starts, at = list[int](), 0
    for piece in pieces:
        starts.append(at)
        at += len(piece)
    found = next((start for start in starts if wanted and whole.startswith(wanted, start)), -1)
    found = whole.find(wanted) if found < 0 else found
    if found < 0 or not wanted:
        return run
    covered = [
        t
        for t, piece, start in zip(tokens, pieces, starts, strict=True)
        if start + len(piece) > found and start < found + len(wanted)
    ]
    return " ".join(covered)


def _letters(text: str) -> str:
    try:
        return _squeezed(normalise(text))
    except InputError:  # a token of signs alone
        return ""


def slu_f1(pairs: Iterable[tuple[Sequence[Entity], Sequence[Entity]]]) -> float:
    """SLU-F1 of (gold, predicted) entities: the confusion matrices of word-F1 and char-F1 added up, micro average.

    An entity of the right type is a hit whose distance to the nearest gold filler counts as false positive and false negative:
    the word error rate in one matrix, the normalised Levenshtein distance in the other.
    """
    hits = false_positives = false_negatives = 0.0
    pairs = list(pairs)
    for distance in (_word_distance, _char_distance):
        for gold, predicted in pairs:
            left = list(gold)
            for kind, filler in predicted:
                same = [entity for entity in left if entity[0] == kind]
                if not same:
                    false_positives += 1
                    continue
                nearest = min(same, key=lambda entity: distance(entity[1], filler))
                away = distance(nearest[1], filler)
                hits, false_positives, false_negatives = (
                    hits + 1,
                    false_positives + away,
                    false_negatives + away,
                )
                left.remove(nearest)
            false_negatives += len(left)
    precision = hits / (hits + false_positives) if hits + false_positives else 0.0
    recall = hits / (hits + false_negatives) if hits + false_negatives else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _word_distance(truth: str, given: str) -> float:
    return _edits(truth.split(), given.split()) / max(1, len(truth.split()))


def _char_distance(truth: str, given: str) -> float:
    return _edits(truth, given) / max(1, len(truth), len(given))


def _edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def slurp_f1(cases: Sequence[Case], answers: Sequence[Answer]) -> float:
    """SLU-F1 of an exam's answers."""
    return slu_f1(
        (case.facts.entities, entities_of(answer.action, case.facts.tokens))
        for case, answer in zip(cases, answers, strict=True)
    )


def refusal_curve(
    cases: Sequence[Case], answers: Sequence[Answer], thresholds: Sequence[float] = CURVE
) -> list[dict[str, Any]]:
    """In-scope accuracy and out-of-scope recall when answers less sure than a threshold are refused."""
    return [
        {"unsure": threshold, **refusals(cases, answers, threshold)} for threshold in thresholds
    ]


def refusals(cases: Sequence[Case], answers: Sequence[Answer], unsure: float) -> dict[str, float]:
    """{in_scope, oos_recall} at one threshold; a refused sentence that is in scope is wrong."""
    inside = outside = right = refused = 0
    for case, answer in zip(cases, answers, strict=True):
        no = answer.action is None or answer.action.intent == NONE or answer.confidence < unsure
        if case.facts.intent == NONE:
            outside, refused = outside + 1, refused + no
        else:
            inside, right = (
                inside + 1,
                right
                + (
                    not no
                    and answer.action is not None
                    and answer.action.intent == case.facts.intent
                ),
            )
    return {
        "in_scope": round(right / max(1, inside), 4),
        "oos_recall": round(refused / max(1, outside), 4),
    }
