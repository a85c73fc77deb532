"""Calibration: known rates are found again, events become observations, the benchmark is a child process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tumen.core.errors import InputError, PlanError
from tumen.core.events import Events
from tumen.core.events import read as read_events
from tumen.plan.accuracy import calibration, measurement
from tumen.plan.accuracy.calibration import MEMORY_TERMS, TIME_TERMS
from tumen.plan.accuracy.measurement import Observation
from tumen.plan.facts import card_of

RATES = np.array([2e-11, 3e-10, 1e-10, 1e-4, 4e-3])
SIZES = np.array([3e8, 1.1, 0.9])


def observations() -> list[Observation]:
    """Runs of a machine with known rates."""
    found = []
    for shape, train in measurement.default_configurations():
        seconds = float(calibration.time_terms(shape, train) @ RATES)
        size = float(calibration.memory_terms(shape, train) @ SIZES)
        found.append(
            Observation(
                shape=shape, train=train, step_seconds=seconds, peak_bytes=size, source="made"
            )
        )
    return found


def test_known_rates_predict_unseen_runs() -> None:
    seen = observations()
    profile = calibration.calibrate(seen)
    shape = seen[1].shape.model_copy(update={"num_hidden_layers": 6, "hidden_size": 320})
    seconds, size = calibration.predict(profile, shape, seen[1].train)
    assert seconds == pytest.approx(
        float(calibration.time_terms(shape, seen[1].train) @ RATES), rel=0.1
    )
    assert size == pytest.approx(
        float(calibration.memory_terms(shape, seen[1].train) @ SIZES), rel=0.1
    )
    assert profile.fit_error < 0.05
    assert set(profile.seconds_per) == set(TIME_TERMS)
    assert set(profile.bytes_per) == set(MEMORY_TERMS)


def test_no_rate_is_negative() -> None:
    noisy = [
        one.model_copy(update={"step_seconds": one.step_seconds * (1 + 0.5 * (-1) ** k)})
        for k, one in enumerate(observations())
    ]
    assert min(calibration.calibrate(noisy).seconds_per.values()) >= 0


def test_nothing_measured() -> None:
    with pytest.raises(PlanError, match="--events"):
        calibration.calibrate([])


def test_profile_round_trip_and_card(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profile.json"
    profile = calibration.calibrate(observations())
    calibration.store_profile(profile, path)
    assert calibration.load_profile(path) == profile
    card = card_of("cpu", path)
    assert card.grade == "calibrated"
    assert card.bf16_flops == pytest.approx(profile.rates["bf16_flops"])
    with pytest.raises(PlanError, match="measured on 'cpu'"):
        card_of("h100", path)
    path.write_text("{")
    with pytest.raises(PlanError, match="no calibration profile"):
        calibration.load_profile(path)


def run_folder(tmp_path: Path) -> Path:
    """A run with a recipe and a few steps of one tier."""
    train = {"steps": 30, "batch_size": 8, "seq_len": 64}
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "attention": {
            "kind": "gqa",
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
        },
    }
    recipe = {
        "name": "small",
        "family": {"device": {"shape": shape, "train": train}},
        "serve": {"cloud": "device"},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    events = Events(tmp_path / "events.jsonl")
    for step, seconds in ((10, 9.0), (20, 0.2), (30, 0.4), (40, 0.3)):
        events.emit(
            "step",
            tier="device",
            step=step,
            tokens=512,
            step_seconds=seconds,
            peak_bytes=5e8 + step,
        )
    return tmp_path


def test_events_become_observations(tmp_path: Path) -> None:
    """The first line holds compilation and does not count into the step, but its memory does."""
    (seen,) = measurement.observed(run_folder(tmp_path))
    assert seen.step_seconds == pytest.approx(0.3)
    assert seen.peak_bytes == 5e8 + 40
    assert seen.shape.vocab_size == 2048


def test_predicted_against_actual(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (found,) = calibration.actual(run, calibration.calibrate(measurement.observed(run)))
    assert found.predicted_seconds == pytest.approx(found.actual_seconds, rel=0.3)
    assert "device: step" in found.line()
    assert list(read_events(run / "events.jsonl", "step"))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        measurement.observed(tmp_path)
    run_folder(tmp_path)
    (tmp_path / "events.jsonl").unlink()
    with pytest.raises(InputError, match="no steps"):
        measurement.observed(tmp_path)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: torch"), "torch"),
        (subprocess.CompletedProcess([], 0, "hello\n", ""), "not an observation"),
        (subprocess.CompletedProcess([], 0, "", ""), "not an observation"),
    ],
)
def test_a_benchmark_that_fails_says_so(
    monkeypatch: pytest.MonkeyPatch, answer: object, says: str
) -> None:
    monkeypatch.setattr(measurement.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(PlanError, match=says):
        measurement.benchmark(measurement.default_configurations()[:1])


def test_muon_is_more_work() -> None:
    shape, train = measurement.default_configurations()[0]
    plain = calibration.time_terms(shape, train)
    muon = calibration.time_terms(shape, train.model_copy(update={"optimizer": "muon"}))
    assert muon[0] > plain[0]
    assert list(muon[1:]) == list(plain[1:])


def test_without_a_profile_there_is_an_order_of_size() -> None:
    shape, section = measurement.default_configurations()[1]
    seconds, size = calibration.predict(calibration.uncalibrated(), shape, section)
    assert 0.02 < seconds < 20
    assert 4e8 < size < 8e9
