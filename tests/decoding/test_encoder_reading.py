"""Readings of an encoder: always an action of the ontology, and the likeliest runs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumen.core.errors import RunnerError
from tumen.decoding.encoder import EncoderReading, best_runs, read_heads
from tumen.language import HOME, Ontology, parse

PUBLIC = Ontology(
    languages=("en", "zh"),
    intents={"alarm_set": ("date", "time"), "joke": (), "lists_add": ("item",)},
    spoken=("alarm_set",),
    several=("item",),
)
UNITS = [" wake", " me", " at", " nine", "周", "五"]


def drawn(ontology: Ontology, seed: int, units: int, sharp: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    sentence, tags, intents = ontology.labels.counts
    return (
        rng.normal(0, sharp, sentence).astype("f4"),
        rng.normal(0, sharp, (units, tags)).astype("f4"),
        rng.normal(0, sharp, (intents, tags)).astype("f4"),
    )


@given(st.integers(0, 10_000), st.sampled_from([HOME, PUBLIC]), st.floats(0.1, 8))
def test_any_logits_are_read_as_an_action(seed: int, ontology: Ontology, sharp: float) -> None:
    reading = EncoderReading(ontology.labels.tree())
    pieces = reading.read(*drawn(ontology, seed, len(UNITS), sharp), UNITS)
    text = "".join(piece for piece, _ in pieces)
    action = parse(text, ontology)
    assert action.wire(ontology) == text
    said = "".join(UNITS)
    for slot in action.slots:
        if slot not in ontology.closed:
            assert all(run in said for run in action.runs(slot))
    assert all(np.isfinite(logprob) and logprob <= 1e-6 for _, logprob in pieces)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 2))
def test_the_runs_are_the_likeliest(seed: int, units: int, slots: int) -> None:
    logprobs = np.random.default_rng(seed).normal(0, 1, (units, 1 + 2 * slots)).astype("f4")

    def is_runs(path: tuple[int, ...]) -> bool:
        before = (0, *path)
        return all(
            not (tag and tag % 2 == 0) or last in (tag, tag - 1)
            for last, tag in itertools.pairwise(before)
        )

    def score(path: tuple[int, ...]) -> float:
        return float(sum(logprobs[unit, tag] for unit, tag in enumerate(path)))

    paths = itertools.product(range(1 + 2 * slots), repeat=units)
    best = max((path for path in paths if is_runs(path)), key=score)
    found = tuple(best_runs(logprobs).tolist())
    assert is_runs(found)
    assert score(found) == pytest.approx(score(best), abs=1e-4)


def test_a_slot_of_several_runs_has_all_of_them_and_another_its_surest() -> None:
    ontology = PUBLIC
    labels = ontology.labels
    reading = EncoderReading(labels.tree())
    sentence = np.zeros(labels.counts[0], "f4")
    tags = np.zeros((4, labels.counts[1]), "f4")
    by_intent = np.zeros((3, labels.counts[1]), "f4")
    sentence[2 + 2] = 9  # lists_add
    item = labels.tags["item"]
    tags[0, item] = tags[1, 0] = tags[2, item] = tags[3, item + 1] = 9
    units = [" eggs", " and", " brown", " bread"]
    wire = "".join(piece for piece, _ in reading.read(sentence, tags, by_intent, units))
    assert wire == '{"lang":"en","intent":"lists_add","item":" eggs; brown bread"}'
    sentence[2 + 2] = 0
    sentence[2] = 9  # alarm_set, whose time holds one run
    time = labels.tags["time"]
    tags[:] = 0
    tags[0, time], tags[1, 0], tags[2, time], tags[3, time + 1] = 5, 9, 9, 9
    wire = "".join(piece for piece, _ in reading.read(sentence, tags, by_intent, units))
    assert wire == '{"lang":"en","intent":"alarm_set","time":" brown bread"}'


def test_heads_of_another_kind_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    header = json.dumps({"sentence.weight": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0\0")
    with pytest.raises(RunnerError, match=r"no label head sentence.weight in F32"):
        read_heads(path)
    reading = EncoderReading(PUBLIC.labels.tree())
    sentence, tags, intents = PUBLIC.labels.counts
    heads = {
        "sentence.weight": np.zeros((sentence, 16), "f4"),
        "sentence.bias": np.zeros(sentence, "f4"),
        "tags.weight": np.zeros((tags, 8), "f4"),
        "tags.bias": np.zeros(tags, "f4"),
        "by_intent.weight": np.zeros((intents + 1, tags), "f4"),
    }
    with pytest.raises(RunnerError, match="by_intent.weight .* of two recipes"):
        reading.check(heads, 8)


def test_a_name_of_the_home_is_not_cut() -> None:
    labels = HOME.labels
    reading = EncoderReading(labels.tree())
    sentence = np.zeros(labels.counts[0], "f4")
    sentence[len(labels.languages) + list(HOME.intents).index("HassTurnOn")] = 20
    tags = np.zeros((5, labels.counts[1]), "f4")
    tags[:, 0] = 6
    name = labels.tags["name"]
    tags[2] = tags[3] = 0
    tags[3, name] = 4  # the model begins with the second word of "kids tablet"
    by_intent = np.zeros((labels.counts[2], labels.counts[1]), "f4")
    units = [" turn", " on", " kids", " tablet", " now"]

    def said(names: list[tuple[int, int, tuple[str, ...]]]) -> dict[str, str]:
        pieces = reading.read(sentence, tags, by_intent, units, names)
        return dict(parse("".join(piece for piece, _ in pieces)).slots)

    assert said([]) == {"name": "tablet"}
    assert said([(2, 4, ("name",))]) == {"name": "kids tablet"}
    assert said([(2, 4, ("area",))]) == {"area": "kids tablet"}
    confident = reading.read(sentence, tags, by_intent, units, [(2, 4, ("name",))])
    assert sum(logprob for _, logprob in confident) < sum(
        logprob for _, logprob in reading.read(sentence, tags, by_intent, units)
    )
