"""From an encoder's hidden states to an action: label heads, and the likeliest reading.

The intent is chosen first. Closed slots and tags are then read among those that the intent has, and
tags by Viterbi among the sequences that are runs (BIO). So a reading never contradicts itself, and
a copied value is a run of the sentence's units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import RunnerError
from tumen.decoding.sentence_tokens import NAMING, OPENING, PREFERENCE, Name

Numbers = NDArray[np.float32]
Piece = tuple[str, float]  # of an action, and the logarithm of its probability
HEADS = ("sentence.weight", "sentence.bias", "tags.weight", "tags.bias", "by_intent.weight")
JOINT = ";"  # between the runs of a slot that holds several
NEVER = -1e9  # score of a tag sequence that is no run


def read_heads(path: Path) -> dict[str, Numbers]:
    """Read the label heads, fp32 safetensors whose header the parent has checked.

    Raises:
        RunnerError: a head is missing or no matrix of fp32.
    """
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    heads = {}
    for name in HEADS:
        entry = header.get(name)
        if entry is None or entry["dtype"] != "F32":
            raise RunnerError(f"{path}: holds no label head {name} in F32; run the recipe again")
        begin, end = entry["data_offsets"]
        data = np.frombuffer(raw[8 + size + begin : 8 + size + end], "<f4")
        heads[name] = data.reshape(entry["shape"])
    return heads


@dataclass(frozen=True)
class _CopiedRun:
    """A run of units that a slot copies."""

    start: int
    end: int


class EncoderReading:
    """Reads label logits as actions.

    Args:
        labels: see `tumen.language.labels.Labels.tree`.
    """

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self.languages: list[str] = labels["languages"]
        self.intents: dict[str, list[str]] = labels["intents"]
        self.names = list(self.intents)
        self.choices: dict[str, tuple[int, list[str]]] = labels["choices"]
        self.begins: dict[str, int] = labels["tags"]
        self.spoken = frozenset(labels["spoken"])
        self.several = frozenset(labels["several"])

    def check(self, heads: Mapping[str, Numbers], width: int) -> None:
        """Check that heads have the sizes that these labels need.

        Raises:
            RunnerError: another ontology or network.
        """
        sentence = len(self.languages) + len(self.names)
        sentence += sum(1 + len(values) for _, values in self.choices.values())
        tags = 1 + 2 * len(self.begins)
        needed = (
            (sentence, 2 * width),
            (sentence,),
            (tags, width),
            (tags,),
            (len(self.names), tags),
        )
        for name, shape in zip(HEADS, needed, strict=True):
            if heads[name].shape != shape:
                raise RunnerError(
                    f"the label head {name} is {heads[name].shape}, the ontology needs {shape}; "
                    "they are of two recipes"
                )

    def logits(
        self, states: Numbers, firsts: Sequence[int], heads: Mapping[str, Numbers]
    ) -> tuple[Numbers, Numbers]:
        """Return the outputs for a sentence (S,), and for its units (U, K) without an intent.

        Args:
            states: hidden states of all tokens, (T, D).
            firsts: the first token of each unit.
            heads: see `read_heads`.
        """
        pooled = np.concatenate((states.mean(axis=0), states[0]))
        sentence = heads["sentence.weight"] @ pooled + heads["sentence.bias"]
        tags = states[list(firsts)] @ heads["tags.weight"].T + heads["tags.bias"]
        return sentence, tags

    def read(
        self,
        sentence: Numbers,
        tags: Numbers,
        by_intent: Numbers,
        units: Sequence[str],
        names: Sequence[Name] = (),
    ) -> list[Piece]:
        """Return the action for a sentence on the wire, piece by piece.

        Args:
            sentence: (S,).
            tags: (U, K).
            by_intent: what each intent adds to the tags, (intents, K).
            units: of the sentence, with their spaces.
            names: what in it names a thing or a place of the home.
        """
        languages = log_softmax(sentence[: len(self.languages)])
        end = len(self.languages) + len(self.names)
        intents = log_softmax(sentence[len(self.languages) : end])
        lang = int(languages.argmax())
        chosen = int(intents.argmax())
        intent = self.names[chosen]
        pieces = [
            (f'{{"lang":"{self.languages[lang]}"', float(languages[lang])),
            (f',"intent":"{intent}"', float(intents[chosen])),
        ]
        slots = self._closed(intent, sentence)
        copied, outside = self._copied(intent, tags + by_intent[chosen], units, names)
        slots |= copied
        order = list(slots) if intent in self.spoken else self.intents[intent]
        unsaid = outside
        for slot in order:
            piece, logprob = slots.get(slot, ("", 0.0))
            if piece:
                pieces.append((piece, logprob))
            else:
                unsaid += logprob
        return [*pieces, ("}", unsaid)]

    def _closed(self, intent: str, sentence: Numbers) -> dict[str, Piece]:
        """Return the piece of each closed slot of an intent; of one without a value it is empty."""
        found = {}
        for slot in self.intents[intent]:
            if slot not in self.choices:
                continue
            start, values = self.choices[slot]
            logprobs = log_softmax(sentence[start : start + 1 + len(values)])
            best = int(logprobs.argmax())
            text = f',"{slot}":"{values[best - 1]}"' if best else ""
            found[slot] = (text, float(logprobs[best]))
        return found

    def _copied(
        self, intent: str, tags: Numbers, units: Sequence[str], names: Sequence[Name]
    ) -> tuple[dict[str, Piece], float]:
        """Return the piece of each copied slot, in the order of the sentence.

        Also the logarithm of the probability that the other units are in no slot.
        """
        slots = [slot for slot in self.intents[intent] if slot in self.begins]
        columns = [0]
        for slot in slots:
            columns += [self.begins[slot], self.begins[slot] + 1]
        logprobs = log_softmax(tags[:, columns])  # (U, 1 + 2 slots)
        path = best_runs(logprobs + _preferred(names, slots, logprobs.shape))
        said = logprobs[np.arange(len(path)), path]
        outside = float(said[path == 0].sum())
        pieces: dict[str, Piece] = {}
        for slot, runs in _runs_by_slot(path, slots).items():
            kept = runs
            if slot not in self.several:
                kept = [max(runs, key=lambda run: said[run.start])]
            text = JOINT.join("".join(units[run.start : run.end]) for run in kept)
            logprob = sum(float(said[run.start : run.end].sum()) for run in runs)
            pieces[slot] = (f',"{slot}":"{text}"', logprob)
        return pieces, outside


def _runs_by_slot(path: NDArray[np.int64], slots: Sequence[str]) -> dict[str, list[_CopiedRun]]:
    """Return the runs of each slot that has one, by the place of its first."""
    found: dict[str, list[_CopiedRun]] = {}
    start = 0
    while start < len(path):
        end = start + 1
        tag = path[start]
        while tag and end < len(path) and path[end] == tag + 1:
            end += 1
        if tag:
            found.setdefault(slots[(tag - 1) // 2], []).append(_CopiedRun(start, end))
        start = end
    return found


def _preferred(names: Sequence[Name], slots: Sequence[str], shape: tuple[int, ...]) -> Numbers:
    """Return what names of the home add to the scores of tags, (U, 1 + 2 slots), in nats.

    A slot that may hold a name is nudged to begin with it, and not to cut it; the probabilities
    stay the model's own.
    """
    added = np.zeros(shape, np.float32)
    for start, end, allowed in names:
        for column, slot in enumerate(slots):
            if slot not in allowed or slot not in NAMING:
                continue
            begin = 1 + 2 * column
            added[start, begin] += OPENING
            added[start + 1 : end, begin] -= PREFERENCE
            added[start + 1 : end, begin + 1] += PREFERENCE
            if end < len(added):
                added[end, begin + 1] -= PREFERENCE
    return added


def best_runs(logprobs: Numbers) -> NDArray[np.int64]:
    """Return the likeliest tags that are runs, (U,).

    Inside of a slot comes only after its beginning or inside.

    Args:
        logprobs: (U, K): outside, then beginning and inside of each slot.
    """
    count, tags = logprobs.shape
    allowed = np.zeros((tags, tags), np.float32)  # from, to
    inside = np.arange(2, tags, 2)
    allowed[:, inside] = NEVER
    allowed[inside - 1, inside] = 0
    allowed[inside, inside] = 0
    back = np.zeros((count, tags), np.int64)
    score = logprobs[0].copy()
    score[inside] = NEVER
    for unit in range(1, count):
        steps = score[:, None] + allowed
        back[unit] = steps.argmax(axis=0)
        score = steps.max(axis=0) + logprobs[unit]
    path = np.zeros(count, np.int64)
    path[-1] = score.argmax()
    for unit in range(count - 1, 0, -1):
        path[unit - 1] = back[unit, path[unit]]
    return path


def log_softmax(logits: Numbers) -> Numbers:
    """Return logarithms of probabilities over the last axis."""
    top = logits - logits.max(axis=-1, keepdims=True)
    found: Numbers = top - np.log(np.exp(top).sum(axis=-1, keepdims=True))
    return found
