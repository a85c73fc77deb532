"""Exporters: what a run told is what TensorBoard and Prometheus read, by their own parsers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tumen.core import events
from tumen.core.events import Events
from tumen.pipeline.exporters import GAUGES, Gauges, TensorBoard


def step(events: Events, tier: str, step: int, loss: float, **facts: Any) -> None:
    events.emit("step", tier=tier, step=step, steps=20, loss=loss, rate=1e-3, seen=7, **facts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two tiers, the first of which was killed after step 15 and went on from 10."""
    run = tmp_path / "home"
    told = Events(run / "events.jsonl")
    told.emit("stage", name="cloud", state="started")
    told.emit("train", tier="cloud", step=0, steps=20)
    step(told, "cloud", 5, 3.0, mfu=0.25)
    step(told, "cloud", 10, 2.5)
    told.emit("checkpoint", tier="cloud", step=10)
    step(told, "cloud", 15, 9.0)
    told.emit("resumed", step=10)
    told.emit("train", tier="cloud", step=10, steps=20)
    step(told, "cloud", 20, 2.0, mfu=0.5)
    told.emit("validation", tier="cloud", step=20, loss=2.25)
    told.emit("train", tier="device", step=0, steps=20)
    step(told, "device", 5, 4.0)
    return run


def board_of(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder))
    board.Reload()
    return board


class TestTensorBoard:
    def test_reads_back_every_number_at_its_step_and_time(self, run: Path, tmp_path: Path) -> None:
        rows = list(events.read(run / "events.jsonl"))
        board = TensorBoard(tmp_path / "board")
        board.write(rows)
        board.close()
        cloud, device = (
            board_of(tmp_path / "board" / "cloud"),
            board_of(tmp_path / "board" / "device"),
        )
        losses = {one.step: one.value for one in cloud.Scalars("train/loss")}
        assert losses == {5: 3.0, 10: 2.5, 20: 2.0}, (
            "what was logged after the checkpoint and lost is taken back"
        )
        assert [one.value for one in cloud.Scalars("train/mfu")] == [0.25, 0.5]
        assert [(one.step, one.value) for one in cloud.Scalars("train/validation_loss")] == [
            (20, 2.25)
        ]
        assert "train/seen" not in cloud.Tags()["scalars"], "a checksum is no measurement"
        first = next(row for row in rows if row["event"] == "step")
        assert cloud.Scalars("train/loss")[0].wall_time == first["time"]
        assert [one.value for one in device.Scalars("train/loss")] == [4.0]

    def test_again_takes_the_place_of_the_old_and_of_nothing_else(
        self, run: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "board" / "cloud").mkdir(parents=True)
        foreign = tmp_path / "board" / "cloud" / "events.out.tfevents.1.other"
        foreign.write_bytes(b"")
        for _ in range(2):
            board = TensorBoard(tmp_path / "board")
            board.write(events.read(run / "events.jsonl"))
            board.close()
        assert len(list((tmp_path / "board" / "cloud").iterdir())) == 2
        assert foreign.exists()

    def test_is_readable_while_it_grows(self, run: Path, tmp_path: Path) -> None:
        board, tail = TensorBoard(tmp_path / "board"), events.Tail(run / "events.jsonl")
        assert board.write(tail.new()) > 0
        assert board.write(tail.new()) == 0
        step(Events(run / "events.jsonl"), "device", 10, 3.5)
        board.write(tail.new())
        assert [
            one.value for one in board_of(tmp_path / "board" / "device").Scalars("train/loss")
        ] == [4.0, 3.5]
        board.close()


def samples(text: str) -> dict[tuple[str, str], float]:
    """(name, tier) -> value, as Prometheus' own parser reads it; the run's name is checked."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for one in family.samples:
            assert one.labels["run"] == "home"
            found[one.name, one.labels["tier"]] = one.value
    return found


class TestPrometheus:
    def test_tells_the_newest_numbers_of_every_tier(self, run: Path) -> None:
        gauges = Gauges(run)
        found = samples(generate_latest(gauges.registry()).decode())
        assert found["tumen_train_loss", "cloud"] == 2.0
        assert found["tumen_train_loss", "device"] == 4.0
        assert found["tumen_train_mfu", "cloud"] == 0.5
        assert ("tumen_train_mfu", "device") not in found, "what is not known is not told"
        assert found["tumen_train_validation_loss", "cloud"] == 2.25
        assert found["tumen_train_starts_total", "cloud"] == 2
        assert found["tumen_train_checkpoints_total", "cloud"] == 1
        newest = max(row["time"] for row in events.read(run / "events.jsonl"))
        assert found["tumen_train_event_seconds", "device"] == newest

    def test_goes_on_with_the_run(self, run: Path) -> None:
        registry = Gauges(run).registry()
        samples(generate_latest(registry).decode())
        step(Events(run / "events.jsonl"), "device", 10, 3.5)
        found = samples(generate_latest(registry).decode())
        assert found["tumen_train_loss", "device"] == 3.5
        assert found["tumen_train_starts_total", "device"] == 1, "an event is counted once"

    def test_a_text_file_appears_whole(self, run: Path, tmp_path: Path) -> None:
        Gauges(run).write(tmp_path / "metrics" / "tumen.prom")
        assert (
            samples((tmp_path / "metrics" / "tumen.prom").read_text())["tumen_train_step", "cloud"]
            == 20
        )
        assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["tumen.prom"]


def test_every_gauge_says_what_it_is() -> None:
    assert all(name.isidentifier() and meaning for name, meaning in GAUGES.items())


def test_exporting_loads_no_torch(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tumen.core import events\n"
        "from tumen.pipeline.exporters import Gauges, TensorBoard\n"
        f"run = Path({str(run)!r})\nboard = TensorBoard(Path({str(tmp_path / 'board')!r}))\n"
        "board.write(events.read(run / 'events.jsonl'))\nboard.close()\n"
        f"Gauges(run).write(Path({str(tmp_path / 'x.prom')!r}))\nprint('torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )
