"""Suite `slurp`: scenario_action, and SLU-F1 of the entities.

Data: a JSONL file of SLURP (github.com/pswietojanski/slurp, CC BY 4.0) or of HWU64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumen.assistant.values import Values
from tumen.core.errors import InputError
from tumen.data.sources import LabelledSentence, read_slurp_rows
from tumen.eval.eval_case import EvalCase, Prediction
from tumen.eval.suites.gold_labels import GoldLabels, SlotsRight, labelled_case, without_spaces
from tumen.eval.suites.slu_f1 import Entity, slu_f1
from tumen.eval.suites.suite import Suite
from tumen.language import NONE, Action, normalise


@dataclass(frozen=True)
class _HomeAction:
    """Actions of a home: an intent, and what its slots must hold."""

    intent: str
    slots: Mapping[str, str] = field(default_factory=dict)

    def matches(self, action: Action) -> bool:
        return action.intent == self.intent and self.slots.items() <= action.slots.items()


# What a home's own actions are called in SLURP; the first that matches. HWU64's rows decide where
# they have it (`unmute` is audio_volume_up there, `pause the music` audio_volume_mute, `skip this
# song` music_settings), else the meaning: `none` is what fits nowhere, as general_quirky is.
SLURP_LABELS: tuple[tuple[_HomeAction, str], ...] = (
    (_HomeAction("HassTurnOn", {"domain": "light"}), "iot_hue_lighton"),
    (_HomeAction("HassTurnOff", {"domain": "light"}), "iot_hue_lightoff"),
    (_HomeAction("HassTurnOn"), "iot_wemo_on"),
    (_HomeAction("HassTurnOff"), "iot_wemo_off"),
    (_HomeAction("HassLightSet", {"step": "up"}), "iot_hue_lightup"),
    (_HomeAction("HassLightSet", {"step": "down"}), "iot_hue_lightdim"),
    (_HomeAction("HassLightSet"), "iot_hue_lightchange"),
    (_HomeAction("HassVacuumStart"), "iot_cleaning"),
    (_HomeAction("HassVacuumCleanArea"), "iot_cleaning"),
    (_HomeAction("HassSetVolumeRelative", {"step": "up"}), "audio_volume_up"),
    (_HomeAction("HassSetVolumeRelative", {"step": "down"}), "audio_volume_down"),
    (_HomeAction("HassMediaPlayerMute"), "audio_volume_mute"),
    (_HomeAction("HassMediaPlayerUnmute"), "audio_volume_up"),
    (_HomeAction("HassMediaPause"), "audio_volume_mute"),
    (_HomeAction("HassMediaNext"), "music_settings"),
    (_HomeAction("HassMediaPrevious"), "music_settings"),
    (_HomeAction("HassClimateGetTemperature"), "weather_query"),
    (_HomeAction("HassStartTimer"), "alarm_set"),
    (_HomeAction("HassListAddItem"), "lists_createoradd"),
    (_HomeAction("HassShoppingListAddItem"), "lists_createoradd"),
    (_HomeAction("HassListRemoveItem"), "lists_remove"),
    (_HomeAction("HassGetWeather"), "weather_query"),
    (_HomeAction("HassGetCurrentTime"), "datetime_query"),
    (_HomeAction("HassGetCurrentDate"), "datetime_query"),
    (_HomeAction("HassMediaSearchAndPlay"), "play_music"),
    (_HomeAction(NONE), "general_quirky"),
)
SLURP_SLOTS = {"area": "house_place", "name": "device_type", "color": "color_type"}


def slurp_cases(path: Path, broken: list[str] | None = None) -> Iterator[EvalCase]:
    """Yield every row of a SLURP file, grouped by scenario.

    Args:
        path: of the file.
        broken: takes one line for each row of another form; None: the first one raises.

    Raises:
        InputError: not a SLURP file; names the row.
    """
    for row, labelled in read_slurp_rows(str(path), broken):
        tokens = _tokens_of(row, labelled)
        gold = GoldLabels(labelled.intent, _entities_of_row(row, labelled, tokens), tokens)
        scenario = str(row["scenario"])
        yield labelled_case(labelled, scenario, gold, _has_entities(gold), translate=in_slurp)


def _tokens_of(row: Mapping[str, Any], labelled: LabelledSentence) -> tuple[str, ...]:
    """Return the row's own tokens; HWU64 has none, there its words stand in."""
    tokens = [str(token["surface"]).lower() for token in row.get("tokens", ())]
    return tuple(tokens or labelled.sentence.lower().split())


def _entities_of_row(
    row: Mapping[str, Any], labelled: LabelledSentence, tokens: Sequence[str]
) -> tuple[Entity, ...]:
    if "entities" not in row:
        return tuple((kind, words.lower()) for kind, words in labelled.slots)
    entities = []
    for entity in row["entities"]:
        filler = " ".join(tokens[at] for at in entity["span"])
        entities.append((str(entity["type"]), filler))
    return tuple(entities)


def _has_entities(gold: GoldLabels) -> SlotsRight:
    def slots_right(given: Action) -> bool:
        return sorted(entities_of(given, gold.tokens)) == sorted(gold.entities)

    return slots_right


def in_slurp(action: Action) -> Action:
    """Return a home's action under SLURP's label; any other action stays as it is."""
    for home_action, label in SLURP_LABELS:
        if home_action.matches(action):
            slots = {
                theirs: action.slots[ours]
                for ours, theirs in SLURP_SLOTS.items()
                if ours in action.slots
            }
            return Action(label, action.lang, slots)
    return action


def entities_of(action: Action | None, tokens: Sequence[str]) -> list[Entity]:
    """Return an action's slots as entities of SLURP: every run as the tokens that it covers.

    Args:
        action: None has no entities.
        tokens: of the row; the run `5 am` covers the token `5am`.
    """
    if action is None:
        return []
    labelled = in_slurp(action)
    return [
        (slot, _covered_tokens(run, tokens))
        for slot in labelled.slots
        for run in labelled.runs(slot)
    ]


def _covered_tokens(run: str, tokens: Sequence[str]) -> str:
    """Return the tokens that a run covers, compared letter by letter; the run if it covers none."""
    pieces = [_letters(token) for token in tokens]
    starts: list[int] = []
    end = 0
    for piece in pieces:
        starts.append(end)
        end += len(piece)
    wanted = _letters(run)
    found = _find(wanted, "".join(pieces), starts)
    if found < 0:
        return run
    covered = [
        token
        for token, piece, start in zip(tokens, pieces, starts, strict=True)
        if start + len(piece) > found and start < found + len(wanted)
    ]
    return " ".join(covered)


def _find(wanted: str, text: str, starts: Sequence[int]) -> int:
    """Return where letters occur, at the start of a token if possible; -1 if they do not."""
    if not wanted:
        return -1
    for start in starts:
        if text.startswith(wanted, start):
            return start
    return text.find(wanted)


def _letters(text: str) -> str:
    try:
        return without_spaces(normalise(text))
    except InputError:  # a token of punctuation alone
        return ""


def slurp_f1(cases: Sequence[EvalCase], predictions: Sequence[Prediction]) -> float:
    """Return SLU-F1 of predictions for the cases of this suite."""
    pairs = []
    for case, prediction in zip(cases, predictions, strict=True):
        given = entities_of(prediction.action, case.labels.tokens)
        pairs.append((case.labels.entities, given))
    return slu_f1(pairs)


def _cases(path: Path, values: Values, broken: list[str]) -> Iterator[EvalCase]:
    return slurp_cases(path, broken)


def _metrics(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], unsure: float
) -> dict[str, Any]:
    return {"slu_f1": round(slurp_f1(cases, predictions), 4)}


SUITE = Suite(_cases, _metrics)
